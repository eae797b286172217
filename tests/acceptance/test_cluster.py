"""Several processes over a real Redis: each subscriber gets each event once, and a killed leader leaves no hole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.acceptance.board import Board
from tests.processes import meanwhile, wait_until
from tests.servers import AsgiServer, ManagePy, PgParams, RedisServer
from tests.testapp.models import Remote, Task

pytestmark = pytest.mark.processes

LEADS, STANDS_BY = r"listener of database 'default' leads", r"listener of database 'default' stands by"


@pytest.fixture
def listen(redis_url: str, start_command: Callable[..., ManagePy]) -> Callable[[], ManagePy]:
    """Starts ``manage.py djcrf_pg listen``."""
    return lambda: start_command("djcrf_pg", "listen", redis=redis_url)


@pytest.fixture
def serve(redis_url: str, start_asgi_server: Callable[..., AsgiServer]) -> Callable[..., AsgiServer]:
    """Starts an ASGI server that has no listener of its own, unless told."""

    def start(server: str = "uvicorn", embedded: bool = False) -> AsgiServer:
        return start_asgi_server(server, redis=redis_url, settings={"EMBEDDED": embedded})

    return start


@contextmanager
def writing(test_pg: PgParams, first: int, pause: float = 0.002) -> Iterator[list[int]]:
    """Write rows for as long as the block lasts, ``pause`` seconds apart; the list holds those that were committed."""
    written: list[int] = []

    def work(done: threading.Event) -> None:
        with psycopg.connect(test_pg.dsn(), autocommit=True) as connection:
            while not done.wait(pause):
                number = first + len(written)
                connection.execute(
                    "INSERT INTO testapp_task (id, title, status, points, body) VALUES (%s, %s, 'todo', 0, '')",
                    [number, f"w{number}"],
                )
                written.append(number)

    with meanwhile(work):
        yield written


def created(board: Board) -> list[int]:
    """The keys of the creates that came before a fence, in the order of their arrival."""
    return [body["pk"] for action, body in board.told("tasks") if action == "create" and body["pk"] < 10**6]


def test_two_listeners_and_two_servers_tell_each_subscriber_once(transactional_db, listen, serve, open_board, test_pg):
    leader = listen()
    leader.wait_for(LEADS)
    standby = listen()
    standby.wait_for(STANDS_BY)
    boards = [open_board(serve("uvicorn")), open_board(serve("daphne"))]
    for board in boards:
        board.subscribe("tasks")
    with writing(test_pg, 1) as written:
        wait_until(lambda: len(written) >= 300)
    for board in boards:
        assert created(board) == written


def test_a_killed_leader_leaves_no_hole(transactional_db, listen, serve, open_board, test_pg):
    leader = listen()
    leader.wait_for(LEADS)
    standby = listen()
    standby.wait_for(STANDS_BY)
    board = open_board(serve())
    board.subscribe("tasks")
    with writing(test_pg, 1) as written:
        wait_until(lambda: len(written) >= 200)
        leader.kill()
        standby.wait_for(LEADS)
        after = len(written)
        wait_until(lambda: len(written) >= after + 200)
    arrived = created(board)
    # Redelivery is allowed after a crash, a hole never; and the first arrivals keep their order.
    assert sorted(set(arrived)) == written
    assert list(dict.fromkeys(arrived)) == written


def test_embedded_listeners_of_two_servers_share_the_work(transactional_db, serve, open_board, test_pg):
    servers = [serve(embedded=True), serve(embedded=True)]
    boards = [open_board(server) for server in servers]
    for board in boards:
        board.subscribe("tasks")
    with writing(test_pg, 1) as written:
        wait_until(lambda: len(written) >= 100)
    for board in boards:
        assert created(board) == written
    servers[0].kill()
    with writing(test_pg, 10_000) as written:
        servers[1].wait_for(LEADS)
        wait_until(lambda: len(written) >= 100)
    # What the first leader had told in its last second may be told again.
    assert sorted({pk for pk in created(boards[1]) if pk >= 10_000}) == written


def test_a_client_waits_for_a_listener_and_is_refused_without(transactional_db, listen, serve, open_board):
    board = open_board(serve())
    pending = board.runner.run(board.client.cast("subscribe", name="tasks", request_id="r"))
    listen().wait_for(LEADS)
    reply = board.call("unsubscribe", name="tasks", request_id="r2")
    assert reply["response_status"] == 204
    assert pending == "r"
    board.subscribe("tasks")
    task = Task.objects.create(title="a")
    assert ("create", {"pk": task.pk}) in board.told("tasks")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_listen_exits_cleanly_with_its_cursor_saved(transactional_db, listen, serve, open_board, test_pg, number):
    leader = listen()
    leader.wait_for(LEADS)
    board = open_board(serve())
    board.subscribe("tasks")
    pk = Task.objects.create(title="a").pk
    assert created(board) == [pk]
    leader.send_signal(number)
    wait_until(lambda: leader.returncode is not None)
    assert leader.returncode == 0
    assert leader.output.count("'default' leads") == leader.output.count("'default' stopped") == 1
    # What was told is not told again: the next leader goes on behind it.
    second = listen()
    second.wait_for(LEADS)
    later = Task.objects.create(title="b").pk
    assert created(board) == [later]


def test_listen_refuses_an_in_memory_layer_and_a_project_without_layer(transactional_db, run_command):
    with pytest.raises(AssertionError, match=r"InMemoryChannelLayer(.|\n)*Use channels_redis"):
        run_command("djcrf_pg", "listen")
    with pytest.raises(AssertionError, match=r"Set CHANNEL_LAYERS\['default'\]"):
        run_command("djcrf_pg", "listen", layers={})


def test_listen_refuses_unknown_settings_and_databases(transactional_db, run_command, redis_url):
    with pytest.raises(AssertionError, match=r"no setting 'BATCHSIZE': did you mean 'BATCH_SIZE'"):
        run_command("djcrf_pg", "listen", redis=redis_url, settings={"BATCHSIZE": 1})
    with pytest.raises(AssertionError, match="no database 'nowhere' in DATABASES"):
        run_command("djcrf_pg", "listen", "--database", "nowhere", redis=redis_url)


def test_notify_never_and_always_deliver_too(transactional_db, start_asgi_server, redis_url, open_board, test_pg):
    for mode in ("never", "always"):
        board = open_board(start_asgi_server(redis=redis_url, settings={"NOTIFY": mode}))
        board.subscribe("tasks")
        first = 1 if mode == "never" else 10_000
        with writing(test_pg, first) as written:
            wait_until(lambda: len(written) >= 50)
        assert created(board) == written


@pytest.mark.django_db(transaction=True, databases=["default", "second"])
def test_listen_serves_every_database_of_an_observed_model(listen, serve, open_board):
    leader = listen()
    for alias in ("default", "second"):
        leader.wait_for(f"listener of database '{alias}' leads")
    board = open_board(serve())
    board.subscribe("tasks", "remotes")
    remote = Remote.objects.create(text="there")
    assert board.told("remotes") == [("create", {"pk": remote.pk})]
    assert board.told("tasks") == []


_DELIVERED = (
    "SELECT bool_and(pg_visible_in_snapshot(change.xid, cursor.snapshot)) "
    "FROM djcrf_pg_change AS change, djcrf_pg_cursor AS cursor "
    "WHERE change.relation = 'testapp_task'::regclass AND change.op = 'I'"
)


def test_a_channel_layer_that_is_down_holds_the_cursor_back(transactional_db, start_command, test_pg):
    with RedisServer() as layer, test_pg.connect() as admin:
        leader = start_command("djcrf_pg", "listen", redis=layer.url)
        leader.wait_for(LEADS)
        layer.terminate()
        Task.objects.create(title="while it is down")
        leader.wait_for(r"RedisChannelLayer at \S+ takes no messages .* sends again")
        leader.wait_for(r"RedisChannelLayer at \S+ takes no messages .* sends again", after=leader.position)
        assert admin.execute(_DELIVERED).fetchone() == (False,)
        layer.start()
        wait_until(lambda: admin.execute(_DELIVERED).fetchone() == (True,))


def test_a_standby_ends_when_asked(transactional_db, listen):
    leader = listen()
    leader.wait_for(LEADS)
    standby = listen()
    standby.wait_for(STANDS_BY)
    assert standby.terminate() == 0
    assert not standby.find(LEADS)
    assert standby.find("listener of database 'default' stopped")


def test_listen_ends_with_what_no_retry_can_mend(transactional_db, run_command, redis_url, test_pg):
    dsn = f"{test_pg.dsn()} require_auth=!gss"
    with pytest.raises(AssertionError, match=r"CommandError: .*cannot connect .* with 'require_auth'"):
        run_command("djcrf_pg", "listen", redis=redis_url, env={"DJCRF_PG_TEST_DSN": dsn})
