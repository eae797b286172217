"""A subscribed client for synchronous tests."""

import asyncio
from typing import Any

from tests.client import Client, Message


class Subscriber:
    """A WebSocket to a consumer that has an action ``subscribe``.

    Args:
        runner: The event loop, which runs while something is asked of the client.
        client: The connection.
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

    def events(self, count: int) -> list[Message]:
        """Return the next so many events, in the order of their arrival."""
        return self.runner.run(self.client.events(count))
