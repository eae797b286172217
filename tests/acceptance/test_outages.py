"""PostgreSQL goes and comes back, while others write: nothing is missing, and nobody is hammered."""

import asyncio
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.test_cluster import LEADS, STANDS_BY
from tests.client import Client
from tests.processes import meanwhile, wait_until
from tests.servers import DSN, AsgiServer, EmbeddedPostgres, ManagePy, PgParams, app_env, docker_answers

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(docker_answers(), reason="needs an embedded server, to stop it"),
]

INSERT = "INSERT INTO testapp_task (id, title, status, points, body) VALUES (%s, %s, 'todo', 0, '')"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that may be stopped, with the test application's tables."""
    with EmbeddedPostgres() as server:
        with server.params.connect() as connection:
            connection.execute("CREATE DATABASE outages")
        ManagePy.run("migrate", "--verbosity", "0", env=env_of(server.params))
        yield server


def env_of(params: PgParams, redis: str | None = None, **settings: Any) -> dict[str, str | None]:
    return {**app_env(dbname="outages", redis=redis, settings=settings or None), DSN: params.dsn()}


@contextmanager
def writing(params: PgParams, first: int) -> Iterator[list[int]]:
    """Write rows for as long as the block lasts, through outages; the list holds those whose commit was confirmed."""
    written: list[int] = []

    def work(done: threading.Event) -> None:
        number = first
        while not done.is_set():
            try:
                with psycopg.connect(params.dsn("outages"), autocommit=True, connect_timeout=2) as connection:
                    while not done.wait(0.005):
                        number += 1
                        connection.execute(INSERT, [number, f"w{number}"])
                        written.append(number)
            except psycopg.OperationalError:
                done.wait(0.05)

    with meanwhile(work):
        yield written


def fast(server: EmbeddedPostgres) -> None:
    """Clients are disconnected."""
    server.terminate()


def immediate(server: EmbeddedPostgres) -> None:
    """No checkpoint: the next start recovers."""
    server.send_signal(signal.SIGQUIT)
    server.wait()


def killed(server: EmbeddedPostgres) -> None:
    """The postmaster alone is killed; its children notice and go."""
    server.kill()
    pid_file = server.data / "postmaster.pid"
    segment = pid_file.read_text().splitlines()[6].split()[1]
    wait_until(lambda: not _attached(segment), message="somebody still uses the dead server's memory")


def _attached(segment: str) -> bool:
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return any(row[1] == segment and int(row[6]) > 0 for row in rows)


@pytest.mark.parametrize("way", [fast, immediate, killed], ids=lambda way: way.__name__)
async def test_a_restart_of_the_server_leaves_no_hole(
    way: Callable[[EmbeddedPostgres], None], server: EmbeddedPostgres, redis_url: str
):
    env = env_of(server.params, redis_url)
    first = {"fast": 0, "immediate": 1_000_000, "killed": 2_000_000}[way.__name__]
    with ManagePy("djcrf_pg", "listen", "--database", "default", env=env) as leader:
        leader.wait_for(LEADS)
        with (
            ManagePy("djcrf_pg", "listen", "--database", "default", env=env) as standby,
            AsgiServer(env_of(server.params, redis_url, EMBEDDED=False)) as asgi,
        ):
            standby.wait_for(STANDS_BY)
            client = await Client.open(asgi.consumer_url("board"))
            await client.call("subscribe", name="tasks", request_id="tasks")
            with writing(server.params, first) as written:
                await asyncio.to_thread(wait_until, lambda: len(written) >= 50)
                await asyncio.to_thread(way, server)
                # However long it takes: here, until a try has failed.
                await asyncio.to_thread(leader.wait_for, "next try in")
                await asyncio.to_thread(server.start)
                before = len(written)
                await asyncio.to_thread(wait_until, lambda: len(written) >= before + 50)
            last = first + 900_000
            with server.params.connect("outages") as connection:
                connection.execute(INSERT, [last, f"last {last}"])
                rows = connection.execute("SELECT id FROM testapp_task WHERE id > %s ORDER BY id", [first]).fetchall()
            await client.until(lambda message: message.get("body") == {"pk": last})
            told = [m["body"]["pk"] for m in client.take(lambda m: m.get("action") == "create")] + [last]
            await client.close()
            assert set(written) <= {pk for (pk,) in rows}
            assert list(dict.fromkeys(told)) == [pk for (pk,) in rows]
            for listener in (leader, standby):
                tries = re.findall(r"next try in ([\d.]+) s", listener.output)
                assert len(tries) < 30, "bounded: the delays double, up to 10 s"
