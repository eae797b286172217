"""Send messages through the channel layer, in order for each group, and never skip one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ChannelLayerError, LeadershipLost
from djcrf_pg.listener.backoff import Backoff
from djcrf_pg.listener.envelope import pack
from djcrf_pg.listener.telling import Outgoing
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

    async def send(self, outgoing: Outgoing) -> None:
        """Send everything, and return when the layer has taken it all.

        Raises:
            LeadershipLost: The leadership ended meanwhile; the rest is for the next leader.
        """
        # A subscriber that loads again on a resync must not hear afterwards of what came before it.
        for last in (False, True):
            await self._send_groups({place: events for place, events in outgoing.items() if place.resync is last})

    async def _send_groups(self, outgoing: Outgoing) -> None:
        settings = get_settings()
        groups: dict[str, list[dict[str, Any]]] = {}
        for place, events in outgoing.items():
            groups.setdefault(place.group, []).extend(
                pack(
                    place.message_type,
                    place.group,
                    events,
                    term=self._term,
                    max_events=settings.ENVELOPE_EVENTS,
                    max_bytes=settings.ENVELOPE_BYTES,
                )
            )
        try:
            async with asyncio.TaskGroup() as tasks:
                for group, messages in groups.items():
                    tasks.create_task(self._send_in_order(group, messages))
        except* LeadershipLost as errors:
            raise errors.exceptions[0] from None

    async def _send_in_order(self, group: str, messages: Iterable[dict[str, Any]]) -> None:
        async with self._parallel:
            for message in messages:
                await self._send(group, message)

    async def _send(self, group: str, message: dict[str, Any]) -> None:
        backoff = Backoff(0.05, 5.0)
        while True:
            if not await self._leads():
                raise LeadershipLost(f"the session of term {self._term} is gone")
            try:
                await channel_layer().group_send(group, message)
            except (TypeError, ValueError, AssertionError) as error:
                # No outage: the layer will never take this message, and the others must not wait for it.
                emit(LayerRefused(group=group, error=repr(error)), error)
                return
            except Exception as error:
                delay = backoff.delay()
                emit(LayerFailed(error=repr(error), delay=delay))
                await asyncio.sleep(delay)
            else:
                return
