"""A listener that is asked to stop ends within five seconds, whatever its channel layer does."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.acceptance.test_cluster import LEADS
from tests.proxy import Proxy
from tests.servers import ManagePy, PgParams
from tests.testapp.models import Task

pytestmark = pytest.mark.processes

#: What the documentation promises, and what a busy machine may add to it for the end of a process.
PROMISED, GRACE = 5.0, 1.5


@pytest.mark.slow
def test_it_ends_while_redis_does_not_answer(
    transactional_db: None, redis_url: str, start_command: Callable[..., ManagePy]
) -> None:
    url = urlsplit(redis_url)
    with Proxy(PgParams(url.hostname or "127.0.0.1", url.port or 6379, "", "", "")) as proxy:
        through = url._replace(netloc=f"127.0.0.1:{proxy.params.port}").geturl()
        listener = start_command("djcrf_pg", "listen", redis=through)
        listener.wait_for(LEADS)
        proxy.freeze()
        Task.objects.create(title="waits")
        listener.wait_for("fails: TimeoutError")  # from now on it always waits for an answer
        begun = time.monotonic()
        assert listener.terminate() == 0
        assert time.monotonic() - begun < PROMISED + GRACE
        assert listener.wait_for("stopped")
