"""WebSocket clients in a thread of the runner, which does nothing else while a measurement lasts."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect

from tests.servers import AsgiServer

T = TypeVar("T")


class Seat:
    """One client.

    Attributes:
        on_event: Called with each event that arrives, and when that was by the clock that all processes share.
    """

    def __init__(self, audience: "Audience", connection: ClientConnection) -> None:
        self._audience = audience
        self._connection = connection
        self._replies: dict[int, Future[Any]] = {}
        self._last = 0
        self._done: Future[dict[str, float]] = Future()
        self.on_event: Callable[[float, Any], Any] = lambda at, message: None

    async def read(self) -> None:
        """Take what arrives, until the connection ends."""
        async for text in self._connection:
            at = time.monotonic()
            message = json.loads(text)
            if reply := self._replies.pop(message.get("request_id"), None):
                reply.set_result(message)
            elif "done" in message:
                if not self._done.done():  # after a crash the last event comes again
                    self._done.set_result(message)
            else:
                self.on_event(at, message)

    def call(self, action: str, timeout: float = 120, **arguments: Any) -> Any:
        """Call an action and wait for its reply."""
        self._last += 1
        self._replies[self._last] = reply = Future[Any]()
        text = json.dumps({"action": action, "request_id": self._last, **arguments})
        self._audience.run(self._connection.send(text))
        answer = reply.result(timeout)
        if answer["response_status"] >= 300:
            raise RuntimeError(f"{action}: {answer}")
        return answer["data"]

    def subscribe(self, name: str) -> None:
        """Subscribe to an observer."""
        self.call("subscribe", name=name)

    def expect(self, count: int, *, events: bool = False) -> None:
        """Have the consumer count rows from now on, or events."""
        self._done = Future()
        self.call("listen", count=count, events=events)

    def done(self, timeout: float = 120) -> dict[str, float]:
        """Wait until all are there: ``done`` events heard, the ``first`` when and the ``last`` when."""
        try:
            return self._done.result(timeout)
        except TimeoutError:
            raise RuntimeError(f"not all were heard of in {timeout} s: {self.call('tell')}") from None


class Audience:
    """The thread and its event loop. A context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._seats: list[tuple[ClientConnection, asyncio.Task[None]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for connection, task in self._seats:
            await connection.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def seat(self, server: AsgiServer) -> Seat:
        """A new client."""
        return self.run(self._open(server.consumer_url("bench")))

    async def _open(self, url: str) -> Seat:
        connection = await connect(url, max_size=None, ping_interval=None, close_timeout=2)
        seat = Seat(self, connection)
        self._seats.append((connection, asyncio.create_task(seat.read())))
        return seat
