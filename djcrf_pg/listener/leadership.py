"""One term of a leader: when to read, to save the cursor and to sleep. What becomes of a read is :mod:`.dispatch`."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from djcrf_pg.changelog.cursor import Position
from djcrf_pg.changelog.reader import CONNECTION_ERRORS, ChangeLog, Piece, Taken
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.predecessors import Predecessors
from djcrf_pg.delivery.protocol import BEAT, History, Outbound
from djcrf_pg.delivery.streams import Streams
from djcrf_pg.exceptions import LeadershipLost
from djcrf_pg.listener.dispatch import PART, Dispatch, Host
from djcrf_pg.listener.doorbell import BUSY, LINGER, LONGEST_REST, LOOK, REST, Bell, Doze
from djcrf_pg.listener.election import LEASE
from djcrf_pg.listener.session import Session
from djcrf_pg.listener.tables import Tables
from djcrf_pg.observations import LookFailed, PruneFailed, emit
from djcrf_pg.registry import registry

#: Seconds between saves of the cursor. A delivery that comes alone is followed by one at once, and the last of many
#: within this time, which is what servers leave a loop between SIGTERM and the end: uvicorn, for one, raises the signal
#: again then, and cancels no task.
_SAVE = 0.1

#: Seconds between signs of life while a delivery lasts; and between prunings, each of which looks after tables too.
_SIGN, _PRUNE = 1.0, 60.0

#: Seconds that the last heartbeat and the last save may take, and the heartbeat alone.
_FAREWELL, _LAST_BEAT = 2.0, 1.0

#: Rows that one DELETE of the retention takes: short enough to be in nobody's way.
_PRUNE_ROWS = 5_000

#: Rows that one trim takes, which ends before that when it has taken long.
_TRIM_ROWS = 100_000

#: Sessions in a row that may fail where they began. With the pauses between them they take ten seconds or more: what
#: passes by itself, such as a want of memory, must cost nobody a resync.
FAILED_SESSIONS = 7


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
        tables: Tables,
        taken: Taken,
        history: History,
    ) -> None:
        self._listener = listener
        self._session = session
        self._log = log
        self._bell = bell
        self._term = taken.term
        self._position = taken.position
        self._unsaved = self._pruning = self._beats_next = False
        self._saved_at = self._pruned_at = self._trimmed_at = self._looked_at = time.monotonic()
        self._may_look = self._may_prune = True
        settings = get_settings()
        limits = {"max_events": settings.ENVELOPE_EVENTS, "max_bytes": settings.ENVELOPE_BYTES}
        outbound = Outbound(history, taken.term, taken.position, **limits)
        self._streams = Streams(outbound, history, self._leads, listener.pause, registry.addresses)
        self._predecessors = Predecessors(taken.term, log.heard, tables.observers)
        self._mode = get_settings().NOTIFY
        self._unrung = False
        self._ahead: asyncio.Task[Piece] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._dispatch = Dispatch(listener, session, log, tables, self._streams, self._predecessors, self._alive)

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
                self._position = await self._dispatch.give_up(self._position, FAILED_SESSIONS, obstacle)
                self._streams.advance(self._position)
                self._unsaved = True
                await self._save()
            await self._look()
            await self._dispatch.begin()
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
                if self._position.target is None and len(changes) < PART:
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
            if self._unsaved or self._dispatch.owes:
                patience = min(patience, max(self._saved_at + _SAVE - time.monotonic(), 0.0))
            if self._pruning:
                patience = min(patience, _SIGN)
            if (pause := self._dispatch.wait(time.monotonic())) is not None:
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
        if self._bell.take_request() or self._dispatch.may_retry:
            await self._dispatch.retry()
        self._beats_next |= self._bell.take_beat_request()
        piece = await (self._ahead or self._read(self._position))
        # The rest of a window does not change: the next piece comes while events are made of this one.
        self._ahead = None if piece.position.target is None else asyncio.create_task(self._read(piece.position))
        if piece.changes:
            cut = self._position.target is not None or piece.position.target is not None
            await self._dispatch.deliver(self._position, piece, cut=cut)
            self._unsaved = True
        self._position = piece.position
        self._streams.advance(piece.position)
        await self._dispatch.send_resyncs()
        await self._dispatch.compare(piece.position)
        if piece.position.target is None:
            self._listener.caught_up()
            if self._beats_next:
                self._beats_next = not await self._streams.beat()
        now = time.monotonic()
        if (self._unsaved or self._dispatch.owes) and now - self._saved_at >= _SAVE:
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
    async def _alive(self) -> AsyncIterator[None]:
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

    async def _save(self, *, last: bool = False) -> None:
        if self._unsaved or self._dispatch.owes:
            if last or not self._streams.strain:  # else the next regular one says so
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_BEAT if last else None):
                        await self._streams.beat()
            position = self._streams.savable
            await self._log.save(position, self._term)
            await self._note_saved(position)

    async def _note_saved(self, position: Position) -> None:
        await self._dispatch.saved(position)
        # What the layer has not taken waits for the next regular heartbeat.
        behind = position != self._position
        self._unsaved, self._saved_at = behind, time.monotonic() + (BEAT - _SAVE if behind else 0.0)

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
            await self._dispatch.forget_left()
            self._pruning = more or pruned == _PRUNE_ROWS
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as failure:
            error = failure
        if self._may_prune and error is not None:
            emit(PruneFailed(alias=self._listener.alias, error=str(error)))
        self._may_prune = error is None

    async def _trim(self) -> bool:
        """Keep the caps of the log; whether there is more to do."""
        self._trimmed_at = time.monotonic()
        more = await self._log.trim(_TRIM_ROWS)
        if more:
            self._trimmed_at -= _PRUNE
        return more
