"""What becomes of an event whose groups, serializer or handler raise: it is kept, and its subscribers receive a resync.

The promise is that a change is delivered, or the subscriber receives a resync. So whoever would have received the
event gets a resync ``failed``: the groups concerned, or all subscribers of the observer where it is the groups that
failed. One for each observer in :data:`PAUSE` seconds, however many rows fail; what fails meanwhile is sent when they
have passed. Each row is recorded with its traceback before the leader goes on, so that one that dies leaves nothing
unsent, and somebody can have the row sent again when the code is fixed: ``manage.py djcrf_pg failures``.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg
from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError
from django.db.models import Model

from djcrf_pg import sql
from djcrf_pg.changelog.net import RowChange
from djcrf_pg.changelog.reader import FAILS_AGAIN, Asks
from djcrf_pg.delivery.envelope import NEVER_SEEN
from djcrf_pg.delivery.protocol import EVERYBODY, Item
from djcrf_pg.instances import find
from djcrf_pg.observations import FailuresUnrecorded, RowUnreadable, emit, text_of
from djcrf_pg.registry import Observed, alias_of, registry
from djcrf_pg.routing.failed import FAILED, Failed, Failure, key_values, resync_event
from djcrf_pg.routing.routes import Occurrence

#: Seconds between two resyncs of an observer.
PAUSE = 10.0

#: Rows of a part of an observer that are kept one by one.
_ROWS = 1_000

#: The migration has not run yet, or the role lacks a right. That is reported when failures are recorded.
_NO_TABLE = (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError)

#: Why failures may not be kept, which is not to keep events waiting.
_UNKEPT = (*_NO_TABLE, *FAILS_AGAIN)

_SQL = sql.queries("djcrf_pg.listener", "failures.sql")


async def record(connection: Asks, failures: Sequence[Failure], *, told: bool) -> None:
    """Keep failures; what cannot be kept is reported.

    Args:
        connection: Asks the server.
        failures: Any number.
        told: Whether the subscribers know already.
    """
    if not failures:
        return
    known: dict[tuple[str, str, str], list[Any]] = {}
    for failure in failures:
        row = known.setdefault((failure.address, failure.part, failure.pk), [failure, 0])
        row[0], row[1] = failure, row[1] + 1
    columns = zip(*([*dataclasses.astuple(failure), times] for failure, times in known.values()), strict=True)
    try:
        await connection.execute(_SQL["record"], *map(list, columns), told, _ROWS)
    except _UNKEPT as error:
        emit(FailuresUnrecorded(count=len(failures), error=str(error)))


async def failed_within(connection: Asks, seconds: float) -> frozenset[str]:
    """The addresses of observers whose groups or serializers failed lately.

    Args:
        connection: Asks the server.
        seconds: How lately.

    Raises:
        asyncpg.InsufficientPrivilegeError: The role may not know. Its leader's may, and have told somebody.
    """
    try:
        return frozenset(row["address"] for row in await connection.fetch(_SQL["lately"], seconds))
    except asyncpg.UndefinedTableError:
        return frozenset()


class Failures:
    """The failures of a leader's term, and the resyncs that they call for.

    Args:
        connection: Asks the server.
    """

    def __init__(self, connection: Asks) -> None:
        self._connection = connection
        self._due: dict[str, float] = {}
        self._waiting: dict[str, dict[str, Item]] = {}

    async def begin(self) -> None:
        """Take over what the former leader has not told: to all subscribers of the observers."""
        try:
            rows = await self._connection.fetch(_SQL["untold"])
        except _UNKEPT as error:
            emit(FailuresUnrecorded(count=0, error=str(error)))
            return
        now = datetime.now(UTC)
        for row in rows:
            if (observer := registry.at(row["address"])) is not None:
                self.tell(observer, RowChange(0, 0, 0, None, None, None, now))

    async def take(self, failed: Sequence[Failed]) -> None:
        """Keep failures, and note who is to receive a resync."""
        await record(self._connection, [each.failure for each in failed], told=False)
        for each in failed:
            self.tell(each.observer, each.change, each.groups)

    def tell(self, observer: Observed, change: RowChange, groups: Iterable[str] | None = None) -> None:
        """Note that groups of an observer are to receive a resync, or all of its subscribers."""
        waiting = self._waiting.setdefault(observer.address, {})
        event = resync_event(observer, change.id).encode()
        for group in [EVERYBODY] if groups is None else groups:
            waiting[group] = Item(observer.address, group, event)
        self._due.setdefault(observer.address, 0.0)

    def due(self, now: float) -> list[Item]:
        """The resyncs that are due, by ``time.monotonic``; they are taken for sent."""
        found: list[Item] = []
        for address in [address for address in self._waiting if self._due[address] <= now]:
            found += self._waiting.pop(address).values()
            self._due[address] = now + PAUSE
        return found

    def wait(self, now: float) -> float | None:
        """Seconds until the next resync is due; None where there is none."""
        return min((max(self._due[address] - now, 0.0) for address in self._waiting), default=None)

    async def asked(self) -> list["Asked"]:
        """Some of the rows that somebody wants sent again; those of observers that are not here are refused."""
        while True:
            try:
                rows = await self._connection.fetch(_SQL["asked"], _ROWS)
            except _NO_TABLE:
                return []
            found = [(row, registry.at(row["address"])) for row in rows]
            known = [Asked(row["id"], observer, row["pk"], row["change_id"]) for row, observer in found if observer]
            if len(known) < len(rows):
                refused = [row["id"] for row, observer in found if observer is None]
                await self._connection.execute(_SQL["refuse"], refused)
            if known or not rows:
                return known

    async def settle(self, asked: Sequence["Asked"]) -> None:
        """Forget rows that were sent again, unless they have failed again."""
        await self._connection.execute(_SQL["settle"], [row.id for row in asked])

    async def sent(self, items: Iterable[Item]) -> None:
        """Note in the database that resyncs were sent, unless more of the observer is waiting."""
        addresses = {item.observer for item in items} - self._waiting.keys()
        with suppress(*_UNKEPT):
            await self._connection.execute(_SQL["told"], list(addresses))


class Asked(NamedTuple):
    """A row that somebody wants sent again."""

    id: int
    observer: Observed
    pk: str
    change_id: int


def again(asked: Iterable[Asked], aliases: Sequence[str]) -> list[Occurrence]:
    """Rows that failed, as they are now, to be sent as updates. Runs in the listener's thread.

    Of a row that is gone nobody knows the groups, and where there are more rows than are kept not even those: the
    observer's subscribers receive a resync. So they do where the row cannot be loaded, as when its table is gone.

    Args:
        asked: The rows.
        aliases: Those of their database.
    """
    found = []
    for row in asked:
        change = RowChange(row.change_id, NEVER_SEEN, 0, None, None, None, datetime.now(UTC))
        instance = _instance(row, aliases) if row.pk else None
        resync = FAILED if instance is None else None
        found.append(Occurrence(change, row.observer, instance, instance, resync=resync, again=True))
    return found


def _instance(row: Asked, aliases: Sequence[str]) -> Model | None:
    model = row.observer.model_cls
    try:
        return find(model, alias_of(model, aliases), key_values(model, row.pk))
    except (ValueError, ValidationError):
        return None  # the model has another key by now
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        what = f"{model._meta.label} {row.pk}, which is to be sent again"
        emit(RowUnreadable(alias=aliases[0], what=what, change_id=row.change_id, error=text_of(error)), error)
        return None
