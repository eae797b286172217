"""A consumer with one observer for each table. It counts what it hears, or tells each event."""

import time
from typing import Any

from django.conf import settings
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer as signal_observer
from rest_framework.serializers import CharField, IntegerField, ModelSerializer, Serializer

from benchmarks.app.models import (
    Captured,
    Crowded,
    Custom,
    Documented,
    Followed,
    Grouped,
    Lonely,
    Narrow,
    Nested,
    Resumed,
    Serialized,
    Signalled,
)
from djcrf_pg.observer import model_observer


class RowSerializer(ModelSerializer[Documented]):
    """Every column. DRF takes it for the other tables too, whose columns are the same."""

    class Meta:
        model = Documented
        fields = ("id", "title", "body", "n", "price", "at", "flag", "tag")


class NameSerializer(Serializer[Any]):
    """What is nested."""

    id = IntegerField()
    name = CharField()


class NestedSerializer(RowSerializer):
    """Every column, and the rows that belong to it."""

    author = NameSerializer()
    labels = NameSerializer(many=True)

    class Meta(RowSerializer.Meta):
        fields = (*RowSerializer.Meta.fields, "author", "labels")


class BenchConsumer(GenericAsyncAPIConsumer):
    """What a client asks for first: `listen` to count, `echo` for a frame for each event."""

    awaited: int | None = None
    events = False
    heard = 0
    first = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: set[int] = set()

    async def hear(self, message: Any) -> None:
        """The handler of all observers."""
        if self.awaited is None:
            await self.send_json(message)
            return
        self.first = self.first or time.monotonic()
        self.heard += 1
        self.seen.add(message["pk"])
        if (self.heard if self.events else len(self.seen)) == self.awaited:
            await self.send_json({"done": self.heard, "first": self.first, "last": time.monotonic()})

    @model_observer(Captured)
    async def captured(self, message: Any, **kwargs: Any) -> None:
        """The default body."""
        await self.hear(message)

    @model_observer(Serialized, serializer_class=RowSerializer)
    async def serialized(self, message: Any, **kwargs: Any) -> None:
        """The whole row."""
        await self.hear({"pk": message["id"]})

    @model_observer(Nested, serializer_class=NestedSerializer)
    async def nested(self, message: Any, **kwargs: Any) -> None:
        """The whole row with others in it."""
        await self.hear({"pk": message["id"]})

    @model_observer(Lonely, serializer_class=NestedSerializer, prefetch=False)
    async def lonely(self, message: Any, **kwargs: Any) -> None:
        """The same, each event by itself."""
        await self.hear({"pk": message["id"]})

    @model_observer(Custom)
    async def custom(self, message: Any, **kwargs: Any) -> None:
        """The whole row, by hand."""
        await self.hear({"pk": message["id"]})

    @custom.serializer
    def custom(self, instance: Custom, action: Any, **kwargs: Any) -> dict[str, Any]:
        return {
            "id": instance.pk,
            "title": instance.title,
            "body": instance.body,
            "n": instance.n,
            "price": str(instance.price),
            "at": instance.at.isoformat(),
            "flag": instance.flag,
            "tag": str(instance.tag),
        }

    @model_observer(Documented)
    async def documented(self, message: Any, **kwargs: Any) -> None:
        """The whole row, by a serializer for each event."""
        await self.hear({"pk": message["id"]})

    @documented.serializer
    def documented(self, instance: Documented, action: Any, **kwargs: Any) -> Any:
        return RowSerializer(instance).data

    @model_observer(Grouped)
    async def grouped(self, message: Any, **kwargs: Any) -> None:
        """One of many groups."""
        await self.hear(message)

    @grouped.groups_for_signal
    def grouped(self, instance: Grouped, **kwargs: Any):
        yield f"g{instance.pk % settings.BENCH_GROUPS}"

    @grouped.groups_for_consumer
    def grouped(self, group: int | None = None, **kwargs: Any):
        for number in range(settings.BENCH_GROUPS) if group is None else [group]:
            yield f"g{number}"

    @model_observer(Resumed)
    async def resumed(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """One of many groups, with a cursor."""
        await self.hear({**message, "cursor": cursor})

    @resumed.groups_for_signal
    def resumed(self, instance: Resumed, **kwargs: Any):
        yield f"r{instance.pk % settings.BENCH_GROUPS}"

    @resumed.groups_for_consumer
    def resumed(self, group: int | None = None, **kwargs: Any):
        for number in range(settings.BENCH_GROUPS) if group is None else [group]:
            yield f"r{number}"

    @model_observer(Followed, serializer_class=RowSerializer)
    async def followed(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """The whole row, with a cursor."""
        await self.hear({"pk": message["id"], **message, "cursor": cursor})

    @model_observer(Narrow)
    async def narrow(self, message: Any, **kwargs: Any) -> None:
        """For the size of the log alone."""

    @action()
    async def subscribe(
        self, name: str, group: int | None = None, since: str | None = None, request_id: Any = None, **kwargs: Any
    ) -> tuple[None, int]:
        """Subscribe to an observer, or to one group of it; with a cursor, what it has not seen comes first."""
        asked: dict[str, Any] = {} if group is None else {"group": group}
        if since is not None:
            asked["since"] = since
        await getattr(self, name).subscribe(**asked, request_id=request_id)
        return None, 201

    @action()
    async def cursor(self, name: str, **kwargs: Any) -> tuple[str, int]:
        """A cursor that has seen all that is committed."""
        return await getattr(self, name).current_cursor(), 200

    @action()
    async def listen(self, count: int, events: bool = False, **kwargs: Any) -> tuple[None, int]:
        """Count from now on, and tell when so many rows have been heard of, or so many events."""
        self.awaited, self.events, self.heard, self.first = count, events, 0, 0.0
        self.seen.clear()
        return None, 200

    @action()
    async def tell(self, **kwargs: Any) -> tuple[dict[str, Any], int]:
        """How far it is."""
        return {"awaited": self.awaited, "heard": self.heard, "rows": len(self.seen)}, 200

    @action()
    async def echo(self, **kwargs: Any) -> tuple[None, int]:
        """Send a frame for each event from now on."""
        self.awaited = None
        return None, 200


if settings.BENCH_SIGNALS:

    async def signalled(self: BenchConsumer, message: Any, **kwargs: Any) -> None:
        """DCRF's own."""
        await self.hear(message)

    BenchConsumer.signalled = signal_observer(Signalled)(signalled)


def _observer(number: int) -> Any:
    async def crowded(self: BenchConsumer, message: Any, **kwargs: Any) -> None:
        if number == 0:
            await self.hear(message)

    crowded.__name__ = f"crowded{number}"
    crowded.__qualname__ = f"BenchConsumer.crowded{number}"
    observer = model_observer(Crowded)(crowded)
    setattr(BenchConsumer, crowded.__name__, observer)
    return observer


CROWD = [_observer(number) for number in range(settings.BENCH_OBSERVERS)]
