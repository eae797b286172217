"""Observers whose groups and serializers reach parents."""

from typing import Any

from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import ModelSerializer

from tests.packages.consumers import TellingConsumer
from tests.packages.furniture.models import Desk, Guarded, Place, Reading


class PlaceSerializer(ModelSerializer[Place]):
    """A place."""

    class Meta:
        model = Place
        fields = ("name",)


class DeskSerializer(ModelSerializer[Desk]):
    """A desk, with its place."""

    place = PlaceSerializer()

    class Meta:
        model = Desk
        fields = ("label", "place")


class ReadingSerializer(ModelSerializer[Reading]):
    """A reading, with its desk."""

    desk = DeskSerializer()

    class Meta:
        model = Reading
        fields = ("id", "desk")


class ReadingConsumer(TellingConsumer):
    """Each reaches further than the row."""

    @model_observer(Reading, parents=["desk__place__around"])
    async def deep(self, message: Any, **kwargs: Any) -> None:
        """Groups and a serializer of its own."""
        await self.tell("deep", message, **kwargs)

    @deep.groups_for_signal
    def deep(self, instance: Reading, **kwargs: Any):
        if instance.desk is not None:
            yield instance.desk.place.around.name

    @deep.groups_for_consumer
    def deep(self, name: str = "city", **kwargs: Any):
        yield name

    @deep.serializer
    def deep(self, instance: Reading, action: Any, **kwargs: Any) -> Any:
        return {"id": instance.pk, "desk": instance.desk.label, "place": instance.desk.place.name}

    @model_observer(Reading, serializer_class=ReadingSerializer)
    async def nested(self, message: Any, **kwargs: Any) -> None:
        """A nested serializer."""
        await self.tell("nested", message, **kwargs)

    @model_observer(Reading, parents=["guarded"])
    async def guarded(self, message: Any, **kwargs: Any) -> None:
        """Has a parent that may refuse to be made."""
        await self.tell("guarded", message, **kwargs)

    @guarded.serializer
    def guarded(self, instance: Reading, action: Any, **kwargs: Any) -> Any:
        try:
            return {"id": instance.pk, "guarded": instance.guarded and instance.guarded.spoiled}
        except Guarded.DoesNotExist:
            return {"id": instance.pk, "guarded": "missing"}

    @model_observer(Reading)
    async def owned(self, message: Any, **kwargs: Any) -> None:
        """Wants the owner's key alone."""
        await self.tell("owned", message, **kwargs)

    @owned.serializer
    def owned(self, instance: Reading, action: Any, **kwargs: Any) -> Any:
        return {"id": instance.pk, "owner": instance.owner.id if instance.owner else None}

    @model_observer(Reading)
    async def named(self, message: Any, **kwargs: Any) -> None:
        """Wants the owner's name."""
        await self.tell("named", message, **kwargs)

    @named.serializer
    def named(self, instance: Reading, action: Any, **kwargs: Any) -> Any:
        return {"id": instance.pk, "owner": instance.owner.name if instance.owner else None}


CONSUMERS = {"readings": ReadingConsumer}
