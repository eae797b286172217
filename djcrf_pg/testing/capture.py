"""What a test's writes would send, in a transaction that never commits."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any, NoReturn, Self

from asgiref.sync import sync_to_async
from django.db import connections, router
from django.utils.asyncio import async_unsafe

from djcrf_pg import sql
from djcrf_pg.capture import catalog
from djcrf_pg.capture.install import plan
from djcrf_pg.capture.siblings import look_alike
from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.cursor import BEGINNING, Position, Span
from djcrf_pg.changelog.reader import ChangeLog, changes_of
from djcrf_pg.changelog.window import Window, crowds
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.envelope import NEVER_SEEN, RESYNC, Event
from djcrf_pg.delivery.interest import EVERYTHING
from djcrf_pg.delivery.protocol import EVERYBODY, History, Origin
from djcrf_pg.discovery import discover
from djcrf_pg.exceptions import NotMigrated, ObserverError, TriggersMissing
from djcrf_pg.listener.election import HISTORY
from djcrf_pg.listener.tables import Find, Tables
from djcrf_pg.registry import observed_tables, registry
from djcrf_pg.routing.events import Made, make_events
from djcrf_pg.routing.failed import Failed
from djcrf_pg.routing.routes import Occurrence
from djcrf_pg.testing import isolation
from djcrf_pg.testing.asking import Asking, run
from djcrf_pg.testing.units import Units, refuse_broken

#: Databases and tables whose triggers were looked at.
_looked_at: set[tuple[object, ...]] = set()


@dataclasses.dataclass(frozen=True, slots=True)
class CapturedChange:
    """An event that would be sent, once for each consumer that is in one of its groups.

    Attributes:
        action: ``create``, ``update``, ``delete``, or ``resync``.
        body: As the handler is given it: what the serializer made, as JSON.
        observer: The observer.
        groups: The names of the groups, as the channel layer has them; empty for a resync, which is for all
            subscribers of the observer.
        changed: The names of the fields that differ.
        instance: The row as the event tells it: of a delete, as it was. None for a resync.
        old_instance: The row before; None for a create.
        context: What the writer said of itself, see :func:`djcrf_pg.context`.
        change_id: The id in the change log.
        committed_at: When the statement wrote the row.
        transaction: The number of the transaction in the block, from 0: the events of one have the same.
        alias: The database.
    """

    action: str
    body: Any
    observer: Any
    groups: list[str]
    changed: list[str]
    instance: Any
    old_instance: Any
    context: Any
    change_id: int
    committed_at: datetime
    transaction: int
    alias: str
    _line: str = dataclasses.field(repr=False)
    _origin: Origin = dataclasses.field(repr=False)

    @property
    def lanes(self) -> list[tuple[str, str]]:
        """The observer's address with each group."""
        return [(self.observer.address, group) for group in self.groups or [EVERYBODY]]


class Capture:
    """See :func:`capture_changes`."""

    def __init__(self, observers: Sequence[Any], using: str | Iterable[str] | None) -> None:
        self._observers = observers
        self._using = [using] if isinstance(using, str) else using
        self._logs: list[_Log] = []
        self._noting = ExitStack()
        self._changes: list[CapturedChange] = []

    def __enter__(self) -> list[CapturedChange]:
        _refuse_in_a_loop()
        discover()
        for observer in self._observers:
            _refuse_unfit(observer)
        self._logs, self._changes = [], []
        with ExitStack() as noting:
            for alias in self._aliases():
                self._logs.append(log := _Log.of(alias, self._observers))
                noting.enter_context(log.noted())
            self._noting = noting.pop_all()
        return self._changes

    def __exit__(self, kind: object, *error: object) -> None:
        self._noting.__exit__(kind, *error)  # type: ignore[arg-type]
        if kind is None:
            for log in self._logs:
                self._changes += log.changes()

    async def __aenter__(self) -> list[CapturedChange]:
        # The thread in which a test's own queries run.
        return await sync_to_async(self.__enter__)()

    async def __aexit__(self, kind: object, *error: object) -> None:
        await sync_to_async(self.__exit__)(kind, *error)

    def _aliases(self) -> list[str]:
        """The databases to look at: in a test that is rolled back, those that it may write to."""
        if self._using is not None:
            return list(self._using)
        models = [observer.model_cls for observer in self._observers]
        written = list(dict.fromkeys(map(router.db_for_write, models))) or registry.aliases()
        found = [alias for alias in written if connections[alias].vendor == "postgresql"]
        if in_blocks := [alias for alias in found if connections[alias].in_atomic_block]:
            return in_blocks
        isolation.refuse_other_threads("capture_changes()")
        # What is committed is in the log whichever alias has written it.
        return [alias for n, alias in enumerate(found) if not any(look_alike(alias, other) for other in found[:n])]


