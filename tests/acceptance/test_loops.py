"""A hub for each event loop and database, whatever threads and forks a process has."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.db import connections
from django.test import override_settings

from djcrf_pg.listener import embedded
from tests.acceptance.board import Board
from tests.acceptance.test_memberships import PUBSUB
from tests.servers import AsgiServer
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Remote, Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True, databases=["default", "second"])]

ROWS = 20


class Loop(threading.Thread):
    """An event loop in a thread of its own, with a client of both databases."""

    def __init__(self, ready: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self.ready = ready
        self.received: list[tuple[str, int]] = []
        self.hubs: list[Any] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Subscribe, wait for the others, and receive."""
        try:
            asyncio.run(self.follow())
        except BaseException as error:
            self.error = error
            self.ready.abort()
        finally:
            connections.close_all()

    async def follow(self) -> None:
        """In the loop."""
        communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
        assert (await communicator.connect(timeout=20))[0]
        for name in ("tasks", "remotes"):
            await communicator.send_json_to({"action": "subscribe", "name": name, "request_id": name})
            reply = await communicator.receive_json_from(timeout=20)
            assert reply["response_status"] == 201, reply
        self.hubs = [embedded.hub_of(Task), embedded.hub_of(Remote)]
        await asyncio.to_thread(self.ready.wait, 20)
        for _ in range(2 * ROWS):
            message = await communicator.receive_json_from(timeout=20)
            self.received.append((message["observer"], message["body"]["pk"]))
        await communicator.disconnect()
        await embedded.close_all()


def write(name: str = "row") -> list[tuple[str, int]]:
    """Rows of both databases."""
    tasks = [("tasks", Task.objects.create(title=f"{name} {number}").pk) for number in range(ROWS)]
    return tasks + [("remotes", Remote.objects.create(text=f"{name} {number}").pk) for number in range(ROWS)]


def test_two_loops_of_a_process_have_a_hub_each_for_each_database(redis_url: str) -> None:
    layers = {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": [redis_url]}}}
    ready = threading.Barrier(3)
    loops = [Loop(ready), Loop(ready)]
    with override_settings(CHANNEL_LAYERS=layers):
        for loop in loops:
            loop.start()
        try:
            ready.wait(30)
            wanted = write()
        except threading.BrokenBarrierError:
            wanted = []
        for loop in loops:
            loop.join(30)
    for loop in loops:
        if loop.error is not None:
            raise loop.error
        for observer in ("tasks", "remotes"):
            assert [each for each in loop.received if each[0] == observer] == [e for e in wanted if e[0] == observer]
    assert len({id(hub) for loop in loops for hub in loop.hubs}) == 4


async def subscription() -> Any:
    """The reply to a client that subscribes."""
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    assert (await communicator.connect(timeout=20))[0]
    await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": "tasks"})
    return await communicator.receive_json_from(timeout=20)


def test_a_loop_that_a_layer_in_memory_does_not_reach_is_refused_and_says_so() -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(subscription())["response_status"] == 201
        with override_settings(DJCRF_PG={"SUBSCRIBE_TIMEOUT": 0.5}):
            refused = second.run(subscription())
        assert refused["response_status"] == 503
        assert "the listener of another loop of this process leads" in str(refused["errors"])
        for runner in (second, first):
            runner.run(embedded.close_all())


@pytest.mark.parametrize("parent", ["closed loop", pytest.param("open loop", marks=pytest.mark.slow)])
def test_processes_that_are_forked_after_a_subscription_have_their_own(
    parent: str, redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    env = {"GUNICORN_CMD_ARGS": "--preload --workers 2", "TEST_PRELOAD": parent}
    server = start_asgi_server(
        "gunicorn", application="tests.testapp.asgi_preloaded:application", redis=redis_url, env=env
    )
    boards: list[Board] = []
    processes: Counter[int] = Counter()
    while len(processes) < 2:
        board = open_board(server, "turns")
        processes[board.call("process")["data"]] += 1
        board.subscribe("tasks", "remotes")
        boards.append(board)
        assert len(boards) < 50
    wanted = write()
    if parent == "open loop":
        # It stands still, and its listeners lead until others take over; who waits meanwhile may have to load again.
        for name in ("default", "second"):
            server.wait_for(rf"listener of database '{name}' leads[\s\S]*listener of database '{name}' leads")
        wanted = write("later")
    for board in boards:
        told = []
        while len(told) < len(wanted):
            event = board.runner.run(board.client.until(lambda message: "observer" in message))
            if (row := (event["observer"], event["body"]["pk"])) in wanted:
                told.append(row)
        assert sorted(told) == sorted(wanted)
        if parent == "closed loop":
            assert not board.client.take(lambda message: message.get("action") == "resync")
