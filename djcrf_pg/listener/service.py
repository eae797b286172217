"""The listener of one database: it supervises itself, stands by, leads, and assumes loss after each reconnect."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from djcrf_pg.changelog.reader import CONNECTION_ERRORS, ChangeLog, Taken
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.protocol import History
from djcrf_pg.diagnosis import denied
from djcrf_pg.exceptions import ChannelLayerError, ConfigurationError, LeadershipLost, NotMigrated
from djcrf_pg.listener.doorbell import Bell
from djcrf_pg.listener.election import begin_term, claim, stand_by, try_lead
from djcrf_pg.listener.leadership import Leadership, Obstacle
from djcrf_pg.listener.session import Session
from djcrf_pg.listener.tables import Tables
from djcrf_pg.listener.worker import Worker
from djcrf_pg.observations import (
    ConnectionFailed,
    CursorReset,
    LeaderEnded,
    Leading,
    StandingBy,
    Stopped,
    emit,
)

T = TypeVar("T")

#: Seconds after :meth:`Listener.stop` in which a session ends in order; after which it is cancelled, with its cursor
#: saved if the database answers; and after which its connection is cut. All of it is less than 5 s.
_GRACE, _CUT = 1.5, 2.5


class Listener:
    """Reads the change log of one database and sends what it finds, for as long as :meth:`run` runs.

    Args:
        alias: The Django database alias.

    Attributes:
        error: What the last session ended with, until it leads or stands by.
        session: The pid of the server process, while there is a connection.
        claim: The history and the term that it leads, while it does.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.error: str | None = None
        self.session: int | None = None
        self.claim: tuple[History, int] | None = None
        self._leads = False
        self._worked = False
        self._obstacle = Obstacle()
        self._stop = asyncio.Event()
        self._bell: Bell | None = None
        # User code runs in a thread of our own: a consumer's slow query must not hold up everybody's events.
        self._worker = Worker(f"djcrf_pg-{alias}")
        self._connected: Session | None = None
        self._role: str | None = None  # of the last session

    @property
    def leads(self) -> bool:
        """Whether this listener leads, and the channel layer takes what it sends."""
        return self._leads

    def stop(self) -> None:
        """Have :meth:`run` save the cursor and return; may be called from a signal handler of the loop."""
        self._stop.set()
        if self._bell is not None:
            self._bell.ring()

    async def run(self) -> None:
        """Connect, stand by, lead; after a failure, wait and begin again, for ever.

        Returns when :meth:`stop` was called. Cancelling it saves the cursor as well.

        Raises:
            ConfigurationError, ChannelLayerError: What no retry can fix.
        """
        backoff = Backoff(0.1, 10.0)
        loop = asyncio.get_running_loop()
        try:
            while not self.stopping:
                try:
                    await self._until_stopped(self._session())
                except (ConfigurationError, ChannelLayerError):
                    raise
                except Exception as error:
                    if loop.is_closed():
                        raise  # it took this task along without cancelling it
                    # Whatever it was, the next session reads from the saved cursor: a listener that ends is a hole.
                    if self._worked:
                        backoff.reset()
                    self._worked = False
                    delay = backoff.delay()
                    # A sentence goes on after it.
                    self.error = (denied(error, self.alias, self._role) or str(error) or repr(error)).removesuffix(".")
                    expected = isinstance(error, (*CONNECTION_ERRORS, LeadershipLost, NotMigrated))
                    observation = ConnectionFailed(alias=self.alias, error=self.error, delay=delay)
                    emit(observation, None if expected else error)
                    await self.pause(delay)
        finally:
            await self._worker.close()
        emit(Stopped(alias=self.alias))

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a session. One that does not end when asked, because something does not answer, is made to."""
        session, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([session, stop], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([session], timeout=_GRACE)
            if session.done():
                return session.result()
        finally:
            stop.cancel()
            # We are asked to stop, or cancelled.
            session.cancel()
            if not session.done() and not (await asyncio.wait([session], timeout=_CUT))[0]:
                if self._connected is not None:
                    self._connected.connection.terminate()
                session.cancel()
            await asyncio.gather(session, stop, return_exceptions=True)

    async def _session(self) -> None:
        session = self._connected = await Session.open(self.alias)
        self.session, self._role = session.pid, session.role
        try:
            log = await ChangeLog.open(session, self.alias)
            await claim(session, get_settings().project)
            if await self._stand_by(session, log.schema):
                await self._lead(session, log)
        finally:
            self._leads, self.claim = False, None
            await session.close()
            self.session = self._connected = None

    async def _stand_by(self, session: Session, schema: str) -> bool:
        """Wait for the lock; False when asked to stop."""
        if await try_lead(session, schema):
            return True
        self.error = None
        emit(StandingBy(alias=self.alias))
        session.connection.add_log_listener(self._on_notice)
        leading = asyncio.create_task(_until_leading(session, schema))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([leading, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not leading.done():
                return False
            leading.result()
            return True
        finally:
            for task in (leading, stopped):
                task.cancel()
            await asyncio.gather(leading, stopped, return_exceptions=True)

    def _on_notice(self, connection: Any, notice: object) -> None:
        emit(LeaderEnded(alias=self.alias, message=str(notice)))

    async def pause(self, seconds: float) -> bool:
        """Sleep, but no longer than until :meth:`stop`; whether that was called."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return self.stopping

    async def _lead(self, session: Session, log: ChangeLog) -> None:
        taken = await log.take()
        obstacle = self._obstacle.met_at(taken.position)
        try:
            await self._lead_from(taken, obstacle, session, log)
        except LeadershipLost:
            raise
        except Exception as error:
            if not session.is_closed():
                self._obstacle.failed(error)
            raise

    async def _lead_from(self, taken: Taken, obstacle: Exception | None, session: Session, log: ChangeLog) -> None:
        if taken.reset is not None:
            emit(CursorReset(alias=self.alias, fault=taken.reset))
        if obstacle is None:
            await log.adopt()
        settings = get_settings()
        await log.set_caps(settings.LOG_MAX_AGE, settings.LOG_MAX_ROWS, settings.LOG_MAX_BYTES)
        history = await begin_term(session, taken.term)
        self.claim = history, taken.term
        emit(Leading(alias=self.alias, term=taken.term))
        tables = await Tables.open(self.alias, log)
        async with Bell(session) as bell:
            self._bell = bell
            try:
                await Leadership(self, session, log, bell, tables, taken, history).run(obstacle)
            finally:
                self._bell = None

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run synchronous work, user code above all, in the listener's thread."""
        return await self._worker.run(work)

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def leading(self) -> None:
        """Note that subscribers receive what is sent."""
        self._leads, self.error = True, None

    def caught_up(self) -> None:
        """Note that everything that was there at the start has been sent."""
        self._worked, self.error = True, None
        self._obstacle.passed()


async def _until_leading(session: Session, schema: str) -> None:
    while not await stand_by(session, schema):
        pass
