"""Nothing is made for observers that nobody hears, and whoever hears misses nothing."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connection, connections

from djcrf_pg.listener import embedded, telling
from djcrf_pg.listener.occurrence import Occurrence
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
def write(first: int, count: int = ROWS) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_task (id, title, status, points, body) "
            "SELECT i, 't' || i, 'todo', 0, '' FROM generate_series(%s, %s) AS i",
            [first, first + count - 1],
        )


async def subscribed(*names: str) -> WebsocketCommunicator:
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    await communicator.connect()
    for name in names:
        await communicator.send_json_to({"action": "subscribe", "name": name, "request_id": name})
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


async def end_session() -> int:
    """End the session of the process's gate; its number."""
    gate = embedded.runtime("default").gate
    assert gate._session is not None

    @sync_to_async
    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [gate._session.pid])

    await end()
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

    @sync_to_async
    def prune() -> None:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM djcrf_pg_interest; SELECT nextval('djcrf_pg_interest_version')")

    await prune()
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
