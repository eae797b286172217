"""What subscriptions take, and that nothing of them is left: limits, groups of the layer, clients that vanish."""

import asyncio
import itertools
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from redis import Redis

from djcrf_pg.listener import embedded
from tests.acceptance.board import Board
from tests.client import Client
from tests.processes import wait_until
from tests.servers import AsgiServer
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


def group_keys(redis: "Redis[bytes]") -> set[bytes]:
    """The groups of consumers that Redis knows of; a process has some of its own."""
    return {key for key in redis.scan_iter("asgi:group:*") if b":djcrf_pg." not in key}


@pytest.mark.parametrize("numbered", [True, False], ids=["request ids", "no request id"])
def test_one_subscription_too_many_is_refused_and_the_others_stay(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board], numbered: bool
) -> None:
    board = open_board(start_asgi_server(settings={"MAX_SUBSCRIPTIONS": 2}), "turns")

    def subscribe(status: str) -> dict[str, Any]:
        return board.call("subscribe", name="by_status", status=status, request_id=status if numbered else None)

    assert subscribe("todo")["response_status"] == 201
    assert subscribe("doing")["response_status"] == 201
    refused = subscribe("done")
    assert refused["response_status"] == 429
    assert "MAX_SUBSCRIPTIONS" in str(refused["errors"])
    assert subscribe("todo")["response_status"] == 201  # which it has, and is none more
    Task.objects.create(title="refused", status="done")
    task = Task.objects.create(title="told", status="doing")
    assert board.events(1)[0]["body"]["id"] == task.pk


