"""Two calls of ``subscribe`` at once, on one consumer: none undoes what the other has made."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.exceptions import ListenerUnavailable
from djcrf_pg.listener import embedded, envelope
from djcrf_pg.listener.gate import Moment, Probe
from djcrf_pg.listener.numbering import Control
from tests.testapp.consumers import BoardConsumer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def moment(xid: int) -> Probe:
    """At noon, when every transaction below ``xid`` had ended."""
    return Probe(Moment(Snapshot(xid, xid), NOON), True, "leader", frozenset(), frozenset(), session=1)


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
def answers(monkeypatch: pytest.MonkeyPatch) -> list["asyncio.Future[Probe]"]:
    """What the gate answers to each call, in the order of the calls."""
    waiting: list[asyncio.Future[Probe]] = []

    async def ready(alias: str, tables: Any, key: int) -> Probe:
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        return await future

    monkeypatch.setattr(embedded, "ready", ready)
    return waiting


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


async def handle(consumer: BoardConsumer, group: str, event: str) -> None:
    """Have it handle a message with an event."""
    control = Control(group, "tasks", BoardConsumer.tasks.address)
    for message in envelope.pack(control, group, [event], term=1, max_events=10, max_bytes=1000):
        await consumer.tasks(message)


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


async def test_the_last_that_fails_leaves_nothing(consumer: BoardConsumer, answers: list[Any]):
    tasks = await both(consumer, answers, lambda number: f"r{number}")
    for answer in answers:
        answer.set_exception(ListenerUnavailable("gone"))
    assert all(isinstance(error, ListenerUnavailable) for error in await asyncio.gather(*tasks, return_exceptions=True))
    assert consumer.channel_layer.groups == consumer.groups == set()


async def test_what_was_committed_between_the_two_is_told(consumer: BoardConsumer, answers: list[Any]):
    late, early = await both(consumer, answers, lambda number: f"r{number}")
    answers[1].set_result(moment(10))
    (group,) = await early
    answers[0].set_result(moment(20))
    await late
    event = envelope.Event("create", {"pk": 1}, 1, 15, "2026-01-01T00:00:00+00:00").encode()
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
    event = envelope.Event("create", {"pk": 1}, 1, xid, written).encode()
    await handle(consumer, group, event)
    assert bool(consumer.sent) is told
