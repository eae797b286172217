"""What the consumers of the apps have in common."""

from typing import Any

from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer


class TellingConsumer(GenericAsyncAPIConsumer):
    """Subscribes to its observers by name, and sends what they are told."""

    async def tell(self, name: str, message: Any, **kwargs: Any) -> None:
        """Send an event, and the observer that it is of."""
        kwargs.pop("observer")
        await self.send_json({"observer": name, "body": message, **kwargs})

    @action()
    async def subscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[dict[str, Any], int]:
        """Subscribe to the observer ``name``."""
        kwargs.pop("action", None)
        groups = await getattr(self, name).subscribe(request_id=request_id, **kwargs)
        return {"groups": list(groups)}, 201