def test_a_request_id_that_is_too_long_is_refused(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    board = open_board(start_asgi_server())
    refused = board.call("subscribe", name="tasks", request_id="r" * 256)
    assert refused["response_status"] == 400
    assert "255" in str(refused["errors"])


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_a_client_that_vanishes_leaves_no_group(
    server: str, redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    asgi = start_asgi_server(server, redis=redis_url)
    steady, leaving = open_board(asgi), open_board(asgi)
    steady.subscribe("by_status", status="steady")
    with Redis.from_url(redis_url) as redis:
        before = group_keys(redis)
        for number in range(20):
            leaving.subscribe("by_status", status=f"s{number}", request_id=number)
        assert len(group_keys(redis)) == len(before) + 20
        reset(leaving.client)
        leaving.runner.run(leaving.client.connection.wait_closed())
        wait_until(lambda: group_keys(redis) == before, message=lambda: f"left: {group_keys(redis) ^ before}")


@pytest.mark.parametrize("join", [True, False])
def test_groups_of_the_layer_are_joined_only_where_that_is_wanted(
    join: bool, redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    asgi = start_asgi_server(redis=redis_url, settings={"JOIN_GROUPS": join})
    first, second = open_board(asgi, "turns"), open_board(asgi, "turns")
    first.subscribe("turns")  # with it the process joins its own

    with Redis.from_url(redis_url) as redis, redis.monitor() as monitor:
        second.subscribe("turns")
        for number in range(10):
            second.subscribe("by_status", status=f"s{number}", request_id=number)
        redis.echo("end")
        commands = list(iter(lambda: monitor.next_command()["command"], "ECHO end"))
    # The process's own are joined with the first subscription, and now and then again.
    groups = {command.split()[1] for command in commands if command.startswith("ZADD asgi:group:")}
    assert sum("djcrf_pg" not in group for group in groups) == (11 if join else 0), groups
    Task.objects.create(title="told")
    assert [board.events(1)[0]["title"] for board in (first, second)] == ["told", "told"]


def test_what_an_application_sends_to_the_groups_of_a_consumer_arrives(
    redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    asgi = start_asgi_server(redis=redis_url)
    boards = [open_board(asgi, "turns"), open_board(asgi, "turns")]
    for board in boards:
        board.subscribe("turns")
    boards[0].runner.run(boards[0].client.cast("say", text="hello"))
    assert [board.events(1)[0]["said"] for board in boards] == ["hello", "hello"]


def test_a_consumer_that_ends_without_a_disconnect_leaves_no_group(
    redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    asgi = start_asgi_server(redis=redis_url)
    steady, leaving = open_board(asgi), open_board(asgi, "turns")
    steady.subscribe("by_status", status="steady")
    with Redis.from_url(redis_url) as redis:
        before = group_keys(redis)
        leaving.subscribe("by_status", status="leaving")
        leaving.subscribe("turns")
        Task.objects.create(title="stop")
        wait_until(lambda: group_keys(redis) == before, 8, lambda: f"left: {group_keys(redis) ^ before}")


async def test_nothing_of_consumers_that_were_cancelled_stays_in_the_process() -> None:
    communicators = []
    for number in range(20):
        communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
        communicators.append(communicator)
        assert (await communicator.connect())[0]
        await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": number})
        assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
    hub = embedded.hub_of(Task)
    assert len(hub.subscriptions()) == 20
    for communicator in communicators:
        communicator.future.cancel()
    await asyncio.gather(*(communicator.future for communicator in communicators), return_exceptions=True)
    assert hub.subscriptions() == []
    await embedded.close_all()


#: Clients of a round, and those of them that are there at the same time.
CROWD, TOGETHER = 1000, 100

numbers = itertools.count()


async def vanish(server: AsgiServer, number: int) -> None:
    """Connect, subscribe, and end in one of the ways in which clients and consumers end."""
    client = await Client.open(server.consumer_url("turns"))
    await client.call("subscribe", name="by_status", status=f"s{number}", request_id=number)
    match number % 4:
        case 0:
            await client.call("subscribe", name="turns", request_id=number)
            await client.close()
        case 1:
            reset(client)
        case 2:
            await client.cast("boom")
        case 3:
            await client.cast("subscribe", name="turns", request_id=number)
            reset(client)  # in the middle of it
    await client.connection.wait_closed()


def reset(client: Client) -> None:
    """Go without a word."""
    transport = client.connection.transport
    transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
    transport.abort()


async def crowd(server: AsgiServer) -> None:
    """A thousand clients come and vanish, and rows are written for them."""
    for start in range(0, CROWD, TOGETHER):
        await asyncio.gather(*(vanish(server, number) for number in range(start, start + TOGETHER)))
        await Task.objects.acreate(title=f"row {next(numbers)}", status=f"s{start}")


@pytest.mark.slow
def test_crowds_that_come_and_vanish_leave_nothing_in_the_process(
    redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    asgi = start_asgi_server(redis=redis_url)
    steady = open_board(asgi, "turns")
    steady.subscribe("by_status", status="steady")

    def left() -> dict[str, int]:
        counts: dict[str, int] = steady.call("left")["data"]
        return counts

    with Redis.from_url(redis_url) as redis:
        groups, sizes = group_keys(redis), []
        kinds = ("AsyncConsumer", "Subscription", "Inbox", "entered")
        assert [count for kind, count in left().items() if kind in kinds] == [1] * 4
        for _ in range(4):
            steady.runner.run(crowd(asgi))
            wait_until(lambda: group_keys(redis) == groups, message=lambda: f"left: {group_keys(redis) ^ groups}")
            wait_until(
                lambda: [count for kind, count in left().items() if kind in kinds] == [1] * 4,
                message=lambda: f"left: {left()}",
            )
            sizes.append(left())
    # The first rounds fill caches. Clients that each leave a single object behind, or a text in a set, are a thousand.
    for measure in ("objects", "items"):
        assert sizes[-1][measure] - sizes[-2][measure] < CROWD / 2, sizes
    assert sizes[-1]["Task"] - sizes[0]["Task"] < 10, sizes
    assert sizes[-1]["buffers"] - sizes[0]["buffers"] < 10, sizes
    Task.objects.create(title="last", status="steady")
    assert steady.events(1)[0]["body"]["status"] == "steady"
