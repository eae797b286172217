"""A subscribed client for synchronous tests: what the board consumer tells, exactly and in order."""

import asyncio
import itertools
from typing import Any

from tests.client import Client, Message
from tests.testapp.models import Awkward, Document, Project, Task

Told = tuple[str, Any]

_numbers = itertools.count(1)


class Board:
    """A WebSocket to the board consumer.

    Nothing sleeps to see that nothing comes: :meth:`told` writes one more row, the fence, and waits for that row's
    event. A group's events keep their order, so what has not come before the fence does not come at all.
    """

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        self.runner = runner
        self.client = client

    def call(self, action: str, **arguments: Any) -> Message:
        """Call an action and return its reply."""
        return self.runner.run(self.client.call(action, **arguments))

    def subscribe(self, *names: str, **arguments: Any) -> None:
        """Subscribe to observers of the consumer; the observer's name is the request id."""
        for name in names:
            reply = self.call("subscribe", name=name, **{"request_id": name, **arguments})
            assert reply["response_status"] == 201, reply

    def messages(self, name: str) -> list[Message]:
        """Everything that the observer ``name`` has told since the last call, up to a fence."""
        key = str(_fence(name).pk)

        def is_fence(message: Message) -> bool:
            return message["observer"] == name and key in map(str, message["body"].values())

        self.runner.run(self.client.until(is_fence))
        return self.client.take(lambda message: message["observer"] == name)

    def told(self, name: str) -> list[Told]:
        """As :meth:`messages`, the actions and bodies alone."""
        return [(message["action"], message["body"]) for message in self.messages(name)]


def _fence(name: str) -> Any:
    number = next(_numbers)
    match name:
        case "documents":
            return Document.objects.create(title=f"fence {number}")
        case "projects":
            return Project.objects.create(pk=1_000_000 + number, name="fence")
        case "awkward":
            return Awkward.objects.create(pk=1_000_000 + number)
        case _:
            return Task.objects.create(pk=1_000_000 + number, title=f"fence {number}", status="todo")
