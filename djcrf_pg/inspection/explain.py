"""Whom a change of the log went to, and why not to each other observer.

What an event is made of is in the log and in the code: so the whole transaction is read again as the leader reads it,
and routed by the leader's own router; groups and serializers run here, each in a transaction that is read-only and is
rolled back. That tells what the code of *now* makes of it, and which processes have subscribers *now*.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from django.db import DatabaseError, connections, router, transaction

from djcrf_pg.changelog.change import MASS, Change
from djcrf_pg.changelog.cursor import Position, Snapshot, Span
from djcrf_pg.changelog.decode import StaleRelation
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.interest import CHUNK, EVERYTHING, Interest
from djcrf_pg.delivery.protocol import EVERYBODY, History, Origin
from djcrf_pg.inspection.entries import Entry
from djcrf_pg.inspection.log import Leader, Log, reading
from djcrf_pg.inspection.reader import Reader
from djcrf_pg.inspection.tables import Table, query
from djcrf_pg.listener.gate import HOLDER_CLASS_ID
from djcrf_pg.listener.tables import Tables
from djcrf_pg.models import Failure
from djcrf_pg.observations import text_of
from djcrf_pg.registry import Observed, registry
from djcrf_pg.routing.events import body_of, parts_of
from djcrf_pg.routing.router import Router
from djcrf_pg.routing.routes import Occurrence

T = TypeVar("T")

#: The outcomes of a verdict: events for somebody; events that nobody has subscribed to; a resync; no event; an observer
#: of something else; code that raises, which is a resync; and what could not be found out.
SENT, UNHEARD, RESYNC, NO_EVENT, ELSEWHERE, FAILED, UNKNOWN = (
    *("sent", "unheard", "resync", "no event", "elsewhere", "failed", "unknown"),
)

#: ``read_only_sql_transaction`` (PostgreSQL manual, appendix A).
_READ_ONLY = "25006"

#: What events here are made of: nobody receives them, so their cursors lead nowhere.
_NOWHERE = Origin(History(0, 0, 0, 0), Span(Snapshot(1, 1)))


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """An event of a change, for one group.

    Attributes:
        action: ``create``, ``update``, ``delete``; ``resync`` for all subscribers of the observer.
        group: The group as the code yields it; None for all subscribers of the observer.
        name: The group's name, which DCRF makes of that; None for all.
        processes: The processes with subscribers of it, as their sessions call themselves.
    """

    action: str
    group: str | None
    name: str | None
    processes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a change means to one observer.

    Attributes:
        observer: Where it is defined.
        model: The label of its model.
        outcome: :data:`SENT`, :data:`UNHEARD`, :data:`RESYNC`, :data:`NO_EVENT`, :data:`ELSEWHERE`, :data:`FAILED` or
            :data:`UNKNOWN`.
        why: The reason, a clause that follows the observer's name.
        deliveries: The events.
    """

    observer: str
    model: str
    outcome: str
    why: str
    deliveries: tuple[Delivery, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """What became of a change.

    Attributes:
        entry: The change.
        others: The ids of other changes that the same transaction made to the row: observers receive the net
            effect, unless they want every change.
        leader: Who leads, and how far the cursor is.
        verdicts: For each observer of this project.
        notes: What this cannot tell.
    """

    entry: Entry
    others: list[int]
    leader: Leader
    verdicts: list[Verdict]
    notes: list[str]


class Subscribers:
    """Which groups the processes have subscribers of.

    Args:
        rows: Of the query ``subscribers``.

    Attributes:
        ended: Processes whose session has ended: they are gone, or about to connect again.
    """

    def __init__(self, rows: Iterable[Sequence[Any]]) -> None:
        bits: dict[int, dict[int, bytes]] = {}
        self._names: dict[int, str] = {}
        ended = set()
        for holder, chunk, text, pid, name in rows:
            if pid is None:
                ended.add(holder)
                continue
            bits.setdefault(holder, {})[chunk] = int(text, 2).to_bytes(CHUNK // 8)
            self._names[holder] = f"{name or 'a session without a name'} (server process {pid})"
        self._interests = {holder: Interest(chunks) for holder, chunks in bits.items()}
        self.ended = len(ended)

    def of(self, address: str, group: str) -> tuple[str, ...]:
        """The processes that may have a lane.

        Args:
            address: The observer's.
            group: The group, or :data:`~djcrf_pg.delivery.protocol.EVERYBODY`.
        """
        return tuple(self._names[holder] for holder, found in self._interests.items() if found.has(address, group))


def explain(log: Log, change: Change) -> Explanation:
    """Find out what a change means to each observer of this project.

    Costs what the leader has spent on the transaction, up to ``BATCH_SIZE`` changes of it at a time.

    Args:
        log: The log that it is in.
        change: The change.

    Raises:
        InspectionError: A right is missing.
        ConfigurationError, OSError, TimeoutError, asyncpg.PostgresError: The log cannot be read.
    """
    with Reader(log.alias, "explain") as reader:
        tables = reader.run(Tables.open(log.alias, reader.log))
        changes, is_cut = _transaction(reader, change)
        case = _Case(log, change, changes, is_cut)
        if reader.is_standby:
            case.notes.append(
                "This server is a standby. Who leads and which processes have subscribers is known to its primary "
                "alone: ask there."
            )
        find = reader.run(tables.router_for({each.relation for each in changes}))
        verdicts = case.verdicts(reader, tables, find)
    return Explanation(case.entry, sorted(case.companions - {change.id}), log.leader(), verdicts, case.notes)


def _transaction(reader: Reader, change: Change) -> tuple[list[Change], bool]:
    """The changes of a transaction, or the piece of them that one is in; and whether it is a piece."""
    settings = get_settings()
    position = Position(Snapshot(change.xid, change.xid), Snapshot(change.xid + 1, change.xid + 1))
    is_first = True
    while True:
        piece = reader.run(reader.log.read(position, settings.BATCH_SIZE, settings.MASS_CHANGE))
        is_last = piece.position.target is None
        has_it = any(
            each.id == change.id or (each.op == MASS and each.relation == change.relation) for each in piece.changes
        )
        if has_it or is_last:
            return piece.changes, not (is_first and is_last)
        position, is_first = piece.position, False


class _Case:
    """One change, the transaction around it, and what is known of the subscribers."""

    def __init__(self, log: Log, change: Change, changes: list[Change], is_cut: bool) -> None:
        self.log = log
        self.change = change
        self.changes = changes
        self.is_cut = is_cut
        with reading(log.alias) as cursor:
            tables = log.tables.named({change.relation, *(each.relation for each in changes)}, cursor)
            cursor.execute(query("subscribers", log.schema), {"class": HOLDER_CLASS_ID})
            self.subscribers = Subscribers(cursor.fetchall())
        self.table = tables[change.relation]
        self.entry = Entry.of(change, self.table)
        self.companions = _companions(self.entry, self.table, changes, tables)
        with reading(log.alias):
            failures = Failure.objects.using(log.alias).filter(change_id__in=self.companions)
            self.failures = {failure.address: failure for failure in failures}
        self.notes = [
            "Groups and serializers ran now, in this process: with the code and the rows of now.",
            "The subscribers are those of now. One that subscribed after the commit has the change in the rows that it "
            "loaded, and receives no event of it.",
        ]
        if self.subscribers.ended:
            self.notes.append(
                f"The sessions of {self.subscribers.ended} more processes with subscribers have ended. They are gone "
                f"or connect again, and are not counted here."
            )
        if is_cut:
            self.notes.append(
                "The transaction is larger than BATCH_SIZE. The leader tells its net effect piece by piece, and may "
                "have cut it elsewhere."
            )

    def verdicts(self, reader: Reader, tables: Tables, find: Router) -> list[Verdict]:
        """What the change means to each observer, those that receive it first."""
        here = set(registry.on(*tables.aliases))
        concerned = find.observers([self.change.relation]) & here
        occurrences = self._occurrences(reader, tables, self.changes, concerned) if concerned else []
        told: list[Verdict] = []
        if isinstance(occurrences, Exception):
            why = f"what it means could not be found out here: {text_of(occurrences)}"
            told = [_verdict(observer, UNKNOWN, why) for observer in registry if observer in concerned]
        else:
            by_hand: list[Occurrence] | Exception | None = None
            for observer in registry:
                if observer not in concerned:
                    continue
                mine = [each for each in occurrences if each.observer is observer and self._is_of_it(each)]
                if not mine:
                    # As the owner of the row, whose event may be that of another row.
                    if by_hand is None:
                        alone = [each for each in self.changes if each.id in self.companions]
                        by_hand = self._occurrences(reader, tables, alone, concerned)
                    if not isinstance(by_hand, Exception):
                        mine = [each for each in by_hand if each.observer is observer]
                told.append(self._judge(observer, mine))
        rest = [self._elsewhere(observer, here) for observer in registry if observer not in concerned]
        order = [SENT, RESYNC, FAILED, UNHEARD, UNKNOWN, NO_EVENT, ELSEWHERE]
        return sorted([*told, *rest], key=lambda verdict: order.index(verdict.outcome))

    def _occurrences(
        self, reader: Reader, tables: Tables, changes: list[Change], concerned: Collection[Observed]
    ) -> list[Occurrence] | Exception:
        """What the leader's router makes of changes; or what it fails on."""
        silent = [observer for observer in registry if observer not in concerned]
        lenient: set[int] = set()
        while True:
            find = reader.run(tables.router_for({each.relation for each in changes}))
            work = partial(find.occurrences, changes, silent=silent, lenient=frozenset(lenient), cut=self.is_cut)
            try:
                return _harmless(work)
            except StaleRelation as error:
                reader.run(tables.look_again(error.oid))
                if error.oid in lenient:
                    return error
                lenient.add(error.oid)
            except Exception as error:
                return error

    def _is_of_it(self, occurrence: Occurrence) -> bool:
        """Whether an occurrence tells of the change; a resync does, whatever has brought it about."""
        return occurrence.resync is not None or occurrence.change.id in self.companions

    def _elsewhere(self, observer: Observed, here: Collection[Observed]) -> Verdict:
        label = observer.model_cls._meta.label
        if observer in here:
            return _verdict(observer, ELSEWHERE, f"it is for {label}, not for this table")
        alias = router.db_for_write(observer.model_cls)
        return _verdict(observer, ELSEWHERE, f"{label} is in another database, {alias!r}")

    def _judge(self, observer: Observed, mine: Sequence[Occurrence]) -> Verdict:
        """What becomes of the occurrences that the change is part of."""
        if not mine:
            return _verdict(observer, NO_EVENT, self._why_nothing(observer))
        found = [self._of_occurrence(observer, occurrence) for occurrence in mine]
        outcomes = [SENT, RESYNC, FAILED, UNHEARD, UNKNOWN, NO_EVENT]
        best = min(found, key=lambda verdict: outcomes.index(verdict.outcome))
        deliveries = tuple(dict.fromkeys(each for verdict in found for each in verdict.deliveries))
        verdict = dataclasses.replace(best, deliveries=deliveries)
        if (failure := self.failures.get(observer.address)) is not None:
            why = f"{verdict.why}; its {failure.part} raised {failure.error} when it was sent, see `djcrf_pg failures`"
            verdict = dataclasses.replace(verdict, outcome=FAILED, why=why)
        return verdict

    def _why_nothing(self, observer: Observed) -> str:
        own = {model._meta.db_table for model in observer.models}
        if self.table.model is not None and self.table.model._meta.db_table not in own:
            return "its bodies show nothing of what the transaction changed in this row, or no row of its model has it"
        if self.entry.action == "touch":
            return "the row that was touched is gone by now"
        if len(self.companions) > 1:
            return "the transaction has undone the change: for readers of committed rows nothing has happened"
        return "the change leaves the row as it was"

    def _of_occurrence(self, observer: Observed, occurrence: Occurrence) -> Verdict:
        if occurrence.resync is not None:
            return self._resync(observer, RESYNC, f"the rows are not told one by one ({occurrence.resync})")
        try:
            parts = _harmless(partial(parts_of, occurrence, EVERYTHING))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return self._raised(observer, "groups", error, None)
        groups = [group for _, _, some in parts for group in some]
        if not groups:
            return _verdict(observer, NO_EVENT, self._why_no_group(observer, occurrence))
        said = _said_groups(observer, occurrence)
        for action, instance, some in parts:
            if some and instance is not None:
                try:
                    _harmless(partial(body_of, occurrence, instance, action, some, _NOWHERE))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    return self._raised(
                        observer, "serializer", error, {group: said.get(group, group) for group in groups}
                    )
        deliveries = tuple(
            Delivery(action.value, said.get(group, group), group, self.subscribers.of(observer.address, group))
            for action, _, some in parts
            for group in some
        )
        if observer.is_shadow:
            why = "shadow mode is on: Django's signals deliver, and this is compared with what they send"
            return _verdict(observer, UNHEARD, why, deliveries)
        if any(delivery.processes for delivery in deliveries):
            return Verdict(observer.label, observer.model_cls._meta.label, SENT, "it has subscribers", deliveries)
        why = "nobody has subscribed to the groups of this row"
        if not self.subscribers.of(observer.address, EVERYBODY):
            why = "nobody has subscribed to the observer"
        return _verdict(observer, UNHEARD, why, deliveries)

    def _why_no_group(self, observer: Observed, occurrence: Occurrence) -> str:
        is_update = occurrence.old is not None and occurrence.new is not None
        if is_update and not occurrence.again and not observer.tells(occurrence.changed):
            changed = ", ".join(occurrence.changed)
            if observer.told_of is None or not changed:
                return "the update changed nothing, and the observer has skip_unchanged"
            return f"the update changed {changed}, and the observer's fields are {', '.join(sorted(observer.told_of))}"
        return "its groups yield none for this row"

    def _raised(self, observer: Observed, part: str, error: BaseException, groups: Mapping[str, str] | None) -> Verdict:
        cause = error.__cause__ if isinstance(error, DatabaseError) else None
        if getattr(cause, "sqlstate", None) == _READ_ONLY:
            why = f"its {part} write to the database, which is not allowed here: what they yield is not known"
            return _verdict(observer, UNKNOWN, why)
        why = f"its {part} raise{'' if part == 'groups' else 's'} {text_of(error)}, and subscribers get a resync"
        if groups is None:
            return self._resync(observer, FAILED, why)
        deliveries = [
            Delivery("resync", said, group, self.subscribers.of(observer.address, group))
            for group, said in groups.items()
        ]
        return _verdict(observer, FAILED, why, tuple(deliveries))

    def _resync(self, observer: Observed, outcome: str, why: str) -> Verdict:
        processes = self.subscribers.of(observer.address, EVERYBODY)
        return _verdict(observer, outcome, why, (Delivery("resync", None, None, processes),))


def _said_groups(observer: Observed, occurrence: Occurrence) -> dict[str, str]:
    """The groups as the code yields them, by their names."""
    said: dict[str, str] = {}
    for instance in (occurrence.old, occurrence.new):
        if instance is not None:
            said |= _harmless(partial(observer.said_groups, instance))
    return said


def _verdict(observer: Observed, outcome: str, why: str, deliveries: tuple[Delivery, ...] = ()) -> Verdict:
    return Verdict(observer.label, observer.model_cls._meta.label, outcome, why, deliveries)


def _companions(entry: Entry, table: Table, changes: Iterable[Change], tables: Any) -> set[int]:
    """The ids of what a transaction did to a row, in the tables of its model and of those that it inherits from."""
    keys = {entry.pk, entry.former_pk} - {None}
    found = {entry.id}
    for change in changes:
        if change.op == MASS:
            if tables[change.relation].name == table.name:
                found.add(change.id)
        elif keys and _is_akin(table, tables[change.relation]):
            other = Entry.of(change, tables[change.relation])
            if not keys.isdisjoint((other.pk, other.former_pk)):
                found.add(change.id)
    return found


def _is_akin(one: Table, other: Table) -> bool:
    if one.model is None or other.model is None:
        return one.name == other.name
    return issubclass(one.model, other.model) or issubclass(other.model, one.model)


def _harmless(work: Callable[[], T]) -> T:
    """Run user code where it can read and not write, and in a context of its own.

    Raises:
        Exception: What it raises; where it writes, PostgreSQL's error.
    """
    with _rolled_back():
        return copy_context().run(work)


@contextmanager
def _rolled_back() -> Iterator[None]:
    with ExitStack() as stack:
        for alias in connections:
            connection = connections[alias]
            atomic = transaction.atomic(using=alias)
            try:
                atomic.__enter__()
            except DatabaseError:
                continue  # not there, which is what whoever asks it finds out
            stack.push(atomic.__exit__)
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION READ ONLY")
            stack.callback(transaction.set_rollback, True, using=alias)
        yield
