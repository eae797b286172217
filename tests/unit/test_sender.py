"""Sending: in order for each group, never a skip while the layer is down, and nothing after the lead is lost.

What the layer drops is noticed by the numbers, in the order of calls that a delivery makes.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.changelog.net import RowChange
from djcrf_pg.exceptions import ChannelLayerError, LeadershipLost
from djcrf_pg.listener import sender as module
from djcrf_pg.listener.envelope import RESYNC, Event, head, numbers_of, tails_of, unpack
from djcrf_pg.listener.gate import Moment
from djcrf_pg.listener.numbering import Control
from djcrf_pg.listener.sender import Sender, channel_layer
from djcrf_pg.listener.telling import Bundle, Destination
from djcrf_pg.observations import LayerFailed, LayerRefused, Observation, add_sink
from djcrf_pg.observer.subscriptions import Subscriptions


class MoodyLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """A layer with a limit of its own, that is down twice before it takes a message that says so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.down = 2

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """As every layer's."""
        text = message["djcrf_pg"]["events"]
        if "too large" in text:
            raise ValueError("over the limit of 1 MB")
        if "outage" in text and self.down:
            self.down -= 1
            raise ConnectionError("down")
        await super().group_send(group, message)


LAYER = {"default": {"BACKEND": f"{__name__}.MoodyLayer"}}


@pytest.fixture(autouse=True)
def _layer() -> Iterator[None]:
    with override_settings(CHANNEL_LAYERS=LAYER, DJCRF_PG={"ENVELOPE_EVENTS": 1}):
        yield


@pytest.fixture
def observed() -> Iterator[list[Observation]]:
    """What operators are told."""
    told: list[Observation] = []
    remove = add_sink(lambda observation, error: told.append(observation))
    yield told
    remove()


def event(body: Any, action: str = "update") -> str:
    return Event(action, body, change_id=1, xid=1, committed_at="2026-01-01T00:00:00+00:00").encode()


def place(group: str, *, resync: bool = False) -> Destination:
    return Destination(group, Control("all", "tell", "someone"), resync=resync)


def bundle(*events: str) -> Bundle:
    return Bundle(RowChange(1, 1, 1, None, None, None, datetime(2026, 1, 1, tzinfo=UTC)), list(events))


async def received(layer: Any, channel: str, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [unpack(await layer.receive(channel))[0].body for _ in range(count)]


async def yes() -> bool:
    """Says that it leads."""
    return True


async def test_while_the_layer_is_down_it_waits_and_nothing_is_skipped(observed: list[Observation]) -> None:
    layer = channel_layer()
    await layer.group_add("g", "c")
    await Sender(1, yes).send({place("g"): bundle(event("first"), event("outage"), event("last"))})
    assert await received(layer, "c", 3) == ["first", "outage", "last"]
    assert [type(one) for one in observed] == [LayerFailed, LayerFailed]


async def test_a_message_that_the_layer_refuses_is_reported_and_the_rest_goes_on(observed: list[Observation]) -> None:
    layer = channel_layer()
    await layer.group_add("g", "c")
    await Sender(1, yes).send({place("g"): bundle(event("first"), event("too large"), event("last"))})
    assert await received(layer, "c", 2) == ["first", "last"]
    (refused,) = observed
    assert isinstance(refused, LayerRefused)
    assert (refused.group, refused.error) == ("g", "ValueError('over the limit of 1 MB')")


async def test_a_resync_comes_after_what_it_makes_void() -> None:
    layer = channel_layer()
    for group in ("rows", "all"):
        await layer.group_add(group, "c")
    resync = {place("all", resync=True): bundle(event({"reason": "again"}, RESYNC))}
    await Sender(1, yes).send({**resync, place("rows"): bundle(event("outage"), event("row"))})
    assert await received(layer, "c", 3) == ["outage", "row", {"reason": "again"}]


async def test_who_leads_no_more_sends_nothing_more() -> None:
    layer = channel_layer()
    await layer.group_add("g", "c")
    answers = iter([True, False])

    async def answer() -> bool:
        return next(answers)

    with pytest.raises(LeadershipLost, match="term 7"):
        await Sender(7, answer).send({place("g"): bundle(event("first"), event("second"))})
    assert await received(layer, "c", 1) == ["first"]
    assert not layer.channels  # it forgets a channel that is empty


@pytest.mark.parametrize("layers", [{}, {"other": LAYER["default"]}])
def test_no_layer_is_told_with_the_setting(layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers), pytest.raises(ChannelLayerError, match="CHANNEL_LAYERS"):
        channel_layer()


class DroppingLayer:
    """Hands to one consumer what was sent to its groups, but for some messages with events, which it drops."""

    def __init__(self, groups: str, dropped: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        moment = Moment(Snapshot(1, 1), datetime(2025, 1, 1, tzinfo=UTC))
        self.state = Subscriptions(observer=None, since=dict.fromkeys(groups, moment))
        self.dropped = dropped
        self.has_dropped = False
        self._sent = 0

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """As every layer's."""
        await asyncio.sleep(0)
        if group not in {"all", *self.state.since}:
            return
        if unpack(message):
            self._sent += 1
            if self._sent in self.dropped:
                self.has_dropped = True
                return
        _, term = head(message)
        if self.state.takes(group, term, *numbers_of(message)):
            self.state.compare(term, tails_of(message))


DELIVERIES = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 4), min_size=1), max_size=4)


async def send_all(sender: Sender, deliveries: list[dict[str, int]]) -> None:
    """Envelopes have one event each, so a delivery is several messages to a group."""
    for delivery in deliveries:
        await sender.send({place(group): bundle(*[event(".")] * count) for group, count in delivery.items()})


@given(DELIVERIES, st.sets(st.integers(1, 20)))
@example([{"a": 3}], {2})
async def test_what_the_layer_drops_of_one_delivery_is_missed_by_the_next_one(
    deliveries: list[dict[str, int]], dropped: set[int]
) -> None:
    layer = DroppingLayer("ab", dropped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "channel_layer", lambda: layer)
        sender = Sender(1, yes)
        await send_all(sender, deliveries)
        layer.dropped = set()
        await send_all(sender, [{"a": 1, "b": 1}])
    assert layer.state.stale is layer.has_dropped


@given(DELIVERIES, st.sets(st.integers(1, 20)))
@example([{"a": 1}], {1})
async def test_what_the_layer_drops_last_is_missed_by_the_roll_of_a_leader_that_stops(
    deliveries: list[dict[str, int]], dropped: set[int]
) -> None:
    layer = DroppingLayer("ab", dropped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "channel_layer", lambda: layer)
        sender = Sender(1, yes)
        rolls = asyncio.create_task(sender.call_rolls())
        await send_all(sender, deliveries)
        sender.end()
        await rolls
    assert layer.state.stale is layer.has_dropped
