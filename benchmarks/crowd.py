"""Many subscribers in one process: a change through the listener, against a bare ``group_send`` of the same message.

The consumers are real ones without a socket: what a WebSocket server does with a frame is the same for both. Runs in a
process of `benchmarks.worker`, which also writes and sends.
"""

import asyncio
import json
import time
from typing import Any

from channels.layers import get_channel_layer
from djangochannelsrestframework.decorators import action

from benchmarks.app.consumers import BenchConsumer
from benchmarks.app.models import Captured

BARE = "bench-bare"

#: Consumers that subscribe at the same time.
_JOINING = 100

#: The message that the listener sent last.
_last: dict[str, Any] = {}


class Subscriber(BenchConsumer):
    """Sends a frame for each event, and for each bare message of the same content."""

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Note what the listener sends."""
        if message["type"] == "captured":
            _last.update(message)
        await super().dispatch(message)

    async def bare_captured(self, message: dict[str, Any]) -> None:
        """The handler of the bare message, as Channels' documentation has it."""
        await self.send_json({"pk": message["pk"]})

    @action()
    async def join(self, **kwargs: Any) -> tuple[None, int]:
        """Subscribe to both."""
        await self.captured.subscribe()
        await self.add_group(BARE)
        return None, 201


class Crowd:
    """The consumers, and how many frames they have sent.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._frames = self._awaited = 0
        self._complete = asyncio.Event()
        self._queues: list[asyncio.Queue[Any]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def _send(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            self._frames += 1
            if self._frames == self._awaited:
                self._complete.set()

    def _begin(self, count: int) -> None:
        self._frames, self._awaited = 0, count
        self._complete.clear()

    async def _all_there(self) -> None:
        async with asyncio.timeout(120):
            await self._complete.wait()

    async def join(self) -> None:
        """Have all of them connect and subscribe.

        Some at a time: each takes a connection to Redis meanwhile, which has 10 000 of them.
        """
        application = Subscriber.as_asgi()
        for start in range(0, self._count, _JOINING):
            numbers = range(start, min(start + _JOINING, self._count))
            self._begin(len(numbers))  # a reply each
            for number in numbers:
                queue: asyncio.Queue[Any] = asyncio.Queue()
                scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}
                self._tasks.append(asyncio.create_task(application(scope, queue.get, self._send)))
                text = json.dumps({"action": "join", "request_id": number})
                await queue.put({"type": "websocket.connect"})
                await queue.put({"type": "websocket.receive", "text": text})
                self._queues.append(queue)
            await self._all_there()

    async def leave(self) -> None:
        """Disconnect all of them."""
        for queue in self._queues:
            await queue.put({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait(self._tasks, timeout=120)

    async def change(self, row: Captured) -> float:
        """Seconds from the commit of a change to the last frame."""
        self._begin(self._count)
        row.n += 1
        await asyncio.to_thread(row.save)
        committed = time.monotonic()
        await self._all_there()
        return time.monotonic() - committed

    async def bare(self) -> float:
        """Seconds from a ``group_send`` of what the listener sent last to the last frame."""
        self._begin(self._count)
        begin = time.monotonic()
        await get_channel_layer().group_send(BARE, {**_last, "type": "bare.captured", "pk": 1})
        await self._all_there()
        return time.monotonic() - begin


def measure(count: int, rounds: int, warm_up: bool) -> list[tuple[float, float]]:
    """Measure in turns.

    Args:
        count: Subscribers.
        rounds: Turns.
        warm_up: Take one more turn before, which is not among the results.

    Returns:
        Seconds of the change and of the bare message.
    """

    async def turns() -> list[tuple[float, float]]:
        crowd = Crowd(count)
        await crowd.join()
        try:
            found = [(await crowd.change(row), await crowd.bare()) for _ in range(rounds + warm_up)]
        finally:
            await crowd.leave()
        return found[warm_up:]

    row = Captured.objects.get(pk=1)
    return asyncio.run(turns())
