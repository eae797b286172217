"""The line through a channel layer: what is slow has not been lost, and what was lost is never taken for slow."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from djcrf_pg.observer import line as module
from djcrf_pg.observer.line import Line
from tests.processes import until


class Layer(InMemoryChannelLayer):
    """Keeps what it was sent until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[str, Any]] | None = None
        self.deaf = False

    async def send(self, channel: str, message: Any) -> None:
        if self.held is None:
            await super().send(channel, message)
        else:
            self.held.append((channel, message))

    async def receive(self, channel: str) -> Any:
        if self.deaf:
            raise OSError("the connection is gone")
        return await super().receive(channel)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Be slow."""
        self.held = []
        yield

    async def go_on(self) -> None:
        """Deliver in the order of sending."""
        held, self.held = self.held or [], None
        for channel, message in held:
            await self.send(channel, message)


@pytest.fixture
async def layer(monkeypatch: pytest.MonkeyPatch) -> Layer:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    return Layer()


@pytest.fixture
async def line(layer: Layer) -> AsyncIterator[Line]:
    async with Line(layer) as line:
        yield line


async def test_what_is_sent_is_heard(line: Line) -> None:
    for _ in range(3):
        assert await line.trouble() == ""


async def test_groups_that_were_forgotten_are_noticed_once(layer: Layer, line: Line) -> None:
    layer.groups.clear()
    assert await line.trouble() == "a message did not come back"
    assert await line.trouble() == ""


async def test_a_loss_while_it_is_asked_is_noticed_now_or_the_next_time(layer: Layer, line: Line) -> None:
    with layer.holding():
        asking = asyncio.create_task(line.trouble())
        await until(lambda: layer.held)
        layer.groups.clear()  # the question has gone through
        await layer.go_on()
    assert await asking or await line.trouble()


async def test_a_layer_that_is_slow_has_lost_nothing(layer: Layer, line: Line) -> None:
    with layer.holding():
        asking = asyncio.create_task(line.trouble())
        # Both messages are on their way: the one in question, and the one that was sent after it.
        await until(lambda: len(layer.held or ()) == 2)
        await layer.go_on()
    assert await asking == ""


async def test_a_layer_that_is_slow_hides_no_loss(layer: Layer, line: Line) -> None:
    layer.groups.clear()
    with layer.holding():
        asking = asyncio.create_task(line.trouble())
        # Those that were sent after the lost one.
        await until(lambda: len(layer.held or ()) == 2)
        assert not asking.done()
        await layer.go_on()
    assert await asking


async def test_nothing_is_left_behind(layer: Layer, line: Line) -> None:
    layer.groups.clear()
    assert await line.trouble()
    assert not await line.trouble()
    await line.end()
    assert layer.groups == {}
    assert line._nonces == {}


async def test_a_connection_that_breaks_ends_the_pause_and_is_trouble(layer: Layer, line: Line) -> None:
    pausing = asyncio.create_task(line.pause(600))
    layer.deaf = True
    await layer.send(line._channel, {"type": "the last one"})
    await pausing
    layer.deaf = False
    assert await line.trouble() == "a connection broke"
    await line.begin()
    assert await line.trouble() == ""