def capture_changes(*observers: Any, using: str | Iterable[str] | None = None) -> Capture:
    """Collect what the body of a ``with`` block would send, in a test that is rolled back.

    ``with capture_changes() as changes:`` and, in a coroutine, ``async with``. The list is filled when the block ends:
    as if each outermost ``atomic`` block in it, and each statement outside of one, had been a transaction of its own.
    What was rolled back, to a savepoint too, is not in it. Serializers and groups functions run when the block ends,
    over the test's connection: they see the rows as they are by then, and what they query is not part of what the body
    queries. No listener and no channel layer is needed.

    In a test that commits, the transactions are those that were.

    Args:
        observers: Those whose events are wanted, such as ``NoteConsumer.note_changes``; all where none is named.
        using: The alias, or aliases, of the databases to look at. By default those that the observed models are
            written to, as far as the test may use them.

    Returns:
        A context manager that gives a list of :class:`CapturedChange`.

    Raises:
        TriggersMissing: A table of the observers has no triggers, so nothing would be captured.
        NotMigrated: The test database has no change log, or lacks such a table.
        ObserverError: What is named is no observer of PostgreSQL's.
        TransactionManagementError: What the block has left can only be rolled back, when the block ends.
        Exception: What a groups function or a serializer raised, when the block ends.
    """
    return Capture(observers, using)


class _Log:
    """The change log of one database, as one connection of Django's sees it from now on."""

    def __init__(self, alias: str, observers: Sequence[Any], schema: str) -> None:
        self._alias = alias
        self._connection = connections[alias]
        self._observers = observers
        self._asking = Asking(self._connection)
        self._log = ChangeLog(self._asking, schema)
        texts = sql.texts("djcrf_pg.testing", "capture.sql")
        self._last = sql.render(texts["last"], schema=schema)
        self._uncommitted = sql.render(texts["uncommitted"], schema=schema)
        window = sql.render(
            sql.load("djcrf_pg.changelog", "window.sql"),
            schema=schema,
            last="$1::text::pg_snapshot",
            target="pg_current_snapshot()",
        )
        self._committed = sql.render(texts["committed"], window=window)
        self._units: Units | None = None
        self._since = BEGINNING
        if self._connection.in_atomic_block:
            self._units = Units(self._connection, lambda: self._asking.ask(self._last)[0][0])
        else:
            self._since = run(self._log.now())

    @classmethod
    def of(cls, alias: str, observers: Sequence[Any]) -> Self:
        """That of a database.

        Raises:
            NotMigrated: There is none, or a table is missing.
            TriggersMissing: A table has no triggers.
        """
        if (schema := catalog.schema_of_log(connections[alias])) is None:
            raise NotMigrated(
                f"The test database of {alias!r} has no change log djcrf_pg_change: 'djcrf_pg' is not in "
                f"INSTALLED_APPS, or the database was kept from before it was (pytest --create-db makes it anew)."
            )
        _require_triggers(alias, observers)
        return cls(alias, observers, schema)

    def noted(self) -> Any:
        """Note where transactions would end."""
        return ExitStack() if self._units is None else self._units.noted()

    def changes(self) -> Iterator[CapturedChange]:
        """What has been written since.

        Raises:
            TransactionManagementError: The transaction that the block was in can only be rolled back.
        """
        if self._units is not None:
            refuse_broken(self._connection)
        units = self._read()
        settings = get_settings()
        changes = [change for unit in units for change in unit]
        if settings.MASS_CHANGE is not None:
            changes = Window(mass=crowds(changes, settings.MASS_CHANGE)).fold(changes)
        aliases = [self._alias, *(other for other in registry.aliases() if self._is_same(other))]
        silent = frozenset(set(registry) - set(self._observers)) if self._observers else frozenset()

        async def find(work: Find) -> list[Occurrence]:
            return work(forgiving=True)

        tables = Tables(aliases, self._log)
        occurrences = run(tables.occurrences(changes, find, silent=silent))
        if self._observers:  # a resync is for those that nobody hears, too
            occurrences = [each for each in occurrences if each.observer in self._observers]
        numbers = {unit[0].xid: number for number, unit in enumerate(units)}
        # Of no read: it says nothing of what was sent before.
        origin = Origin(self._history(), Span.before(Position(self._since)))
        for occurrence, made in make_events(occurrences, EVERYTHING, origin, forgiving=True):
            if isinstance(made, Failed):
                _raise(made)
            for each in made:
                yield self._captured(occurrence, each, origin, numbers[occurrence.change.xid])

    def _captured(self, occurrence: Occurrence, made: Made, origin: Origin, number: int) -> CapturedChange:
        event, line = Event(*json.loads(made.line)), made.line
        if event.action == RESYNC:
            line = event._replace(xid=NEVER_SEEN).encode()  # its transaction is none that there is
        return CapturedChange(
            action=event.action,
            body=event.body,
            observer=occurrence.observer,
            groups=[group for group in made.groups if group != EVERYBODY],
            changed=list(event.changed),
            instance=made.instance,
            old_instance=occurrence.old,
            context=event.context,
            change_id=event.change_id,
            committed_at=occurrence.change.at,
            transaction=number,
            alias=self._alias,
            _line=line,
            _origin=origin,
        )

    def _read(self) -> list[list[Change]]:
        """The changes of each transaction, with a number for each."""
        if self._units is None:
            changes = changes_of(self._asking.ask(self._committed, str(self._since)))
            by_xid: dict[int, list[Change]] = {}
            for change in changes:
                by_xid.setdefault(change.xid, []).append(change)
            return list(by_xid.values())
        changes = changes_of(self._asking.ask(self._uncommitted, self._units.marks[0]))
        units = self._units.split(changes, lambda change: change.id)
        return [
            [change._replace(xid=change.xid + number, writer=change.xid) for change in unit]
            for number, unit in enumerate(units)
        ]

    def _history(self) -> History:
        (row,) = self._asking.ask(HISTORY)
        return History(*(row[name] for name in History._fields))

    def _is_same(self, other: str) -> bool:
        return other != self._alias and look_alike(self._alias, other)


