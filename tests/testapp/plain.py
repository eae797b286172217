"""Consumers of Channels alone, and observers that stand in a mixin."""

import json
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from tests.testapp.models import Task


class TaskObserver:
    """No consumer by itself: what it is combined with is."""

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """Send what is given."""
        kwargs.pop("observer")
        await self.send_json({"observer": "tasks", "body": message, **kwargs})


class PlainConsumer(TaskObserver, AsyncJsonWebsocketConsumer):
    """Channels' JSON consumer, in a group of its own, with a method of a name that DCRF uses otherwise."""

    groups = ("everybody",)

    async def reply(self, text: str) -> None:
        """Not DCRF's."""
        await self.send_json({"text": text})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Call the one or the other, and say which groups the consumer is in."""
        do = self.tasks.subscribe if content["action"] == "subscribe" else self.tasks.unsubscribe
        await do(request_id=content["request_id"])
        await self.send_json({**content, "response_status": 201, "groups": sorted(self.groups)})


class TextConsumer(AsyncWebsocketConsumer):
    """Channels' consumer of text, which cannot send what stands for lost events but by a method of its own."""

    @model_observer(Task)
    async def texts(self, message: Any, action: str, **kwargs: Any) -> None:
        """Send it as text."""
        await self.send(json.dumps({"action": action, "body": message}))

    @texts.resync
    async def texts(self, reason: str, **kwargs: Any) -> None:
        await self.send(json.dumps({"action": "resync", "reason": reason}))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Subscribe."""
        content = json.loads(text_data or "")
        await self.texts.subscribe(request_id=content["request_id"])
        await self.send(json.dumps({**content, "response_status": 201}))


class MixedConsumer(TaskObserver, GenericAsyncAPIConsumer):
    """DCRF's, with the observer of the mixin."""

    @action()
    async def subscribe(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """Subscribe."""
        await self.tasks.subscribe(request_id=request_id)
        return None, 201


CONSUMERS = {"plain": PlainConsumer, "text": TextConsumer, "mixed": MixedConsumer}
