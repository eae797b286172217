"""A channel layer that loses messages, as any may."""

from typing import Any

from channels_redis.core import RedisChannelLayer


class LossyLayer(RedisChannelLayer):  # type: ignore[misc]
    """Loses what has "lose me" in it, without a word."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """As every layer's."""
        if "lose me" not in message.get("djcrf_pg", {}).get("events", ""):
            await super().group_send(group, message)
