"""What a client has not seen: read from the log, told through the same routes and serializers.

A replay runs in the process of the subscription, which is live already: what commits after its moment waits in the
inbox. It makes the spans that a cursor leaves (:mod:`djcrf_pg.delivery.resume`), for one observer and the groups that
are subscribed to now.

When a server starts again, its clients come back at once, and most have the same last message. Those whose cursors are
in one span share a read: it is made for the groups of all of them, up to a moment after the last of them came, and each
is given what is behind its own mark.
"""

import asyncio
import contextvars
import dataclasses
import heapq
import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from operator import itemgetter
from typing import Any

import asyncpg
from django.db import InterfaceError, OperationalError, connections

from djcrf_pg.changelog.cursor import Snapshot, Span
from djcrf_pg.changelog.reader import FAILS_AGAIN, ChangeLog
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import RESYNC, Event
from djcrf_pg.delivery.healing import Replayed
from djcrf_pg.delivery.inbox import Moment
from djcrf_pg.delivery.protocol import EVERYBODY, Origin
from djcrf_pg.delivery.resume import LAST, Cursor, Mark
from djcrf_pg.diagnosis import SUBSCRIBER, denied
from djcrf_pg.exceptions import ConfigurationError, CursorExpired
from djcrf_pg.listener.failures import PAUSE, failed_within
from djcrf_pg.listener.session import Session
from djcrf_pg.listener.tables import Tables
from djcrf_pg.listener.worker import Worker
from djcrf_pg.registry import Observed, registry
from djcrf_pg.routing.events import events
from djcrf_pg.routing.failed import Failed, resync_event

#: Seconds for which a connection is kept that nobody uses.
_IDLE = 60.0

#: Times ``REPLAY_LIMIT`` that are read for clients that share a read, at most.
_SHARES = 10

#: Tries of work whose user code finds its database gone while ours is there.
_TRIES = 3

#: Seconds within which subscribers receive resyncs for what groups or serializers failed on, and more.
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


class _Batch:
    """Clients that share a read.

    Attributes:
        cursors: Theirs, in one span.
        groups: Those that any of them receives.
        task: What reads.
    """

    task: asyncio.Task[tuple["_Told", Moment]]

    def __init__(self, observer: Observed) -> None:
        self.observer = observer
        self.cursors: list[Cursor] = []
        self.groups: set[str] = set()


class _Told:
    """What was read for a batch.

    Args:
        spans: The events of each span.
        first: The first mark of those who share it, if the first span has those behind marks.
    """

    def __init__(self, spans: Sequence[Sequence[Replayed]], first: Mark | None) -> None:
        #: Group to its events, each with its place among all, and its mark if it is of the span that some have seen.
        self._lanes: dict[str, list[tuple[int, Mark | None, Replayed]]] = {}
        place = 0
        for number, told in enumerate(spans):
            for each in told:
                mark = (_mark_of(each) or LAST) if first is not None and number == 0 else None
                self._lanes.setdefault(each[0], []).append((place, mark, each))
                place += 1

    def of(self, mark: Mark | None, groups: Collection[str], limit: int) -> list[Replayed]:
        """What comes behind a mark, through some groups.

        Raises:
            CursorExpired: It is more than the limit, for each group.
        """
        lanes = [self._lanes[group] for group in {EVERYBODY, *groups} if group in self._lanes]
        found = [
            each for place, its, each in heapq.merge(*lanes, key=itemgetter(0)) if its is None or _is_behind(its, mark)
        ]
        if len(found) > limit * max(len(groups), 1):
            raise CursorExpired("More rows were changed since than DJCRF_PG['REPLAY_LIMIT']: reload.")
        return found


def _is_behind(its: Mark, mark: Mark | None) -> bool:
    """Whether an event of the span of a cursor comes after its mark; without one all of the span was seen."""
    return mark is not None and its > mark


