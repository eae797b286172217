"""Fixtures of the acceptance tests."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.board import Board
from tests.client import Client
from tests.servers import AsgiServer


@pytest.fixture
def open_board(runner: asyncio.Runner) -> Iterator[Callable[..., Board]]:
    """Opens clients: ``board = open_board(server)``; they are closed with the test."""
    clients: list[Client] = []

    def open_client(server: AsgiServer, consumer: str = "board", **options: Any) -> Board:
        client = runner.run(Client.open(server.consumer_url(consumer), **options))
        clients.append(client)
        return Board(runner, client)

    yield open_client
    for client in clients:
        runner.run(client.close())


@pytest.fixture
def board(transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]) -> Board:
    """A client of the shared server, subscribed to nothing yet."""
    return open_board(asgi_server)