@async_unsafe("capture_changes() in a coroutine is `async with capture_changes() as changes:`.")
def _refuse_in_a_loop() -> None:
    """Raise in a coroutine, as Django's database code does."""


def _refuse_unfit(observer: Any) -> None:
    if not hasattr(observer, "trigger_driven"):
        raise ObserverError(
            f"capture_changes() takes observers, such as NoteConsumer.note_changes, not {observer!r}; databases are "
            f"named by using=…"
        )
    if not observer.trigger_driven:
        raise ObserverError(
            f"{observer.label} observes {observer.model_cls._meta.label}, which is not in PostgreSQL: its events come "
            f"from Django's signals, and capture_changes() has none of them."
        )


def _require_triggers(alias: str, observers: Sequence[Any]) -> None:
    """Refuse what would find nothing, and seem to be right."""
    tables: Sequence[str] = [
        model._meta.db_table
        for observer in observers or registry.on(alias)
        for model in observed_tables(observer)
        if router.allow_migrate_model(alias, model)
    ]
    name = connections[alias].settings_dict["NAME"]
    looked_at = (name, registry.version, *tables)
    if looked_at in _looked_at:
        return
    if absent := catalog.absent(connections[alias], tables):
        raise NotMigrated(
            f"The test database of {alias!r} lacks table {', '.join(absent)}: run `manage.py makemigrations` if its "
            f"model has no migration, and pytest with --create-db if the database was kept."
        )
    steps = [step for step in plan(alias) if step.table.observed in tables]
    if bare := [step.table.name for step in steps if step.state in ("missing", "disabled")]:
        raise TriggersMissing(
            f"Triggers of djcrf_pg are missing or disabled on {', '.join(bare)} (test database of {alias!r}), so "
            f"nothing would be captured. `migrate` installs them for observers in an app's consumers module or behind "
            f"ASGI_APPLICATION; for others, name the model in DJCRF_PG['OBSERVE']. A database that was kept needs "
            f"--create-db."
        )
    _looked_at.add(looked_at)


def _raise(failed: Failed) -> NoReturn:
    failed.error.add_note(
        f"Raised by the {failed.failure.part} of {failed.failure.observer.partition('|')[0]} for "
        f"{failed.failure.model} {failed.failure.pk or '(key unknown)'}. In production subscribers get a resync "
        f"'failed'. capture_changes(…) takes the observers that the test is about."
    )
    raise failed.error
