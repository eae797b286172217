"""A subscribed client for synchronous tests: what the board consumer tells, exactly and in order."""

import asyncio
import itertools
from typing import Any

from tests.client import Client, Message
from tests.subscriber import Subscriber
from tests.testapp.models import Awkward, Document, Project, Remote, Task

Told = tuple[str, Any]

_numbers = itertools.count(1)


class Board(Subscriber):
    """A WebSocket to the board consumer.

    Nothing sleeps to see that nothing comes: :meth:`told` writes one more row, the fence, and waits for that row's
    event. A group's events keep their order, so what has not come before the fence does not come at all.
    """

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        super().__init__(runner, client)
        self.fences: list[Any] = []

    def messages(self, name: str) -> list[Message]:
        """Everything that the observer ``name`` has told since the last call, up to a fence."""
        fence = self.make_fence(name, next(_numbers))
        self.fences.append(fence)
        self.runner.run(self.client.until(lambda m: m.get("observer") == name and self.is_fence(fence, m)))
        taken = self.client.take(lambda message: message.get("observer") == name)
        # Fences of other observers of the same model are no part of it.
        return [message for message in taken if not any(self.is_fence(fence, message) for fence in self.fences)]

    def told(self, name: str) -> list[Told]:
        """As :meth:`messages`, the actions and bodies alone."""
        return [(message["action"], message["body"]) for message in self.messages(name)]

    def make_fence(self, name: str, number: int) -> Any:
        """Write one more row of the observer's model."""
        match name:
            case "documents":
                return Document.objects.create(title=f"fence {number}")
            case "projects":
                return Project.objects.create(pk=1_000_000 + number, name="fence")
            case "remotes":
                return Remote.objects.create(pk=1_000_000 + number, text="fence")
            case "asking":
                return Task.objects.create(pk=1_000_000 + number, title=f"ask fence {number}")
            case "awkward":
                return Awkward.objects.create(pk=1_000_000 + number)
        return Task.objects.create(pk=1_000_000 + number, title=f"fence {number}", status="todo")

    def is_fence(self, fence: Any, message: Message) -> bool:
        """Whether a message tells of that row."""
        return str(fence.pk) in map(str, message["body"].values())
