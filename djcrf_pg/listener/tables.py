"""What the leader knows of tables: which routes there are, and how the tables look."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from django.db import connections

from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.decode import Relation, StaleRelation, relations_of
from djcrf_pg.changelog.reader import ChangeLog
from djcrf_pg.listener.identity import aliases_of
from djcrf_pg.observations import TableUnknown, emit
from djcrf_pg.registry import Observed, registry
from djcrf_pg.routing.router import Router
from djcrf_pg.routing.routes import Occurrence, Routes

#: Has a router find out what changes mean to whom: :meth:`Router.occurrences` with all but ``forgiving``.
Find = Callable[..., list[Occurrence]]


class Tables:
    """Keeps a router that fits the registry and the tables, and makes a new one when they change.

    Args:
        aliases: Those that the database has; the listener's first.
        log: Its change log.
    """

    def __init__(self, aliases: Sequence[str], log: ChangeLog) -> None:
        self._aliases = aliases
        self._log = log
        self._oids: dict[str, int] = {}
        self._relations: dict[int, Relation] = {}
        self._routes = Routes(aliases)
        self._router: Router | None = None
        self._astray: set[int] = set()

    @classmethod
    async def open(cls, alias: str, log: ChangeLog) -> "Tables":
        """Make one for the log of database ``alias``, and for whatever is written to it by another alias."""
        return cls(await aliases_of(log.connection, alias, registry.aliases()), log)

    @property
    def aliases(self) -> Sequence[str]:
        """Those that the database has; the listener's first."""
        return self._aliases

    def key_columns(self, observer: Observed) -> dict[str, tuple[str, ...]]:
        """The columns of the keys of the tables that tell of an observer's instances, by ``db_table``."""
        if self._routes.version != registry.version:
            self._routes = Routes(self._aliases)
        return self._routes.key_columns(observer)

    async def router_for(self, relations: Iterable[int]) -> Router:
        """Return a router that knows these tables."""
        relations = set(relations)
        unknown = relations - self._relations.keys()
        if self._router is not None:
            unknown |= self._router.astray(relations)
        if self._router is None or unknown or self._routes.version != registry.version:
            await self._make(unknown)
        assert self._router is not None
        for oid in self._router.astray(relations & self._relations.keys()) - self._astray:
            self._astray.add(oid)
            observers = ", ".join(observer.label for observer in self._router.lost)
            emit(TableUnknown(alias=self._aliases[0], table=self._relations[oid].name, observers=observers))
        return self._router

    async def occurrences(
        self, changes: Sequence[Change], run: Callable[[Find], Awaitable[list[Occurrence]]], **options: Any
    ) -> list[Occurrence]:
        """Find out what changes mean to whom; a table that was altered after they were written is looked at again.

        Args:
            changes: One piece of the log, in order.
            run: Calls what it is given, where queries may be made.
            options: For :meth:`Router.occurrences`.
        """
        lenient: set[int] = set()
        while True:
            router = await self.router_for({change.relation for change in changes})
            try:
                return await run(partial(router.occurrences, changes, lenient=frozenset(lenient), **options))
            except StaleRelation as error:
                # The changes were read before, so what does not fit now either is deferred.
                await self.look_again(error.oid)
                lenient.add(error.oid)

    def observers(self, relations: Iterable[int]) -> Iterable[Observed]:
        """Those that receive changes of some tables, which a router was asked for; all where it has to be made anew.

        Args:
            relations: The oids of the tables.
        """
        return registry.on(*self._aliases) if self._router is None else self._router.observers(relations)

    async def look_again(self, relation: int) -> None:
        """Look at a table again, which a value does not fit; the router stays unless the table was altered.

        Some values never fit, such as a date that Python does not have, and then this is all that they cost.
        """
        found = relations_of(await self._log.relations([relation]))
        if found.get(relation) != self._relations.get(relation):
            self._relations.pop(relation, None)
            self._relations.update(found)
            self._router = None

    def forget_all(self) -> None:
        """Look at all tables again before the next batch: one may be a part of another, or no longer."""
        self._relations.clear()
        self._router = None

    def _described(self) -> set[int]:
        return {oid for known in self._relations.values() for oid in (known.root, *known.ancestors)}

    async def _make(self, unknown: set[int]) -> None:
        self._routes = Routes(self._aliases)
        quote = connections[self._aliases[0]].ops.quote_name
        names = {quote(table): table for table in self._routes.tables}
        # A table that was renamed keeps its oid, and is still known by the name that the models have for it.
        oids = await self._log.oids(list(names))
        self._oids.update({names[name]: oid for name, oid in oids.items()})
        asked: set[int] = set()
        # The root of a partition describes the columns of them all, and an ancestor what it sees of a row.
        while unasked := (unknown | self._described()) - self._relations.keys() - asked:
            self._relations.update(relations_of(await self._log.relations(sorted(unasked))))
            asked |= unasked
        lost = self._routes.lost(self._oids)
        self._router = Router(self._aliases, self._routes.by_oid(self._oids), dict(self._relations), lost)
