"""Keeps consumers in their groups: a channel layer forgets memberships, and tells nobody.

Redis is emptied, fails over or restarts; a membership expires (``group_expiry``). Without this a consumer would go on,
and never hear of anything again. The keeper of an event loop

- looks every :data:`BEAT` seconds whether the layer may have lost something, see :mod:`djcrf_pg.observer.line`;
- if so, adds all groups of the living consumers again, *then* makes sure that nothing was lost meanwhile, and *then*
  has their observers told a resync. What is sent once the groups are there arrives, so who loads when told has it all;
- sends the resync again until it was handled, since the layer may lose that too;
- renews memberships before they expire.

Consumers are known weakly. Those that a broken layer ends with an error are not here any more: their sockets close, and
their clients connect again.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.db import router

from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ungrouped
from djcrf_pg.listener.backoff import Backoff
from djcrf_pg.listener.connection import CONNECTION_ERRORS
from djcrf_pg.listener.embedded import runtime
from djcrf_pg.listener.envelope import CHANNEL_LAYER, RESYNC, Event, message_of, pack
from djcrf_pg.listener.failures import PAUSE, Failure
from djcrf_pg.listener.numbering import Control
from djcrf_pg.listener.sender import is_in_memory
from djcrf_pg.observations import LayerUnreachable, MembershipsLost, emit
from djcrf_pg.observer.line import Line, has_ended
from djcrf_pg.observer.subscriptions import Subscriptions, subscriptions_of

#: Seconds between looks.
BEAT = 2.0

#: Seconds after which a resync that was not handled is sent again, the first time; then it is twice as long.
TELL_AGAIN = 10.0

#: Failures of handlers that wait to be recorded, for each database.
_MOST_FAILURES = 1_000

#: Groups that are added at the same time after a loss, and where nobody waits for it.
_PARALLEL, _PARALLEL_QUIET = 32, 8

Reference = weakref.ref[Any]
Job = tuple[Reference, Subscriptions]


class Keeper:
    """Looks after the consumers of one channel layer on one event loop, while there are any.

    Args:
        layer: The channel layer.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._consumers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._begun: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._expiry: float | None = getattr(layer, "group_expiry", None)
        self._ours: dict[str, set[str]] = {}
        self._failures: dict[str, list[Failure]] = {}

    @property
    def consumers(self) -> list[Any]:
        """The consumers that it knows."""
        return list(self._consumers.values())

    async def keep(self, consumer: Any) -> None:
        """Look after a consumer from now on; what it joins after this returned is not lost unnoticed.

        Raises:
            Exception: The layer's, which cannot be reached.
        """
        self._consumers[id(consumer)] = consumer
        if self._begun is None:
            self._begun = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._begun), name="djcrf_pg keeper of memberships")
        await asyncio.shield(self._begun)

    async def join(self, consumer: Any, group: str) -> None:
        """Add a consumer to a group that is ours, and not among its ``groups``: applications send to all of those.

        It leaves when it is disconnected, as Channels has it leave its own, or soon after it has ended otherwise.

        Raises:
            Exception: The layer's.
        """
        ours = self._ours.setdefault(consumer.channel_name, set())
        if group not in ours:
            _leave_at_disconnect(consumer)
            ours.add(group)
            await self.layer.group_add(group, consumer.channel_name)

    async def leave(self, consumer: Any, group: str) -> None:
        """Remove a consumer from a group that it is in because of us.

        Raises:
            Exception: The layer's.
        """
        ours = self._ours.get(consumer.channel_name, set())
        if group in ours:
            await self.layer.group_discard(group, consumer.channel_name)
            ours.discard(group)
            if not ours:
                self._ours.pop(consumer.channel_name, None)

    def record(self, observer: Any, failures: Iterable[Failure]) -> None:
        """Have what a handler failed on recorded with the next look."""
        kept = self._failures.setdefault(router.db_for_write(observer.model_cls), [])
        kept += islice(failures, max(_MOST_FAILURES - len(kept), 0))

    async def leave_all(self, consumer: Any) -> None:
        """Remove a consumer from all groups that it is in because of us.

        Raises:
            Exception: The layer's.
        """
        for group in list(self._ours.get(consumer.channel_name, ())):
            await self.leave(consumer, group)

    async def _run(self, begun: "asyncio.Future[None]") -> None:
        watch = self._watch_in_memory if is_in_memory(self.layer) else self._watch
        renewal = None if self._expiry is None else asyncio.create_task(self._renew(self._expiry))
        try:
            await watch(begun)
        except BaseException as error:
            if self._begun is begun:
                self._begun = None
            if begun.done():
                raise
            begun.set_exception(error if isinstance(error, Exception) else ConnectionError("stopped"))
            begun.exception()  # Whoever waits hears of it; nobody need.
            if not isinstance(error, Exception):
                raise
        finally:
            if renewal is not None:
                renewal.cancel()
                await asyncio.gather(renewal, return_exceptions=True)

    def _goes_on(self) -> bool:
        """Whether there is anybody; if not, the next one begins anew."""
        if any(state.groups for consumer in self.consumers for state in subscriptions_of(consumer).values()):
            return True
        self._begun = None
        return False

    # Losses.

    async def _watch(self, begun: "asyncio.Future[None]") -> None:
        async with Line(self.layer) as line:
            begun.set_result(None)
            why, backoff, reachable = "", Backoff(0.1, 1.0), True
            while self._goes_on():
                try:
                    why = why or await line.trouble()
                    if why:
                        await line.begin()
                        jobs = self._jobs()
                        await self._each(jobs, self._restore, _PARALLEL)
                        if await line.trouble():
                            await asyncio.sleep(backoff.delay())
                            continue
                        self._report(jobs, why)
                    why, reachable = "", True
                    backoff.reset()
                    await self._stay_heard()
                    await self._tell()
                    await self._tell_of_failures()
                    await self._tidy()
                    await line.pause(BEAT)
                except Exception as error:
                    why = why or f"it failed: {error!r}"
                    if reachable:
                        emit(LayerUnreachable(error=repr(error)))
                        reachable = False
                    await asyncio.sleep(backoff.delay())
            with contextlib.suppress(Exception):
                await self._tidy()
            await line.end()

    async def _watch_in_memory(self, begun: "asyncio.Future[None]") -> None:
        """This layer can be asked. It forgets a channel whose messages nobody read for ``expiry`` seconds."""
        begun.set_result(None)
        while self._goes_on():
            lost = [job for job in self._jobs() if not self._is_in_its_groups(*job)]
            if lost:
                await self._each(lost, self._restore, _PARALLEL)
                self._report(lost, "messages were not read in time, or it was flushed")
            await self._stay_heard()
            await self._tell()
            await self._tell_of_failures()
            await self._tidy()
            await asyncio.sleep(BEAT)
        await self._tidy()

    def _is_in_its_groups(self, reference: Reference, state: Subscriptions) -> bool:
        consumer = reference()
        # Not those that are about to be joined.
        return consumer is None or all(
            consumer.channel_name in self.layer.groups.get(group, ()) for group in state.since if group in state.added
        )

    def _jobs(self) -> list[Job]:
        """Who is in groups of what observer."""
        return [
            (weakref.ref(consumer), state)
            for consumer in self.consumers
            for state in subscriptions_of(consumer).values()
            if state.groups
        ]

    def _report(self, jobs: list[Job], why: str) -> None:
        groups = sum(len(state.groups) for reference, state in jobs if reference() is not None)
        consumers = len({id(consumer) for reference, _ in jobs if (consumer := reference()) is not None})
        if groups:
            emit(MembershipsLost(consumers=consumers, groups=groups, why=why))

    async def _each(self, jobs: Iterable[tuple[Any, Any]], work: Callable[..., Awaitable[None]], parallel: int) -> None:
        """Do the work for each, so many at a time.

        Raises:
            Exception: The first that the layer raised; the rest is not done.
        """
        waiting = iter(jobs)

        async def worker() -> None:
            for job in waiting:
                await work(*job)

        with ungrouped(Exception):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(parallel):
                    tasks.create_task(worker())

    async def _restore(self, reference: Reference, state: Subscriptions) -> None:
        for group in state.groups:
            await self._add(reference, state, group)
        # Not before they are all there: a resync that is handled now says nothing of what is lost until then.
        state.heard.clear()
        state.lose()

    async def _add(self, reference: Reference, state: Subscriptions, group: str) -> None:
        """Add a group again, unless the consumer has left it."""
        async with state.changing:
            consumer = reference()
            if consumer is None or not state.holds(group):
                return
            channel = consumer.channel_name
            now = time.time()
            try:
                await self.layer.group_add(group, channel)
            except RuntimeError:
                if not has_ended(self.layer, channel):
                    raise
                self._consumers.pop(id(consumer), None)
                return
            state.added[group] = now
            self._ours.setdefault(channel, set()).add(group)

    async def _tidy(self) -> None:
        """Leave groups on behalf of consumers that ended: they may have left them just before we added them."""
        if self._ours:
            gone = self._ours.keys() - {consumer.channel_name for consumer in self.consumers}
            left = [(group, channel) for channel in gone for group in self._ours.pop(channel)]
            await self._each(left, self.layer.group_discard, _PARALLEL_QUIET)

    # The leader.

    async def _stay_heard(self) -> None:
        """See that the leader knows of the subscriptions: else it leaves things unsaid."""
        gates: dict[str, list[Subscriptions]] = {}
        for _, state in self._jobs():
            if state.session:
                gates.setdefault(router.db_for_write(state.observer.model_cls), []).append(state)
        for alias, states in gates.items():
            gate = runtime(alias).gate
            try:
                is_known = await gate.renew()
            except CONNECTION_ERRORS:
                continue  # no leader reads either; at the next beat
            if not is_known:
                for state in states:
                    state.lose()

    # Resyncs.

    async def _tell(self) -> None:
        """Have the observers told that may have lost events, and were not told lately.

        Through the group of all subscribers of the observer: one message, where one for each consumer would be over the
        capacity of a process's queue. Those that lost nothing, here or in another process, do not heed it.
        """
        now = time.monotonic()
        stale: dict[int, list[Subscriptions]] = {}
        for consumer in self.consumers:
            for state in subscriptions_of(consumer).values():
                if state.stale and state.tell_at <= now and state.groups:
                    stale.setdefault(id(state.observer), []).append(state)
        for states in stale.values():
            await self._tell_observer(states[0].observer)
            for state in states:
                state.tell_at = time.monotonic() + TELL_AGAIN * 2**state.told
                state.told = min(state.told + 1, 6)

    async def _tell_observer(self, observer: Any) -> None:
        settings = get_settings()
        event = Event(
            action=RESYNC,
            body={"reason": CHANNEL_LAYER, "model": observer.model_cls._meta.label},
            change_id=0,
            xid=0,
            committed_at=datetime.now(UTC).isoformat(),
        ).encode()
        control = Control.of(observer)
        limits = {"max_events": settings.ENVELOPE_EVENTS, "max_bytes": settings.ENVELOPE_BYTES}
        for message in pack(control, control.group, [event], term=0, **limits):
            await self.layer.group_send(control.group, message)

    async def _tell_of_failures(self) -> None:
        """Record what handlers failed on; and have a consumer told that was told of others too short a time ago.

        The message is empty: whatever it receives, it looks whether that is due.
        """
        for alias, failures in list(self._failures.items()):
            count = len(failures)  # more may come meanwhile
            with contextlib.suppress(*CONNECTION_ERRORS):  # they are recorded with the next look
                await runtime(alias).gate.record(failures[:count])
                del failures[:count]
                if not failures:
                    del self._failures[alias]
        for consumer in self.consumers:
            for state in subscriptions_of(consumer).values():
                if state.failed and state.failed_at + PAUSE <= time.monotonic():
                    control = Control.of(state.observer)
                    await self.layer.send(consumer.channel_name, message_of(control, control.group, [], term=0))

    # Expiry.

    async def _renew(self, expiry: float) -> None:
        """Add each membership again between a sixth and a third of its life, and know those that were too late."""
        backoff = Backoff(0.1, 1.0)
        while True:
            await asyncio.sleep(min(expiry / 12, 30.0))
            now = time.time()
            due = [(ref, state) for ref, state in self._jobs() if state.oldest(now) + expiry * state.share / 3 <= now]
            try:
                await self._each(due, self._renew_one, _PARALLEL_QUIET)
            except Exception:
                # The watch hears of it too, and says so; this tries again.
                await asyncio.sleep(backoff.delay())
            else:
                backoff.reset()

    async def _renew_one(self, reference: Reference, state: Subscriptions) -> None:
        oldest = state.oldest(time.time())
        for group in state.groups:
            await self._add(reference, state, group)
        if self._expiry is not None and time.time() >= oldest + self._expiry:
            state.lose()


