"""The leader's end: in order for each stream, never a skip while the layer is down, and nothing after the lead is lost.

What a dropped message does at the other end is in ``test_protocol.py``, in the order of calls that is used here.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.test import override_settings

from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.delivery import streams as module
from djcrf_pg.delivery.layer import channel_layer
from djcrf_pg.delivery.protocol import EVERYBODY, KEY, TYPE, History, Item, Outbound, stream_of
from djcrf_pg.delivery.streams import Streams
from djcrf_pg.exceptions import ChannelLayerError, LeadershipLost
from djcrf_pg.observations import LayerFailed, LayerRefused, Observation

HISTORY = History(7, 5, 16_402, 1)
OBSERVER = "app.tasks"
OTHER = next(name for number in range(100) if stream_of(name := f"app.{number}") != stream_of(OBSERVER))
BEATS = HISTORY.group(None)


def at(xid: int) -> Position:
    """Where all below a transaction has ended."""
    return Position(Snapshot(xid, xid))


class MoodyLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """A layer that a text in a message makes fail, refuse or hang; and whose heartbeats fail while it is told so.

    Attributes:
        down: So many tries of what says ``outage`` fail yet.
        stuck: So many tries of what says ``hang`` do.
        tries: What was handed to it: group and text.
        open: While it is not set, a heartbeat waits.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.down, self.stuck = 2, 1
        self.beats_fail = False
        self.tries: list[tuple[str, str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.at_once = self.most_at_once = 0

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """As every layer's."""
        assert message["type"] == TYPE
        text = message[KEY]
        self.tries.append((group, text))
        if group == BEATS:
            await self._beat()
        if "too large" in text:
            raise ValueError("over the limit of 1 MB")
        if "outage" in text and self.down:
            self.down -= 1
            raise ConnectionError("down")
        if "hang" in text and self.stuck:
            self.stuck -= 1
            await asyncio.Event().wait()
        await super().group_send(group, message)

    async def _beat(self) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.beats_fail:
                raise ConnectionError("down")
            await self.open.wait()
        finally:
            self.at_once -= 1


@pytest.fixture(autouse=True)
def _layer() -> Iterator[None]:
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": f"{__name__}.MoodyLayer"}}):
        yield


async def yes() -> bool:
    """Says that it leads."""
    return True


class Pause:
    """Sleeps for no time, and says that a stop was asked for after so many calls."""

    def __init__(self, stops_after: int = 1_000) -> None:
        self.delays: list[float] = []
        self._stops_after = stops_after

    async def __call__(self, delay: float) -> bool:
        self.delays.append(delay)
        await asyncio.sleep(0)
        return len(self.delays) >= self._stops_after


def streams(
    leads: Callable[[], Awaitable[bool]] = yes, pause: Callable[[float], Awaitable[bool]] | None = None
) -> Streams:
    """Those of a leader that begins at 10, with one event a message."""
    return Streams(Outbound(HISTORY, 3, at(10), max_events=1, max_bytes=10_000), HISTORY, leads, pause or Pause(), list)


def item(body: Any, observer: str = OBSERVER, group: str = "g") -> Item:
    """An event."""
    return Item(observer, group, json.dumps(body))


async def joined(*observers: str) -> Any:
    """The layer, with a channel in the streams of observers, or else of the heartbeats."""
    layer = channel_layer()
    for group in [HISTORY.group(stream_of(observer)) for observer in observers] or [BEATS]:
        await layer.group_add(group, "c")
    return layer


async def received(layer: Any, count: int) -> list[Any]:
    """The events of so many messages."""
    bodies: list[Any] = []
    async with asyncio.timeout(10):
        for _ in range(count):
            _, *lines = (await layer.receive("c"))[KEY].split("\n")
            bodies += map(json.loads, lines)
    return bodies


async def until(condition: Callable[[], Any]) -> None:
    """Let the other tasks go on."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - each turn of the loop brings it one step on
            await asyncio.sleep(0)


# -- deliveries ----------------------------------------------------------------------------------------------


async def test_while_the_layer_is_down_it_waits_and_nothing_is_skipped(observed: list[Observation]) -> None:
    layer, pause = await joined(OBSERVER), Pause()
    await streams(pause=pause).deliver(map(item, ["first", "outage", "last"]), at(20))
    assert await received(layer, 3) == ["first", "outage", "last"]
    assert [(type(one), one.layer, one.delay) for one in observed if isinstance(one, LayerFailed)] == [
        (LayerFailed, "MoodyLayer", delay) for delay in pause.delays
    ]
    assert len(observed) == 2


async def test_a_message_that_is_tried_again_is_the_same_one() -> None:
    layer = await joined(OBSERVER)
    await streams().deliver([item("outage")], at(20))
    assert len(layer.tries) == 3
    assert len(set(layer.tries)) == 1


async def test_one_that_hangs_is_tried_again(monkeypatch: pytest.MonkeyPatch, observed: list[Observation]) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    layer = await joined(OBSERVER)
    await streams().deliver(map(item, ["hang", "last"]), at(20))
    assert await received(layer, 2) == ["hang", "last"]
    assert [type(one) for one in observed] == [LayerFailed]


async def test_a_stream_that_fails_delays_no_other() -> None:
    layer = await joined(OTHER)
    layer.down = 1_000_000
    sending = asyncio.create_task(streams().deliver([item("outage"), item("other", OTHER)], at(20)))
    assert await received(layer, 1) == ["other"]
    assert not sending.done()
    layer.down = 0
    await sending


async def test_a_message_that_the_layer_refuses_is_reported_and_the_rest_goes_on(observed: list[Observation]) -> None:
    layer, sender = await joined(OBSERVER), streams()
    await sender.deliver(map(item, ["first", "too large", "last"]), at(20))
    assert await received(layer, 2) == ["first", "last"]
    (refused,) = observed
    assert isinstance(refused, LayerRefused)
    assert (refused.group, refused.error) == (
        HISTORY.group(stream_of(OBSERVER)),
        "ValueError('over the limit of 1 MB')",
    )
    sender.advance(at(20))
    numbers = [json.loads(text.split("\n")[0])["number"] for _, text in layer.tries]
    assert numbers == [1, 2, 3], "whoever wanted it misses a number"


async def test_a_resync_comes_after_what_it_makes_void() -> None:
    layer = await joined(OBSERVER)
    await streams().deliver([item({"reason": "again"}, group=EVERYBODY), item("outage"), item("row")], at(20))
    assert await received(layer, 3) == ["outage", "row", {"reason": "again"}]


async def test_a_stop_while_the_layer_fails_ends_the_delivery_and_nothing_of_it_counts_as_sent() -> None:
    layer, sender = await joined(OBSERVER), streams(pause=Pause(stops_after=3))
    layer.down = 1_000_000
    with pytest.raises(LeadershipLost, match="asked to stop") as caught:
        await sender.deliver([item("outage")], at(20))
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert len(layer.tries) == 3
    with pytest.raises(RuntimeError, match="still on their way"):
        sender.advance(at(20))


async def test_a_stop_while_the_layer_hangs_waits_no_longer_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 3_600.0)
    monkeypatch.setattr(module, "_GRACE", 0.01)
    stopped = asyncio.Event()

    async def pause(seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stopped.wait()
        return stopped.is_set()

    layer, sender = await joined(), streams(pause=pause)
    layer.open.clear()
    layer.stuck = 2
    running = asyncio.create_task(sender.run())
    sending = asyncio.create_task(sender.deliver([item("hang")], at(11)))
    beating = asyncio.create_task(sender.beat())  # behind that of the task
    await until(lambda: len(layer.tries) == 2)
    stopped.set()
    async with asyncio.timeout(10):
        with pytest.raises(LeadershipLost):
            await sending
        assert not await beating
    assert sender.savable == at(10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_stop_while_the_layer_takes_all_ends_nothing() -> None:
    layer = await joined(OBSERVER)
    await streams(pause=Pause(stops_after=0)).deliver(map(item, ["first", "last"]), at(20))
    assert await received(layer, 2) == ["first", "last"]


async def test_who_leads_no_more_sends_nothing_more() -> None:
    layer = await joined(OBSERVER)
    answers = iter([True, False])

    async def answer() -> bool:
        return next(answers)

    with pytest.raises(LeadershipLost, match="session of the leader is gone"):
        await streams(answer).deliver(map(item, ["first", "second"]), at(20))
    assert await received(layer, 1) == ["first"]
    assert len(layer.tries) == 1


async def test_whether_it_leads_is_asked_before_each_try() -> None:
    layer = await joined(OBSERVER)
    answers = iter([True, False])

    async def answer() -> bool:
        return next(answers)

    with pytest.raises(LeadershipLost):
        await streams(answer).deliver([item("outage")], at(20))
    assert len(layer.tries) == 1


# -- heartbeats ----------------------------------------------------------------------------------------------


async def test_the_cursor_may_be_saved_where_a_heartbeat_was_that_the_layer_took() -> None:
    sender = streams()
    await joined(OBSERVER)
    await sender.deliver([item("row")], at(20))
    sender.advance(at(20))
    assert sender.savable == at(10)
    assert await sender.beat()
    assert sender.savable == at(20)


async def test_one_that_fails_saves_nothing_and_the_next_one_does(observed: list[Observation]) -> None:
    layer, sender = await joined(), streams()
    sender.advance(at(20))
    layer.beats_fail = True
    assert not await sender.beat()
    assert sender.savable == at(10)
    (failed,) = observed
    assert isinstance(failed, LayerFailed)
    layer.beats_fail = False
    assert await sender.beat()
    assert sender.savable == at(20)


async def test_one_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    layer, sender = await joined(), streams()
    layer.open.clear()
    assert not await sender.beat()
    assert sender.savable == at(10)


async def test_they_are_sent_one_after_the_other_and_each_says_what_is_so_then() -> None:
    layer, sender = await joined(), streams()
    layer.open.clear()
    first = asyncio.create_task(sender.beat())
    await until(lambda: layer.at_once)
    second = asyncio.create_task(sender.beat())
    sender.advance(at(20))
    for _ in range(10):
        await asyncio.sleep(0)
    layer.open.set()
    assert await first
    assert sender.savable == at(10), "the first was made before"
    assert await second
    assert sender.savable == at(20)
    assert layer.most_at_once == 1
    assert [json.loads(text)["beat"] for _, text in layer.tries] == [1, 2]


async def test_they_come_while_a_delivery_waits_for_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0)
    layer, sender = await joined(), streams()
    layer.down = 1_000_000
    tasks = [asyncio.create_task(sender.deliver([item("outage")], at(20))), asyncio.create_task(sender.run())]
    beats = [json.loads((await layer.receive("c"))[KEY]) for _ in range(3)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [beat["beat"] for beat in beats] == [1, 2, 3]
    stream = beats[-1]["streams"][stream_of(OBSERVER)]
    assert stream[:2] == [0, 1], "one was made, and the layer has none yet"


async def test_whoever_waits_for_the_first_one_waits_until_the_layer_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0)
    layer, sender = await joined(), streams()
    layer.beats_fail = True
    running, waiting = asyncio.create_task(sender.run()), asyncio.create_task(sender.begun())
    await until(lambda: len(layer.tries) >= 3)
    assert not waiting.done()
    layer.beats_fail = False
    async with asyncio.timeout(10):
        await waiting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_they_end_with_the_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0)
    layer = await joined()
    answers = iter([True, True, False])

    async def answer() -> bool:
        return next(answers)

    with pytest.raises(LeadershipLost, match="session of the leader is gone"):
        await streams(answer).run()
    assert len(layer.tries) == 2


# -- the layer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [{}, {"other": {"BACKEND": f"{__name__}.MoodyLayer"}}])
def test_no_layer_is_refused_with_the_setting(layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers), pytest.raises(ChannelLayerError, match="CHANNEL_LAYERS"):
        channel_layer()
