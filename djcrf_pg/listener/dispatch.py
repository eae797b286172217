"""What a leader does with what it has read: it routes it, has user code make events, and sends them.

:meth:`Dispatch.deliver` is the way of a change. Beside it are the resyncs that stand for what failed, rows that
somebody wants sent again, and what is given up because nobody gets past it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

import asyncpg
from django.db import InterfaceError, OperationalError

from djcrf_pg.changelog.change import UNWRITABLE, Change
from djcrf_pg.changelog.cursor import Position, Span
from djcrf_pg.changelog.net import UNREADABLE, RowChange
from djcrf_pg.changelog.reader import CONNECTION_ERRORS, FAILS_AGAIN, ChangeLog, Piece
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import NEVER_SEEN
from djcrf_pg.delivery.interest import EVERYTHING, Interest
from djcrf_pg.delivery.predecessors import Predecessors
from djcrf_pg.delivery.protocol import Item, settles
from djcrf_pg.delivery.streams import Streams
from djcrf_pg.exceptions import LeadershipLost
from djcrf_pg.listener.failures import Asked, Failures, again
from djcrf_pg.listener.gate import HOLDER_CLASS_ID
from djcrf_pg.listener.session import Session
from djcrf_pg.listener.tables import Find, Tables
from djcrf_pg.observations import ChangesGivenUp, DatabaseFailed, emit, text_of
from djcrf_pg.registry import Observed, registry
from djcrf_pg.routing.events import events
from djcrf_pg.routing.failed import Failed
from djcrf_pg.routing.routes import Occurrence
from djcrf_pg.shadow.comparison import Comparison, made_by_triggers

#: Events are made and sent in parts of so many row changes: those of a part are made while the last part is sent.
PART = 1_000

#: Seconds without a session after which what a process has published is deleted.
_LEFT = 60.0

#: Tries of a part whose user code finds its database gone while ours is there.
_TRIES = 5

T = TypeVar("T")


class Host(Protocol):
    """The listener that leads."""

    alias: str

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""

    def leading(self) -> None:
        """Note that subscribers receive what is sent."""

    def caught_up(self) -> None:
        """Note that everything that was there at the start has been sent."""

    async def pause(self, seconds: float) -> bool:
        """Sleep, but no longer than until it is asked to stop; whether it was."""
        ...

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run synchronous work, user code above all, in the listener's thread."""
        ...


