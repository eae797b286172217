"""The leader's end of delivery: messages and heartbeats of one term, through the channel layer.

A message is tried until the layer takes it, or until the lead is lost: those of a stream one after the other, the
streams beside each other. Heartbeats come each :data:`~djcrf_pg.delivery.protocol.BEAT` seconds whatever else goes on,
one after the other; one that fails is made anew with the next. What may be missed and when the cursor may be saved is
in :mod:`djcrf_pg.delivery.protocol`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from djcrf_pg.changelog.cursor import Position, Span
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.layer import PATIENCE, channel_layer, report_failure
from djcrf_pg.delivery.protocol import BEAT, KEY, TYPE, History, Item, Message, Origin, Outbound
from djcrf_pg.exceptions import LeadershipLost, ungrouped
from djcrf_pg.observations import LayerRefused, emit

#: Seconds that it has once the listener is asked to stop, which is to end in five.
_GRACE = 1.0

#: Seconds for a message from which on a layer is far away, and that are rested after a delivery at most.
_FAR, _LONGEST_REST = 0.05, 1.0

#: Seconds between tries, at first and at most.
_SHORTEST, _LONGEST = 0.05, 5.0


class Streams:
    """Sends what a leader has, for one term.

    Args:
        outbound: Makes the messages.
        history: Of the database.
        leads: Says whether the lead still lasts; asked before each try.
        pause: Sleeps for some seconds, or until the listener is asked to stop; returns whether it is.
        observers: The addresses of those that the leader has.
    """

    def __init__(
        self,
        outbound: Outbound,
        history: History,
        leads: Callable[[], Awaitable[bool]],
        pause: Callable[[float], Awaitable[bool]],
        observers: Callable[[], Iterable[str]],
    ) -> None:
        self._outbound = outbound
        self._history = history
        self._leads = leads
        self._pause = pause
        self._observers = observers
        self._beating = asyncio.Lock()
        self._begun = asyncio.Event()
        self._took = 0.0
        self._hurried = False
        self._limits: set[asyncio.Timeout] = set()

    @property
    def strain(self) -> float:
        """Seconds to rest after a delivery: as long as the layer took for a message, where it is far away.

        Each message costs its receiver as much as us, and one that comes later has more events.
        """
        return min(self._took, _LONGEST_REST) if self._took > _FAR else 0.0

    @property
    def beside(self) -> Span:
        """The span of what is no read."""
        return self._outbound.beside

    def origin(self, span: Span) -> Origin:
        """What events of a span are made of."""
        return Origin(self._history, span)

    @property
    def savable(self) -> Position:
        """The position that the cursor may be saved at."""
        return self._outbound.savable

    async def begun(self) -> None:
        """Wait for the first heartbeat that the layer takes."""
        await self._begun.wait()

    async def deliver(self, items: Iterable[Item], reach: Position, span: Span | None = None) -> None:
        """Send events, and return when the layer has them all.

        Args:
            items: The events, in order.
            reach: Up to where in the log what they say may lie.
            span: The part of the log that they are made of; None where they are beside what is read.

        Raises:
            LeadershipLost: The lead ended meanwhile, or the listener is asked to stop and the layer fails; the rest is
                for the next leader.
        """
        with ungrouped(LeadershipLost):
            async with asyncio.TaskGroup() as tasks:
                for messages in self._outbound.deliver(items, reach, span).values():
                    tasks.create_task(self._send_in_order(messages))

    def advance(self, position: Position) -> None:
        """Note that all of the log up to a position was sent."""
        self._outbound.advance(position)

    async def _send_in_order(self, messages: Iterable[Message]) -> None:
        for message in messages:
            group = self._history.group(message.stream)
            try:
                await self._send(group, message.text)
            except (TypeError, ValueError, AssertionError) as error:
                # No outage: the layer will never take this message, and the others must not wait for it.
                emit(LayerRefused(group=group, error=repr(error)), error)
            self._outbound.taken(message)

    async def _send(self, group: str, text: str) -> None:
        backoff = Backoff(_SHORTEST, _LONGEST)
        while True:
            if not await self._leads():
                raise LeadershipLost("the session of the leader is gone")
            try:
                await self._put(group, text)
            except (TypeError, ValueError, AssertionError):
                raise
            except Exception as error:
                delay = backoff.delay()
                report_failure(error, delay)
                if await self._pause(delay):
                    raise LeadershipLost("it is asked to stop, and the channel layer takes nothing") from error
            else:
                return

    async def _put(self, group: str, text: str) -> None:
        begun = time.monotonic()
        async with asyncio.timeout(_GRACE if self._hurried else PATIENCE) as limit:
            self._limits.add(limit)
            try:
                await channel_layer().group_send(group, {"type": TYPE, KEY: text})
            finally:
                self._limits.discard(limit)
        self._took = time.monotonic() - begun

    async def beat(self) -> bool:
        """Send a heartbeat; whether the layer took it."""
        async with self._beating:
            heartbeat = self._outbound.heartbeat(self._observers())
            try:
                await self._put(self._history.group(None), heartbeat.text)
            except Exception as error:
                report_failure(error, BEAT)
                return False
            self._outbound.told(heartbeat)
            self._begun.set()
            return True

    async def run(self) -> None:
        """Send heartbeats until cancelled, or until the lead is lost.

        Raises:
            LeadershipLost: It is.
        """
        hurrying = asyncio.create_task(self._hurry())
        try:
            while await self._leads():
                await self.beat()
                await asyncio.sleep(BEAT)
        finally:
            hurrying.cancel()
        raise LeadershipLost("the session of the leader is gone")

    async def _hurry(self) -> None:
        """When the listener is asked to stop, wait little for a layer that hangs: also for what is on its way."""
        while not await self._pause(_LONGEST):
            pass
        self._hurried = True
        soon = asyncio.get_running_loop().time() + _GRACE
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(min(limit.when() or soon, soon))
