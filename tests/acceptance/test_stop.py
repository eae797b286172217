"""A listener that is asked to stop does, whatever does not answer, with its cursor where everybody was told."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests.acceptance.test_cluster import LEADS
from tests.acceptance.test_user_database import closed_to_new_sessions, end_sessions_of_user_code
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.servers import DSN, ManagePy, PgParams, RedisServer
from tests.testapp.models import Task

pytestmark = pytest.mark.processes

#: Seconds that the documentation promises, and what starting and ending Python may add on a busy machine.
PROMISED, PYTHON = 5.0, 1.5

_SAVED = (
    "SELECT pg_visible_in_snapshot(change.xid, cursor.snapshot) FROM djcrf_pg_cursor AS cursor,"
    " djcrf_pg_change AS change WHERE change.op = 'I' AND change.new->>'title' = %s"
)


def is_saved(test_pg: PgParams, title: str) -> bool:
    """Whether the saved cursor is behind the row of a title."""
    with test_pg.connect() as connection:
        return connection.execute(_SAVED, [title]).fetchone() == (True,)


def stop(listener: ManagePy, number: int = signal.SIGTERM) -> None:
    """Ask it to stop; it must within the time that is promised."""
    begun = time.monotonic()
    listener.send_signal(number)
    assert listener.wait(3 * PROMISED) == 0
    assert time.monotonic() - begun < PROMISED + PYTHON
    assert "'default' stopped" in listener.output


@pytest.fixture
def interested(transactional_db, test_pg, redis_url, start_asgi_server, open_board) -> None:
    """Somebody wants the events: else none is made."""
    server = start_asgi_server(redis=redis_url, settings={"EMBEDDED": False})
    board = open_board(server)
    for name in ("tasks", "asking"):
        board.runner.run(board.client.cast("subscribe", name=name, request_id=name))
    # Published, though nobody leads yet.
    with test_pg.connect() as connection:
        wait_until(lambda: connection.execute("SELECT true FROM djcrf_pg_interest").fetchone())


@pytest.fixture
def database(test_pg: PgParams) -> Iterator[Proxy]:
    with Proxy(test_pg) as proxy:
        yield proxy


@pytest.fixture
def start(transactional_db: None, start_command: Callable[..., ManagePy], database: Proxy) -> Callable[[str], ManagePy]:
    """Starts ``manage.py djcrf_pg listen`` with a Redis, and its database behind the proxy."""

    def start(redis: str) -> ManagePy:
        listener = start_command("djcrf_pg", "listen", redis=redis, env={DSN: database.params.dsn("postgres")})
        listener.wait_for(LEADS)
        return listener

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_the_channel_layer_is_down_and_changes_wait(start, test_pg, interested, number):
    with RedisServer() as layer:
        listener = start(layer.url)
        Task.objects.create(title="before")
        wait_until(lambda: is_saved(test_pg, "before"))
        layer.kill()
        Task.objects.create(title="waits")
        listener.wait_for("RedisChannelLayer at .* takes no messages .* sends again")
        stop(listener, number)
    assert is_saved(test_pg, "before")
    assert not is_saved(test_pg, "waits")


def test_while_the_channel_layer_is_frozen_and_changes_wait(start, test_pg, interested):
    with RedisServer() as layer, ExitStack() as stack:
        address = urlsplit(layer.url)
        proxy = stack.enter_context(Proxy(replace(test_pg, host=address.hostname, port=address.port)))
        listener = start(f"redis://127.0.0.1:{proxy.params.port}/0")
        Task.objects.create(title="before")
        wait_until(lambda: is_saved(test_pg, "before"))
        proxy.freeze()
        Task.objects.create(title="waits")
        listener.wait_for(rf"RedisChannelLayer at 127.0.0.1:{proxy.params.port}/0 takes no messages \(TimeoutError")
        stop(listener)
    assert is_saved(test_pg, "before")
    assert not is_saved(test_pg, "waits")


def test_while_the_database_is_down(start, redis_url, database):
    listener = start(redis_url)
    database.__exit__()
    listener.wait_for("next try in", after=listener.position)
    stop(listener)


def test_while_the_database_is_frozen(start, redis_url, database):
    listener = start(redis_url)
    database.freeze()
    stop(listener)


def test_while_a_frozen_database_is_connected_to(start, redis_url, database):
    listener = start(redis_url)
    before = database.taken
    database.freeze()
    wait_until(lambda: database.taken > before, timeout=30)
    stop(listener)


def test_a_standby_of_a_frozen_database(start, redis_url, database, start_command):
    start_command("djcrf_pg", "listen", redis=redis_url).wait_for(LEADS)
    standby = start_command("djcrf_pg", "listen", redis=redis_url, env={DSN: database.params.dsn("postgres")})
    standby.wait_for("stands by")
    database.freeze()
    stop(standby)


def test_while_user_code_finds_its_database_gone(start, redis_url, test_pg, interested):
    listener = start(redis_url)
    Task.objects.create(title="ask before")
    wait_until(lambda: is_saved(test_pg, "ask before"))
    with closed_to_new_sessions(test_pg):
        end_sessions_of_user_code(test_pg)
        Task.objects.create(title="ask meanwhile")
        listener.wait_for(r"groups or serializers failed in database 'default' \(try 1\)")
        stop(listener)
    assert is_saved(test_pg, "ask before")


def test_while_user_code_waits_for_a_database_that_does_not_answer(start, redis_url, database, interested):
    listener = start(redis_url)
    database.freeze_at(b"testapp_label")
    Task.objects.create(title="ask it")
    wait_until(lambda: database.is_frozen)
    stop(listener)
