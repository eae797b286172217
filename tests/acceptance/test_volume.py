"""Much at once: one large statement, a burst of small transactions. Memory stays flat, order is kept, nothing is lost.

``DJCRF_PG_TEST_LONG=1`` (``make long``) takes the numbers that the documentation names.
"""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS
from tests.client import Client
from tests.servers import AsgiServer, ManagePy, PgParams

LONG = os.environ.get("DJCRF_PG_TEST_LONG") == "1"
ROWS, TRANSACTIONS, TIMEOUT = (1_000_000, 100_000, 900) if LONG else (60_000, 6_000, 120)

#: MiB that the listener may take.
FLAT = 200

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def peak(process: ManagePy) -> int:
    """The most memory that a process has had, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


@pytest.fixture
def leader(transactional_db: None, redis_url: str, start_command: Callable[..., ManagePy]) -> Callable[[], ManagePy]:
    """Starts a listener; returns when it leads."""

    def start() -> ManagePy:
        leader = start_command("djcrf_pg", "listen", redis=redis_url)
        leader.wait_for(LEADS)
        return leader

    return start


@pytest.fixture
def board(redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]) -> Board:
    """A client of a server without a listener of its own."""
    return open_board(start_asgi_server(redis=redis_url, settings={"EMBEDDED": False}))


async def received(client: Client, count: int) -> list[tuple[int, str]]:
    """So many events: their place in the log, and the key."""
    events = await client.events(count, timeout=TIMEOUT)
    client.received.clear()
    return [(event["change_id"], event["body"]["pk"]) for event in events]


def test_a_large_statement(leader: Callable[[], ManagePy], board: Board, test_pg: PgParams) -> None:
    with test_pg.connect() as writer:
        writer.execute("SET session_replication_role = replica")
        writer.execute("INSERT INTO testapp_document SELECT gen_random_uuid(), 'x' FROM generate_series(1, %s)", [ROWS])
        writer.execute("SET session_replication_role = origin")
        process = leader()
        board.subscribe("documents")
        writer.execute("UPDATE testapp_document SET title = 'y'")
        told = board.runner.run(received(board.client, ROWS))
        keys = {str(pk) for (pk,) in writer.execute("SELECT id FROM testapp_document").fetchall()}
    assert told == sorted(told)
    assert {pk for _, pk in told} == keys
    assert peak(process) < FLAT


def test_a_burst_of_transactions(leader: Callable[[], ManagePy], board: Board, test_pg: PgParams) -> None:
    process = leader()
    board.subscribe("documents")

    def work() -> None:
        with psycopg.connect(test_pg.dsn(), autocommit=True) as writer:
            for _ in range(TRANSACTIONS // 4):
                writer.execute("INSERT INTO testapp_document VALUES (gen_random_uuid(), 'x')")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    told = board.runner.run(received(board.client, TRANSACTIONS))
    for thread in threads:
        thread.join()
    assert len({pk for _, pk in told}) == TRANSACTIONS
    assert peak(process) < FLAT
