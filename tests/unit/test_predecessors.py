"""What a leader sends to processes of 0.1.0: who is concerned, how often, and what they can read."""

import asyncio
import json
from collections.abc import Collection, Iterable
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from djcrf_pg.delivery import predecessors
from djcrf_pg.delivery.envelope import NEVER_SEEN, RESYNC
from djcrf_pg.delivery.predecessors import CLASS_ID, Predecessors, key_of, message_of
from djcrf_pg.delivery.protocol import KEY
from djcrf_pg.registry import Observed
from tests.processes import until
from tests.testapp.consumers import BoardConsumer

TASKS, PROJECTS = BoardConsumer.tasks, BoardConsumer.projects


class Layer(InMemoryChannelLayer):
    """Notes what is sent, and fails while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.fails = False

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if self.fails:
            raise ConnectionError("refused")
        self.sent.append((group, message))


class Leader:
    """A leader's predecessors, with two tables and whoever holds locks."""

    def __init__(self, *held: Observed) -> None:
        self.held = {key_of(observer) for observer in held}
        self.looks = 0
        self.predecessors = Predecessors(7, self.locks, self.observers)

    async def locks(self, class_id: int) -> Collection[int]:
        assert class_id == CLASS_ID
        self.looks += 1
        return self.held

    def observers(self, relations: Collection[int]) -> Iterable[Observed]:
        return [{1: TASKS, 2: PROJECTS}[relation] for relation in relations]


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> Layer:
    layer = Layer()
    monkeypatch.setattr(predecessors, "channel_layer", lambda: layer)
    return layer


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessors, "PAUSE", 0.1)


def test_the_message_is_a_resync_in_the_envelope_of_the_release() -> None:
    message = message_of(TASKS, 7)
    assert (message["type"], message["group"]) == ("tasks", TASKS.resync_group())
    assert {**message[KEY], "events": None} == {"v": 1, "term": 7, "events": None}
    ((action, body, _, xid, *_),) = json.loads(message[KEY]["events"])
    assert (action, body, xid) == (RESYNC, {"reason": "unreadable", "model": "testapp.Task"}, NEVER_SEEN)


async def test_those_with_subscribers_and_changes_get_one_a_pause_and_one_after_the_last(layer: Layer) -> None:
    leader = Leader(TASKS)
    task = asyncio.create_task(leader.predecessors.run())
    leader.predecessors.note([1, 2])
    await until(lambda: leader.looks == 1 and len(layer.sent) == 1)
    for _ in range(5):
        leader.predecessors.note([1])
    await until(lambda: leader.looks == 2 and len(layer.sent) == 2)
    leader.predecessors.note([2])
    await until(lambda: leader.looks == 3)
    assert [group for group, _ in layer.sent] == [TASKS.resync_group()] * 2
    task.cancel()


async def test_what_the_layer_did_not_take_is_sent_again(layer: Layer) -> None:
    leader = Leader(TASKS)
    task = asyncio.create_task(leader.predecessors.run())
    layer.fails = True
    leader.predecessors.note([1])
    await until(lambda: leader.looks == 1)
    layer.fails = False
    await until(lambda: len(layer.sent) == 1)
    task.cancel()
