"""Find out whether a connection is a session of its own, before anything is set in it.

A connection pooler in transaction or statement mode lends each client a server process for as long as a transaction or
a statement lasts. LISTEN, an advisory lock and settings would stay with that process, for the next client to have.

What tells: a pooler gives its clients a key to cancel their queries by, which is not the server's, so the process that
answers is not the one that the key names. Which mode it has, it tells nobody. So others ask too: in session mode a
client's process is always the same and never another client's. A pooler hands out either the process that was given
back last (then the next client has ours) or the one that has been idle the longest (then we have another one when we
ask again); where others use the pool, several rounds leave nothing to chance.
"""

import asyncio
from collections.abc import Awaitable, Callable

from djcrf_pg.changelog.reader import Connection

#: Other connections that are asked. More than one, for there may be several poolers behind one address, each with
#: server processes of its own.
_OTHERS = 3

_ROUNDS = 4

#: Seconds for one of them to answer all that it is asked.
_PATIENCE = 3.0


async def server_process(connection: Connection) -> int:
    """The pid of the server process that answers.

    COPY, for it is a simple query: it leaves no prepared statement behind in what may be somebody else's session.
    """
    answer: list[bytes] = []

    async def take(data: bytes) -> None:
        answer.append(bytes(data))

    await connection.copy_from_query("SELECT pg_backend_pid()", output=take)
    return int(b"".join(answer))


async def is_shared(connection: Connection, another: Callable[[], Awaitable[Connection]]) -> bool:
    """Whether a pooler lends the server process of a connection to others between transactions.

    Args:
        connection: Asked alone, and left as it is.
        another: Opens one more connection to the same place; it is closed here.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError: An answer or another connection is not to be had.
    """
    ours = await server_process(connection)
    if ours == connection.get_server_pid():
        return False
    for _ in range(_OTHERS):
        try:
            async with asyncio.timeout(_PATIENCE):
                if await _is_met_by_another(connection, ours, another):
                    return True
        except TimeoutError:
            raise TimeoutError(
                "the pooler in front of the database has no second connection for the listener, by which it would "
                "tell the pooler's mode: its pool is too small, or PostgreSQL is to be reached without it, see "
                "DJCRF_PG['LISTENER_DATABASE']"
            ) from None
    return False


async def _is_met_by_another(connection: Connection, ours: int, another: Callable[[], Awaitable[Connection]]) -> bool:
    other = await another()
    try:
        theirs = await server_process(other)
        for _ in range(_ROUNDS):
            if theirs == ours:
                return True
            for asked, expected in ((connection, ours), (connection, ours), (other, theirs)):
                if await server_process(asked) != expected:
                    return True
    finally:
        other.terminate()
    return False
