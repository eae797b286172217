"""A WebSocket client that speaks djangochannelsrestframework's protocol over a real connection."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect

from tests.processes import TIMEOUT, reports

Message = dict[str, Any]
T = TypeVar("T")


class Client:
    """One WebSocket connection to a consumer.

    What arrives is either the reply to a call (same ``request_id`` and ``action``, and a ``response_status``)
    or an event. Events are kept in the order of their arrival until they are asked for. Reading happens
    inside the methods that wait, so one task at a time may use a client.
    """

    def __init__(self, connection: ClientConnection, name: str) -> None:
        self.connection = connection
        self.name = name
        self.received: list[Message] = []
        """Everything that ever arrived, for messages."""
        self._events: list[Message] = []
        self._replies: list[Message] = []
        self._calls: dict[Any, str] = {}
        self._last_id = 0

    @classmethod
    async def open(cls, url: str, **options: Any) -> Self:
        """Connects; `options` are those of `websockets.asyncio.client.connect`."""
        defaults: dict[str, Any] = {"max_size": None, "open_timeout": TIMEOUT, "close_timeout": 2}
        return cls(await connect(url, **{**defaults, **options}), url)

    async def close(self) -> None:
        """Closes the connection."""
        await self.connection.close()

    async def send(self, message: Any) -> None:
        """Sends a message as it is: JSON of anything, or a string unchanged."""
        await self.connection.send(message if isinstance(message, str) else json.dumps(message))

    async def cast(self, action: str, **arguments: Any) -> Any:
        """Calls an action, does not wait for a reply, and returns the request id."""
        if "request_id" not in arguments:
            self._last_id += 1
            arguments["request_id"] = self._last_id
        request_id = arguments["request_id"]
        self._calls[json.dumps(request_id)] = action
        await self.send({"action": action, **arguments})
        return request_id

    async def call(self, action: str, timeout: float = TIMEOUT, **arguments: Any) -> Message:
        """Calls an action and returns the reply; give ``request_id`` to choose it."""
        request_id = await self.cast(action, **arguments)

        def reply() -> Message | None:
            for message in self._replies:
                if message["request_id"] == request_id and message["action"] == action:
                    self._replies.remove(message)
                    return message
            return None

        return await self._wait(reply, timeout, f"the reply to {action!r} (request_id {request_id!r})")

    async def event(self, timeout: float = TIMEOUT) -> Message:
        """Returns the next event."""
        return (await self.events(1, timeout))[0]

    async def events(self, count: int, timeout: float = TIMEOUT) -> list[Message]:
        """Returns the next `count` events, in the order of their arrival."""

        def taken() -> list[Message] | None:
            if len(self._events) < count:
                return None
            taken, self._events = self._events[:count], self._events[count:]
            return taken

        return await self._wait(taken, timeout, f"{count} events") if count else []

    async def until(self, predicate: Callable[[Message], bool], timeout: float = TIMEOUT) -> Message:
        """Returns the first event that satisfies `predicate`; the others stay where they are."""

        looked_at = 0

        def found() -> Message | None:
            nonlocal looked_at
            for place in range(looked_at, len(self._events)):
                if predicate(self._events[place]):
                    return self._events.pop(place)
            looked_at = len(self._events)
            return None

        return await self._wait(found, timeout, "an event that satisfies the predicate")

    def take(self, predicate: Callable[[Message], bool]) -> list[Message]:
        """Returns the events that are here and satisfy `predicate`; the others stay where they are."""
        taken = [message for message in self._events if predicate(message)]
        self._events = [message for message in self._events if not predicate(message)]
        return taken

    async def drain(self, quiet: float) -> list[Message]:
        """Returns the events that are here or arrive until there was none for `quiet` seconds.

        For a "nothing more comes" prefer to provoke one more event and to look at what came before it.
        """
        while await self._receive(quiet):
            pass
        events, self._events = self._events, []
        return events

    async def _wait(self, condition: Callable[[], T | None], timeout: float, what: str) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not (result := condition()):
            try:
                arrived = await self._receive(deadline - loop.time())
            except Exception as error:
                raise AssertionError(self._explain(f"{what} did not come: {error!r}")) from error
            if not arrived and loop.time() >= deadline:
                raise AssertionError(self._explain(f"{what} did not come within {timeout} s"))
        return result

    async def _receive(self, timeout: float) -> bool:
        """Takes one message from the connection and sorts it; returns whether there was one in time."""
        try:
            async with asyncio.timeout(max(timeout, 0)):
                message: Message = json.loads(await self.connection.recv())
        except TimeoutError:
            return False
        self.received.append(message)
        call = self._calls.get(json.dumps(message.get("request_id")))
        if call is not None and message.get("action") == call and "response_status" in message:
            self._replies.append(message)
        else:
            self._events.append(message)
        return True

    def _explain(self, problem: str) -> str:
        shown = [str(message)[:300] for message in self.received[-20:]]
        count = f"received {len(self.received)} messages; the last:"
        return "\n".join([f"{self.name}: {problem}", count, *shown, *reports()])
