"""A consumer's handlers and actions take turns, and what a handler does to its consumer is as in Channels."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from django.db import connections

from tests.acceptance.board import Board
from tests.servers import AsgiServer
from tests.testapp.models import Task
from tests.testapp.turns import BehindConsumer, Turns, TurnsConsumer

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

SERVERS = ["uvicorn", "daphne"]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, start_asgi_server: Callable[..., AsgiServer]) -> AsgiServer:
    """A server with a leader of its own."""
    return start_asgi_server(request.param)


def make(*titles: str) -> None:
    """Write rows with one statement."""
    Task.objects.bulk_create([Task(title=title) for title in titles])


def make_and_close(*titles: str) -> None:
    """Write rows, in a thread that is of no use afterwards."""
    make(*titles)
    connections.close_all()


def titles(board: Board, count: int) -> list[str]:
    """The next so many events."""
    return [event["title"] for event in board.events(count)]


@pytest.mark.parametrize("consumer", ["turns", "behind", "timed", "own", "detached"])
def test_handlers_and_actions_are_never_two_at_once(
    server: AsgiServer, consumer: str, open_board: Callable[..., Board]
) -> None:
    take_turns(open_board(server, consumer))


@pytest.mark.parametrize("consumer", ["turns", "own"])
def test_handlers_and_actions_take_turns_where_requests_are_transactions(
    consumer: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    server = start_asgi_server(env={"DJANGO_SETTINGS_MODULE": "tests.testapp.settings_atomic"})
    assert take_turns(open_board(server, consumer), "atomic")["atomic"] is True


def take_turns(board: Board, action: str = "ping") -> dict[str, Any]:
    """Write and call at the same time, and see that nothing of the consumer ran beside anything else."""
    board.subscribe("turns")
    wanted = [f"row {number}" for number in range(60)]

    async def both() -> list[Any]:
        for number in range(30):
            await board.client.cast(action, number=number)
        await asyncio.to_thread(make_and_close, *wanted)
        for number in range(30, 60):
            await board.client.cast(action, number=number)
        return [await board.client.until(lambda m: m.get("observer") == "turns") for _ in wanted]

    events = board.runner.run(both())
    replies = [message["data"] for message in board.client.received if message.get("action") == action]
    while len(replies) < 60:
        board.runner.run(board.client.call(action, number=-1))
        replies = [message["data"] for message in board.client.received if message.get("action") == action]
    assert [event["title"] for event in events] == wanted
    assert all(event["alone"] for event in events)
    assert all(reply["alone"] for reply in replies)
    last: dict[str, Any] = replies[-1]
    return last


def test_a_handler_that_unsubscribes_is_called_no_more(server: AsgiServer, open_board: Callable[..., Board]) -> None:
    board = open_board(server, "turns")
    board.subscribe("turns", "tasks")
    make("before", "unsubscribe", "after")
    events = board.runner.run(board.client.events(5))
    assert [event["title"] for event in events if event["observer"] == "turns"] == ["before", "unsubscribe"]
    assert "after" not in board.call("called")["data"]


@pytest.mark.parametrize("title", ["close", "stop"])
def test_a_handler_that_ends_its_consumer_ends_the_batch_and_is_no_error(
    server: AsgiServer, title: str, open_board: Callable[..., Board]
) -> None:
    board, other = open_board(server, "turns"), open_board(server, "turns")
    board.subscribe("turns")
    make("before", title, "after")
    assert titles(board, 1) == ["before"]
    if (server.server, title) != ("daphne", "stop"):  # daphne leaves the socket of such a consumer open
        with pytest.raises(AssertionError, match="did not come: ConnectionClosed"):
            board.events(1)
    called = other.call("called")["data"]
    assert called == {"before": 1, title: 1}
    assert "ERROR" not in server.output


def test_a_client_that_goes_in_the_middle_of_a_batch_is_no_error(
    server: AsgiServer, open_board: Callable[..., Board]
) -> None:
    board, other = open_board(server, "turns"), open_board(server, "turns")
    board.subscribe("turns")
    make("first", *(f"row {number}" for number in range(500)))
    assert titles(board, 1) == ["first"]
    board.client.connection.transport.abort()

    called = None
    while called != (called := other.call("called")["data"]):  # until no handler is called any more
        for number in range(20):
            other.call("ping", number=number)
    assert len(called) < 500
    other.subscribe("turns")
    make("next")
    assert titles(other, 1) == ["next"]
    assert "ERROR" not in server.output


@pytest.fixture
async def crowd() -> AsyncIterator[Callable[[int], Any]]:
    """Connects and subscribes clients without a server."""
    communicators = []

    async def connect(count: int) -> list[WebsocketCommunicator]:
        for number in range(count):
            communicator = WebsocketCommunicator(TurnsConsumer.as_asgi(), "/ws/turns/")
            communicators.append(communicator)
            assert (await communicator.connect())[0]
            await communicator.send_json_to({"action": "subscribe", "name": "turns", "request_id": number})
            assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
        return communicators

    yield connect
    for communicator in communicators:
        await communicator.disconnect()
    await sync_to_async(connections.close_all)()


async def test_a_handler_that_waits_keeps_nobody_else_waiting(
    crowd: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    monkeypatch.setattr(Turns, "gate", gate)
    communicators = await crowd(100)

    async def event(communicator: WebsocketCommunicator) -> str:
        return str((await communicator.receive_json_from(timeout=20))["title"])

    # Each waits in its handler; the first one alone is let go by the others' end.
    first, *others = communicators
    for communicator in others:
        await communicator.send_json_to({"action": "unsubscribe", "name": "turns", "request_id": None})
        await communicator.receive_json_from(timeout=10)
    await Task.objects.acreate(title="wait")
    for number, communicator in enumerate(others):
        await communicator.send_json_to({"action": "subscribe", "name": "turns", "request_id": number})
        assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
    await Task.objects.acreate(title="go")
    assert {await event(communicator) for communicator in others} == {"go"}
    assert await first.receive_nothing(timeout=0.01)
    gate.set()
    assert [await event(first), await event(first)] == ["wait", "go"]


async def test_consumers_behind_a_demultiplexer_have_an_inbox_each() -> None:
    application = AsyncJsonWebsocketDemultiplexer(turns=TurnsConsumer.as_asgi(), behind=BehindConsumer.as_asgi())
    communicator = WebsocketCommunicator(application, "/ws/")
    assert (await communicator.connect())[0]
    for stream in ("turns", "behind"):
        payload = {"action": "subscribe", "name": "turns", "request_id": stream}
        await communicator.send_json_to({"stream": stream, "payload": payload})
        reply = await communicator.receive_json_from(timeout=10)
        assert (reply["stream"], reply["payload"]["response_status"]) == (stream, 201)
    wanted = [f"row {number}" for number in range(20)]
    await sync_to_async(make)(*wanted)
    for number in range(20):
        await communicator.send_json_to(
            {"stream": "turns", "payload": {"action": "ping", "number": number, "request_id": number}}
        )
    received = [await communicator.receive_json_from(timeout=10) for _ in range(60)]
    for stream in ("turns", "behind"):
        told = [each["payload"] for each in received if each["stream"] == stream and "title" in each["payload"]]
        assert [each["title"] for each in told] == wanted
        assert all(each["alone"] for each in told)
    pings = [each["payload"]["data"] for each in received if each["payload"].get("action") == "ping"]
    assert [each["alone"] for each in pings] == [True] * 20
    await communicator.disconnect()
    await sync_to_async(connections.close_all)()
