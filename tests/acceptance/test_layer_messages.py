"""A channel layer that cannot be reached is named with its host and the cause, and without its password."""

import json

import pytest

from tests.project import Project
from tests.servers import LAYERS, ManagePy, free_port

pytestmark = pytest.mark.processes


def layers(kind: str, url: str) -> str:
    return json.dumps({"default": {"BACKEND": f"channels_redis.{kind}", "CONFIG": {"hosts": [url]}}})


def test_a_listener_names_the_redis_that_is_down(migrated: Project) -> None:
    port = free_port()
    env = {**migrated.env(), LAYERS: layers("core.RedisChannelLayer", f"redis://:hush@127.0.0.1:{port}/0")}
    with ManagePy("djcrf_pg", "listen", env=env) as listener:
        listener.wait_for(
            rf"RedisChannelLayer at 127\.0\.0\.1:{port}/0 takes no messages \(ConnectionError: Error 111 connecting to "
            rf"127\.0\.0\.1:{port}.*; the listener sends again in .* Start its server, or correct CHANNEL_LAYERS"
        )
        assert "hush" not in listener.output
