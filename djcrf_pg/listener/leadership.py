"""One term of a leader: read, deliver, advance; sleep when there is nothing to read."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import asyncpg
from django.db import InterfaceError, OperationalError

from djcrf_pg.changelog.change import UNWRITABLE, Change
from djcrf_pg.changelog.cursor import Position
from djcrf_pg.changelog.decode import StaleRelation
from djcrf_pg.changelog.net import UNREADABLE, RowChange
from djcrf_pg.changelog.reader import FAILS_AGAIN, ChangeLog, Piece, Taken
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import NEVER_SEEN
from djcrf_pg.delivery.interest import EVERYTHING, Interest
from djcrf_pg.delivery.predecessors import Predecessors
from djcrf_pg.delivery.protocol import History, Item, Outbound, Point
from djcrf_pg.delivery.streams import Streams
from djcrf_pg.exceptions import LeadershipLost
from djcrf_pg.listener.catalog import Catalog
from djcrf_pg.listener.connection import CONNECTION_ERRORS
from djcrf_pg.listener.doorbell import BUSY, LINGER, LONGEST_REST, LOOK, REST, Bell, Doze
from djcrf_pg.listener.failures import Asked, Failed, Failures, again
from djcrf_pg.listener.gate import HOLDER_CLASS_ID
from djcrf_pg.listener.leader import LEASE
from djcrf_pg.listener.occurrence import Occurrence
from djcrf_pg.listener.session import Session
from djcrf_pg.listener.telling import events
from djcrf_pg.observations import ChangesGivenUp, DatabaseFailed, LookFailed, PruneFailed, emit, text_of
from djcrf_pg.registry import Observed, registry

#: Seconds between saves of the cursor. A delivery that comes alone is followed by one at once, and the last of many
#: within this time, which is what servers leave a loop between SIGTERM and the end: uvicorn, for one, raises the signal
#: again then, and cancels no task.
_SAVE = 0.1

#: Seconds between signs of life while a delivery lasts; and between prunings, each of which looks after tables too.
_SIGN, _PRUNE = 1.0, 60.0

#: Seconds without a session after which what a process has published is deleted.
_LEFT = 60.0

#: Seconds that the last heartbeat and the last save may take, and the heartbeat alone.
_FAREWELL, _LAST_BEAT = 2.0, 1.0

#: Rows that one DELETE of the retention takes: short enough to be in nobody's way.
_PRUNE_ROWS = 5_000

#: Rows that one trim takes, which ends before that when it has taken long.
_TRIM_ROWS = 100_000

#: Events are made and sent in parts of so many row changes: those of a part are made while the last part is sent.
_PART = 1_000

#: Sessions in a row that may fail where they began. With the pauses between them they take ten seconds or more: what
#: passes by itself, such as a want of memory, is to have nobody load again.
FAILED_SESSIONS = 7

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


class Obstacle:
    """Counts the sessions that fail where they began, one after the other: a fault that comes back is passed by.

    A lost connection is no such failure, whatever was asked when it was lost.
    """

    def __init__(self) -> None:
        self._began: Position | None = None
        self._error: Exception | None = None
        self._times = 0

    def met_at(self, position: Position) -> Exception | None:
        """Note where a session begins.

        Returns:
            The last error of :data:`FAILED_SESSIONS` in a row that began here; None where there were fewer.
        """
        if position != self._began:
            self._began, self._times = position, 0
        if self._times < FAILED_SESSIONS:
            return None
        self._times = 0  # should passing by fail too
        return self._error

    def failed(self, error: Exception) -> None:
        """Note what the session has ended in."""
        self._error = error
        self._times += 1

    def passed(self) -> None:
        """Note that everything has been read."""
        self._times = 0


class Leadership:
    """One term: read, deliver, advance; sleep when there is nothing to read."""

    def __init__(
        self,
        listener: Host,
        session: Session,
        log: ChangeLog,
        bell: Bell,
        catalog: Catalog,
        taken: Taken,
        history: History,
    ) -> None:
        self._listener = listener
        self._session = session
        self._log = log
        self._bell = bell
        self._term = taken.term
        self._position = taken.position
        self._unsaved = self._pruning = False
        self._saved_at = self._pruned_at = self._trimmed_at = self._looked_at = time.monotonic()
        self._may_look = self._may_prune = True
        self._catalog = catalog
        settings = get_settings()
        limits = {"max_events": settings.ENVELOPE_EVENTS, "max_bytes": settings.ENVELOPE_BYTES}
        outbound = Outbound(history, taken.term, taken.position, **limits)
        self._streams = Streams(outbound, history, self._leads, listener.pause, registry.addresses)
        self._predecessors = Predecessors(taken.term, log.heard, catalog.observers)
        self._mode = get_settings().NOTIFY
        self._unrung = False
        self._ahead: asyncio.Task[Piece] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._may_ask = False
        #: What is settled when the cursor was saved at a position that covers a point.
        self._unsettled: list[tuple[Point, Callable[[], Awaitable[None]]]] = []
        self._failures = Failures(session)
        self._known: tuple[int, Interest] | None = None
        self._silent: tuple[Interest, int, frozenset[Observed]] | None = None
        self._left: dict[int, float] = {}

    async def run(self, obstacle: Exception | None = None) -> None:
        """Lead until asked to stop, or until the session or the lead is lost.

        Args:
            obstacle: What nobody gets past here: what may have changed is given up first.
        """
        heart = self._heart = asyncio.create_task(self._streams.run(), name="djcrf_pg heartbeats")
        heart.add_done_callback(lambda _: self._bell.ring())
        predecessors = asyncio.create_task(self._predecessors.run(), name="djcrf_pg predecessors")
        begun = asyncio.create_task(self._streams.begun())
        begun.add_done_callback(lambda task: None if task.cancelled() else self._listener.leading())
        try:
            if obstacle is not None:
                await self._give_up(obstacle)
            await self._look()
            await self._failures.begin()
            await self._retry()
            with suppress(asyncpg.InsufficientPrivilegeError):  # writers ring where nothing can be prepared
                await self._log.set_rings(self._mode in ("elide", "always"))
            if self._mode == "auto":
                self._mode = "never" if await self._log.prepares() else "elide"
            if self._mode == "never":
                await self._poll()
            while not self._listener.stopping:
                await self._awake()
                await self._asleep()
        finally:
            others = [heart, begun, predecessors, *([] if self._ahead is None else [self._ahead])]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            # Also when cancelled; what cannot be saved is sent again, so a failure here is no loss.
            with suppress(*CONNECTION_ERRORS, LeadershipLost):
                async with asyncio.timeout(_FAREWELL):
                    await self._save(last=True)

    async def _awake(self) -> None:
        """Read until nothing has come for a moment. Nobody needs to ring meanwhile."""
        busy = time.monotonic()
        while not self._listener.stopping:
            begun = time.monotonic()
            if changes := (await self._step()).changes:
                busy = time.monotonic()
                if self._position.target is None and len(changes) < _PART:
                    await asyncio.sleep(min(REST * (busy - begun), LONGEST_REST))
            elif time.monotonic() - busy >= LINGER:
                return
            else:
                await asyncio.sleep(LOOK)

    async def _asleep(self) -> None:
        """Read whenever it rings; return when it rings so often that it is better to stay awake."""
        if not self._streams.strain:
            await self._streams.beat()
        await self._log.fall_asleep(self._streams.savable, self._term)
        await self._note_saved(self._streams.savable)
        doze, busy = Doze(), 0
        while not self._listener.stopping:
            self._bell.muffle()
            piece = await self._step()
            while self._position.target is not None:
                piece = await self._step()
            # What counts is the position, not the snapshot of the last read: a window's target may be older, and what
            # committed between the two was not read.
            doze.saw(self._position.last)
            busy = busy + 1 if piece.changes and self._bell.rung else 0
            if busy >= BUSY and self._mode == "elide":
                await self._log.set_flag(1)
                return
            if self._unrung or (piece.changes and not self._bell.rung):
                self._unrung = await self._log.is_queue_full()
            patience = doze.patience(get_settings().POLL_INTERVAL if self._unrung else get_settings().SAFETY_POLL)
            if self._unsaved:
                patience = min(patience, max(self._saved_at + _SAVE - time.monotonic(), 0.0))
            if self._pruning:
                patience = min(patience, _SIGN)
            if (pause := self._failures.wait(time.monotonic())) is not None:
                patience = min(patience, pause)
            await self._bell.wait(patience)

    async def _poll(self) -> None:
        """Read again and again: for two-phase commit, which forbids NOTIFY."""
        await self._log.set_flag(2)
        while not self._listener.stopping:
            self._bell.muffle()
            if not (await self._step()).changes:
                await self._bell.wait(get_settings().POLL_INTERVAL)

    async def _step(self) -> Piece:
        """Read a piece, send it, advance."""
        if self._heart is not None and self._heart.done():
            self._heart.result()  # without it nobody would notice what the layer drops
        if self._bell.take_request() or self._may_ask:
            await self._retry()
        piece = await (self._ahead or self._read(self._position))
        # The rest of a window does not change: the next piece comes while events are made of this one.
        self._ahead = None if piece.position.target is None else asyncio.create_task(self._read(piece.position))
        if piece.changes:
            cut = self._position.target is not None or piece.position.target is not None
            interest = await self._interest(piece)
            await self._deliver(self._tell(piece.changes, piece.position, interest, cut=cut))
            self._predecessors.note({change.relation for change in piece.changes})
            self._unsaved = True
        self._position = piece.position
        self._streams.advance(piece.position)
        await self._send_failed()
        if piece.position.target is None:
            self._listener.caught_up()
        now = time.monotonic()
        if self._unsaved and now - self._saved_at >= _SAVE:
            await self._save()
        if now - self._looked_at >= _PRUNE:
            await self._look()
        if self._pruning or now - self._pruned_at >= _PRUNE:
            await self._prune()
        if piece.changes and piece.position.target is None and (strain := self._streams.strain):
            await self._listener.pause(strain)
        return piece

    async def _read(self, position: Position) -> Piece:
        settings = get_settings()
        return await self._log.read(position, settings.BATCH_SIZE, settings.MASS_CHANGE)

    async def _leads(self) -> bool:
        """Whether nobody else can lead: our session lives, by an answer that is not old."""
        if time.monotonic() - self._session.confirmed > LEASE:
            with suppress(*CONNECTION_ERRORS):
                await self._log.beat(self._term)
        return not self._session.is_closed() and time.monotonic() - self._session.confirmed <= LEASE

    @asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Give signs of life: whoever delivers for long saves nothing, and a standby might take it for frozen."""
        done = asyncio.Event()

        async def beat() -> None:
            with suppress(*CONNECTION_ERRORS, LeadershipLost):  # the sender asks for itself
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_SIGN):
                            await done.wait()
                        return
                    await self._log.beat(self._term)
                    # Nobody else may keep the caps: writers that are SERIALIZABLE do not.
                    if time.monotonic() - self._trimmed_at >= _PRUNE:
                        with suppress(asyncpg.PostgresError):  # said when it prunes
                            await self._trim()

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            done.set()
            await beating

    async def _deliver(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send something; when this returns, the channel layer has taken all."""
        async with self._beating():
            await sending

    async def _tell(self, changes: list[Change], reach: Position, interest: Interest, *, cut: bool) -> None:
        """Make events of changes and send them; of a window that is larger than a read, they may be a piece."""
        await self._send(await self._occurrences(changes, interest, cut), reach, interest)

    async def _send(self, told: list[Occurrence], reach: Position, interest: Interest = EVERYTHING) -> None:
        """Make events and send them; ``reach`` is up to where in the log what they say may lie."""
        sending: asyncio.Task[None] | None = None
        try:
            for start in range(0, len(told), _PART):
                items, failed = await self._events(told[start : start + _PART], interest)
                await self._failures.take(failed)
                if sending is not None:
                    await sending
                sending = asyncio.create_task(self._streams.deliver(items, reach))
            if sending is not None:
                await sending
        finally:
            if sending is not None and not sending.done():
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _occurrences(self, changes: list[Change], interest: Interest, cut: bool) -> list[Occurrence]:
        if any(change.is_of_a_look for change in changes):
            self._catalog.forget_all()
        as_it_is: set[int] = set()
        silent = self._unheard(interest)
        while True:
            router = await self._catalog.router_for({change.relation for change in changes})
            find = partial(router.occurrences, changes, silent=silent, lenient=frozenset(as_it_is), cut=cut)
            try:
                return await self._with_database(find, partial(find, forgiving=True))
            except StaleRelation as error:
                # The changes were read before, so what does not fit now either is deferred.
                await self._catalog.look_again(error.oid)
                as_it_is.add(error.oid)
            except CONNECTION_ERRORS:
                raise
            except Exception as error:
                # Foreseen faults are told row by row. This one would come back with each try.
                return await self._listener.in_thread(partial(router.surrender, changes, error))

    async def _give_up(self, error: Exception) -> None:
        """Have everybody load again whom the unread changes may concern, and go on behind them."""
        begun, now = self._position, datetime.now(UTC)
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
            told = [Occurrence(row, observer, resync=UNREADABLE) for observer in registry.on(*self._catalog.aliases)]
        names = ", ".join(sorted({occurrence.observer.label for occurrence in told})) or "nobody"
        alias, tries = self._listener.alias, FAILED_SESSIONS
        emit(ChangesGivenUp(alias=alias, observers=names, tries=tries, error=text_of(error)), error)
        await self._deliver(self._send(told, Position(target)))
        self._position, self._unsaved = Position(target), True
        self._streams.advance(self._position)
        await self._save()

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
            found = frozenset(observer for observer in registry if not interest.hears(observer.address))
            self._silent = interest, version, found
        return self._silent[2]

    async def _send_failed(self) -> None:
        """Have subscribers load again whose events failed."""
        if due := self._failures.due(time.monotonic()):
            reach = Position(await self._log.now())
            await self._deliver(self._streams.deliver(due, reach))
            self._settle_at(reach, partial(self._failures.sent, due))

    async def _retry(self) -> None:
        """Send some of the rows again that somebody asked for; where the database is gone, at the next request."""
        self._may_ask = False
        with suppress(*FAILS_AGAIN):  # they stay marked
            if asked := await self._failures.asked():
                found = await self._with_database(partial(again, asked, self._catalog.aliases), lambda: None)
                if found is not None:
                    reach = Position(await self._log.now())
                    await self._deliver(self._send(found, reach))
                    self._settle_at(reach, partial(self._settle, asked))

    async def _settle(self, asked: list[Asked]) -> None:
        with suppress(*FAILS_AGAIN):  # they stay marked, for the next request
            await self._failures.settle(asked)
            self._may_ask = True  # there may be more

    def _settle_at(self, reach: Position, work: Callable[[], Awaitable[None]]) -> None:
        """Note in the database that something was sent, when everybody knows that it was."""
        self._unsettled.append((Point.of(reach), work))
        self._unsaved = True

    async def _events(self, told: list[Occurrence], interest: Interest) -> tuple[list[Item], list[Failed]]:
        make = partial(events, told, interest)
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

    async def _save(self, *, last: bool = False) -> None:
        if self._unsaved:
            if last or not self._streams.strain:  # else the next regular one says so
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_BEAT if last else None):
                        await self._streams.beat()
            position = self._streams.savable
            await self._log.save(position, self._term)
            await self._note_saved(position)

    async def _note_saved(self, position: Position) -> None:
        point = Point.of(position)
        for reach, work in [each for each in self._unsettled if point.covers(each[0])]:
            self._unsettled.remove((reach, work))
            await work()
        self._unsaved = position != self._position or bool(self._unsettled)
        self._saved_at = time.monotonic()

    async def _look(self) -> None:
        """Look for changes that fired no trigger. What keeps us from it, such as a missing right, stops no event."""
        self._looked_at = time.monotonic()
        error: Exception | None = None
        try:
            if (may_look := await self._log.may_look()) and await self._log.look():
                self._bell.ring()  # there is something to read
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as failure:
            may_look, error = False, failure
        if self._may_look and not may_look:
            emit(LookFailed(alias=self._listener.alias, error=str(error or "no right to call the function")))
        self._may_look = may_look

    async def _prune(self) -> None:
        """Delete what is old or over the caps. What keeps us from it stops no event either."""
        self._pruned_at, self._pruning = time.monotonic(), False
        error: asyncpg.PostgresError | None = None
        try:
            pruned = await self._log.prune(self._position, get_settings().RETENTION, _PRUNE_ROWS)
            more = await self._trim()
            await self._forget_left()
            self._pruning = more or pruned == _PRUNE_ROWS
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as failure:
            error = failure
        if self._may_prune and error is not None:
            emit(PruneFailed(alias=self._listener.alias, error=str(error)))
        self._may_prune = error is None

    async def _forget_left(self) -> None:
        """Delete what processes have published whose sessions ended a while ago; others may be coming back."""
        if self._known is None:
            return
        now = time.monotonic()
        self._left = {holder: self._left.get(holder, now) for holder in await self._log.left(HOLDER_CLASS_ID)}
        if gone := [holder for holder, since in self._left.items() if now - since >= _LEFT]:
            await self._log.forget(gone)
            self._known = None

    async def _trim(self) -> bool:
        """Keep the caps of the log; whether there is more to do."""
        self._trimmed_at = time.monotonic()
        more = await self._log.trim(_TRIM_ROWS)
        if more:
            self._trimmed_at -= _PRUNE
        return more
