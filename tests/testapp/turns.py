"""A consumer that says whether anything of it ran beside anything else, and does what the titles of rows tell it to."""

import asyncio
from collections import Counter
from typing import Any

from channels.exceptions import StopConsumer
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.observer import model_observer

from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

#: Title to the number of calls of a handler with it, in this process.
calls: Counter[str] = Counter()


class Turns:
    """The observer, in a class that is no consumer."""

    inside = 0
    gate: asyncio.Event | None = None

    async def turn(self, what: str) -> bool:
        """Take a while; whether it was alone."""
        self.inside += 1
        alone = self.inside == 1
        for _ in range(3):
            await asyncio.sleep(0.001)
        alone = alone and self.inside == 1
        self.inside -= 1
        return alone

    @model_observer(Task)
    async def turns(self: Any, message: dict[str, Any], **kwargs: Any) -> None:
        """Do as the title says, and tell."""
        calls[message["title"]] += 1
        alone = await self.turn(message["title"])
        match message["title"]:
            case "unsubscribe":
                await self.turns.unsubscribe(request_id="turns")
            case "close":
                await self.close(4000)
                return
            case "stop":
                raise StopConsumer
            case "wait":
                await self.gate.wait()
        await self.send_json({"observer": "turns", "title": message["title"], "alone": alone})

    @turns.serializer
    def turns(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        return {"title": instance.title}


class TurnsConsumer(Turns, BoardConsumer):
    """As DCRF's documentation has mixins."""

    @action()
    async def ping(self, number: int, **kwargs: Any) -> tuple[dict[str, Any], int]:
        """An action that takes a while."""
        return {"number": number, "alone": await self.turn("ping")}, 200

    @action()
    async def called(self, **kwargs: Any) -> tuple[dict[str, int], int]:
        """What handlers of this process were called with."""
        return dict(calls), 200

    @action()
    async def say(self, text: str, **kwargs: Any) -> None:
        """Send a message of the application's own to everybody in its groups."""
        for group in self.groups:
            await self.channel_layer.group_send(group, {"type": "said", "text": text})

    async def said(self, message: dict[str, Any]) -> None:
        """Pass it on."""
        await self.send_json({"said": message["text"]})


class BehindConsumer(BoardConsumer, Turns):
    """With the mixin at the end."""

    ping = TurnsConsumer.ping


CONSUMERS = {"turns": TurnsConsumer, "behind": BehindConsumer}
