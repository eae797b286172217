"""The listener inside an ASGI process: it starts with the first subscription and follows the event loop.

It is the only kind that serves an ``InMemoryChannelLayer``, and it needs no configuration. In a project with several
ASGI processes each has one; one leads, the others stand by.
"""

import asyncio
import atexit
import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from asgiref.sync import sync_to_async
from django.db import connections, router
from django.db.models import Model

from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import LISTENER, UNTOLD
from djcrf_pg.delivery.hub import Hub
from djcrf_pg.delivery.inbox import Subscription
from djcrf_pg.delivery.interest import bit_of
from djcrf_pg.delivery.layer import channel_layer, how_to_fix, is_in_memory
from djcrf_pg.delivery.protocol import EVERYBODY, History
from djcrf_pg.diagnosis import SUBSCRIBER, denied, without_log, without_tables
from djcrf_pg.discovery import discover
from djcrf_pg.exceptions import (
    ChannelLayerError,
    ConfigurationError,
    DjcrfPgError,
    ListenerUnavailable,
    NotMigrated,
    SubscribeError,
    TriggersMissing,
)
from djcrf_pg.listener.gate import Gate, Probe
from djcrf_pg.listener.replay import Replays
from djcrf_pg.listener.service import Listener
from djcrf_pg.observations import ListenerEnded, RolledBackTest, cause_of, emit
from djcrf_pg.registry import named_by

#: Seconds that a listener may take to end with a process whose server has ended its loop.
_FAREWELL = 4.0

_UNREACHABLE = (
    "The InMemoryChannelLayer reaches its own process alone, and DJCRF_PG['EMBEDDED'] is False, so no listener can "
    "reach this one: use channels_redis, or EMBEDDED = True."
)


class Runtime:
    """What serves the subscriptions of one database on one event loop.

    Args:
        alias: The Django database alias.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.gate = Gate(alias)
        self.replays = Replays(alias)
        self.hub = Hub(self.gate, self.replays, _leads_here)
        self.listener: Listener | None = None
        self._failure: Exception | None = None
        self._again = asyncio.Event()
        self._untold_at = -math.inf
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._keeper = asyncio.create_task(self._keep(), name=f"djcrf_pg keeper {alias}")
        self._orphans: list[int] = []

    async def _keep(self) -> None:
        """Own hub and gate: a loop that ends cancels its tasks, and a connection needs one to close it."""
        try:
            # A coroutine of Django's TestCase makes its queries in the thread that is asked.
            may_be_a_test = "django.test.testcases" in sys.modules and "djcrf_pg.testing.capture" not in sys.modules
            if may_be_a_test and await sync_to_async(is_in_a_rolled_back_test)():
                emit(RolledBackTest(alias=self.alias))
            await asyncio.get_running_loop().create_future()
        finally:
            await self.hub.close()
            await self.replays.close()
            await self.gate.close()

    def inherit(self, other: "Runtime") -> None:
        """Take over from the runtime of a loop that was closed without cancelling its tasks.

        Nobody can close its connection any more, and its session may hold the leader's lock.
        """
        if other.listener is not None and other.listener.session is not None:
            self._orphans.append(other.listener.session)

    async def probe(self, tables: Iterable[str], bits: Iterable[int]) -> Probe:
        """Ask the gate; see :meth:`Gate.probe`."""
        if self._orphans:
            await self.gate.end_sessions(self._orphans)
            self._orphans = []
        return await self.gate.probe(tables, bits)

    def start(self, *, anew: bool = False) -> None:
        """Start the listener if it does not run.

        Args:
            anew: One that has ended is started again at once, instead of after a while.

        Raises:
            ListenerUnavailable: It has ended for a reason that does not pass by itself.
        """
        if self._task is None or self._task.done():
            discover()
            self.listener = Listener(self.alias)
            self._task = asyncio.create_task(self._listen(self.listener), name=f"djcrf_pg listener {self.alias}")
        elif self._failure is not None and not anew:
            message = f"The listener of database {self.alias!r} ended: {self._failure}"
            raise ListenerUnavailable(message) from self._failure
        elif anew:
            self._failure = None
            self._again.set()

    async def _listen(self, listener: Listener) -> None:
        """Run the listener; one that ends for good is started again, for somebody may put right what it ended for."""
        backoff = Backoff(1.0, UNTOLD)
        while True:
            try:
                return await listener.run()
            except (ConfigurationError, ChannelLayerError) as error:
                self._failure = error
                self._again.clear()
                delay = backoff.delay()
                emit(ListenerEnded(alias=self.alias, error=str(error), delay=delay))
            await self._say_that_nobody_leads()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._again.wait()
            if self._closing:
                return
            self._failure = None
            listener = self.listener = Listener(self.alias)

    async def _say_that_nobody_leads(self) -> None:
        """Send subscribers a resync, now and then, unless another process leads.

        The next leader begins at the cursor, so they lose nothing. But nobody knows when that will be, and a list that
        is half a minute old is better than one that stays as it is and says nothing.
        """
        if time.monotonic() - self._untold_at < UNTOLD:
            return
        with contextlib.suppress(ConfigurationError, ChannelLayerError, *CONNECTION_ERRORS):
            probe = await self.gate.probe((), ())
            if probe.leader is not None and not is_in_memory(channel_layer()):
                return
        self._untold_at = time.monotonic()
        self.hub.lose_all(LISTENER)

    async def close(self) -> None:
        """Stop the listener, with its cursor saved, and close the connections."""
        if self.listener is not None and self._task is not None:
            self._closing = True
            self._again.set()
            self.listener.stop()
            await asyncio.gather(self._task, return_exceptions=True)
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)


def is_in_a_rolled_back_test() -> bool:
    """Whether a connection of this thread is in the transaction that Django's ``TestCase`` puts around a test."""
    return any(
        getattr(block, "_from_testcase", False)
        for connection in connections.all(initialized_only=True)
        for block in getattr(connection, "atomic_blocks", ())
    )


