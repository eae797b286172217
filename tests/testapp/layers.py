"""Channel layers that lose messages, as any may."""

import random
from typing import Any

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
