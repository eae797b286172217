"""Databases that are not in UTF-8: text that the server cannot convert is a resync, and everything else is told."""

import asyncio
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS
from tests.project import drop_database
from tests.servers import AsgiServer, ManagePy, PgParams, app_env

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture(params=["SQL_ASCII", "WIN1252"])
def encoded(request: pytest.FixtureRequest, pg: PgParams) -> Iterator[PgParams]:
    """A migrated database in another encoding."""
    server = pg.database(f"djcrf_pg_{request.param.lower()}_told")
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'")
    drop_database(pg, server.dbname)
    with pg.connect("postgres") as admin:
        admin.execute(create.format(sql.Identifier(server.dbname), sql.Literal(request.param)))
    try:
        ManagePy.run("migrate", "--verbosity", "0", env=app_env(dbname=server.dbname))
        yield server
    finally:
        drop_database(pg, server.dbname)


def test_a_byte_that_is_no_text_is_a_resync_and_the_rows_beside_it_are_told(
    encoded: PgParams,
    redis_url: str,
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
    runner: asyncio.Runner,
) -> None:
    where = {"dbname": encoded.dbname, "redis": redis_url}
    leader = start_command("djcrf_pg", "listen", "--database", "default", **where)
    leader.wait_for(LEADS)
    board = open_board(start_asgi_server(**where, settings={"EMBEDDED": False}))
    board.subscribe("projects", "tasks")
    with psycopg.connect(encoded.dsn(), autocommit=True) as writer:
        # It writes bytes as the server has them.
        writer.execute("SELECT set_config('client_encoding', current_setting('server_encoding'), false)")

        def write(*names: bytes) -> None:
            with writer.transaction():
                for name in names:
                    writer.execute(b"INSERT INTO testapp_project (name) VALUES (E'" + name + b"')")

        write(b"before", b"b\\x81d", b"after")
        # In a transaction of its own, and beside another table's row.
        writer.execute("INSERT INTO testapp_task (title, status, points, body) VALUES ('t', '', 0, '')")
        write(b"\\x8d")
        write(b"fence")
    runner.run(board.client.until(lambda message: message.get("body") == {"pk": 5}))
    runner.run(board.client.until(lambda message: message.get("body") == {"pk": 1} and message["observer"] == "tasks"))
    resync = runner.run(board.client.until(lambda message: message.get("action") == "resync"))
    assert (resync["request_id"], resync["data"]["reason"]) == ("projects", "unreadable")
    told = board.client.take(lambda message: message.get("observer") == "projects")
    assert [message["body"] for message in told] == [{"pk": 1}, {"pk": 3}]
    assert not board.client.take(lambda message: message.get("request_id") == "tasks")
    assert "next try in" not in leader.output
