"""The leader's part of shadow mode: it notes what triggers would have sent, and compares it with what signals have."""

import hashlib
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import asyncpg

from djcrf_pg import sql
from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.changelog.reader import Asks
from djcrf_pg.delivery.envelope import parse
from djcrf_pg.delivery.interest import EVERYTHING
from djcrf_pg.delivery.protocol import Origin
from djcrf_pg.exceptions import LeadershipLost
from djcrf_pg.observations import ShadowDiffers, ShadowFailed, SignalsExtra, SignalsMissed, cause_of, emit
from djcrf_pg.registry import Observed, registry
from djcrf_pg.routing.events import Made, make_events
from djcrf_pg.routing.failed import Failed, Failure
from djcrf_pg.routing.routes import Occurrence
from djcrf_pg.shadow.differences import DIFFERENT, EQUAL, EXTRA, FAILED, MISSED, Result, Waiting, results
from djcrf_pg.shadow.excluded import hidden
from djcrf_pg.shadow.messages import Message, message, row_key

#: Seconds that a message waits for its counterpart. A process writes what its signals have sent within a moment; what
#: takes longer than this, and longer than three times this beside others of its row, is taken for a difference.
PATIENCE = 10.0

#: Seconds between comparisons, those after which a message that was compared is deleted, and between looks for such.
PAUSE, _KEPT, _SWEEP = 1.0, 300.0, 30.0

#: Seconds after which a change is not compared any more: where nobody led for hours, what signals have sent of it may
#: be forgotten. What they have sent in the second half of that may be of such a change, and is no difference by itself.
_LATE = 10_800.0

#: Messages that one comparison looks at, samples of a result, and results of an observer's kind.
_ROWS, _SAMPLES, _RESULTS = 1_000, 5, 100

#: Characters of what a result says.
_WHAT = 300

#: Seconds between two reports that something cannot be noted.
_QUIET = 60.0

#: The session has ended. Whatever else fails, such as a migration that has not run or a right, no event waits for it.
_GONE = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, LeadershipLost)

_SQL = sql.queries(
    "djcrf_pg.shadow",
    "shadow.sql",
    by_signals="false",
    **{f"given_{name}": f"${place}" for place, name in enumerate(Message._fields, 1)},
)


class Noted(NamedTuple):
    """What triggers would have sent.

    Attributes:
        messages: For the observers that make events.
        failures: Of those that fail, and what they raised.
        errors: What kept others of these from being one.
    """

    messages: list[Message]
    failures: list[tuple[Failure, str]]
    errors: list[Exception]


def made_by_triggers(occurrences: Sequence[Occurrence], origin: Origin, *, forgiving: bool = False) -> Noted:
    """Make the events of shadowed observers, which nobody receives. Runs in the listener's thread.

    Args:
        occurrences: What there is to tell.
        origin: The part of the log that the events are made of.
        forgiving: See :func:`djcrf_pg.routing.events.events`.

    Raises:
        OperationalError, InterfaceError: User code found its database gone.
    """
    noted = Noted([], [], [])
    begin = datetime.now(UTC) - timedelta(seconds=_LATE)
    occurrences = [occurrence for occurrence in occurrences if occurrence.change.at > begin]
    for occurrence, made in make_events(occurrences, EVERYTHING, origin, forgiving=forgiving):
        if isinstance(made, Failed):
            left = hidden(occurrence.old, occurrence.new)
            noted.failures.append((made.failure, left.without(made.failure.error)))
        elif made:
            try:
                noted.messages.append(_message(occurrence, made))
            except Exception as error:  # no change is to keep the leader from those behind it
                noted.errors.append(error)
    return noted


def _message(occurrence: Occurrence, made: Sequence[Made]) -> Message:
    observer, change = occurrence.observer, occurrence.change
    events = [(parse(each.line), each.groups) for each in made]
    instance = occurrence.old if occurrence.new is None else occurrence.new
    pk = "" if instance is None or occurrence.resync is not None else row_key(instance)
    first, _ = events[0]
    origin: dict[str, Any] = {
        "change": change.id,
        "transaction": first.transaction,
        "context": first.context,
        "at": first.committed_at,
    }
    said: dict[str, str] = {}
    for each in made:
        if each.instance is not None:
            said |= observer.said_groups(each.instance)
    name = hashlib.sha256(f"{observer.address}|{change.id}|{pk}".encode()).hexdigest()[:32]
    parts = {event.action: (groups, event.body) for event, groups in events}
    instances = (occurrence.old, occurrence.new, *(each.instance for each in made))
    left = hidden(*instances, serializer_class=getattr(observer, "serializer_class", None))
    origin["groups"] = left.without(said)
    return message(name, observer.address, pk, parts, origin, left)


def _home_of(observer: Observed) -> str:
    """Where an observer is: by their handlers, the instances of all consumers would be of one."""
    return observer.identity.partition("|")[0]


def _shadows() -> list[list[str]]:
    """The addresses of the shadowed observers, where they are, and their models."""
    known = [(each.address, _home_of(each), each.model_cls._meta.label) for each in registry if each.is_shadow]
    return [list(column) for column in zip(*known, strict=True)] or [[], [], []]


