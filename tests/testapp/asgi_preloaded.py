"""The test application, of which a client has subscribed before the server forks: ``gunicorn --preload``."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import SyncToAsync
from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator

from tests.testapp.asgi import application
from tests.testapp.consumers import BoardConsumer

__all__ = ["application"]


def forget() -> None:
    """A fork has none of its parent's threads and event loops, and neither asgiref nor channels_redis knows that."""
    channel_layers.backends.clear()
    SyncToAsync.single_thread_executor = ThreadPoolExecutor(max_workers=1)


async def warm_up() -> None:
    """Subscribe to what the clients subscribe to."""
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    assert (await communicator.connect(timeout=10))[0]
    for name in ("tasks", "remotes"):
        await communicator.send_json_to({"action": "subscribe", "name": name, "request_id": name})
        assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201


os.register_at_fork(after_in_child=forget)
if "closed" in os.environ["TEST_PRELOAD"]:
    asyncio.run(warm_up())
else:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(warm_up())
