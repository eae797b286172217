"""The keeper of memberships, over a layer that loses what a test tells it to."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.listener.gate import Moment
from djcrf_pg.observations import LayerUnreachable, MembershipsLost, Observation, add_sink
from djcrf_pg.observer import line, membership
from djcrf_pg.observer.membership import Keeper
from djcrf_pg.observer.subscriptions import Subscriptions, subscriptions_of
from tests.processes import until
from tests.testapp.consumers import BoardConsumer

#: The clock of the database is ahead of ours.
MOMENT = Moment(Snapshot(5, 5), datetime(2226, 1, 1, 12, tzinfo=UTC))


class Layer:
    """An in-memory layer that passes for one that reaches other processes."""

    def __init__(self, group_expiry: float | None = None) -> None:
        self.inner = InMemoryChannelLayer()
        self.before_add: Callable[[str], None] = lambda group: None
        self.refuses = False
        self.added: list[str] = []
        if group_expiry is not None:
            self.group_expiry = group_expiry

    def __getattr__(self, name: str) -> Any:
        if name == "group_expiry":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def forget(self) -> None:
        """Lose all groups."""
        self.inner.groups.clear()

    async def group_add(self, group: str, channel: str) -> None:
        self.before_add(group)
        if self.refuses:
            raise ConnectionError("refused")
        self.added.append(group)
        await self.inner.group_add(group, channel)


async def join(consumer: BoardConsumer, layer: Any) -> Subscriptions:
    """Subscribe without asking a database."""
    consumer.channel_layer, consumer.channel_name = layer, await layer.new_channel()
    observer = consumer.tasks.func
    state: Subscriptions = observer._state(consumer)
    for group in ("everything", observer.resync_group()):
        await consumer.add_group(group)
        state.since[group] = MOMENT
        state.added[group] = membership.time.time()
    consumer._observer_group_to_request_id[observer._stable_observer_id]["everything"].add("r")
    return state


class Served:
    """A consumer and what it sends."""

    def __init__(self, consumer: BoardConsumer) -> None:
        self.consumer = consumer
        self.sent: list[Any] = []

    async def serve(self) -> None:
        """Handle what comes, as Channels does."""
        layer, name = self.consumer.channel_layer, self.consumer.channel_name
        while True:
            await self.consumer.tasks(await layer.receive(name))

    async def send_json(self, content: Any, close: bool = False) -> None:
        self.sent.append(content)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "BEAT", 0.01)
    monkeypatch.setattr(membership, "TELL_AGAIN", 0.05)
    monkeypatch.setattr(line, "PATIENCE", 0.02)


@pytest.fixture
def seen() -> Any:
    observed: list[Observation] = []
    remove = add_sink(lambda observation, error: observed.append(observation))
    yield observed
    remove()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Layer], Any]]:
    """Has a subscribed consumer served until the end of the test."""
    tasks: list[asyncio.Task[None]] = []

    async def start(layer: Layer) -> Served:
        served = Served(BoardConsumer())
        served.consumer.send_json = served.send_json
        await join(served.consumer, layer)
        tasks.append(asyncio.create_task(served.serve()))
        return served

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def reasons(served: Served) -> list[str]:
    return [message["data"]["reason"] for message in served.sent]


async def test_what_is_lost_is_told_once_and_the_groups_are_there_again(serve, seen) -> None:
    layer = Layer()
    served = [await serve(layer), await serve(layer)]
    keeper = Keeper(layer)
    for one in served:
        await keeper.keep(one.consumer)
    for number in (1, 2):
        layer.forget()
        await until(lambda number=number: [len(one.sent) for one in served] == [number, number])
    assert reasons(served[0]) == ["channel_layer", "channel_layer"]
    lost = [observation for observation in seen if isinstance(observation, MembershipsLost)]
    assert [(one.consumers, one.groups) for one in lost] == [(2, 4), (2, 4)]
    for one in served:
        assert one.consumer.channel_name in layer.groups["everything"]


async def test_a_consumer_that_lost_nothing_does_not_heed_what_others_are_told(serve) -> None:
    layer = Layer()
    served, other = await serve(layer), await serve(layer)
    for one in (served, other):
        (state,) = subscriptions_of(one.consumer).values()
        state.lose()
        await Keeper(layer)._tell_observer(one.consumer.tasks.func)
        await until(lambda one=one: one.sent)
    assert reasons(served) == reasons(other) == ["channel_layer"]


async def test_a_layer_that_loses_all_again_while_the_groups_are_added(serve) -> None:
    layer = Layer()
    served = await serve(layer)
    keeper = Keeper(layer)
    await keeper.keep(served.consumer)

    def lose_the_first(group: str) -> None:
        if not group.startswith("djcrf_pg-line") and "everything" in layer.groups:
            layer.before_add = lambda group: None
            layer.forget()

    layer.before_add = lose_the_first
    layer.forget()
    await until(lambda: served.sent)
    assert served.consumer.channel_name in layer.groups["everything"]
    assert served.consumer.channel_name in layer.groups[served.consumer.tasks.func.resync_group()]


async def test_a_layer_that_refuses_for_a_while_is_said_once_and_is_a_resync(serve, seen) -> None:
    layer = Layer()
    served = await serve(layer)
    keeper = Keeper(layer)
    await keeper.keep(served.consumer)
    refused: list[str] = []
    layer.before_add, layer.refuses = refused.append, True
    await until(lambda: len(refused) > 3)
    layer.refuses = False
    await until(lambda: served.sent)
    assert [type(observation) for observation in seen] == [LayerUnreachable, MembershipsLost]


async def test_whoever_comes_while_the_layer_refuses_hears_of_it(serve) -> None:
    layer = Layer()
    served = await serve(layer)
    keeper = Keeper(layer)
    layer.refuses = True
    for _ in range(2):
        with pytest.raises(ConnectionError, match="refused"):
            await keeper.keep(served.consumer)
    layer.refuses = False
    await keeper.keep(served.consumer)


async def test_a_resync_that_was_lost_is_sent_again(serve) -> None:
    layer = Layer()
    served = await serve(layer)
    keeper = Keeper(layer)
    state = subscriptions_of(served.consumer)[served.consumer.tasks.func._stable_observer_id]
    await keeper.keep(served.consumer)
    # It is not in the group that hears of it, so the first one goes astray.
    group = served.consumer.tasks.func.resync_group()
    await layer.group_discard(group, served.consumer.channel_name)
    state.lose()
    await until(lambda: state.told >= 1)
    assert served.sent == []
    await layer.group_add(group, served.consumer.channel_name)
    await until(lambda: reasons(served) == ["channel_layer"])
    assert not state.stale


async def test_a_membership_that_is_renewed_too_late_is_a_resync(serve) -> None:
    layer = Layer(group_expiry=60)
    served = await serve(layer)
    keeper = Keeper(layer)
    await keeper.keep(served.consumer)
    (state,) = subscriptions_of(served.consumer).values()
    reference = membership.weakref.ref(served.consumer)
    await keeper._renew_one(reference, state)
    assert not state.stale
    state.added["everything"] -= 60
    await keeper._renew_one(reference, state)
    await until(lambda: reasons(served) == ["channel_layer"])


async def test_memberships_are_renewed_at_a_third_of_their_life_at_the_latest(serve) -> None:
    layer = Layer(group_expiry=0.6)
    served = await serve(layer)
    keeper = Keeper(layer)
    await keeper.keep(served.consumer)
    for _ in range(3):
        layer.added.clear()
        await until(lambda: "everything" in layer.added and served.consumer.tasks.func.resync_group() in layer.added)


async def test_a_group_that_was_left_is_not_added_again(serve) -> None:
    layer = Layer()
    served = await serve(layer)
    keeper = Keeper(layer)
    (state,) = subscriptions_of(served.consumer).values()
    reference = membership.weakref.ref(served.consumer)
    groups = state.groups
    await served.consumer.tasks.unsubscribe(request_id="r")
    await served.consumer.tasks.func._leave_unused(served.consumer, groups)
    state.since.clear()
    layer.forget()
    for group in groups:
        await keeper._add(reference, state, group)
    assert layer.groups == {}


async def test_what_was_added_for_a_consumer_that_ended_meanwhile_is_left(serve) -> None:
    layer = Layer()
    consumer = BoardConsumer()
    (ending, other) = (await join(consumer, layer), await serve(layer))
    name = consumer.channel_name
    keeper = Keeper(layer)
    await keeper.keep(other.consumer)
    await keeper.keep(consumer)
    # It leaves its groups while they are being added again.
    await keeper._restore(membership.weakref.ref(consumer), ending)
    assert name in layer.groups["everything"]
    del consumer
    gc.collect()
    await until(lambda: name not in layer.groups["everything"])
    assert other.consumer.channel_name in layer.groups["everything"]


async def test_without_subscriptions_it_ends_and_with_the_next_it_begins_again(serve) -> None:
    layer = Layer()
    served = await serve(layer)
    keeper = Keeper(layer)
    await keeper.keep(served.consumer)
    (state,) = subscriptions_of(served.consumer).values()
    since = dict(state.since)
    state.since.clear()
    await until(lambda: keeper._task is not None and keeper._task.done())
    assert not any(group.startswith("djcrf_pg-line") for group in layer.groups)
    state.since.update(since)
    await keeper.keep(served.consumer)
    layer.forget()
    await until(lambda: served.sent)
