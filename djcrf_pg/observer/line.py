"""A line through the channel layer to ourselves: it tells when the layer may have lost messages or memberships.

A channel layer says nothing when Redis was emptied, when a connection broke with messages on it, or when a queue was
over its capacity. So the keeper of memberships is a subscriber itself, and looks in three ways:

- It is in a *sentinel* group, and sends itself a nonce through it. What empties the layer empties the sentinel. A
  layer that rolls back to an older state loses the sentinel too, because each beat joins a new one.
- A nonce that is late proves nothing. So a second one goes through a group that was joined just now: it comes as soon
  as the layer is up to it, and *behind* the first one. If the first has not come by then, it never will.
- A broken connection shows where one is kept open: with channels_redis's ``core`` in a receive of our own on each
  host, with its ``pubsub`` in the reconnect of its subscriber, which subscribes again and forgets what it missed.

A layer with several hosts keeps each group on one of them, so there is a sentinel for each.
"""

import asyncio
import contextlib
import itertools
import uuid
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Self

from djcrf_pg.listener.backoff import Backoff

try:
    from channels_redis.core import RedisChannelLayer
    from channels_redis.pubsub import RedisPubSubChannelLayer
except ImportError:  # an extra
    RedisChannelLayer = RedisPubSubChannelLayer = ()

#: Seconds that a nonce may take before the second one is sent after it.
PATIENCE = 1.0


class Line:
    """Asks a channel layer whether it still delivers what it took; an async context manager.

    Args:
        layer: A channel layer that reaches other processes.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._channel = ""
        self._nonces: dict[str, asyncio.Future[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._subscribers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._sentinels: list[str] = []
        self._broke = asyncio.Event()
        self._breaks = self._seen = 0

    async def __aenter__(self) -> Self:
        self._channel = await self._layer.new_channel()
        self._tasks.append(asyncio.create_task(self._receive(), name="djcrf_pg line"))
        if isinstance(self._layer, RedisChannelLayer):
            for host in range(self._layer.ring_size):
                self._tasks.append(asyncio.create_task(self._hold(), name=f"djcrf_pg line to host {host}"))
        try:
            await self.begin()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until a connection breaks."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._broke.wait()
        self._broke.clear()

    async def begin(self) -> None:
        """Look out from now on."""
        self._seen = self._breaks
        former, self._sentinels = self._sentinels, await self._join()
        await self._leave(former)

    async def trouble(self) -> str:
        """What may have been lost since :meth:`begin`, or since this last found nothing.

        Returns:
            What happened, or nothing.
        """
        # The next ones are there before these are asked: whatever is lost meanwhile, one of them tells of it.
        former, self._sentinels = self._sentinels, await self._join()
        heard = self._seen == self._breaks and await self._heard(former)
        await self._leave(former)
        if self._seen != self._breaks:
            return "a connection broke"
        return "" if heard else "a message did not come back"

    async def end(self) -> None:
        """Leave the groups, if the layer lets us."""
        with contextlib.suppress(Exception):
            await self._leave(self._sentinels)

    async def _join(self) -> list[str]:
        """Join new groups, one on each host, and return their names."""
        groups: dict[Hashable, str] = {}
        host, hosts = _hosts(self._layer)
        while len(groups) < hosts:
            name = f"djcrf_pg-line-{uuid.uuid4().hex}"
            groups.setdefault(host(name), name)
        for group in groups.values():
            await self._layer.group_add(group, self._channel)
        self._watch_subscribers()
        return list(groups.values())

    async def _leave(self, groups: Iterable[str]) -> None:
        for group in groups:
            await self._layer.group_discard(group, self._channel)

    async def _heard(self, groups: Iterable[str]) -> bool:
        """Whether what is sent to these groups comes; returns when that is sure, however slow the layer is."""
        asked = await self._ask(groups)
        try:
            if await self._come(asked, PATIENCE):
                return True
            for number in itertools.count(1):
                witnesses = await self._join()
                behind = await self._ask(witnesses)
                try:
                    came = await self._come(behind, number * PATIENCE)
                finally:
                    self._forget(behind)
                await self._leave(witnesses)
                if came:
                    break
            return all(answer.done() for answer in asked.values())
        finally:
            self._forget(asked)

    async def _ask(self, groups: Iterable[str]) -> dict[str, asyncio.Future[None]]:
        asked = {}
        try:
            for group in groups:
                nonce = uuid.uuid4().hex
                asked[nonce] = self._nonces[nonce] = asyncio.get_running_loop().create_future()
                await self._layer.group_send(group, {"type": "djcrf_pg.line", "nonce": nonce})
        except BaseException:
            self._forget(asked)
            raise
        return asked

    async def _come(self, asked: dict[str, asyncio.Future[None]], patience: float) -> bool:
        _, missing = await asyncio.wait(asked.values(), timeout=patience)
        return not missing

    def _forget(self, asked: Iterable[str]) -> None:
        for nonce in asked:
            self._nonces.pop(nonce, None)

    async def _receive(self) -> None:
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                message = await self._layer.receive(self._channel)
            except Exception:
                self._broken()
                await asyncio.sleep(backoff.delay())
            else:
                backoff.reset()
                answer = self._nonces.get(message.get("nonce"))
                if answer is not None and not answer.done():
                    answer.set_result(None)

    async def _hold(self) -> None:
        """Keep a connection of our own open: in the layer's, another consumer may be the one that hears it break.

        The layer takes its hosts in turn for channels of this kind.
        """
        channel = f"djcrf_pg-line-{uuid.uuid4().hex}"
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                await self._layer.receive(channel)
            except Exception:
                self._broken()
                await asyncio.sleep(backoff.delay())

    def _watch_subscribers(self) -> None:
        """Hear of reconnects of the pubsub layer, which has no words for them."""
        if not isinstance(self._layer, RedisPubSubChannelLayer):
            return
        for shard in getattr(self._layer._get_layer(), "_shards", ()):
            connection = getattr(getattr(shard, "_pubsub", None), "connection", None)
            if connection is not None and connection not in self._subscribers:
                connection.register_connect_callback(self._reconnected)
                self._subscribers.add(connection)

    async def _reconnected(self, connection: Any) -> None:
        self._broken()

    def _broken(self) -> None:
        self._breaks += 1
        self._broke.set()


def _hosts(layer: Any) -> tuple[Callable[[str], Hashable], int]:
    """What tells the host of a group, and how many there are."""
    if isinstance(layer, RedisChannelLayer):
        return layer.consistent_hash, layer.ring_size
    if isinstance(layer, RedisPubSubChannelLayer):
        here = layer._get_layer()
        return lambda group: here._get_shard(here._get_group_channel_name(group)), len(here._shards)
    return lambda group: 0, 1


def has_ended(layer: Any, channel: str) -> bool:
    """Whether nobody receives from a channel any more; the pubsub layer refuses groups to those."""
    return isinstance(layer, RedisPubSubChannelLayer) and channel not in layer._get_layer().channels
