"""Send messages through the channel layer, in order for each group, and never skip one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.exceptions import ChannelLayerError, LeadershipLost, ungrouped
from djcrf_pg.listener.envelope import KEY, pack, roll
from djcrf_pg.listener.numbering import Numbering, Tail
from djcrf_pg.listener.occurrence import Bundle, Destination, Outgoing
from djcrf_pg.observations import LayerFailed, LayerRefused, emit

#: Groups that are sent to at the same time; a message to Redis takes most of a millisecond, mostly waiting.
_PARALLEL = 32


def channel_layer() -> Any:
    """The project's default channel layer, which is DCRF's.

    Raises:
        ChannelLayerError: None is configured.
    """
    layer = get_channel_layer()
    if layer is None:
        raise ChannelLayerError(
            "No channel layer: events travel through it. Set CHANNEL_LAYERS['default'] in the settings, to "
            "channels_redis.core.RedisChannelLayer, or for a single process to channels.layers.InMemoryChannelLayer."
        )
    return layer


def is_in_memory(layer: Any) -> bool:
    """Whether a layer reaches the consumers of its own process alone."""
    return isinstance(layer, InMemoryChannelLayer)


class Sender:
    """Sends the events of a leader.

    Args:
        term: Of the leadership.
        leads: Says whether it still lasts; asked before each message, and again after each wait.
    """

    def __init__(self, term: int, leads: Callable[[], Awaitable[bool]]) -> None:
        self._term = term
        self._leads = leads
        self._parallel = asyncio.Semaphore(_PARALLEL)
        self._numbering = Numbering()
        self._noted = asyncio.Event()
        self._ending = False

    async def send(self, outgoing: Outgoing) -> None:
        """Send everything, and return when the layer has taken it all.

        Raises:
            LeadershipLost: The leadership ended meanwhile; the rest is for the next leader.
        """
        # A subscriber that loads again on a resync must not hear afterwards of what came before it.
        for last in (False, True):
            await self._send_groups({place: events for place, events in outgoing.items() if place.resync is last})

    async def _send_groups(self, outgoing: Outgoing) -> None:
        groups: dict[str, list[tuple[Destination, Bundle]]] = {}
        for place, bundle in outgoing.items():
            groups.setdefault(place.group, []).append((place, bundle))
        with ungrouped(LeadershipLost):
            async with asyncio.TaskGroup() as tasks:
                for bundles in groups.values():
                    tasks.create_task(self._send_in_order(bundles))

    async def _send_in_order(self, bundles: Iterable[tuple[Destination, Bundle]]) -> None:
        settings = get_settings()
        limits = {"max_events": settings.ENVELOPE_EVENTS, "max_bytes": settings.ENVELOPE_BYTES}
        async with self._parallel:
            for place, bundle in bundles:
                for message in pack(place.control, place.group, bundle.events, term=self._term, **limits):
                    number = await self._send(place.group, message)
                    # Noted when the layer has taken it: a roll must not come before what it names. And noted each by
                    # itself, because the next one names it.
                    tail = Tail(number, bundle.xid, bundle.at)
                    self._numbering.sent(place.control, place.group, tail, time.monotonic())
                    self._noted.set()

    async def call_rolls(self) -> None:
        """Say now and then what was sent last, until :meth:`end`.

        Raises:
            LeadershipLost: The leadership ended meanwhile.
        """
        while True:
            due = self._numbering.due
            if not self._ending and (due is None or due > time.monotonic()):
                self._noted.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due is None else due - time.monotonic()):
                        await self._noted.wait()
                continue
            ending = self._ending
            for control, tails in self._numbering.rolls(time.monotonic()):
                await self._send(control.group, roll(control, tails, term=self._term))
            if ending:
                return

    def end(self) -> None:
        """Have the rolls say now what they have not said yet, and end: the next leader knows nothing of it."""
        self._numbering.hasten()
        self._ending = True
        self._noted.set()

    async def _send(self, group: str, message: dict[str, Any]) -> int:
        """Send a message with its number, and return that."""
        before, number = self._numbering.number(group)
        message[KEY].update(number=number, before=list(before))
        backoff = Backoff(0.05, 5.0)
        while True:
            if not await self._leads():
                raise LeadershipLost(f"the session of term {self._term} is gone")
            try:
                await channel_layer().group_send(group, message)
            except (TypeError, ValueError, AssertionError) as error:
                # No outage: the layer will never take this message, and the others must not wait for it.
                emit(LayerRefused(group=group, error=repr(error)), error)
                return number
            except Exception as error:
                delay = backoff.delay()
                emit(LayerFailed(error=repr(error), delay=delay))
                await asyncio.sleep(delay)
            else:
                return number