class _Tally:
    """Results of one round, by observer, kind and what they are about."""

    def __init__(self) -> None:
        self._found: dict[tuple[Observed, str, str], tuple[int, list[str], str]] = {}

    def add(self, address: str, kind: str, what: str, *, sample: Any = None, pk: str = "") -> None:
        """Count one; those of an observer that this process does not have are other code's."""
        if (observer := registry.at(address)) is not None:
            key = observer, kind, what[:_WHAT]
            before, samples, _ = self._found.get(key, (0, [], pk))
            line = [] if sample is None else [json.dumps(sample, separators=(",", ":"))]
            self._found[key] = before + 1, [*line, *samples][:_SAMPLES], pk

    def columns(self) -> list[list[Any]]:
        """The parameters of ``record``."""
        rows = [
            (
                _home_of(observer),
                observer.address,
                observer.model_cls._meta.label,
                kind,
                what,
                times,
                "\n".join(samples),
            )
            for (observer, kind, what), (times, samples, _) in self._found.items()
        ]
        return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(7)]

    def emit(self) -> None:
        """Say what differs; what fails was said when it did."""
        for (observer, kind, what), (times, _, pk) in self._found.items():
            if (observation := _OBSERVATIONS.get(kind)) is not None:
                model = observer.model_cls._meta.label
                emit(observation(observer=_home_of(observer), model=model, pk=_text(pk), times=times, what=what))


class Comparison:
    """Compares for one term of a leader.

    Args:
        connection: Asks the server.
        alias: The database, for what is said of it.
    """

    def __init__(self, connection: Asks, alias: str) -> None:
        self._connection = connection
        self._alias = alias
        self._begun_at = self._compared_at = time.monotonic()
        self._failed_at = -_QUIET
        self._swept_at = self._compared_at

    async def note(self, noted: Noted) -> None:
        """Keep what triggers would have sent. What cannot be kept is reported, and holds up nobody."""
        tally = _Tally()
        for error in noted.errors:
            self._report(error)
        for failure, text in noted.failures:
            sample = {"pk": failure.pk, "triggers": None, "origin": {"change": failure.change_id}}
            tally.add(failure.address, FAILED, f"{failure.part}: {text}", sample=sample, pk=failure.pk)
        try:
            if noted.messages:
                await self._connection.execute(_SQL["note"], *map(list, zip(*noted.messages, strict=True)))
            await self._record(tally, [])
        except _GONE:
            raise
        except Exception as error:
            self._report(error)

    def wait(self, now: float) -> float:
        """Seconds until it is time to compare, by ``time.monotonic``."""
        return max(self._compared_at + PAUSE - now, 0.0)

    async def compare(self, seen: Snapshot) -> None:
        """Compare, if it is time to, and record and say what differs.

        Args:
            seen: All changes in this snapshot have been noted.
        """
        if self.wait(time.monotonic()):
            return
        self._compared_at = time.monotonic()
        tally, names = _Tally(), []
        try:
            await self._connection.execute(_SQL["match"], *_shadows())
            # Of an older one another leader may have read the change, in no shadow mode, or there was none for long.
            ours = min(_LATE / 2, time.monotonic() - self._begun_at)
            left = await self._connection.fetch(_SQL["left"], PATIENCE, str(seen), _ROWS, ours)
            unsure = {row["name"] for row in left if row["is_unsure"]}
            for (address, pk), rows in groupby(left, lambda row: (row["address"], row["pk"])):
                for result in results(map(_waiting, rows)):
                    names += [each.name for each in (result.signals, result.triggers) if each is not None]
                    if result.kind == EXTRA and result.signals is not None and result.signals.name in unsure:
                        continue
                    sample = None if result.kind == EQUAL else _sample(pk, result)
                    tally.add(address, result.kind, result.what, sample=sample, pk=pk)
            await self._record(tally, names)
            if time.monotonic() - self._swept_at >= _SWEEP:
                self._swept_at = time.monotonic()
                await self._connection.execute(_SQL["purge"], _KEPT)
        except _GONE:
            raise
        except Exception as error:
            self._report(error)

    async def _record(self, tally: _Tally, names: Sequence[str]) -> None:
        columns = tally.columns()
        if columns[0] or names:
            await self._connection.execute(_SQL["record"], *columns, _SAMPLES, _RESULTS, names)
            tally.emit()

    def _report(self, error: Exception) -> None:
        if time.monotonic() - self._failed_at >= _QUIET:
            self._failed_at = time.monotonic()
            is_of_the_server = isinstance(error, asyncpg.PostgresError)  # which says where it is itself
            emit(ShadowFailed(alias=self._alias, error=cause_of(error)), None if is_of_the_server else error)


_OBSERVATIONS = {MISSED: SignalsMissed, EXTRA: SignalsExtra, DIFFERENT: ShadowDiffers}


def _waiting(row: asyncpg.Record) -> Waiting:
    return Waiting(
        row["name"],
        row["by_signals"],
        row["digest"],
        json.loads(row["parts"]),
        json.loads(row["origin"]),
        row["is_due"],
        row["is_old"],
    )


def _sample(pk: str, result: Result) -> dict[str, Any]:
    sides = {"signals": result.signals, "triggers": result.triggers}
    origins = {key: value for side in sides.values() if side is not None for key, value in side.origin.items()}
    said = origins.pop("groups", {})
    found = {name: None if side is None else _with_names(side.parts, said) for name, side in sides.items()}
    return {"pk": pk, **found, "origin": origins}


def _with_names(parts: dict[str, list[Any]], said: dict[str, str]) -> dict[str, list[Any]]:
    """What a message says with the groups as the code has them, as far as that is known."""
    return {action: [[said.get(group, group) for group in groups], *body] for action, (groups, *body) in parts.items()}


def _text(pk: str) -> str:
    """A key as people read it."""
    return ",".join(json.loads(pk)) if pk else ""
