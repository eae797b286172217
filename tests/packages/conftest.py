"""These tests run by themselves: ``pytest --ds tests.packages.settings tests/packages``."""

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client import Client
from tests.servers import AsgiServer
from tests.subscriber import Subscriber

collect_ignore_glob = [] if os.environ["DJANGO_SETTINGS_MODULE"] == "tests.packages.settings" else ["test_*.py"]


@pytest.fixture
def subscriber(
    transactional_db: None, asgi_server: AsgiServer, runner: asyncio.Runner
) -> Iterator[Callable[..., Subscriber]]:
    """Opens clients of the shared server: ``subscriber("consumer")``; they are closed with the test."""
    clients: list[Client] = []

    def open_client(consumer: str, **options: Any) -> Subscriber:
        client = runner.run(Client.open(asgi_server.consumer_url(consumer), **options))
        clients.append(client)
        return Subscriber(runner, client)

    yield open_client
    for client in clients:
        runner.run(client.close())