_runtimes: dict[asyncio.AbstractEventLoop, dict[str, Runtime]] = {}

#: The process that has :func:`_end_in_order` called when it ends.
_ending: int | None = None


def runtime(alias: str) -> Runtime:
    """The runtime of a database on the running event loop; made when there is none.

    An event loop that is closed takes its tasks with it, so each test may have a loop of its own.
    """
    found = _runtimes.setdefault(asyncio.get_running_loop(), {})
    if alias not in found:
        _end_with_the_process()
        found[alias] = Runtime(alias)
        for loop in [loop for loop in list(_runtimes) if loop.is_closed()]:
            for former in _runtimes.pop(loop, {}).values():
                if former.alias == alias:
                    found[alias].inherit(former)
    return found[alias]


def runtimes() -> dict[str, Runtime]:
    """Those of the running event loop, by the alias of their database."""
    return dict(_runtimes.get(asyncio.get_running_loop(), {}))


def loops() -> set[asyncio.AbstractEventLoop]:
    """The event loops on which somebody has subscribed, those of them that are closed too."""
    return set(_runtimes)


async def close_all() -> None:
    """Stop every listener of the running event loop. For tests and for servers that shut down in order."""
    for closing in _runtimes.pop(asyncio.get_running_loop(), {}).values():
        await closing.close()


def _end_with_the_process() -> None:
    global _ending
    if _ending != os.getpid():
        for loop in list(_runtimes) if _ending is not None else ():
            if loop is not asyncio.get_running_loop():
                del _runtimes[loop]  # a fork's: its sockets are those of the parent
        _ending = os.getpid()
        # Of the hooks at the end it is the one that children of multiprocessing have too (granian's workers are), and
        # threads can still be started. concurrent.futures uses it as well.
        getattr(threading, "_register_atexit", atexit.register)(_end_in_order)


