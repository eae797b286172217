"""Nothing is made for observers that nobody hears, and whoever hears misses nothing."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connection, connections

from djcrf_pg.listener import dispatch, embedded, leadership
from djcrf_pg.routing import events as telling
from djcrf_pg.routing.routes import Occurrence
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

ROWS = 300


@pytest.fixture(autouse=True)
def close_connections():
    """The thread of sync_to_async keeps a connection, as it does in any test of Channels consumers."""
    yield
    async_to_sync(sync_to_async(connections.close_all))()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> list[str]:
    """The observers that something was made for."""
    labels: list[str] = []
    events = telling._events

    def noting(occurrence: Occurrence, *others: Any) -> Any:
        if occurrence.observer.model_cls is Task and occurrence.resync is None:  # the flush before is told too
            labels.append(occurrence.observer.label.rpartition(".")[2])
        return events(occurrence, *others)

    monkeypatch.setattr(telling, "_events", noting)
    with connection.cursor() as cursor:
        # Of processes that others have killed.
        cursor.execute("DELETE FROM djcrf_pg_interest")
    return labels


@sync_to_async
def run(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


async def write(first: int, count: int = ROWS, status: str = "todo") -> None:
    await run(
        "INSERT INTO testapp_task (id, title, status, points, body) "
        "SELECT i, 't' || i, %s, 0, '' FROM generate_series(%s, %s) AS i",
        *(status, first, first + count - 1),
    )


async def subscribed(*names: str, **parameters: Any) -> WebsocketCommunicator:
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    await communicator.connect()
    for name in names:
        await communicator.send_json_to({"action": "subscribe", "name": name, "request_id": name, **parameters})
        assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
    return communicator


async def test_nothing_is_made_for_observers_that_nobody_hears(made: list[str]) -> None:
    communicator = await subscribed("tasks")
    await write(1)
    heard = [await communicator.receive_json_from(timeout=10) for _ in range(ROWS)]
    assert [message["body"]["pk"] for message in heard] == list(range(1, ROWS + 1))
    assert set(made) == {"tasks"}
    # Another subscribes, and hears from then on.
    another = await subscribed("full")
    made.clear()
    await write(10_001)
    assert (await another.receive_json_from(timeout=10))["body"]["id"] == 10_001
    for _ in range(ROWS):
        await communicator.receive_json_from(timeout=10)
    assert set(made) == {"tasks", "full"}
    # However few rows there are.
    made.clear()
    await write(20_001, 1)
    await communicator.receive_json_from(timeout=10)
    assert set(made) == {"tasks", "full"}
    for each in (communicator, another):
        await each.disconnect()
    await embedded.close_all()


async def test_nothing_is_made_for_groups_that_nobody_has_and_all_for_those_that_somebody_has(
    monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    items: list[str] = []
    bodies: list[str] = []
    events = telling.events

    def noting(*args: Any, **kwargs: Any) -> Any:
        made_items, failed = events(*args, **kwargs)
        items.extend(statuses.get(item.group, item.group) for item in made_items if item.group)
        return made_items, failed

    def serialize(self: Any, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        bodies.append(instance.status)
        return {"id": instance.pk}

    statuses = {
        group: status
        for status in ("todo", "done", "doing")
        for group in BoardConsumer.by_status.group_names_for_signal(instance=Task(status=status))
    }
    monkeypatch.setattr(dispatch, "events", noting)
    monkeypatch.setattr(BoardConsumer.by_status, "_serializer", serialize)
    todo = await subscribed("by_status", status="todo")
    await write(1, 2, "done")
    await write(11, 1, "todo")
    assert (await todo.receive_json_from(timeout=10))["body"] == {"id": 11}
    assert (items, bodies) == (["todo"], ["todo"])
    # Another subscribes, before somebody writes.
    done = await subscribed("by_status", status="done")
    await write(21, 1, "done")
    assert (await done.receive_json_from(timeout=10))["body"] == {"id": 21}
    assert (items, bodies) == (["todo", "done"], ["todo", "done"])
    # A row that goes from a group that somebody has to one that nobody has.
    await run("UPDATE testapp_task SET status = 'doing' WHERE id = 11")
    assert (await todo.receive_json_from(timeout=10))["action"] == "delete"
    assert (items[2:], bodies[2:]) == (["todo"], ["todo"])
    for each in (todo, done):
        await each.disconnect()
    await embedded.close_all()


async def test_rows_of_a_session_that_has_ended_are_deleted_and_others_stay(
    monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    communicator = await subscribed("tasks")
    await run("INSERT INTO djcrf_pg_interest VALUES (-1, 0, repeat('1', 1024)::bit(1024))")
    await run("SELECT nextval('djcrf_pg_interest_version')")

    @sync_to_async
    def holders() -> set[int]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT holder FROM djcrf_pg_interest")
            return {holder for (holder,) in cursor.fetchall()}

    monkeypatch.setattr(leadership, "_PRUNE", 0.0)
    await write(1, 1)
    await communicator.receive_json_from(timeout=10)
    await write(2, 1)
    await communicator.receive_json_from(timeout=10)
    assert -1 in await holders()  # it may come back
    monkeypatch.setattr(dispatch, "_LEFT", 0.0)
    for number in range(3, 10):
        await write(number, 1)
        await communicator.receive_json_from(timeout=10)
    assert await holders() == {embedded.runtime("default").gate._holder}
    await communicator.disconnect()
    await embedded.close_all()


async def end_session() -> int:
    """End the session of the process's gate; its number."""
    gate = embedded.runtime("default").gate
    assert gate._session is not None

    await run("SELECT pg_terminate_backend(%s, 5000)", gate._session.pid)
    return gate.number


async def test_a_session_that_ends_is_nothing_that_anybody_has_to_know(made: list[str]) -> None:
    communicator = await subscribed("tasks")
    await end_session()
    made.clear()
    await write(1, 3)
    for pk in (1, 2, 3):
        assert (await communicator.receive_json_from(timeout=15))["body"] == {"pk": pk}
    assert set(made) == {"tasks"}
    assert await embedded.runtime("default").gate.renew()
    await write(4, 1)
    assert (await communicator.receive_json_from(timeout=15))["body"] == {"pk": 4}
    await communicator.disconnect()
    await embedded.close_all()


async def test_what_may_have_been_left_out_while_the_rows_were_gone_is_a_resync(made: list[str]) -> None:
    communicator = await subscribed("tasks")
    number = await end_session()
    await run("DELETE FROM djcrf_pg_interest; SELECT nextval('djcrf_pg_interest_version')")
    await write(1)
    while (message := await communicator.receive_json_from(timeout=15)).get("action") != "resync":
        pass
    assert message["data"] == {"reason": "channel_layer", "model": "testapp.Task"}
    assert embedded.runtime("default").gate.number > number
    await write(10_001)
    while (await communicator.receive_json_from(timeout=10)).get("body") != {"pk": 10_000 + ROWS}:
        pass
    await communicator.disconnect()
    await embedded.close_all()
