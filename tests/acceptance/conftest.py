"""Fixtures of the acceptance tests."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.acceptance.board import Board
from tests.client import Client
from tests.processes import ROOT
from tests.servers import AsgiServer, PgParams


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


@pytest.fixture
def role(transactional_db: None, test_pg: PgParams) -> Iterator[PgParams]:
    """The server as a role that is no superuser and has the rights that the documentation lists for a listener."""
    page = (ROOT / "docs" / "reference" / "database-objects.md").read_text("utf-8")
    grants = re.findall(r"^GRANT .* TO listener;$", page, re.MULTILINE)
    name, password = "djcrf_listener", "secret"
    with test_pg.connect() as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())
        try:
            # What groups and serializers read.
            for grant in [*grants, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO listener"]:
                admin.execute(grant.replace("TO listener", f"TO {name}").encode())
            yield replace(test_pg, user=name, password=password)
        finally:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name])
            admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