def _end_in_order() -> None:
    """Have listeners save their cursors whose server has stopped their loop and cancelled no task, as daphne does."""
    if _ending != os.getpid():
        return
    for loop, closing in list(_runtimes.items()):
        if not loop.is_closed() and not loop.is_running():
            with contextlib.suppress(Exception):  # what was not saved is sent again
                loop.run_until_complete(asyncio.wait_for(_close(closing.values()), _FAREWELL))
    _runtimes.clear()


async def _close(closing: Iterable[Runtime]) -> None:
    await asyncio.gather(*(each.close() for each in closing))


def _leads_here(history: History, term: int) -> bool:
    """Whether a listener of this process leads a history in a term."""
    return any(listener.claim == (history, term) for listener in _listeners())


def _listeners() -> list[Listener]:
    """Those of all event loops of this process."""
    found = (each.listener for runtimes in list(_runtimes.values()) for each in list(runtimes.values()))
    return [listener for listener in found if listener is not None]


def hub_of(model: type[Model]) -> Hub:
    """The hub of a model's database on the running event loop."""
    return runtime(router.db_for_write(model)).hub


async def ready(alias: str, tables: Mapping[str, str], subscription: Subscription, groups: Collection[str]) -> Probe:
    """Wait until changes of these tables, committed from now on, will be delivered to a subscription.

    Args:
        alias: The Django database alias.
        tables: ``db_table`` of each table that must have triggers, with the entry of ``OBSERVE`` that brings it.
        subscription: The subscription, which is in lanes of the hub from now on.
        groups: Those of the lanes.

    Returns:
        How the database stood: what had been committed by its moment is not for the subscriber.

    Raises:
        SubscribeError: They will not be; the subclass and the message say why and what fixes it.
    """
    settings, here = get_settings(), runtime(alias)
    in_memory = is_in_memory(channel_layer())
    address = subscription.observer.address
    if in_memory and not settings.EMBEDDED and not _listeners():
        raise ChannelLayerError(_UNREACHABLE)  # no time would change it
    for group in groups:
        here.hub.enter(subscription, group)
    bits = [bit_of(address, group) for group in (EVERYBODY, *groups)]
    why, pause, first = "no listener runs", 0.002, True
    broken: str | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.SUBSCRIBE_TIMEOUT):
            while True:
                if settings.EMBEDDED:
                    try:
                        here.start(anew=first)
                        first = False
                    except SubscribeError:
                        raise
                    except DjcrfPgError as error:
                        raise ListenerUnavailable(str(error)) from error
                is_in, streams = here.hub.is_in(address), here.hub.streams
                try:
                    probe = await here.probe(tables, bits)
                    await _require(probe, alias, tables, here.gate.quote)
                except ConfigurationError as error:
                    raise SubscribeError(str(error)) from error
                except CONNECTION_ERRORS as error:
                    if missing := denied(error, alias, grants=SUBSCRIBER):
                        raise SubscribeError(missing) from error
                    why = f"the database cannot be reached ({str(error) or type(error).__name__})"
                else:
                    if not is_in:
                        if broken := await _join(here, address, probe):
                            why = broken
                            await asyncio.sleep(0.25)
                        continue  # what commits before the channel is there is for nobody here
                    broken = None
                    here.hub.learn(probe, streams)
                    if not _served(here, probe, in_memory):
                        why = _obstacle(here, probe, in_memory)
                    elif here.hub.knows(address) is not False:
                        return probe
                    else:
                        why = (
                            f"{probe.leader} leads, and its code does not have {subscription.observer.label}: in a "
                            f"deploy, restart it with the code of this process. Outside of one, the leader does not "
                            f"import the consumer: have it in an app's consumers module, or behind ASGI_APPLICATION"
                        )
                pause = min(pause * 2, 0.25)
                await asyncio.sleep(pause)
    if broken:
        raise ChannelLayerError(f"The channel layer {broken}")
    if in_memory and "InMemory" in why:
        raise ChannelLayerError(why)
    raise ListenerUnavailable(
        f"No listener for database {alias!r} within {settings.SUBSCRIBE_TIMEOUT:g} s "
        f"(DJCRF_PG['SUBSCRIBE_TIMEOUT']): {why}."
    )


