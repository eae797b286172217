"""Messages of the channel layer that a consumer cannot read, from another version or from anybody."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from channels_redis.core import RedisChannelLayer

from tests.acceptance.board import Board
from tests.servers import AsgiServer
from tests.testapp.models import Task

pytestmark = pytest.mark.processes


def test_a_message_of_the_layer_that_cannot_be_read_is_a_resync_and_the_consumer_goes_on(
    transactional_db: None,
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
    redis_url: str,
):
    server = start_asgi_server(redis=redis_url)
    board = open_board(server)
    reply = board.call("subscribe", name="tasks", request_id="tasks")
    (group,) = reply["data"]["groups"]
    message = {"type": "tasks", "group": group}
    good = {"v": 1, "term": 1, "events": "[]"}
    damaged: list[dict[str, Any]] = [
        {**message, "djcrf_pg": {**good, "v": 2, "shape": "of the future"}},
        {**message, "djcrf_pg": {**good, "v": 0}},
        {**message, "djcrf_pg": {"v": 1, "events": "[]"}},
        {**message, "djcrf_pg": {**good, "term": 2**62, "events": "[[]]"}},
        {**message, "djcrf_pg": None},
        {"type": "tasks", "djcrf_pg": good},
    ]

    async def send() -> None:
        layer = RedisChannelLayer(hosts=[redis_url])
        for each in damaged:
            await layer.group_send(group, each)
        await layer.close_pools()

    asyncio.run(send())
    for _ in damaged:
        resync = board.runner.run(board.client.until(lambda message: message.get("action") == "resync"))
        assert (resync["request_id"], resync["data"]["reason"]) == ("tasks", "unreadable")
    server.wait_for(r"a message for group DCRF-\w+ cannot be read.*its version is 2, and here is 1")
    task = Task.objects.create(title="b")
    assert ("create", {"pk": task.pk}) in board.told("tasks")