def _leave_at_disconnect(consumer: Any) -> None:
    """Have a consumer leave our groups when it is disconnected.

    Its class may be anything that inherits from DCRF's, so the instance gets the method. That holds it weakly: a circle
    would keep ended consumers until the next garbage collection.
    """
    if "websocket_disconnect" in vars(consumer):
        return
    reference = weakref.ref(consumer)

    async def websocket_disconnect(message: Any) -> None:
        ended = reference()
        if ended is None:
            return
        try:
            # If the layer cannot be reached, the keeper tries again later.
            with contextlib.suppress(Exception):
                await keeper(ended.channel_layer).leave_all(ended)
        finally:
            await type(ended).websocket_disconnect(ended, message)

    consumer.websocket_disconnect = websocket_disconnect


_keepers: dict[asyncio.AbstractEventLoop, dict[int, Keeper]] = {}


def keeper(layer: Any) -> Keeper:
    """The keeper of a layer on the running event loop; made when there is none.

    An event loop that is closed takes its tasks with it.
    """
    found = _keepers.setdefault(asyncio.get_running_loop(), {})
    if id(layer) not in found:
        found[id(layer)] = Keeper(layer)
        for loop in [loop for loop in _keepers if loop.is_closed()]:
            del _keepers[loop]
    return found[id(layer)]
