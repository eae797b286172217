"""A client that is slow costs its bound and delays nobody else; one that ends leaves nothing behind."""

import asyncio
from collections.abc import Callable

import pytest
import redis as client
from channels.testing import WebsocketCommunicator
from django.test import override_settings

from djcrf_pg.listener import embedded
from tests.acceptance.board import Board
from tests.processes import until
from tests.servers import AsgiServer
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: More than the buffers of a socket hold, all together.
ROWS, WIDE = 400, 50_000


def test_a_client_that_reads_nothing_delays_nobody_and_gets_one_resync(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    server = start_asgi_server(settings={"INBOX_EVENTS": 20})
    slow, quick = open_board(server, compression=None), open_board(server)
    slow.subscribe("full")
    quick.subscribe("tasks")
    slow.client.connection.transport.pause_reading()
    for number in range(ROWS):
        Task.objects.create(pk=number + 1, title=f"wide {number}", body="x" * WIDE)
        assert [event["body"] for event in quick.events(1)] == [{"pk": number + 1}]
    slow.client.connection.transport.resume_reading()
    resync = slow.runner.run(slow.client.until(lambda message: message.get("action") == "resync"))
    assert resync["data"] == {"reason": "behind", "model": "testapp.Task"}
    Task.objects.create(pk=ROWS + 1, title="last")
    slow.runner.run(slow.client.until(lambda message: message.get("body", {}).get("id") == ROWS + 1))
    assert not slow.client.take(lambda message: message.get("action") == "resync"), "one was enough"
    received = [event["body"]["id"] for event in slow.client.take(lambda message: message.get("observer") == "full")]
    assert received == sorted(received)
    assert len(received) < ROWS


@pytest.mark.parametrize("end", ["stop", "abort", "close"])
def test_a_consumer_that_ends_leaves_the_groups_of_its_subscriptions(
    end: str,
    redis_url: str,
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
) -> None:
    server = start_asgi_server(redis=redis_url)
    with client.Redis.from_url(redis_url) as redis:

        def members() -> int:
            return sum(redis.zcard(key) for key in redis.scan_iter("asgi:group:DCRF-*"))

        boards = [open_board(server, "turns") for _ in range(5)]
        for board in boards:
            board.subscribe("turns", "tasks", "full")
        assert members() == 15
        if end == "stop":
            Task.objects.create(title="stop")
        for board in boards:
            if end == "abort":
                board.client.connection.transport.abort()
            elif end == "close":
                board.runner.run(board.client.close())
        boards[0].runner.run(until(lambda: members() == 0))


async def test_nothing_of_consumers_that_were_cancelled_stays_in_the_process() -> None:
    with override_settings(DJCRF_PG={"JOIN_GROUPS": True}):
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
