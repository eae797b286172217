"""Consumers that DCRF does not tell apart, since their handlers have one name in one module."""

from typing import Any

from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import ModelSerializer

from tests.testapp.models import Task


class PublicSerializer(ModelSerializer[Task]):
    """What everybody may see."""

    class Meta:
        model = Task
        fields = ("id", "title")


class StaffSerializer(ModelSerializer[Task]):
    """What staff may see."""

    class Meta:
        model = Task
        fields = ("id", "title", "body")


class TwinConsumer(GenericAsyncAPIConsumer):
    """Subscribes to ``changes``."""

    @action()
    async def subscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """Subscribe to the observer ``name``."""
        await getattr(self, name).subscribe(request_id=request_id)
        return None, 201


class PublicConsumer(TwinConsumer):
    """For everybody."""

    @model_observer(Task, serializer_class=PublicSerializer)
    async def changes(self, message: Any, **kwargs: Any) -> None:
        """Send the body."""
        await self.send_json({"observer": "changes", "body": message})


class StaffConsumer(TwinConsumer):
    """For staff."""

    @model_observer(Task, serializer_class=StaffSerializer)
    async def changes(self, message: Any, **kwargs: Any) -> None:
        """Send the body."""
        await self.send_json({"observer": "changes", "body": message})


def define(word: str) -> type[TwinConsumer]:
    """Define a consumer, as a factory does, or a module that is loaded again."""

    class Defined(TwinConsumer):
        @model_observer(Task)
        async def changes(self, message: Any, **kwargs: Any) -> None:
            await self.send_json({"observer": "changes", "body": message})

        @changes.serializer
        def changes(self, instance: Task, action: Any, **kwargs: Any) -> Any:
            return {"id": instance.pk, "word": word}

    return Defined


FORMER, LATER, OTHER = define("same"), define("same"), define("other")


class ChatConsumer(GenericAsyncAPIConsumer):
    """Rooms, as the common tutorial has them: a message goes to all groups that the consumer is in."""

    async def connect(self) -> None:
        """Join the room that the address names."""
        await self.accept()
        await self.add_group(f"room-{self.scope['url_route']['kwargs']['room']}")

    @model_observer(Task)
    async def changes(self, message: Any, **kwargs: Any) -> None:
        """Send the key."""
        await self.send_json({"observer": "changes", "body": message})

    @changes.groups_for_signal
    def changes(self, instance: Task, **kwargs: Any):
        yield instance.status

    @changes.groups_for_consumer
    def changes(self, status: str, **kwargs: Any):
        yield status

    @action()
    async def subscribe(self, status: str, **kwargs: Any) -> tuple[Any, int]:
        """Subscribe to the tasks of the room; reply with the consumer's groups and those that DCRF knows."""
        groups = await self.changes.subscribe(status=status)
        return {"joined": sorted(self.groups), "subscribed": list(groups)}, 201

    @action()
    async def say(self, text: str, **kwargs: Any) -> tuple[None, int]:
        """Send a text to everybody in the consumer's groups."""
        for group in self.groups:
            await self.channel_layer.group_send(group, {"type": "chat.message", "text": text})
        return None, 200

    async def chat_message(self, message: Any) -> None:
        """Send a text on."""
        await self.send_json({"observer": "chat", "text": message["text"]})


CONSUMERS = {"public": PublicConsumer, "staff": StaffConsumer, "former": FORMER, "later": LATER, "other": OTHER}