class Replays:
    """Reads the log of one database for those who resume, over one connection of this event loop.

    Args:
        alias: The Django database alias.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._turn = asyncio.Lock()
        self._batches: dict[Any, _Batch] = {}
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._log: ChangeLog | None = None
        self._tables: Tables | None = None
        self._worker: Worker | None = None

    async def resume(
        self, cursor: Cursor, observer: Observed, groups: Collection[str]
    ) -> tuple[list[Replayed], Moment]:
        """The events that a client's cursor has not seen: one for each row, ``REPLAY_LIMIT`` rows at most.

        Args:
            cursor: The cursor.
            observer: The observer.
            groups: Those of its groups that receive them.

        Returns:
            The events, and the moment up to which they reach; what comes after it is live.

        Raises:
            CursorExpired: They are not to be had any more.
            ConfigurationError: The role may not read the log, or a pooler gives no session.
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        key = (observer.address, cursor.history, cursor.span)
        if (batch := self._batches.get(key)) is None:
            batch = self._batches[key] = _Batch(observer)
            # Nothing of the context of whoever came first: the bodies are for others too.
            batch.task = asyncio.create_task(self._resume(key, batch), context=contextvars.Context())
        batch.cursors.append(cursor)
        batch.groups.update(groups)
        # Whoever is cancelled leaves the others what they wait for.
        told, moment = await asyncio.shield(batch.task)
        return told.of(cursor.mark, groups, get_settings().REPLAY_LIMIT), moment

    async def _resume(self, key: Any, batch: "_Batch") -> tuple["_Told", Moment]:
        async with self._use():
            del self._batches[key]  # whoever comes now has a moment of its own
            log, _ = await self._connected()
            moment = Moment(*await log.moment())
            first = min((cursor.mark for cursor in batch.cursors if cursor.mark is not None), default=None)
            cursor = dataclasses.replace(batch.cursors[0], mark=first)
            limit = get_settings().REPLAY_LIMIT * min(len(batch.cursors), _SHARES)
            spans = cursor.spans(moment.snapshot)
            return _Told(await self._read(cursor, spans, batch.observer, batch.groups, limit), first), moment

    async def replay(
        self, cursor: Cursor, until: Snapshot, observer: Observed, groups: Collection[str], *, lost: int
    ) -> list[Replayed]:
        """Events that were lost on their way: each change, as it would have come.

        Args:
            cursor: What has been handed over.
            until: The snapshot up to which they reach.
            observer: The observer.
            groups: Those of its groups that receive them.
            lost: So many changes at most.

        Raises:
            CursorExpired: They are not to be had any more.
            ConfigurationError: The role may not read the log, or a pooler gives no session.
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._use():
            spans = cursor.spans(until, netted=False)
            return [each for told in await self._read(cursor, spans, observer, groups, lost) for each in told]

    async def _read(
        self,
        cursor: Cursor,
        spans: Iterable[tuple[Span, Mark | None]],
        observer: Observed,
        groups: Collection[str],
        limit: int,
    ) -> list[list[Replayed]]:
        """The events of spans that follow a cursor, of each by itself."""
        # Of those with one identity the newest counts, and it makes the same.
        observer = registry.at(observer.address) or observer
        log, tables = await self._connected()
        keys = await self._keys(log, tables, observer)
        told = []
        try:
            for span, mark in spans:
                origin = Origin(cursor.history, span)
                told.append(await self._span(log, tables, origin, mark, observer, groups, keys, limit))
        except FAILS_AGAIN as error:
            raise CursorExpired(f"Changes that come after the cursor cannot be read ({error}): reload.") from error
        # After all is read.
        if await log.horizon() >= cursor.span.last.xmin:
            raise CursorExpired("Changes that come after the cursor were deleted from the log: reload.")
        return told

    async def failed(self, seconds: float) -> Collection[str]:
        """The addresses of observers that something failed on so lately that a resync for it may have been lost.

        Args:
            seconds: For how long messages may have been lost.

        Raises:
            ConfigurationError: The role may not know, or a pooler gives no session.
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._use():
            await self._connected()
            assert self._session is not None
            return await failed_within(self._session, seconds + _TOLD)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[None]:
        """Have the connection, and close it when nobody has had it for a while."""
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                yield
            except asyncpg.InsufficientPrivilegeError as error:
                role = self._session.role if self._session else None
                raise ConfigurationError(denied(error, self._alias, role, SUBSCRIBER)) from error
            finally:
                self._idle = asyncio.get_running_loop().call_later(_IDLE, self._close_idle)

    def _close_idle(self) -> None:
        if not self._turn.locked():
            self._closing = asyncio.create_task(self.close(), context=contextvars.Context())

    async def _connected(self) -> tuple[ChangeLog, Tables]:
        if self._session is None or self._session.is_closed():
            self._session = await Session.open(self._alias, "replay")
            self._log = self._tables = None
        if self._log is None or self._tables is None:
            self._log = await ChangeLog.open(self._session, self._alias)
            self._tables = await Tables.open(self._alias, self._log)
        return self._log, self._tables

    async def _keys(self, log: ChangeLog, tables: Tables, observer: Observed) -> dict[int, Sequence[str]]:
        """The columns of the keys of the tables that an observer is for, by oid."""
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
            # One transaction to those who receive it.
            latest = max(change.xid for change in changes)
            changes = [change._replace(xid=latest, writer=change.xid) for change in changes]
        silent = frozenset(other for other in registry if other is not observer)
        cut = span.start > 0 or span.end is not None
        occurrences = await tables.occurrences(changes, self._with_database, silent=silent, cut=cut)
        mine = [each for each in occurrences if each.observer is observer]
        items, failed = await self._with_database(partial(events, mine, _Groups(groups), origin))
        told = [(group, line, origin) for _, group, line in items]
        if mark is not None:
            told = [each for each in told if (its := _mark_of(each)) is None or its > mark]
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
        """Close the connection, and end the thread; whoever comes then has others."""
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            session, self._session = self._session, None
            worker, self._worker = self._worker, None
        if session is not None:
            await session.close()
        if worker is not None:
            await worker.close()


def _mark_of(replayed: Replayed) -> Mark | None:
    """The mark of an event; a resync has none, for it was sent after events that follow it in the log."""
    group, line, _ = replayed
    event = Event(*json.loads(line))
    return None if event.action == RESYNC else Mark.of_event(event, group)


def _resyncs_last(told: Iterable[Replayed]) -> list[Replayed]:
    """As they are sent: a resync behind what it makes void; one of each reason."""
    events = [each for each in told if each[0] != EVERYBODY]
    resyncs = {Event(*json.loads(each[1])).body["reason"]: each for each in told if each[0] == EVERYBODY}
    return [*events, *resyncs.values()]


def _of_failures(failed: Sequence[Failed], observer: Observed, origin: Origin) -> list[Replayed]:
    """One resync for each group for which groups or serializers failed, or for all."""
    found: dict[str, Replayed] = {}
    for each in failed:
        line = resync_event(observer, each.change.id).encode()
        for group in [EVERYBODY] if each.groups is None else each.groups:
            found.setdefault(group, (group, line, origin))
    return [found[EVERYBODY]] if EVERYBODY in found else list(found.values())
