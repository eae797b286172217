"""A consumer that says whether anything of it ran beside anything else, and does what the titles of rows tell it to."""

import asyncio
import gc
import os
from collections import Counter, deque
from typing import Any

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from django.db import connection
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.observer import model_observer

from djcrf_pg.delivery.inbox import Inbox, Subscription
from djcrf_pg.listener import embedded
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
    def atomic(self, number: int, **kwargs: Any) -> tuple[dict[str, Any], int]:
        """An action that takes a while in a thread, maybe in a transaction."""
        self.inside += 1
        alone = self.inside == 1
        Task.objects.count()
        alone = alone and self.inside == 1
        self.inside -= 1
        return {"number": number, "alone": alone, "atomic": connection.in_atomic_block}, 200

    @action()
    async def called(self, **kwargs: Any) -> tuple[dict[str, int], int]:
        """What handlers of this process were called with."""
        return dict(calls), 200

    @action()
    async def process(self, **kwargs: Any) -> tuple[int, int]:
        """Which one serves this client."""
        return os.getpid(), 200

    @action()
    async def boom(self, **kwargs: Any) -> None:
        """End the consumer as a fault in an action does."""
        raise ArithmeticError("boom")

    @action()
    async def left(self, **kwargs: Any) -> tuple[dict[str, int], int]:
        """What this process has of its consumers, this one among them."""
        gc.collect()
        objects = gc.get_objects()
        kinds = (AsyncConsumer, Subscription, Inbox, asyncio.Task)
        counts = {kind.__name__: sum(issubclass(type(each), kind) for each in objects) for kind in kinds}
        buffers = getattr(self.channel_layer, "receive_buffer", ())
        hubs = [here.hub for runtimes in embedded._runtimes.values() for here in runtimes.values()]
        entered = sum(len(hub.subscriptions()) for hub in hubs)
        items = sum(len(each) for each in objects if type(each) in (dict, list, set, deque))
        sizes = {"entered": entered, "buffers": len(buffers), "objects": len(objects), "items": items}
        return {**counts, **sizes}, 200

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


class Timed:
    """Has a ``dispatch`` and a ``__call__`` of its own, as a mixin that measures or limits has them."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """In a task of its own, as a limit of time makes it."""
        await asyncio.create_task(super().__call__(scope, receive, send))  # type: ignore[misc]

    async def dispatch(self, message: dict[str, Any]) -> None:
        """In a task of its own too, with another message."""
        await asyncio.shield(super().dispatch({**message, "timed": True}))  # type: ignore[misc]


class TimedConsumer(Timed, TurnsConsumer):
    """The mixin before what has the observer."""


class OwnConsumer(Timed, BoardConsumer):
    """Both in the class that has the observer."""

    turn, inside = Turns.turn, 0
    ping, atomic = TurnsConsumer.ping, TurnsConsumer.atomic

    @model_observer(Task)
    async def turns(self, message: dict[str, Any], **kwargs: Any) -> None:
        """Tell."""
        alone = await self.turn(message["title"])
        await self.send_json({"observer": "turns", "title": message["title"], "alone": alone})

    @turns.serializer
    def turns(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        return {"title": instance.title}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As any application's."""
        await super().__call__(scope, receive, send)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """As any consumer's, and it takes a while itself."""
        alone = message["type"] != "websocket.receive" or await self.turn("dispatch")
        await super().dispatch(message)
        assert alone, "two at once"


class DetachedConsumer(TurnsConsumer):
    """Waits for nothing that it dispatches."""

    async def dispatch(self, message: dict[str, Any]) -> None:
        """In a task that goes on when this has returned."""
        task = asyncio.create_task(super().dispatch(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


tasks: set[asyncio.Task[None]] = set()

CONSUMERS = {
    "turns": TurnsConsumer,
    "behind": BehindConsumer,
    "timed": TimedConsumer,
    "own": OwnConsumer,
    "detached": DetachedConsumer,
}
