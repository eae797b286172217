"""Hand events over to the consumers of a test, and wait until they have handled what there is."""

import asyncio
import time
from collections.abc import Iterable

from asgiref.sync import sync_to_async

from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener import embedded
from djcrf_pg.listener.gate import Probe
from djcrf_pg.testing import isolation
from djcrf_pg.testing.capture import CapturedChange

#: Seconds between looks, and after which a leader is asked again: another may have begun to lead.
_LOOK, _AGAIN = 0.002, 0.5


async def deliver(changes: Iterable[CapturedChange]) -> int:
    """Hand captured changes to the consumers that have subscribed on this event loop, as if they had been committed.

    Returns when their handlers have returned, so that what they have sent can be received at once.

    Args:
        changes: Those of :func:`capture_changes`, or some of them.

    Returns:
        How many events were handed over: one for each subscription in one of the groups.

    Raises:
        RuntimeError: No consumer has subscribed on this event loop.
    """
    hubs = [runtime.hub for runtime in _runtimes("deliver()").values()]
    count = sum(
        hub.put(lane, change._line, change._origin) for change in changes for lane in change.lanes for hub in hubs
    )
    for hub in hubs:
        await hub.handled()
    return count


async def settled(timeout: float = 10.0) -> None:  # noqa: ASYNC109 - the message says what it waited for
    """Wait until the consumers of this event loop have handled everything that is committed by now.

    For tests that commit (``TransactionTestCase``, ``django_db(transaction=True)``), in place of sleeping: afterwards
    what is not there to be received does not come. It asks the leader, in whichever process, for a heartbeat after its
    next read, and waits for that and for the handlers.

    Args:
        timeout: Seconds.

    Raises:
        RuntimeError: No consumer has subscribed on this event loop, or the test runs in a transaction.
        TimeoutError: Something was not handled in time; the message says what.
    """
    runtimes = _runtimes("settled()")
    if await sync_to_async(embedded.is_in_a_rolled_back_test)():
        raise RuntimeError(f"settled(): {isolation.ADVICE}")
    isolation.refuse_other_threads("settled()")
    why = "the database does not answer"
    try:
        async with asyncio.timeout(timeout):
            for alias, runtime in runtimes.items():
                why = f"database {alias!r} does not answer"
                probe = await runtime.probe((), ())
                why = _obstacle(alias, probe)
                await _all_here(runtime, probe)
                why = "a handler or an action of a consumer has not returned"
                await runtime.hub.handled()
    except (*CONNECTION_ERRORS, ConfigurationError) as error:
        said = "" if isinstance(error, TimeoutError) else f" ({error})"
        raise TimeoutError(f"settled() waited {timeout:g} s: {why}{said}.") from error


async def _all_here(runtime: embedded.Runtime, probe: Probe) -> None:
    asked = float("-inf")
    while not runtime.hub.has(probe.moment.snapshot):
        if time.monotonic() - asked >= _AGAIN:
            asked = time.monotonic()
            await runtime.gate.ask_for_heartbeat()
        await asyncio.sleep(_LOOK)


def _obstacle(alias: str, probe: Probe) -> str:
    if probe.leader is None:
        return f"nobody leads for database {alias!r}"
    return f"{probe.leader} has not sent all that is committed, or the channel layer has lost it"


def _runtimes(what: str) -> dict[str, embedded.Runtime]:
    if not (found := embedded.runtimes()):
        raise RuntimeError(
            f"{what}: no consumer has subscribed on this event loop, so there is nobody to receive anything. Await the "
            f"reply to the subscription first, in the same coroutine."
        )
    return found
