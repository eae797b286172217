"""Two calls of ``subscribe`` at once, on one consumer: none undoes what the other has made."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.delivery.inbox import Moment, Subscription
from djcrf_pg.delivery.protocol import History
from djcrf_pg.exceptions import ChannelLayerError, ListenerUnavailable
from djcrf_pg.listener import embedded
from djcrf_pg.listener.gate import Probe
from djcrf_pg.observer import model_observer
from djcrf_pg.observer.consumers import inbox_of
from djcrf_pg.observer.model_observer import _join_groups
from tests.processes import until
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task
from tests.unit.origin import ORIGIN

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def moment(xid: int) -> Probe:
    """At noon, when every transaction below ``xid`` had ended."""
    return Probe(Moment(Snapshot(xid, xid), NOON), History(7, 5, 3, 1), 1, True, "leader", frozenset(), frozenset())


class Layer(InMemoryChannelLayer):
    """Knows which groups the consumer is in."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: set[str] = set()

    async def group_add(self, group: str, channel: str) -> None:
        self.groups.add(group)

    async def group_discard(self, group: str, channel: str) -> None:
        self.groups.discard(group)


@pytest.fixture
async def answers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list["asyncio.Future[Probe]"]]:
    """What the gate answers to each call, in the order of the calls."""
    waiting: list[asyncio.Future[Probe]] = []

    async def ready(alias: str, tables: Any, subscription: Subscription, groups: Collection[str]) -> Probe:
        for group in groups:
            embedded.runtime(alias).hub.enter(subscription, group)
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        return await future

    monkeypatch.setattr(embedded, "ready", ready)
    yield waiting
    await embedded.close_all()


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> BoardConsumer:
    consumer = BoardConsumer()
    consumer.channel_layer, consumer.channel_name = Layer(), "channel"
    consumer.sent = []

    async def send_json(content: Any, close: bool = False) -> None:
        consumer.sent.append(content)

    monkeypatch.setattr(consumer, "send_json", send_json)
    return consumer


async def both(consumer: BoardConsumer, answers: list[Any], names: Callable[[int], str]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(consumer.tasks.subscribe(request_id=names(number))) for number in range(2)]
    while len(answers) < 2:
        await asyncio.sleep(0)
        for task in tasks:
            if task.done():
                task.result()
    return tasks


def subscription_of(consumer: BoardConsumer) -> Subscription:
    """What it has of the observer."""
    (subscription,) = inbox_of(consumer).subscriptions.values()
    return subscription


def is_in_the_hub(consumer: BoardConsumer, group: str) -> bool:
    """Whether the events of a group go to it."""
    subscription = subscription_of(consumer)
    return subscription in embedded.runtime("default").hub._lanes.get(subscription.observer.address, {}).get(group, ())


async def handle(consumer: BoardConsumer, group: str, line: str) -> None:
    """Have it handle an event."""
    subscription = subscription_of(consumer)
    await subscription.observer.receive(subscription, group, line, ORIGIN)


@pytest.mark.parametrize("same", [True, False])
async def test_one_that_fails_leaves_the_other_s_group(consumer: BoardConsumer, answers: list[Any], same: bool):
    failing, other = await both(consumer, answers, lambda number: "r" if same else f"r{number}")
    answers[1].set_result(moment(5))
    groups = set(await other)
    answers[0].set_exception(ListenerUnavailable("gone"))
    with pytest.raises(ListenerUnavailable):
        await failing
    assert groups <= consumer.channel_layer.groups
    assert groups <= consumer.groups
    assert all(is_in_the_hub(consumer, group) for group in groups)


async def test_the_last_that_fails_leaves_nothing(consumer: BoardConsumer, answers: list[Any]):
    tasks = await both(consumer, answers, lambda number: f"r{number}")
    for answer in answers:
        answer.set_exception(ListenerUnavailable("gone"))
    assert all(isinstance(error, ListenerUnavailable) for error in await asyncio.gather(*tasks, return_exceptions=True))
    assert consumer.channel_layer.groups == consumer.groups == set()
    assert embedded.runtime("default").hub._lanes == {}


async def test_what_was_committed_between_the_two_is_told(consumer: BoardConsumer, answers: list[Any]):
    late, early = await both(consumer, answers, lambda number: f"r{number}")
    answers[1].set_result(moment(10))
    (group,) = await early
    answers[0].set_result(moment(20))
    await late
    event = Event("create", {"pk": 1}, 1, 15, "2026-01-01T00:00:00+00:00").encode()
    await handle(consumer, group, event)
    assert [sent["body"] for sent in consumer.sent] == [{"pk": 1}]


