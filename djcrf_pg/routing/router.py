"""Changes to occurrences: who receives what, with which instances. Runs in the listener's thread."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from django.db import InterfaceError, OperationalError, connections
from django.db.models import Model

from djcrf_pg.changelog import net as reasons
from djcrf_pg.changelog.change import MASS, OVERFLOWN, TRUNCATED, UNORDERED, UNWRITABLE, Change
from djcrf_pg.changelog.decode import Hydrator, Relation, StaleRelation, parser
from djcrf_pg.changelog.net import RELATED, UNREADABLE, Image, RowChange, by_key, net, set_aside_unordered
from djcrf_pg.instances import as_of_now, make, runs_code
from djcrf_pg.observations import ChangedUnseen, ContextTooLong, RowUnreadable, emit, text_of
from djcrf_pg.registry import Observed, alias_of, family_of
from djcrf_pg.routing.inheritance import Heirs
from djcrf_pg.routing.parents import Elsewhere, Parents, foreign_keys
from djcrf_pg.routing.related import Lookup, Place, concerned
from djcrf_pg.routing.routes import Audience, Link, Occurrence, Route

#: What stands in the log for changes that are not told row by row.
_RESYNC_OPS = {
    TRUNCATED: reasons.TRUNCATE,
    UNWRITABLE: reasons.UNREADABLE,
    OVERFLOWN: reasons.OVERFLOW,
    MASS: reasons.MASS_CHANGE,
    UNORDERED: reasons.UNORDERED,
}


class _Renewed(NamedTuple):
    """A row that an observer receives as it is now."""

    row: RowChange
    observer: Observed
    pk: Any


class Router:
    """Routes batches of changes; knows what the catalog said of their tables.

    Args:
        aliases: Those that the database has; the listener's first.
        routes: Who receives changes of a table, by its oid (for partitions, the root's).
        relations: The tables, by oid.
        lost: Those who would receive changes of tables that do not exist.
    """

    def __init__(
        self,
        aliases: Sequence[str],
        routes: Mapping[int, Route],
        relations: Mapping[int, Relation],
        lost: Collection[Observed] = (),
    ) -> None:
        self._aliases = aliases
        self._routes = routes
        self._relations = relations
        self.lost = lost
        self._deferrable = {relation.root for relation in relations.values() if relation.deferrable}
        # A partition has the columns of its root, which is what is looked at again where a value does not fit.
        self._parsers = {oid: parser(relations.get(each.root, each)) for oid, each in relations.items()}
        self._hydrators: dict[tuple[type[Model], int], Hydrator] = {}
        self._lenient: Collection[int] = ()
        self._forgiving = self._cut = False
        self._everybody: dict[int, Audience] = {}
        self._audiences: dict[int, Audience] = {}
        self._deaf: set[int] = set()
        self._emptied: set[tuple[int, int]] = set()
        # The observed tables that a table inherits from: a row of it is a row of theirs.
        self._ancestors = {
            oid: found
            for oid, relation in relations.items()
            if (found := [ancestor for ancestor in relation.ancestors if ancestor in routes])
        }
        # Where the foreign keys of each table lead, to the tables of the models that those inherit from as well.
        ways = {
            oid: {
                part._meta.db_table for key in foreign_keys(route.model) for part in family_of(key.remote_field.model)
            }
            for oid, route in routes.items()
        }
        referred = set().union(*ways.values())
        self._referred = {oid for oid, route in routes.items() if route.model._meta.db_table in referred}
        self._needs: dict[Observed, tuple[bool, bool, bool]] = {}
        tables = {routes[oid].model._meta.db_table: oid for oid in self._referred}
        self._referring = {oid for oid, way in ways.items() if not way.isdisjoint(tables)}
        self._elsewhere = Elsewhere(
            aliases[0],
            {table: [each.oid for each in relations.values() if each.root == oid] for table, oid in tables.items()},
            lambda oid, text: self._parsers[oid](text),
        )
        self._unsaid: int | None = None  # the last transaction whose context was too long

    def occurrences(
        self,
        changes: Iterable[Change],
        *,
        silent: Collection[Observed] = (),
        lenient: Collection[int] = (),
        forgiving: bool = False,
        cut: bool = False,
    ) -> list[Occurrence]:
        """Find out who receives changes, and make the instances.

        A row that cannot be read, and owners that cannot be loaded, are a resync.

        Args:
            changes: One piece of the log, in order.
            silent: Observers without subscribers; they receive resyncs alone.
            lenient: Tables, by oid, whose fields are deferred where a value does not fit, instead of raising.
            forgiving: Go on where the database is gone that owners are loaded from, instead of raising.
            cut: They are a piece of a window that is larger than a read.

        Returns:
            What there is to tell, in order.

        Raises:
            StaleRelation: A table was altered since the catalog was read.
            OperationalError, InterfaceError: The database is gone that owners of join rows, parents, or code of a
                model that makes an instance ask.
        """
        self._lenient, self._forgiving, self._cut = lenient, forgiving, cut
        if not cut:
            self._elsewhere.forget()
        changes = self._with_ancestors(changes)
        with self._assembled(changes, silent):
            found = self._find([row for change in changes if (row := self._row(change)) is not None])
            found += self._resync_lost(changes)
        return in_order(found)

    @contextmanager
    def _assembled(self, changes: Iterable[Change], silent: Collection[Observed] = ()) -> Iterator[None]:
        """Hold the observers of a batch's tables; afterwards, whoever is used no more may go."""
        roots = {relation.root for change in changes if (relation := self._relations.get(change.relation))}
        routes = {root: self._routes[root] for root in roots & self._routes.keys()}
        self._everybody = {root: route.audience() for root, route in routes.items()}
        self._audiences = self._everybody
        if silent:
            self._audiences = {root: route.audience(silent) for root, route in routes.items()}
        self._deaf = {root for root, audience in self._audiences.items() if not audience.everybody()}
        self._emptied = {
            (change.xid, relation.root)
            for change in changes
            if change.op == "D" and (relation := self._relations.get(change.relation))
        }
        try:
            yield
        finally:
            self._everybody, self._audiences, self._needs = {}, {}, {}
            self._emptied = set()

    def astray(self, relations: Iterable[int]) -> set[int]:
        """The tables that nobody here knows, while observers miss theirs: these may be those, under another name."""
        if not self.lost:
            return set()
        return {oid for oid in relations if not self._is_observed(oid)}

    def observers(self, relations: Iterable[int]) -> set[Observed]:
        """Those that receive changes of some tables.

        Args:
            relations: The oids of the tables.
        """
        oids = {oid for relation in relations for oid in (relation, *self._ancestors.get(relation, ()))}
        known = [self._relations[oid] for oid in oids if oid in self._relations]
        routes = [self._routes[relation.root] for relation in known if relation.root in self._routes]
        found = {observer for route in routes for observer in route.audience().everybody()}
        return found | set(self.lost) if self.astray(relation.oid for relation in known) else found

    def _is_observed(self, oid: int) -> bool:
        relation = self._relations.get(oid)
        return relation is not None and (relation.root in self._routes or oid in self._ancestors)

    def _with_ancestors(self, changes: Iterable[Change]) -> list[Change]:
        """Each change, and beside it the same change of each observed table that its table inherits from."""
        if not self._ancestors:
            return list(changes)
        return [
            each
            for change in changes
            for each in (
                change,
                *(change._replace(relation=oid) for oid in self._ancestors.get(change.relation, ())),
            )
        ]

    def _resync_lost(self, changes: Iterable[Change]) -> list[Occurrence]:
        """Resync those who miss a table: what was written may be for them.

        The code of this process is then older or newer than the database. The subscribers may be those of processes
        with other code, or have subscribed before the table was renamed.
        """
        for change in changes:
            relation = self._relations.get(change.relation)
            if relation is not None and self.astray([relation.oid]):
                row = RowChange(change.id, change.xid, relation.root, None, None, change.context, change.at)
                return [Occurrence(row, observer, resync=UNREADABLE) for observer in self.lost]
        return []

    def surrender(self, changes: Iterable[Change], error: Exception) -> list[Occurrence]:
        """Resync all who observe the tables: what went wrong must not keep the rest waiting for ever."""
        resyncs: dict[tuple[int, Observed], Occurrence] = {}
        changes = self._with_ancestors(changes)
        with self._assembled(changes):
            rows = [row for change in changes if (row := self._row(change)) is not None]
            for row in rows:
                self._resync(row, UNREADABLE, resyncs)
        if rows:
            self._report(rows[0], f"{len(rows)} changes from this one on", error)
        return list(resyncs.values())

    def _row(self, change: Change) -> RowChange | None:
        relation = self._relations.get(change.relation)
        if relation is None or relation.root not in self._routes:
            return None
        row = RowChange(change.id, change.xid, relation.root, None, None, change.context, change.at)
        if change.context == "" and self._unsaid != change.xid:
            self._unsaid = change.xid
            emit(ContextTooLong(table=relation.name, xid=change.xid))
        if change.op in _RESYNC_OPS:
            row.resync, row.count = _RESYNC_OPS[change.op], change.rows
            if change.is_of_a_look:
                emit(ChangedUnseen(alias=self._aliases[0], table=relation.name))
            elif row.resync == UNREADABLE:
                self._report(row, relation.name, ValueError("its image could not be written to the log, or read"))
            return row
        if relation.root in self._deaf and not self._may_be_parents(change, relation.root):
            return None
        parse = self._parsers[relation.oid]
        row.touched, row.writer = change.is_touch, change.writer
        try:
            row.old = None if change.old is None else parse(change.old)
            row.new = None if change.new is None else parse(change.new)
        except Exception as error:
            self._report(row, relation.name, error)
            row.resync = UNREADABLE
        return row

    def _may_be_parents(self, change: Change, root: int) -> bool:
        """Whether a change is of a table that no observer is for, and whose deleted rows others may refer to."""
        return change.op in "IUD" and root in self._referred and (change.xid, root) in self._emptied

    def _key(self, relation: int, image: Image) -> Any:
        return self._routes[relation].key(image)

    def _find(self, rows: list[RowChange]) -> list[Occurrence]:
        found: list[Occurrence] = []
        if self._deferrable:
            set_aside_unordered(rows, self._key, self._deferrable, cut=self._cut)
        heirs = Heirs(self._aliases, self._read)
        resyncs: dict[tuple[int, Observed], Occurrence] = {}
        touched: dict[tuple[int, Link, Any], RowChange] = {}
        parents = Parents(self._aliases, self._as_it_was)
        renewed: list[_Renewed] = []
        for row in rows:
            every = self._audiences[row.relation].every
            if every and row.resync is None:
                if row.touched:
                    self._guarded(row, partial(self._renew, row, every, renewed), resyncs)
                    continue
                for _, part in by_key(row, self._key):
                    found += self._guarded(row, partial(self._own, part, every), resyncs)
        told = net(rows, self._key)
        for row in told:
            audience = self._audiences[row.relation]
            if row.resync is not None:
                self._resync(row, row.resync, resyncs)
                continue
            if row.new is None and row.relation in self._referred:
                parents.add(self._routes[row.relation].model._meta.db_table, row)
            if audience.observers and row.is_as_it_was:
                self._guarded(row, partial(self._renew, row, audience.observers, renewed), resyncs)
            elif audience.observers:
                found += self._guarded(row, partial(self._own, row, audience.observers), resyncs)
            if audience.heirs or audience.links:
                self._guarded(row, partial(self._collect, row, audience, heirs, touched), resyncs)
        for occurrences, observers in (
            (heirs.occurrences, heirs.observers),
            (partial(self._present, renewed), {each.observer for each in renewed}),
            (partial(self._owners, touched, found), {link.observer for _, link, _ in touched}),
        ):
            try:
                found += occurrences()
            except Exception as error:
                self._raise_if_gone(error)
                last = rows[-1]
                self._report(last, ", ".join(observer.label for observer in observers), error)
                for observer in observers:
                    resyncs.setdefault((last.xid, observer), Occurrence(last, observer, resync=UNREADABLE))
        if self._cut:
            self._complete(parents, told)
        if parents:
            for occurrence in found:
                for instance in (occurrence.old, occurrence.new):
                    parents.preset(instance, occurrence.change.xid)
        return [*found, *resyncs.values()]

    def _complete(self, parents: Parents, rows: Iterable[RowChange]) -> None:
        """Have parents from other pieces of the window; where they cannot be had, user code gets ``DoesNotExist``."""
        # What is inserted refers to what is there.
        referring = [
            (self._routes[row.relation].model, row)
            for row in rows
            if row.old is not None and row.relation in self._referring and row.relation not in self._deaf
        ]
        try:
            for oid in self._elsewhere.emptied({row.xid for _, row in referring}):
                if oid not in self._relations and oid not in self._lenient:
                    raise StaleRelation(oid)
            parents.complete(referring, self._elsewhere)
        except StaleRelation:
            raise
        except Exception as error:
            self._raise_if_gone(error)
            self._report(referring[0][1], "parents that the same transaction has deleted", error)

    def _as_it_was(self, model: type[Model], row: RowChange) -> dict[str, Any]:
        """The attributes of a deleted row; what cannot be read is left out, for it is not what the event is about."""
        return self._hydrator(model, row).values(row.old or {}, lenient=True)

    def _collect(
        self, row: RowChange, audience: Audience, heirs: Heirs, touched: dict[tuple[int, Link, Any], RowChange]
    ) -> list[Occurrence]:
        """Note what the row means to models that it holds a part of, and to owners that it joins."""
        table = self._routes[row.relation].model._meta.db_table
        for observer in audience.heirs:
            heirs.add(observer, next(model for model in observer.models if model._meta.db_table == table), row)
        for link in () if row.is_as_it_was else audience.links:
            hydrator = self._hydrator(link.through, row)
            if link.counts(row, partial(_changed, hydrator.names, row)):
                for image in (row.old, row.new):
                    if image is not None:
                        key = link.key_in(hydrator.values(image, lenient=row.relation in self._lenient))
                        touched.setdefault((row.xid, link, key), row)
        return []

    def _guarded(
        self,
        row: RowChange,
        work: Callable[[], Iterable[Occurrence]],
        resyncs: dict[tuple[int, Observed], Occurrence],
    ) -> list[Occurrence]:
        """Do work on one row; a failure is a resync of its table, and the other rows go on."""
        try:
            return list(work())
        except StaleRelation:
            raise
        except Exception as error:
            self._raise_if_gone(error)
            self._report(row, self._relations[row.relation].name, error)
            self._resync(row, UNREADABLE, resyncs)
            return []

    def _raise_if_gone(self, error: Exception) -> None:
        """Have the changes tried again where the database is gone that owners, or a model's own code, query."""
        if isinstance(error, OperationalError | InterfaceError):
            connections.close_all()
            if not self._forgiving:
                raise error

    def _resync(self, row: RowChange, reason: str, resyncs: dict[tuple[int, Observed], Occurrence]) -> None:
        for observer in self._everybody[row.relation].everybody():
            resyncs.setdefault((row.xid, observer), Occurrence(row, observer, resync=reason))

    def _report(self, row: RowChange, what: str, error: Exception) -> None:
        emit(RowUnreadable(alias=self._aliases[0], what=what, change_id=row.id, error=text_of(error)), error)

    def _own(self, row: RowChange, observers: Iterable[Observed]) -> Iterable[Occurrence]:
        """The row for the observers of models that it holds all of.

        An update is made once where nobody is given the instance as it was, and of the key alone where nobody is given
        an instance and no code of the model's sees it: most of what a bulk update costs here.
        """
        if row.old is None and row.new is None:
            return
        made: dict[tuple[type[Model], bool, bool], tuple[Model | None, Model | None, list[str]]] = {}
        for observer in observers:
            needs = self._needs.get(observer)
            if needs is None:
                has_code = runs_code(observer.model_cls)
                needs = (observer.needs_row or has_code, observer.needs_old, has_code)
                self._needs[observer] = needs
            needs_row, needs_old, has_code = needs
            model, only_key = observer.model_cls, not needs_row
            twice = row.old is not None and (row.new is None or needs_old)
            kind = (model, twice, only_key)
            found = made.get(kind)
            if found is None:
                hydrator = self._hydrator(model, row)
                lenient = row.relation in self._lenient
                make = partial(hydrator.instance, lenient=lenient, only_key=only_key, has_code=has_code)
                new = None if row.new is None else make(row.new)
                old = None if row.old is None else make(row.old) if twice else new
                found = made[kind] = (old, new, _changed(hydrator.names, row))
            old, new, changed = found
            yield Occurrence(row, observer, old, new, list(changed), again=row.touched)

    def _renew(self, row: RowChange, observers: Iterable[Observed], renewed: list[_Renewed]) -> list[Occurrence]:
        """Note that a row is to be sent as it is now."""
        for observer in observers:
            model = observer.model_cls
            values = self._hydrator(model, row).values(row.new or {}, lenient=row.relation in self._lenient)
            key = tuple(values[field.attname] for field in model._meta.pk_fields if field.attname in values)
            if len(key) < len(model._meta.pk_fields):
                raise ValueError(f"a touch has to name the whole key of {model._meta.label}, and has {list(values)}")
            renewed.append(_Renewed(row, observer, key if len(key) > 1 else key[0]))
        return []

    def _present(self, renewed: Iterable[_Renewed]) -> Iterable[Occurrence]:
        """An update for each row that was touched and not written, as it is now: nothing but its key is in the log.

        Others may change it until the transaction that touched it commits. One that is gone has its own delete.
        """
        wanted: dict[type[Model], set[Any]] = {}
        for each in renewed:
            wanted.setdefault(each.observer.model_cls, set()).add(each.pk)
        there = {}
        for model, keys in wanted.items():
            alias = alias_of(model, self._aliases)
            for pk, values in as_of_now(model, alias, "pk", list(keys)):
                there[model, pk] = make(model, alias, values)
        for row, observer, pk in renewed:
            if (instance := there.get((observer.model_cls, pk))) is not None:
                yield Occurrence(row, observer, instance, instance, again=True)

    def _owners(
        self, touched: Mapping[tuple[int, Link, Any], RowChange], found: Iterable[Occurrence]
    ) -> Iterable[Occurrence]:
        """An update for each owner whose join or related rows changed, unless its own row tells of that transaction.

        The owner is loaded as it is now: its row is not in the log. One that is gone has its own delete.
        """
        if not touched:
            return
        told: dict[tuple[int, Observed, Any], Occurrence] = {}
        for occurrence in found:
            for instance in (occurrence.old, occurrence.new):
                if instance is not None:
                    told[occurrence.change.xid, occurrence.observer, instance.pk] = occurrence
        joined: dict[Place, RowChange] = {}
        for (xid, link, key), row in touched.items():
            owner = link.owner(key, alias_of(link.through, self._aliases))
            if owner is not None:
                joined[Place(link, owner, xid)] = row
        shown = {place: row for place, row in joined.items() if place.link.watch is not None}
        keys, crowds = concerned(self._aliases, shown)
        for observer, place, count in crowds:
            yield Occurrence(dataclasses.replace(shown[place], count=count), observer, resync=RELATED)
        keys |= {place: [place.value] for place in joined.keys() - shown.keys()}
        wanted: dict[Lookup, set[Any]] = {}
        for place, theirs in keys.items():
            wanted.setdefault(place.owners, set()).update(theirs)
        owners = {}
        for (model, field), values_of in wanted.items():
            alias = alias_of(model, self._aliases)
            for key, values in as_of_now(model, alias, field, list(values_of)):
                owners[model, field, key] = make(model, alias, values)
        for place, row in joined.items():
            for key in keys.get(place, ()):
                instance = owners.get((*place.owners, key))
                if instance is None:
                    continue
                row_of = (row.xid, place.link.observer, instance.pk)
                if row_of not in told:
                    told[row_of] = Occurrence(row, place.link.observer, instance, instance)
                    yield told[row_of]
                if place.link.name not in told[row_of].changed:
                    told[row_of].changed.append(place.link.name)

    def _read(
        self, model: type[Model], row: RowChange
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[str]]:
        hydrator = self._hydrator(model, row)
        read = partial(hydrator.values, lenient=row.relation in self._lenient)
        old, new = (None if image is None else read(image) for image in (row.old, row.new))
        return old, new, _changed(hydrator.names, row)

    def _hydrator(self, model: type[Model], row: RowChange) -> Hydrator:
        place = (model, row.relation)
        if place not in self._hydrators:
            alias = alias_of(model, self._aliases)
            self._hydrators[place] = Hydrator(model, self._relations[row.relation], alias)
        return self._hydrators[place]


def in_order(occurrences: list[Occurrence]) -> list[Occurrence]:
    """Sort occurrences as :class:`~djcrf_pg.delivery.resume.Mark` does, for each observer."""
    occurrences.sort(key=lambda occurrence: occurrence.change.id)
    found: list[Occurrence] = []
    for _, same in groupby(occurrences, lambda occurrence: occurrence.change.id):
        run = list(same)
        if len(run) > 1 and len({occurrence.observer for occurrence in run}) < len(run):
            run.sort(key=lambda occurrence: occurrence.row)
        found += run
    return found


def _changed(names: Mapping[str, str], row: RowChange) -> list[str]:
    """The names of the fields whose columns differ."""
    old, new = row.old, row.new
    if old is None or new is None or old == new:
        return []
    return [name for column, name in names.items() if column in old and column in new and old[column] != new[column]]
