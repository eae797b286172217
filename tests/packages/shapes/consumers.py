"""Observers of the base and of a child, both by the join table too."""

from typing import Any

from djangochannelsrestframework.observer import model_observer

from tests.packages.consumers import TellingConsumer
from tests.packages.shapes.models import Circle, Shape


class ShapesConsumer(TellingConsumer):
    """See the module."""

    @model_observer(Shape, many_to_many=True)
    async def shapes(self, message: Any, **kwargs: Any) -> None:
        """The class of the instance, and its name."""
        await self.tell("shapes", message, **kwargs)

    @shapes.serializer
    def shapes(self, instance: Shape, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return {"type": type(instance).__name__, "name": instance.name}

    @model_observer(Circle, many_to_many=True)
    async def circles(self, message: Any, **kwargs: Any) -> None:
        """Fields of both tables."""
        await self.tell("circles", message, **kwargs)

    @circles.serializer
    def circles(self, instance: Circle, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return {"type": type(instance).__name__, "name": instance.name, "radius": instance.radius}


CONSUMERS = {"shapes": ShapesConsumer}