@pytest.mark.parametrize(("xid", "minutes", "told"), [(5, -1, False), (15, -1, True), (5, 1, True), (15, 1, True)])
async def test_a_change_that_was_written_later_is_told_whatever_its_xid(
    consumer: BoardConsumer, answers: list[Any], xid: int, minutes: int, told: bool
):
    task = asyncio.create_task(consumer.tasks.subscribe(request_id="r"))
    while not answers:  # noqa: ASYNC110 - each turn of the loop brings it one step on
        await asyncio.sleep(0)
    answers[0].set_result(moment(10))
    (group,) = await task
    written = (NOON + timedelta(minutes=minutes)).isoformat()
    event = Event("create", {"pk": 1}, 1, xid, written).encode()
    await handle(consumer, group, event)
    assert bool(consumer.sent) is told


class Several(BoardConsumer):
    """Subscribes to several groups at once."""

    @model_observer(Task)
    async def several(self, message: Any, **kwargs: Any) -> None:
        """A handler."""

    @several.groups
    def several(self, **kwargs: Any) -> list[str]:
        """Three."""
        return ["a", "b", "c"]


async def test_a_layer_that_fails_while_groups_are_left_keeps_nothing_in_the_hub(
    answers: list[Any], monkeypatch: pytest.MonkeyPatch
):
    consumer = Several()
    consumer.channel_layer, consumer.channel_name = Layer(), "channel"
    task = asyncio.create_task(consumer.several.subscribe(request_id="r"))
    await until(lambda: answers)

    async def group_discard(group: str, channel: str) -> None:
        raise ConnectionError("the layer is gone")

    monkeypatch.setattr(consumer.channel_layer, "group_discard", group_discard)
    answers[0].set_exception(ListenerUnavailable("gone"))
    with pytest.raises(ListenerUnavailable):
        await task
    assert embedded.runtime("default").hub._lanes == {}
    assert not consumer._observer_group_to_request_id[consumer.several.func._stable_observer_id]


async def test_a_group_that_another_call_takes_while_it_is_left_stays(answers: list[Any]):
    consumer = Several()
    layer = consumer.channel_layer = Layer()
    consumer.channel_name = "channel"
    failing = asyncio.create_task(consumer.several.subscribe(request_id="r"))
    await until(lambda: len(answers) == 1)
    leaving, go_on, discard = asyncio.Event(), asyncio.Event(), layer.group_discard

    async def group_discard(group: str, channel: str) -> None:
        leaving.set()
        await go_on.wait()
        await discard(group, channel)

    layer.group_discard = group_discard
    answers[0].set_exception(ListenerUnavailable("gone"))
    await leaving.wait()
    other = asyncio.create_task(consumer.several.subscribe(request_id="s"))
    await until(lambda: subscription_of(consumer).waiting)
    go_on.set()
    await until(lambda: len(answers) == 2)
    answers[1].set_result(moment(5))
    groups = set(await other)
    with pytest.raises(ListenerUnavailable):
        await failing
    assert len(groups) == 3
    assert all(is_in_the_hub(consumer, group) for group in groups)
    assert layer.groups == consumer.groups == groups


async def test_a_layer_that_fails_while_it_is_left_leaves_no_events(consumer: BoardConsumer, answers: list[Any]):
    (task,) = [asyncio.create_task(consumer.tasks.subscribe(request_id="r"))]
    await until(lambda: answers)
    answers[0].set_result(moment(5))
    (group,) = await task
    assert is_in_the_hub(consumer, group)

    async def fail(group: str, channel: str) -> None:
        raise ConnectionError("down")

    consumer.channel_layer.group_discard = fail
    with pytest.raises(ConnectionError):
        await consumer.tasks.unsubscribe(request_id="r")
    assert embedded.runtime("default").hub._lanes == {}


async def test_a_layer_that_is_far_away_is_given_its_time_for_each_group(
    consumer: BoardConsumer, monkeypatch: pytest.MonkeyPatch
):
    async def answer_late(group: str, channel: str) -> None:
        await asyncio.sleep(0.1)

    monkeypatch.setattr(consumer.channel_layer, "group_add", answer_late)
    subscription = inbox_of(consumer).subscribe("address", consumer.tasks, consumer)
    await _join_groups(subscription, [f"g{number}" for number in range(8)], 0.5)
    with pytest.raises(ChannelLayerError, match=r"does not answer within 0\.01 s"):
        await _join_groups(subscription, ["g"], 0.01)
