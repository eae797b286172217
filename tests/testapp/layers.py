"""Channel layers that lose messages, as any may, and one whose memberships last."""

import logging
import random
from typing import Any

from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from djcrf_pg.delivery.protocol import KEY

_log = logging.getLogger(__name__)


class _Losing:
    """Loses what has "lose me" in it, and a part of all that is sent to groups, without a word to the sender.

    Args:
        share: The part, of 1.
        seed: Says which.
    """

    def __init__(self, *args: Any, share: float = 0.0, seed: int = 14, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._share = share
        self._random = random.Random(seed)

    def _loses(self, group: str, message: dict[str, Any]) -> bool:
        if "lose me" not in str(message.get(KEY)) and self._random.random() >= self._share:
            return False
        _log.info("lost on purpose: a message to %s", group)
        return True


class LossyLayer(_Losing, RedisChannelLayer):  # type: ignore[misc]
    """`core`, and it loses messages."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """As every layer's."""
        if not self._loses(group, message):
            await super().group_send(group, message)


class LossyPubSubLayer(_Losing, RedisPubSubChannelLayer):  # type: ignore[misc]
    """`pubsub`, and it loses messages."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """As every layer's."""
        if not self._loses(group, message):
            await self._get_layer().group_send(group, message)


class LastingLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """Keeps memberships for ever where ``group_expiry`` is no positive number, as channels_postgres does.

    Attributes:
        added: The groups of each call of ``group_add``.
    """

    def __init__(self, *args: Any, group_expiry: int | None = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group_expiry = group_expiry
        self.added: list[str] = []

    async def group_add(self, group: str, channel: str) -> None:
        """As every layer's."""
        self.added.append(group)
        await super().group_add(group, channel)

    def _clean_expired(self) -> None:
        """Nothing expires."""
