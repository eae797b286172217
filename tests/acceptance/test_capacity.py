"""A channel layer drops what is over its capacity, and says so to nobody: what it dropped is read from the log."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from channels_redis.core import RedisChannelLayer

from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS
from tests.acceptance.wire import history_of
from tests.servers import AsgiServer, ManagePy, PgParams
from tests.testapp.models import Task

pytestmark = pytest.mark.processes


@pytest.fixture
def layers(redis_url: str) -> dict[str, object]:
    """A layer that holds three messages for each process."""
    backend = "channels_redis.core.RedisChannelLayer"
    return {"default": {"BACKEND": backend, "CONFIG": {"hosts": [redis_url], "capacity": 3}}}


@pytest.fixture
def beats(transactional_db: None, test_pg: PgParams) -> str:
    """The channel-layer group of the heartbeats."""
    return history_of(test_pg).group(None)


@pytest.fixture
def listen(transactional_db: None, start_command: Callable[..., ManagePy]) -> Callable[..., None]:
    """Starts a listener, and returns when it leads."""
    return lambda **options: start_command("djcrf_pg", "listen", **options).wait_for(LEADS)


def test_what_is_over_the_capacity_comes_all_the_same(
    layers: dict[str, object],
    listen: Callable[..., None],
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
    test_pg: PgParams,
) -> None:
    listen(layers=layers, settings={"ENVELOPE_EVENTS": 1})
    server = start_asgi_server(layers=layers, settings={"EMBEDDED": False})
    board = open_board(server)
    board.subscribe("full")
    # The last of them are what no later message could tell of.
    with psycopg.connect(test_pg.dsn()) as writer:
        writer.execute(
            "INSERT INTO testapp_task (id, title, status, points, body) "
            "SELECT i, 't' || i, 'todo', 0, '' FROM generate_series(1, 3000) AS i"
        )
    board.runner.run(board.client.until(lambda message: message.get("body", {}).get("id") == 3000, timeout=60))
    assert "are read from the log" in server.output, "nothing was dropped, so this shows nothing"
    last = Task.objects.create(pk=9_999, title="last")
    board.runner.run(board.client.until(lambda message: message.get("body", {}).get("id") == last.pk, timeout=60))
    told = [message["body"]["id"] for message in board.client.received if "body" in message]
    assert told == [*range(1, 3001), 9_999], "each once, and in order"
    assert not board.client.take(lambda message: message.get("action") == "resync")


@pytest.mark.parametrize("others", [1, 0], ids=["in the middle", "the last one"])
def test_a_single_message_that_was_lost_is_missed(
    others: int,
    redis_url: str,
    listen: Callable[..., None],
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
) -> None:
    lossy = {"BACKEND": "tests.testapp.layers.LossyLayer", "CONFIG": {"hosts": [redis_url]}}
    listen(layers={"default": lossy})
    board = open_board(start_asgi_server(redis=redis_url, settings={"EMBEDDED": False}))
    board.subscribe("full")
    first = Task.objects.create(title="first")
    board.runner.run(board.client.until(lambda message: message.get("body", {}).get("id") == first.pk))
    rows = [Task.objects.create(title="lose me"), *(Task.objects.create(title="another") for _ in range(others))]
    board.runner.run(board.client.until(lambda message: message.get("body", {}).get("id") == rows[-1].pk))
    board.told("full")
    told = [message["body"]["id"] for message in board.client.received if "body" in message]
    assert told[:-1] == [first.pk, *(row.pk for row in rows)], "once is enough, though heartbeats name it too"


@pytest.mark.slow
def test_nobody_is_told_to_load_again_for_nothing(
    redis_url: str,
    listen: Callable[..., None],
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
    beats: str,
) -> None:
    listen(redis=redis_url)
    server = start_asgi_server(redis=redis_url, settings={"EMBEDDED": False})
    early = open_board(server)
    early.subscribe("full", "tasks")
    early.subscribe("by_status", status="todo")
    late = None
    for number in range(8):
        Task.objects.create(title=f"t{number}")
        early.told("full")
        if number == 4:
            late = open_board(server)
            late.subscribe("full")
    assert late is not None

    # Heartbeats name these last messages too, and what they name has had its time when the third one has come.
    async def three_heartbeats() -> None:
        async with asyncio.timeout(20):
            layer = RedisChannelLayer(hosts=[redis_url])
            channel = await layer.new_channel()
            await layer.group_add(beats, channel)
            for _ in range(3):
                await layer.receive(channel)
            await layer.close_pools()

    early.runner.run(three_heartbeats())
    early.told("full")
    late.told("full")
    assert [m for board in (early, late) for m in board.client.received if m.get("action") == "resync"] == []
