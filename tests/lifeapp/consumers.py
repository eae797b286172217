"""A consumer that stays subscribed while the table changes under it."""

from typing import Any

from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from tests.lifeapp.models import Item


class ItemConsumer(GenericAsyncAPIConsumer):
    """Tells what the instances of its time have loaded."""

    @model_observer(Item)
    async def items(self, message: Any, action: str, change_id: int, **kwargs: Any) -> None:
        """Send the row."""
        await self.send_json({"change": action, "id": change_id, "row": message})

    @items.serializer
    def items(self, instance: Item, action: Any, **kwargs: Any) -> dict[str, Any]:
        names = [field.attname for field in Item._meta.concrete_fields]
        return {name: instance.__dict__[name] for name in names if name in instance.__dict__}

    @items.resync
    async def items(self, reason: str, **kwargs: Any) -> None:
        await self.send_json({"change": "resync", "id": None, "row": {"reason": reason}})

    @action()
    async def subscribe(self, **kwargs: Any) -> tuple[None, int]:
        """Subscribe."""
        await self.items.subscribe()
        return None, 201
