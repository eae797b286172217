"""Many consumers in one process: a change through the listener, all subscribing at once, what a subscription weighs.

The consumers are real ones without a socket: what a WebSocket server does with a frame is the same for all. Runs in a
process of `benchmarks.worker`, which also writes and sends.
"""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from channels.layers import get_channel_layer
from djangochannelsrestframework.decorators import action
from redis import Redis

from benchmarks.app.consumers import BenchConsumer
from benchmarks.app.models import Captured

BARE = "bench-bare"

#: What DCRF sends of a change.
MESSAGE = {"type": "bare.captured", "body": {"pk": 1}, "action": "update", "observer": "captured", "group": BARE}

#: Consumers that do something at the same time, where that is not measured.
_SOME = 100


class Subscriber(BenchConsumer):
    """Sends a frame for each event, and for each bare message of the same content."""

    async def bare_captured(self, message: dict[str, Any]) -> None:
        """The handler of the bare message, as Channels' documentation has it."""
        await self.send_json(message["body"])

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
        self._refused: str | None = None
        self._complete = asyncio.Event()
        self._queues: list[asyncio.Queue[Any]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def _send(self, message: Any) -> None:
        self._frames += 1
        if self._frames == self._awaited:
            self._complete.set()
        if '"errors": ["' in message.get("text", ""):
            self._refused = message["text"]

    def begin(self, count: int) -> None:
        """Count frames from now on."""
        self._frames, self._awaited = 0, count
        self._complete.clear()

    async def all_there(self) -> None:
        """Wait until they are there."""
        async with asyncio.timeout(120):
            await self._complete.wait()
        if self._refused:
            raise RuntimeError(self._refused)

    async def connect(self) -> None:
        """Have all of them connect."""
        application = Subscriber.as_asgi()
        self.begin(self._count)
        for _ in range(self._count):
            queue: asyncio.Queue[Any] = asyncio.Queue()
            scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}
            self._tasks.append(asyncio.create_task(application(scope, queue.get, self._send)))
            await queue.put({"type": "websocket.connect"})
            self._queues.append(queue)
        await self.all_there()

    async def call(self, action: str, at_once: int = _SOME, **arguments: Any) -> None:
        """Have all of them call an action, so many at a time, and wait for the replies.

        Each takes a connection to Redis meanwhile, which has 10 000 of them.
        """
        for start in range(0, self._count, at_once):
            some = self._queues[start : start + at_once]
            self.begin(len(some))
            for number, queue in enumerate(some, start):
                text = json.dumps({"action": action, "request_id": number, **arguments})
                await queue.put({"type": "websocket.receive", "text": text})
            await self.all_there()

    async def leave(self) -> None:
        """Disconnect all of them."""
        for start in range(0, self._count, _SOME):
            for queue in self._queues[start : start + _SOME]:
                await queue.put({"type": "websocket.disconnect", "code": 1000})
            await asyncio.wait(self._tasks[start : start + _SOME], timeout=120)

    async def change(self, row: Captured) -> tuple[float, float]:
        """Seconds from the commit of a change to the last frame, and seconds of this process's CPU."""
        self.begin(self._count)
        row.n += 1
        await asyncio.to_thread(row.save)
        committed, used = time.monotonic(), time.process_time()
        await self.all_there()
        return time.monotonic() - committed, time.process_time() - used

    async def bare(self) -> float:
        """Seconds from a ``group_send`` to the last frame."""
        self.begin(self._count)
        begin = time.monotonic()
        await get_channel_layer().group_send(BARE, MESSAGE)
        await self.all_there()
        return time.monotonic() - begin


@asynccontextmanager
async def _connected(count: int) -> AsyncIterator[Crowd]:
    crowd = Crowd(count)
    await crowd.connect()
    try:
        yield crowd
    finally:
        await crowd.leave()


def fan_out(count: int, rounds: int, warm_up: bool) -> list[tuple[float, float, float]]:
    """Send a change to all, and a bare message, in turns.

    Args:
        count: Subscribers.
        rounds: Turns.
        warm_up: Take one more turn before, which is not among the results.

    Returns:
        Seconds of the change, of this process's CPU meanwhile, and of the bare message.
    """

    async def turns() -> list[tuple[float, float, float]]:
        async with _connected(count) as crowd:
            await crowd.call("join")
            return [(*await crowd.change(row), await crowd.bare()) for _ in range(rounds + warm_up)][warm_up:]

    row = Captured.objects.get(pk=1)
    return asyncio.run(turns())


def subscribe(count: int, name: str, redis: str) -> tuple[float, float]:
    """Have all subscribe to an observer at once; returns the seconds, and how many commands Redis has got meanwhile."""

    async def once() -> tuple[float, float]:
        async with _connected(count) as crowd:
            with Redis.from_url(redis) as client:
                commands, begin = _commands(client), time.monotonic()
                await crowd.call("subscribe", at_once=count, name=name)
                return time.monotonic() - begin, _commands(client) - commands

    return asyncio.run(once())


def _commands(client: Redis) -> int:
    return int(client.info("stats")["total_commands_processed"])


def weigh(count: int, name: str) -> float:
    """Bytes of Python's memory that a subscription to an observer takes, by the mean of so many."""

    async def weight() -> float:
        async with _connected(count) as crowd:
            # The reply of each is sent before its task has let go of it.
            await crowd.call("tell")
            gc.collect()
            tracemalloc.start()
            try:
                await crowd.call("subscribe", name=name)
                await crowd.call("tell")
                gc.collect()
                return tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()

    return asyncio.run(weight())
