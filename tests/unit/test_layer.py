"""What is said of a channel layer: its class and its hosts, without passwords."""

from types import SimpleNamespace
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from djcrf_pg.delivery.layer import describe
from djcrf_pg.exceptions import ChannelLayerError
from djcrf_pg.listener import embedded

SENTINEL = {"sentinels": [("one", 26379), ("two", 26380)], "master_name": "mymaster", "password": "secret"}


@pytest.mark.parametrize("layer", [RedisChannelLayer, RedisPubSubChannelLayer])
@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("redis://user:secret@cache:6380/2", "cache:6380/2"),
        ("rediss://:se@cret@cache:6380/2", "cache:6380/2"),
        ("redis://cache:6380/2?password=secret", "cache:6380/2"),
        ("redis://cache", "cache"),
        ("unix:///run/redis.sock?password=secret", "/run/redis.sock"),
        ("unix://:secret@/run/redis.sock?db=1", "/run/redis.sock"),
        (("cache", 6380), "cache:6380"),
        ({"address": "redis://:secret@cache:6380/2"}, "cache:6380/2"),
        ({"address": ("cache", 6380), "password": "secret"}, "cache:6380"),
        ({"host": "cache", "port": 6380, "password": "secret"}, "cache:6380"),
        ({"host": "cache", "password": "secret"}, "cache"),
        ({"path": "/run/redis.sock", "password": "secret"}, "/run/redis.sock"),
        (SENTINEL, "mymaster by one:26379, two:26380"),
    ],
)
def test_a_host_is_named_without_its_password(layer: type, host: Any, place: str) -> None:
    assert describe(layer(hosts=[host])) == f"{layer.__name__} at {place}"


def test_all_hosts_are_named() -> None:
    layer = RedisChannelLayer(hosts=[("one", 1), {"host": "two", "port": 2}])
    assert describe(layer) == "RedisChannelLayer at one:1, two:2"


@pytest.mark.parametrize("hosts", [None, 7, "redis://:secret@cache:1", [None], [{}], [b"x"], {"sentinels": 3}])
def test_what_a_layer_of_another_kind_has_raises_nothing_and_shows_no_password(hosts: Any) -> None:
    assert "secret" not in describe(SimpleNamespace(hosts=hosts))


def test_one_without_hosts_is_its_class() -> None:
    assert describe(InMemoryChannelLayer()) == "InMemoryChannelLayer"


class Lost:
    """A runtime whose hub cannot join, for the layer's server is not there."""

    def __init__(self, error: Exception) -> None:
        self.hub, self.error = self, error

    async def join(self, *arguments: Any) -> None:
        raise self.error


async def test_a_layer_that_a_subscription_cannot_join_is_named_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    redis = RedisChannelLayer(hosts=["redis://:hush@10.0.0.1:6390/0"])
    monkeypatch.setattr(embedded, "channel_layer", lambda: redis)
    said = await embedded._join(Lost(ConnectionError("Connection refused")), "address", SimpleNamespace(history=None))  # type: ignore[arg-type]
    assert said is not None
    assert said.startswith(
        "RedisChannelLayer at 10.0.0.1:6390/0 fails (ConnectionError: Connection refused): start its"
    )
    assert "hush" not in said
    with pytest.raises(ChannelLayerError):
        await embedded._join(Lost(ChannelLayerError("none")), "address", SimpleNamespace(history=None))  # type: ignore[arg-type]
