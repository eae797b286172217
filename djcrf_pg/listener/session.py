"""A connection that is known to be alive: an answer that does not come is either slow or lost.

A peer that vanishes without a word (a cut cable, a proxy that stops forwarding, a frozen host) leaves a socket that
looks healthy for ever. TCP keepalives find a dead host, but not a proxy that still acknowledges. So an answer that
takes long is asked after, over a second connection: a server that works on it has nothing to hide.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from djcrf_pg import sql
from djcrf_pg.changelog.reader import CONNECTION_ERRORS, Connection
from djcrf_pg.listener.connection import connect
from djcrf_pg.listener.pooler import server_process

#: Seconds that an answer may take before it is asked after, and that this question may take.
PATIENCE = 4.0
_CHECK = 3.0

#: Seconds of one wait; a loop that comes back from it later than by half was not free.
_STEP = 0.25


T = TypeVar("T")


class Session:
    """One asyncpg connection, for one question at a time.

    Attributes:
        connection: The connection, for what is no question.
        pid: The server process.
        confirmed: When the server last answered, in seconds of ``time.monotonic()``.
    """

    def __init__(self, connection: Connection, alias: str, pid: int) -> None:
        self.connection = connection
        self.pid = pid
        self._name = self._named()
        self._sql = sql.queries("djcrf_pg.listener", "session.sql")
        self.confirmed = time.monotonic()
        self._alias = alias
        self._turn = asyncio.Lock()
        self._lost = ""

    @classmethod
    async def open(cls, alias: str, role: str = "listener") -> "Session":
        """Connect to the server that the listener of a database reads.

        Args:
            alias: The Django database alias.
            role: What the connection is for.

        Raises:
            ConfigurationError: The settings cannot be translated, or a pooler gives no session of its own.
            OSError, TimeoutError, asyncpg.PostgresError: The server cannot be reached, or refuses.
        """
        connection = await connect(alias, role)
        try:
            async with asyncio.timeout(PATIENCE):
                # Behind a pooler in session mode it is not the one that asyncpg knows of.
                return cls(connection, alias, await server_process(connection))
        except BaseException:
            connection.terminate()
            raise

    async def run(self, work: Callable[[Connection], Awaitable[T]], expected: float = 0.0) -> T:
        """Do something with the connection that ends with an answer of the server.

        Args:
            work: Makes the awaitable.
            expected: Seconds that the server is asked to wait before it answers.

        Raises:
            ConnectionError: The answer is lost; the connection is closed.
        """
        async with self._turn:
            if self._lost:
                raise ConnectionError(self._lost)  # also for who asks after the one that noticed it
            answer = asyncio.ensure_future(work(self.connection))
            try:
                came = await _comes(answer, PATIENCE + expected)
                while not came and await self._ask_elsewhere("at_work"):
                    came = await _comes(answer, PATIENCE)
                # It may have come while we asked.
                if not came and not await _comes(answer, _STEP):
                    self._lost = "the server does not answer, and works on no question of ours"
                    self.connection.terminate()
                    # Nobody hears from it any more, and it may hold the leader's lock.
                    await self._ask_elsewhere("end")
                    raise ConnectionError(self._lost)
                result = answer.result()
            finally:
                if not answer.done():
                    answer.cancel()
                    await asyncio.wait([answer], timeout=_CHECK)
                if answer.done() and not answer.cancelled():
                    answer.exception()  # that of a connection which was ended here, asyncio would report
            self.confirmed = time.monotonic()
            return result

    async def _ask_elsewhere(self, query: str) -> bool:
        """Ask about our session over another connection; False where that cannot be had either."""
        asking = asyncio.ensure_future(self._ask_once(query))
        try:
            return await _comes(asking, _CHECK) and asking.result()
        except CONNECTION_ERRORS:
            return False
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask_once(self, query: str) -> bool:
        other = await connect(self._alias, "watch")
        try:
            return bool(await other.fetchval(self._sql[query], self.pid))
        finally:
            other.terminate()

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """As asyncpg's."""
        return await self.run(lambda connection: connection.fetch(query, *args))

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """As asyncpg's."""
        return await self.run(lambda connection: connection.fetchrow(query, *args))

    async def fetchval(self, query: str, *args: Any) -> Any:
        """As asyncpg's."""
        return await self.run(lambda connection: connection.fetchval(query, *args))

    async def execute(self, query: str, *args: Any) -> str:
        """As asyncpg's."""
        return await self.run(lambda connection: connection.execute(query, *args))

    @property
    def leads(self) -> bool:
        """Whether it has the leader's lock, as the server said when it gave it (see ``election.sql``)."""
        return self._named() != self._name

    def _named(self) -> str:
        return str(self.connection.get_settings().application_name)

    @property
    def role(self) -> str:
        """The role that it has connected as."""
        return str(self.connection.get_settings().session_authorization)

    def is_closed(self) -> bool:
        """Whether the connection is known to have ended."""
        return self.connection.is_closed()

    async def close(self) -> None:
        """Close the connection; one that does not answer is cut."""
        try:
            await self.connection.close(timeout=2)
        except CONNECTION_ERRORS:
            self.connection.terminate()


async def _comes(answer: "asyncio.Future[Any]", seconds: float) -> bool:
    """Wait so long for an answer: seconds in which this event loop was free to take it.

    One that is kept from its work, by threads that hold the interpreter or by a machine that is overloaded, may have
    the answer at hand and not know it.
    """
    while seconds > 0 and not answer.done():
        begun = time.monotonic()
        await asyncio.wait([answer], timeout=_STEP)
        if time.monotonic() - begun < 1.5 * _STEP:
            seconds -= _STEP
    return answer.done()
