"""Channel layers that lose messages, as any may, and one whose memberships last."""

import random
from typing import Any

from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer

from djcrf_pg.delivery.protocol import KEY


class LossyLayer(RedisChannelLayer):  # type: ignore[misc]
    """Loses what has "lose me" in it, and a part of all that is sent to groups, without a word.

    Args:
        share: The part, of 1.
    """

    def __init__(self, *args: Any, share: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._share = share
        self._random = random.Random(14)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """As every layer's."""
        if "lose me" not in str(message.get(KEY)) and self._random.random() >= self._share:
            await super().group_send(group, message)


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