async def _join(here: Runtime, address: str, probe: Probe) -> str | None:
    """Join what brings an observer's messages; why that fails, where it does."""
    try:
        await here.hub.join(address, probe.history)
    except ChannelLayerError:
        raise
    except Exception as error:  # whatever the layer raises
        return how_to_fix(channel_layer(), f"fails ({cause_of(error)})")
    return None


async def _require(probe: Probe, alias: str, tables: Mapping[str, str], quote: Callable[[str], str]) -> None:
    # The same question was asked for other subscribers, whose tables are no reason to refuse this one.
    wanted = {quote(table): entry for table, entry in tables.items()}
    absent, bare = sorted(probe.absent & wanted.keys()), sorted(probe.bare & wanted.keys())
    if not probe.migrated:
        raise NotMigrated(without_log(alias, probe.whereabouts))
    if absent:
        names = [table for table in tables if quote(table) in absent]
        # It may have to read the migrations.
        raise NotMigrated(await asyncio.to_thread(without_tables, alias, names, probe.whereabouts))
    if bare:
        command = "migrate" if get_settings().AUTO_INSTALL else "djcrf_pg install"
        named = {quote(model._meta.db_table) for entry in get_settings().OBSERVE for model in named_by(entry)}
        entries = dict.fromkeys(wanted[table] for table in bare if table not in named)
        hidden = (
            f" If the consumer is in no app's consumers module and not behind ASGI_APPLICATION, add "
            f"{', '.join(map(repr, entries))} to DJCRF_PG['OBSERVE'] first."
        )
        raise TriggersMissing(
            f"Triggers of djcrf_pg are missing or disabled on {', '.join(bare)} (database {alias!r}), so its "
            f"changes are not captured: run `manage.py {command}`.{hidden if entries else ''}"
        )


def _served(here: Runtime, probe: Probe, in_memory: bool) -> bool:
    if here.listener is not None and here.listener.leads:
        return True
    if probe.leader is None or probe.project is not None:
        return False
    # Another alias may reach the same log, and its listener in this process leads for both.
    leaders = (other.listener for other in _runtimes[asyncio.get_running_loop()].values())
    ours = [leader for leader in leaders if leader is not None and _is(leader, probe.leader)]
    return any(leader.leads for leader in ours) if ours else not in_memory


def _is(listener: Listener, leader: str) -> bool:
    return listener.session is not None and leader.endswith(f"process {listener.session})")


def _obstacle(here: Runtime, probe: Probe, in_memory: bool) -> str:
    if probe.project is not None:
        return (
            f"{probe.leader} leads, of project {probe.project!r}, and knows nothing of the observers of this one, "
            f"{get_settings().project!r}. Give each project a schema with a change log of its own (OPTIONS = "
            f"{{'options': '-c search_path=…'}}, then `manage.py migrate`). If they are one project, set the same "
            f"DJCRF_PG['PROJECT'] in both"
        )
    if in_memory and here.listener is None:
        return _UNREACHABLE
    ours = here.listener is not None and probe.leader is not None and _is(here.listener, probe.leader)
    if in_memory and probe.leader is not None and not ours:
        if any(_is(listener, probe.leader) for listener in _listeners()):
            return (
                "The InMemoryChannelLayer reaches its own event loop alone, and the listener of another loop of this "
                "process leads: serve all consumers in one loop, or use channels_redis."
            )
        return (
            f"The InMemoryChannelLayer reaches its own process alone, and another process leads: {probe.leader}. "
            f"Use channels_redis to run more than one process."
        )
    if here.listener is None:
        return "no listener runs: start `manage.py djcrf_pg listen`"
    return here.listener.error or "it does not lead yet, or the channel layer takes nothing from it"
