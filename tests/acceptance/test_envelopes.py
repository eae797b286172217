"""Messages in the streams that cannot be read, or claim what is not so: from another version, site, or from anybody."""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from channels_redis.core import RedisChannelLayer

from djcrf_pg.delivery.protocol import KEY, TYPE, History, stream_of
from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS
from tests.acceptance.wire import forged, history_of
from tests.servers import AsgiServer, PgParams
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

pytestmark = pytest.mark.processes

_numbers = itertools.count(1)

OBSERVER = BoardConsumer.tasks.address


def layers(redis_url: str) -> dict[str, Any]:
    """CHANNEL_LAYERS with room for many messages."""
    backend = "channels_redis.core.RedisChannelLayer"
    return {"default": {"BACKEND": backend, "CONFIG": {"hosts": [redis_url], "capacity": 10_000}}}


@pytest.fixture
def server(transactional_db: None, start_asgi_server: Callable[..., AsgiServer], redis_url: str) -> AsgiServer:
    """A server with a listener of its own, and room for many messages at once."""
    return start_asgi_server(layers=layers(redis_url))


@pytest.fixture
def subscribed(server: AsgiServer, open_board: Callable[..., Board]) -> tuple[Board, str]:
    """A client that is subscribed to tasks, and the group."""
    board = open_board(server)
    reply = board.call("subscribe", name="tasks", request_id="tasks")
    (group,) = reply["data"]["groups"]
    return board, group


@pytest.fixture
def history(transactional_db: None, test_pg: PgParams) -> History:
    """Of the test's database."""
    return history_of(test_pg)


@pytest.fixture
def send(redis_url: str, history: History) -> Callable[..., None]:
    """Sends messages into the stream of the observer, or into that of the heartbeats."""

    def send(*messages: dict[str, Any], stream: int | None = stream_of(OBSERVER)) -> None:
        async def run() -> None:
            layer = RedisChannelLayer(hosts=[redis_url], capacity=10_000)
            for message in messages:
                await layer.group_send(history.group(stream), message)
            await layer.close_pools()

        asyncio.run(run())

    return send


def term_of(server: AsgiServer) -> int:
    """The term of the leader in a server."""
    return int(server.wait_for(LEADS + r" \(term (\d+)\)")[1])


def receives(board: Board) -> list[Any]:
    """The bodies that come, one more row's last; it fails where nothing comes."""
    task = Task.objects.create(title=f"row {next(_numbers)}")
    board.runner.run(board.client.until(lambda message: message.get("body") == {"pk": task.pk}))
    others = board.client.take(lambda message: message.get("observer") == "tasks")
    return [message["body"]["pk"] for message in others] + [task.pk]


def resyncs(board: Board) -> list[Any]:
    """The resyncs that have come."""
    return board.client.take(lambda message: message.get("action") == "resync")


def test_messages_that_cannot_be_read_are_reported_once_and_end_nothing(
    server: AsgiServer, subscribed: tuple[Board, str], send: Callable[..., None], history: History
):
    board, group = subscribed
    # Of a former term: what one can still read is for nobody.
    good = forged(history, term_of(server) - 1, OBSERVER, group, {"pk": -1})[KEY]
    chance = random.Random(14)
    damaged: list[Any] = [None, 7, "", "{}", "[]", b"\xff", [], {"v": 1, "term": 1, "events": "[]"}, "[" * 10_000]
    damaged += [good.replace('"v":2', f'"v":{version}') for version in (0, 1, 3, "null")]
    for _ in range(500):
        place = chance.randrange(len(good.partition("\n")[0]))
        # Without the brackets and quotes there, its first line is no JSON.
        damaged.append(good[:place] + chance.choice("{[\x00\\") + good[place + chance.randrange(3) :])
    messages: list[Any] = [{"type": TYPE, KEY: each} for each in damaged if each is not None]
    send({"type": TYPE}, {"type": "tasks", "group": group, KEY: {"v": 1}}, *messages)
    send({"type": TYPE}, *messages, stream=None)
    # Whatever became of them, at worst it is a resync; afterwards all is as it was.
    for _ in range(3):
        assert min(receives(board)) > 0
    assert len(resyncs(board)) <= 2
    assert server.output.count("messages of the channel layer cannot be read") == 1
    assert "Traceback" not in server.output
    assert receives(board)
    assert resyncs(board) == []


def test_a_forged_message_with_a_higher_term_deafens_nobody(
    server: AsgiServer, subscribed: tuple[Board, str], send: Callable[..., None], history: History
):
    board, group = subscribed
    term = term_of(server)
    higher = [forged(history, term + number, OBSERVER, group, {"pk": -number}) for number in (1, 1, 2**40)]
    send(*higher)
    server.wait_for("of a term .* that the database does not know; they are ignored")
    assert min(receives(board)) > 0
    send(*higher)
    assert min(receives(board)) > 0
    assert resyncs(board) == []
    assert server.output.count("they are ignored") == 1


def test_a_message_of_another_history_is_for_nobody(
    server: AsgiServer, subscribed: tuple[Board, str], send: Callable[..., None], history: History
):
    board, group = subscribed
    term = term_of(server)
    others = [history._replace(system=1), history._replace(log=1), history._replace(timeline=9)]
    send(*(forged(other, term, OBSERVER, group, {"pk": -1}) for other in others))
    server.wait_for("they are ignored")
    assert min(receives(board)) > 0
    assert resyncs(board) == []


def test_a_forged_message_of_the_right_term_has_the_log_read_and_loses_nothing(
    server: AsgiServer, subscribed: tuple[Board, str], send: Callable[..., None], history: History
):
    board, group = subscribed
    receives(board)
    send(forged(history, term_of(server), OBSERVER, group, {"pk": -1}, number=9))
    for _ in range(20):
        receives(board)
    assert resyncs(board) == []