class Dispatch:
    """Delivers what one leader reads.

    Args:
        listener: The listener that leads.
        session: Its session.
        log: The change log.
        tables: What it knows of tables.
        streams: Where events go.
        predecessors: Who cannot read what is in the streams.
        alive: Gives signs of life for as long as it is entered: whoever delivers for long saves nothing, and a standby
            might take it for frozen.
    """

    def __init__(
        self,
        listener: Host,
        session: Session,
        log: ChangeLog,
        tables: Tables,
        streams: Streams,
        predecessors: Predecessors,
        alive: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._listener = listener
        self._session = session
        self._log = log
        self._tables = tables
        self._streams = streams
        self._predecessors = predecessors
        self._alive = alive
        self._failures = Failures(session)
        self._comparison = Comparison(session, listener.alias)
        self._shadows = (-1, False)
        self._may_ask = False
        #: What is to be settled, with its reach.
        self._unsettled: list[tuple[Position, Callable[[], Awaitable[None]]]] = []
        self._known: tuple[int, Interest] | None = None
        self._silent: tuple[Interest, int, frozenset[Observed]] | None = None
        self._left: dict[int, float] = {}

    async def begin(self) -> None:
        """Take over what the former leader has left."""
        await self._failures.begin()
        await self.retry()

    async def deliver(self, begin: Position, piece: Piece, *, cut: bool) -> None:
        """Make events of changes and send them; when this returns, the channel layer has them.

        Args:
            begin: Where the read went on.
            piece: What was read.
            cut: It is a piece of a window that is larger than a read.
        """
        async with self._alive():
            interest = await self._interest(piece)
            told = await self._occurrences(piece.changes, interest, cut)
            await self._send(told, piece.position, interest, Span.between(begin, piece.position))
        self._predecessors.note({change.relation for change in piece.changes})

    async def _send(
        self, told: list[Occurrence], reach: Position, interest: Interest = EVERYTHING, span: Span | None = None
    ) -> None:
        """Make events and send them; see :meth:`Streams.deliver` for ``reach`` and ``span``."""
        span = span or self._streams.beside
        told = await self._aside(told, interest, span)
        sending: asyncio.Task[None] | None = None
        try:
            for start in range(0, len(told), PART):
                items, failed = await self._events(told[start : start + PART], interest, span)
                await self._failures.take(failed)
                if sending is not None:
                    await sending
                sending = asyncio.create_task(self._streams.deliver(items, reach, span))
            if sending is not None:
                await sending
        finally:
            if sending is not None and not sending.done():
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _aside(self, told: list[Occurrence], interest: Interest, span: Span) -> list[Occurrence]:
        """Note what shadowed observers would send. What is left to send is of the others; and of those that another
        process, with the code that follows in a deploy, has subscribers of.
        """
        if not self._has_shadows:
            return told
        shadowed = [occurrence for occurrence in told if occurrence.observer.is_shadow]
        for start in range(0, len(shadowed), PART):
            make = partial(made_by_triggers, shadowed[start : start + PART], self._streams.origin(span))
            await self._comparison.note(await self._with_database(make, partial(make, forgiving=True)))
        return [each for each in told if not each.observer.is_shadow or interest.hears(each.observer.address)]

    async def compare(self, position: Position) -> None:
        """Compare what shadowed observers would have sent with what was sent by signals.

        Args:
            position: Up to where the log was delivered.
        """
        if position.target is None and self._has_shadows:
            await self._comparison.compare(position.last)

    @property
    def _has_shadows(self) -> bool:
        if self._shadows[0] != (version := registry.version):
            self._shadows = version, any(observer.is_shadow for observer in registry)
        return self._shadows[1]

    async def _occurrences(self, changes: list[Change], interest: Interest, cut: bool) -> list[Occurrence]:
        if any(change.is_of_a_look for change in changes):
            self._tables.forget_all()
        silent = self._unheard(interest)

        async def run(find: Find) -> list[Occurrence]:
            return await self._with_database(find, partial(find, forgiving=True))

        try:
            return await self._tables.occurrences(changes, run, silent=silent, cut=cut)
        except (*CONNECTION_ERRORS, LeadershipLost):
            raise
        except Exception as error:
            # Foreseen faults are found row by row. This one would come back with each try.
            router = await self._tables.router_for({change.relation for change in changes})
            return await self._listener.in_thread(partial(router.surrender, changes, error))

    async def give_up(self, begun: Position, tries: int, error: Exception) -> Position:
        """Send everybody a resync whom the unread changes may concern.

        Args:
            begun: Where nobody gets past.
            tries: How often it was tried.
            error: What came of the last one.

        Returns:
            The position behind these changes.
        """
        now = datetime.now(UTC)
        target = begun.target or await self._log.now()
        try:
            await self._log.adopt()
            written = await self._log.written(begun, target)
            # News to all subscribers, whichever of the transactions they know of.
            lost = [Change(id, NEVER_SEEN, oid, UNWRITABLE, 1, None, None, None, now) for oid, id in written.items()]
            told = await self._occurrences(lost, EVERYTHING, cut=False)
            self._predecessors.note(written)
        except Exception:
            if self._session.is_closed():
                raise
            row = RowChange(0, NEVER_SEEN, 0, None, None, None, now)
            told = [Occurrence(row, observer, resync=UNREADABLE) for observer in registry.on(*self._tables.aliases)]
        names = ", ".join(sorted({occurrence.observer.label for occurrence in told})) or "nobody"
        emit(ChangesGivenUp(alias=self._listener.alias, observers=names, tries=tries, error=text_of(error)), error)
        async with self._alive():
            await self._send(told, Position(target))
        return Position(target)

    async def _interest(self, piece: Piece) -> Interest:
        """What somebody has, as of a read or later; where that cannot be had, everything."""
        if piece.interest is None:
            return EVERYTHING
        if self._known is None or self._known[0] != piece.interest:
            try:
                # After the version was read, with the changes: see the proof.
                self._known = piece.interest, Interest(await self._log.interest())
            except asyncpg.PostgresConnectionError:
                raise
            except asyncpg.PostgresError:
                return EVERYTHING
        return self._known[1]

    def _unheard(self, interest: Interest) -> frozenset[Observed]:
        """The observers that nobody has subscribed to."""
        if self._silent is None or self._silent[0] is not interest or self._silent[1] != registry.version:
            version = registry.version
            found = frozenset(
                observer for observer in registry if not (observer.is_shadow or interest.hears(observer.address))
            )
            self._silent = interest, version, found
        return self._silent[2]

    async def forget_left(self) -> None:
        """Delete what processes have published whose sessions ended a while ago; others may be coming back."""
        if self._known is None:
            return
        now = time.monotonic()
        self._left = {holder: self._left.get(holder, now) for holder in await self._log.left(HOLDER_CLASS_ID)}
        if gone := [holder for holder, since in self._left.items() if now - since >= _LEFT]:
            await self._log.forget(gone)
            self._known = None

    def wait(self, now: float) -> float | None:
        """Seconds until :meth:`send_resyncs` or :meth:`compare` has something to do; None where neither has."""
        waits = [self._failures.wait(now), self._comparison.wait(now) if self._has_shadows else None]
        return min((wait for wait in waits if wait is not None), default=None)

    async def send_resyncs(self) -> None:
        """Send resyncs to the subscribers whose events failed."""
        if due := self._failures.due(time.monotonic()):
            reach = Position(await self._log.now())
            async with self._alive():
                await self._streams.deliver(due, reach)
            self._settle_at(reach, partial(self._failures.sent, due))

    @property
    def may_retry(self) -> bool:
        """Whether there may be more to :meth:`retry`."""
        return self._may_ask

    async def retry(self) -> None:
        """Send some of the rows again that somebody asked for; where the database is gone, at the next request."""
        self._may_ask = False
        with suppress(*FAILS_AGAIN):  # they stay marked
            if asked := await self._failures.asked():
                found = await self._with_database(partial(again, asked, self._tables.aliases), lambda: None)
                if found is not None:
                    reach = Position(await self._log.now())
                    async with self._alive():
                        await self._send(found, reach)
                    self._settle_at(reach, partial(self._settle, asked))

    async def _settle(self, asked: list[Asked]) -> None:
        with suppress(*FAILS_AGAIN):  # they stay marked, for the next request
            await self._failures.settle(asked)
            self._may_ask = True  # there may be more

    def _settle_at(self, reach: Position, work: Callable[[], Awaitable[None]]) -> None:
        """Note in the database that something was sent, when everybody knows that it was."""
        self._unsettled.append((reach, work))

    @property
    def owes(self) -> bool:
        """Whether a save of the cursor is to settle something."""
        return bool(self._unsettled)

    async def saved(self, position: Position) -> None:
        """Settle what is to be when the cursor was saved at a position."""
        for reach, work in [each for each in self._unsettled if settles(position, each[0])]:
            self._unsettled.remove((reach, work))
            await work()

    async def _events(self, told: list[Occurrence], interest: Interest, span: Span) -> tuple[list[Item], list[Failed]]:
        make = partial(events, told, interest, self._streams.origin(span))
        return await self._with_database(make, partial(make, forgiving=True))

    async def _with_database(self, work: Callable[[], T], last: Callable[[], T]) -> T:
        """Run work that may find its database gone, several times; ``last`` is the last try.

        Ours may be gone with it, which ends this session here. If it is there after some tries, the fault is theirs,
        and others must not wait for ever.
        """
        backoff = Backoff(0.1, 2.0)
        for number in range(1, _TRIES):
            try:
                return await self._listener.in_thread(work)
            except (OperationalError, InterfaceError) as error:
                delay = backoff.delay()
                emit(DatabaseFailed(alias=self._listener.alias, error=str(error).strip(), number=number, delay=delay))
                if await self._listener.pause(delay):
                    raise LeadershipLost("it is asked to stop, and user code's database is gone") from error
                await self._session.fetchval("SELECT 1")
        return await self._listener.in_thread(last)
