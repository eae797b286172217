"""What a client that resumes has not seen: read from the log, told through the same routes and serializers.

A replay runs in the process of the subscription, which is live already: what commits after its moment waits in the
inbox. It makes the spans that a cursor leaves (:mod:`djcrf_pg.delivery.resume`), for one observer and the groups that
are subscribed to now.
"""

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from django.db import InterfaceError, OperationalError, connections

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.changelog.decode import StaleRelation
from djcrf_pg.changelog.reader import FAILS_AGAIN, ChangeLog
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import RESYNC, Event
from djcrf_pg.delivery.healing import Replayed
from djcrf_pg.delivery.protocol import EVERYBODY, Origin
from djcrf_pg.delivery.resume import Cursor, Mark
from djcrf_pg.exceptions import CursorExpired
from djcrf_pg.listener.failures import PAUSE, failed_within
from djcrf_pg.listener.session import Session
from djcrf_pg.listener.tables import Tables
from djcrf_pg.listener.worker import Worker
from djcrf_pg.registry import Observed, registry
from djcrf_pg.routing.events import events
from djcrf_pg.routing.failed import Failed, resync_event

#: Tries of work whose user code finds its database gone while ours is there.
_TRIES = 3

#: Seconds within which subscribers are told of what groups or serializers failed on, and more.
_TOLD = PAUSE + 30.0


class _Groups:
    """The interest of one subscription."""

    def __init__(self, groups: Collection[str]) -> None:
        self._groups = frozenset(groups)

    def has(self, address: str, group: str) -> bool:
        """Whether it is among them."""
        return group in self._groups

    def hears(self, address: str) -> bool:
        """As those for everybody are."""
        return True


