"""What goes wrong in production, for a test to have it go wrong for its consumers.

Events are numbered, so what a channel layer drops is noticed and read from the log again; a leader that is gone has a
successor, which begins where the last one had saved. A consumer sees a delay, an event twice, or a resync. These are
for tests that commit, and that wait with :func:`~djcrf_pg.testing.settled`; first of all for what an earlier test has
left, such as the resync for the flush of its tables::

    await settled()
    with faults.drop(1):
        await Note.objects.acreate(text="milk")
        await settled()
    assert (await client.receive_json_from())["action"] == "create"
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from djcrf_pg.delivery.envelope import CHANNEL_LAYER
from djcrf_pg.delivery.layer import channel_layer
from djcrf_pg.delivery.protocol import TYPE
from djcrf_pg.listener import embedded
from djcrf_pg.listener.connection import connect
from djcrf_pg.listener.election import HOLDER

_Send = Callable[[str, dict[str, Any]], Awaitable[None]]

#: The sessions of all listeners, gates and replays of a database, but for the one that asks.
_SESSIONS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'djcrf_pg%' AND pid <> pg_backend_pid()
"""

#: Milliseconds that a session has to end.
_PATIENCE = 5_000


@contextmanager
def drop(messages: int | None = None) -> Iterator[None]:
    """Have the channel layer lose messages of this process's leader, as one does that is over its capacity.

    Args:
        messages: So many of those with events that consumers of this event loop would receive; None for all as long as
            the block lasts, heartbeats too.
    """
    left = messages

    async def send(send: _Send, group: str, message: dict[str, Any]) -> None:
        nonlocal left
        if left == 0 or (left is not None and not _is_received(group)):
            await send(group, message)
        elif left is not None:
            left -= 1

    with _sending(send):
        yield


@contextmanager
def repeat() -> Iterator[None]:
    """Have each message come twice, as after a time-out of a layer that took it all the same."""

    async def send(send: _Send, group: str, message: dict[str, Any]) -> None:
        await send(group, message)
        await send(group, dict(message))

    with _sending(send):
        yield


@contextmanager
def delay(seconds: float) -> Iterator[None]:
    """Have the channel layer take so many seconds for each message."""

    async def send(send: _Send, group: str, message: dict[str, Any]) -> None:
        await asyncio.sleep(seconds)
        await send(group, message)

    with _sending(send):
        yield


def _is_received(group: str) -> bool:
    """Whether consumers of this event loop receive what is sent to a group: events of theirs, no heartbeats."""
    return any(group in runtime.hub.groups for runtime in embedded.runtimes().values())


@contextmanager
def _sending(fault: Callable[[_Send, str, dict[str, Any]], Awaitable[None]]) -> Iterator[None]:
    """Have what a leader of this process sends pass through a fault; what the project itself sends does not."""
    layer = channel_layer()
    former, send = layer.__dict__.get("group_send"), layer.group_send

    async def group_send(group: str, message: dict[str, Any]) -> None:
        if message.get("type") == TYPE:
            await fault(send, group, message)
        else:
            await send(group, message)

    layer.group_send = group_send
    try:
        yield
    finally:
        if former is None:
            del layer.group_send
        else:
            layer.group_send = former


async def disconnect(using: str = "default") -> None:
    """End each session that djcrf_pg has with a database, as a restart of the server does; the project's own stay.

    Args:
        using: The alias of the database.
    """
    await _end(using, _SESSIONS)


async def kill_leader(using: str = "default") -> None:
    """End the leader's session, so that the cursor is not saved and another listener, or the same, leads.

    Args:
        using: The alias of the database.

    Raises:
        RuntimeError: Nobody leads.
    """
    if not await _end(using, HOLDER):
        raise RuntimeError(f"kill_leader(): nobody leads for database {using!r}.")


async def resync(reason: str = CHANNEL_LAYER) -> None:
    """Have all subscriptions of this event loop reload, as after a loss that cannot be read from the log.

    Args:
        reason: That of the resync.
    """
    for runtime in embedded.runtimes().values():
        runtime.hub.lose_all(reason)
        await runtime.hub.handled()


async def _end(alias: str, query: str) -> int:
    """End the sessions whose process a query gives in its first column, and wait until they have; how many."""
    connection = await connect(alias, "faults")
    try:
        pids = [row[0] for row in await connection.fetch(query)]
        for pid in pids:
            await connection.execute("SELECT pg_terminate_backend($1, $2)", pid, _PATIENCE)
        return len(pids)
    finally:
        connection.terminate()