class Replays:
    """Reads the log of one database for those who resume, over one connection of this event loop.

    Args:
        alias: The Django database alias.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._turn = asyncio.Lock()
        self._session: Session | None = None
        self._log: ChangeLog | None = None
        self._tables: Tables | None = None
        self._worker: Worker | None = None

    async def replay(
        self,
        cursor: Cursor,
        until: Snapshot,
        observer: Observed,
        groups: Collection[str],
        *,
        lost: int | None = None,
    ) -> list[Replayed]:
        """The events that a cursor has not seen.

        Args:
            cursor: The cursor.
            until: The snapshot up to which it is told; what comes after it is live.
            observer: The observer.
            groups: Those of its groups that are told.
            lost: Of events that were lost on their way, so many changes are told at most, each as it would have come.
                None for a client that resumes: one event for each row, and ``REPLAY_LIMIT`` rows.

        Raises:
            CursorExpired: They are not to be had any more.
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        # Of those with one identity the newest is told, and it makes the same.
        observer = registry.at(observer.address) or observer
        limit = get_settings().REPLAY_LIMIT if lost is None else lost
        async with self._turn:
            log, tables = await self._connected()
            told: list[Replayed] = []
            keys = await self._keys(log, tables, observer)
            try:
                for span, mark in cursor.spans(until, netted=lost is None):
                    origin = Origin(cursor.history, span)
                    told += await self._span(log, tables, origin, mark, observer, groups, keys, limit)
            except FAILS_AGAIN as error:
                raise CursorExpired(
                    f"Changes that come after the cursor cannot be read ({error}): load again."
                ) from error
            # After all is read.
            if await log.horizon() >= cursor.span.last.xmin:
                raise CursorExpired("Changes that come after the cursor were deleted from the log: load again.")
            if len(told) > limit * max(len(groups), 1):
                raise CursorExpired("More rows were changed since than DJCRF_PG['REPLAY_LIMIT']: load again.")
            return told

    async def failed(self, seconds: float) -> Collection[str]:
        """The addresses of observers that something failed on so lately that a resync for it may have been lost.

        Args:
            seconds: For how long messages may have been lost.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._turn:
            await self._connected()
            assert self._session is not None
            return await failed_within(self._session, seconds + _TOLD)

    async def _connected(self) -> tuple[ChangeLog, Tables]:
        if self._session is None or self._session.is_closed():
            self._session = await Session.open(self._alias, "replay")
            self._log = self._tables = None
        if self._log is None or self._tables is None:
            self._log = await ChangeLog.open(self._session)
            self._tables = await Tables.open(self._alias, self._log)
        return self._log, self._tables

    async def _keys(self, log: ChangeLog, tables: Tables, observer: Observed) -> dict[int, Sequence[str]]:
        """The columns of the keys of the tables that an observer is told of, by oid."""
        quote = connections[self._alias].ops.quote_name
        columns = tables.key_columns(observer)
        oids = await log.oids([quote(table) for table in columns])
        return {oids[name]: columns[table] for table in columns if (name := quote(table)) in oids}

    async def _span(
        self,
        log: ChangeLog,
        tables: Tables,
        origin: Origin,
        mark: Mark | None,
        observer: Observed,
        groups: Collection[str],
        keys: Mapping[int, Sequence[str]],
        limit: int,
    ) -> list[Replayed]:
        span = origin.span
        if observer.every_change:
            span = span._replace(netted=False)
            origin = origin._replace(span=span)
        changes = await log.unseen(span, keys, limit, get_settings().MASS_CHANGE)
        if not changes:
            return []
        if span.netted:
            # One transaction to those who are told.
            latest = max(change.xid for change in changes)
            changes = [change._replace(xid=latest, writer=change.xid) for change in changes]
        lenient: set[int] = set()
        silent = frozenset(other for other in registry if other is not observer)
        cut = span.start > 0 or span.end is not None
        while True:
            router = await tables.router_for({change.relation for change in changes})
            find = partial(router.occurrences, changes, silent=silent, lenient=frozenset(lenient), cut=cut)
            try:
                occurrences = await self._with_database(find)
                break
            except StaleRelation as error:
                await tables.look_again(error.oid)
                lenient.add(error.oid)
        mine = [each for each in occurrences if each.observer is observer]
        items, failed = await self._with_database(partial(events, mine, _Groups(groups), origin))
        told = [(group, line, origin) for _, group, line in items]
        if mark is not None:
            told = [each for each in told if _is_news(each, mark)]
        return [*_resyncs_last(told), *_of_failures(failed, observer, origin)]

    async def _with_database(self, work: Any) -> Any:
        """Run work whose user code may find its database gone, several times; it forgives that the last time.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: Ours is gone with it.
        """
        if self._worker is None:
            self._worker = Worker(f"djcrf_pg-replay-{self._alias}")
        backoff = Backoff(0.1, 1.0)
        for _ in range(_TRIES):
            try:
                return await self._worker.run(work)
            except (OperationalError, InterfaceError):
                assert self._session is not None
                await self._session.fetchval("SELECT 1")
                await asyncio.sleep(backoff.delay())
        return await self._worker.run(partial(work, forgiving=True))

    async def close(self) -> None:
        """Close the connection, and end the thread."""
        async with self._turn:
            session, self._session = self._session, None
            worker, self._worker = self._worker, None
        if session is not None:
            await session.close()
        if worker is not None:
            await worker.close()


def _is_news(replayed: Replayed, mark: Mark) -> bool:
    """Whether an event comes after a mark; a resync does, for it was sent after events that follow it in the log."""
    group, line, _ = replayed
    event = Event(*json.loads(line))
    return event.action == RESYNC or Mark.of(event.change_id, event.row, event.action, group) > mark


def _resyncs_last(told: Iterable[Replayed]) -> list[Replayed]:
    """As they are sent: a resync behind what it makes void; one of each reason."""
    events = [each for each in told if each[0] != EVERYBODY]
    resyncs = {Event(*json.loads(each[1])).body["reason"]: each for each in told if each[0] == EVERYBODY}
    return [*events, *resyncs.values()]


def _of_failures(failed: Iterable[Failed], observer: Observed, origin: Origin) -> list[Replayed]:
    """One resync where groups or serializers failed."""
    for each in failed:
        return [(EVERYBODY, resync_event(observer, each.change.id).encode(), origin)]
    return []
