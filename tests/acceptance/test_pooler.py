"""A PgBouncer in front of the database: a session of its own is needed, is had, or is missed aloud."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

import djcrf_pg
from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS, STANDS_BY
from tests.acceptance.test_subscriptions import refusal
from tests.processes import wait_until
from tests.servers import POOLER, AsgiServer, ManagePy, PgBouncer, PgParams, app_env, pgbouncer_path
from tests.testapp.models import Project, Task

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(pgbouncer_path() is None, reason="no PgBouncer: apt-get install pgbouncer"),
]

SHARED = [
    pytest.param("transaction", {}, id="transaction"),
    pytest.param("transaction", {"server_round_robin": "1"}, id="round-robin"),
    pytest.param("statement", {}, id="statement"),
]


@pytest.fixture
def board(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board], transactional_db: None
) -> Board:
    """A client of a server with no pooler, which ends with the test: the next test's leads."""
    return open_board(start_asgi_server())


@pytest.fixture
def start_pooler(transactional_db: None, test_pg: PgParams, processes_stack: ExitStack) -> Callable[..., PgBouncer]:
    """Starts a PgBouncer in front of the test database: ``start_pooler("session")``."""
    return lambda mode, **settings: processes_stack.enter_context(PgBouncer(test_pg, mode, settings))


def behind(pooler: PgBouncer, **settings: Any) -> dict[str, Any]:
    """Options of a process of the test application whose database is behind a pooler."""
    return {"settings": settings, "env": {POOLER: pooler.params.dsn()}}


def client(pooler: PgBouncer) -> "psycopg.Connection[tuple[Any, ...]]":
    """A client of a pooler that leaves nothing behind."""
    return psycopg.connect(pooler.params.dsn(), autocommit=True, prepare_threshold=None)


@contextmanager
def in_use(pooler: PgBouncer, clients: int) -> Iterator[list[int]]:
    """Let clients use a pooler all the time; the list counts what they did."""
    done = threading.Event()
    turns: list[int] = []

    def work() -> None:
        with client(pooler) as session:
            while not done.is_set():
                session.execute("SELECT pg_sleep(random() * 0.002)")
                turns.append(1)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(turns) > 20 * clients)
        yield turns
    finally:
        done.set()
        for thread in threads:
            thread.join()


SESSION_STATE = """
    SELECT ARRAY(SELECT pg_listening_channels()), ARRAY(SELECT name FROM pg_prepared_statements),
           ARRAY(SELECT locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
           current_setting('statement_timeout'), current_setting('enable_seqscan'),
           coalesce(current_setting('djcrf_pg.leader', true), '')
"""


def left_behind(pooler: PgBouncer) -> set[Any]:
    """What there is in the server sessions of a pooler that its clients share."""
    with client(pooler) as session:
        return {str(session.execute(SESSION_STATE).fetchone()) for _ in range(10)}


@pytest.mark.parametrize(("mode", "settings"), SHARED)
def test_a_shared_session_is_refused_by_name_and_left_as_it_was(
    start_pooler, start_asgi_server, open_board, redis_url: str, test_pg: PgParams, mode: str, settings: dict[str, str]
):
    pooler = start_pooler(mode, **settings)
    with in_use(pooler, 3):
        pass
    before = left_behind(pooler)
    listen = ManagePy.run(
        "djcrf_pg",
        "listen",
        "--database",
        "default",
        env=app_env(dbname=test_pg.dbname, redis=redis_url, **behind(pooler)),
        check=False,
    )
    assert listen.returncode == 1
    error = refusal(open_board(start_asgi_server(**behind(pooler))))
    for text in (listen.stderr, error):
        assert "'default'" in text
        assert f"a connection pooler at 127.0.0.1:{pooler.port}" in text
        assert "PgBouncer" in text
        assert "DJCRF_PG['LISTENER_DATABASE'] = {'default': 'direct'}" in text
    assert left_behind(pooler) == before


def test_a_shared_session_is_refused_while_others_use_the_pool(start_pooler, redis_url: str, test_pg: PgParams):
    pooler = start_pooler("transaction", default_pool_size="4")
    env = app_env(dbname=test_pg.dbname, redis=redis_url, **behind(pooler))
    with in_use(pooler, 6):
        listen = ManagePy.run("djcrf_pg", "listen", "--database", "default", env=env, check=False)
    assert "a connection pooler at" in listen.stderr
    assert listen.returncode == 1


def test_a_shared_session_that_the_setting_names_is_refused_with_the_setting(
    start_pooler, start_asgi_server, open_board
):
    pooler = start_pooler("transaction")
    # The other way round: the alias that the setting names is the one with a pooler.
    options = behind(pooler, LISTENER_DATABASE={"default": "default"})
    assert "LISTENER_DATABASE" in refusal(open_board(start_asgi_server(**options)))


def test_the_listener_goes_around_the_pooler_where_it_is_told_to(start_pooler, start_asgi_server, open_board, pooled):
    pooler = start_pooler("transaction")
    server = start_asgi_server(**behind(pooler, LISTENER_DATABASE="direct"))
    board = open_board(server)
    board.subscribe("tasks", "asking")
    with pooled(pooler):
        task = Task.objects.create(title="ask by way of the pooler")
        assert board.told("tasks") == [("create", {"pk": task.pk})]
        # User code in the listener asks by way of the pooler too.
        assert board.told("asking") == [("create", {"pk": task.pk, "labels": 0})]


@pytest.fixture
def pooled(transactional_db: None) -> Callable[[PgBouncer], Any]:
    """For the length of a block, Django's connection is one by way of the pooler."""

    @contextmanager
    def redirect(pooler: PgBouncer) -> Iterator[None]:
        settings = connection.settings_dict
        before = dict(settings)
        connection.close()
        settings.update({**pooler.params.django(), "NAME": before["NAME"], "DISABLE_SERVER_SIDE_CURSORS": True})
        try:
            yield
        finally:
            connection.close()
            settings.clear()
            settings.update(before)

    return redirect


def backend(session: Any) -> int:
    """The server process that answers a cursor or connection."""
    return int(session.execute("SELECT pg_backend_pid()").fetchone()[0])


def test_writers_behind_it_are_told(board: Board, start_pooler, pooled):
    board.subscribe("tasks")
    with pooled(start_pooler("transaction")):
        Task.objects.bulk_create(Task(title=f"t{i}", points=i) for i in range(3))
        first, second, third = Task.objects.order_by("points").iterator(chunk_size=1)
        with transaction.atomic():
            first.delete()
            with transaction.atomic():
                Task.objects.filter(pk=second.pk).update(points=10)
        Project.objects.create(name="p")
        with connection.cursor() as cursor, cursor.copy("COPY testapp_project (name) FROM STDIN") as copy:
            copy.write_row(["copied"])
        third.save()
    told = board.told("tasks")
    assert [action for action, _ in told] == ["create"] * 3 + ["delete", "update", "update"]


def test_context_and_suspend_do_not_reach_the_next_client_of_the_session(board: Board, start_pooler, pooled):
    pooler = start_pooler("transaction", default_pool_size="1")
    insert = "INSERT INTO testapp_task (title, status, points, body) VALUES (%s, 'todo', 0, '')"
    settings = (
        "SELECT coalesce(current_setting('djcrf_pg.context', true), ''),"
        " coalesce(current_setting('djcrf_pg.suspend', true), '')"
    )
    board.subscribe("tasks")
    number = iter(range(100))
    with pooled(pooler), client(pooler) as other:
        process = backend(other)

        def other_writes() -> None:
            # Between any two statements of ours; there is one server session for both.
            assert backend(other) == process
            assert other.execute(settings).fetchone() == ("", "")
            other.execute(insert, [f"other {next(number)}"])

        with djcrf_pg.context(who="ours"):
            Task.objects.create(title="ours: autocommit")
            other_writes()
            with transaction.atomic():
                Task.objects.create(title="ours: atomic")
            other_writes()
            with connection.cursor() as cursor:
                cursor.executemany(insert, [["ours: many 1"], ["ours: many 2"]])
                other_writes()
                with cursor.copy("COPY testapp_task (title, status, points, body) FROM STDIN") as copy:
                    copy.write_row(["ours: copy", "todo", 0, ""])
            other_writes()
        with djcrf_pg.suspend(Task):
            Task.objects.create(title="ours: suspended")
            with djcrf_pg.suspend():
                Task.objects.create(title="ours: suspended too")
        other_writes()
        with pytest.raises(ZeroDivisionError), djcrf_pg.suspend(Task), djcrf_pg.context(who="ours"):
            Task.objects.create(title="ours: undone")
            1 / 0  # noqa: B018
        other_writes()
        with connection.cursor() as cursor:
            assert backend(cursor) == process
    titles = dict(Task.objects.values_list("pk", "title"))
    told = [(titles[message["body"]["pk"]], message["context"]) for message in board.messages("tasks")]
    ours = [title for title, context in told if context == {"who": "ours"}]
    assert ours == ["ours: autocommit", "ours: atomic", "ours: many 1", "ours: many 2", "ours: copy"]
    others = [title for title, context in told if context is None]
    assert others == [f"other {i}" for i in range(6)]
    assert len(told) == len(ours) + len(others)


def test_a_pooler_in_session_mode_is_as_good_as_none(
    start_pooler, start_command, start_asgi_server, open_board, redis_url: str, test_pg: PgParams
):
    pooler = start_pooler("session")
    options = {"redis": redis_url, **behind(pooler, EMBEDDED=False)}
    leader = start_command("djcrf_pg", "listen", "--database", "default", **options)
    leader.wait_for(LEADS)
    standby = start_command("djcrf_pg", "listen", "--database", "default", **options)
    standby.wait_for(STANDS_BY)
    board = open_board(start_asgi_server(**options))
    board.subscribe("tasks")
    with test_pg.connect() as admin:
        state = admin.execute(
            "SELECT count(DISTINCT pid) FROM pg_stat_activity AS activity JOIN pg_locks AS locks USING (pid)"
            " WHERE locktype = 'advisory' AND application_name LIKE 'djcrf_pg leader %'"
            " AND datname = current_database()"
        )
        assert state.fetchone() == (1,)
    task = Task.objects.create(title="a")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
    # The doorbell rings: nobody would look before the safety poll.
    leader.kill()
    standby.wait_for(LEADS)
    task = Task.objects.create(title="b")
    assert ("create", {"pk": task.pk}) in board.told("tasks")
    assert standby.terminate() == 0
    # What was set in the server sessions has gone from them.
    with client(pooler) as session:
        assert session.execute(SESSION_STATE).fetchone() == ([], [], [], "0", "on", "")


@pytest.mark.slow
def test_an_answer_that_takes_long_behind_it_is_waited_for(start_pooler, start_asgi_server, open_board, test_pg):
    """The server process is another than the pooler says, and it is the one to be looked after."""
    pooler = start_pooler("session")
    server = start_asgi_server(**behind(pooler))
    board = open_board(server)
    board.subscribe("tasks")
    before = server.position
    with test_pg.connect() as admin, admin.transaction():
        admin.execute("LOCK TABLE djcrf_pg_change IN ACCESS EXCLUSIVE MODE")
        with connection.cursor() as cursor:
            cursor.execute("NOTIFY djcrf_pg")
        there = pooler.output.count("login attempt")
        # Whoever looks comes with four connections; the second look is the one that would end the session.
        wait_until(lambda: pooler.output.count("login attempt") > there + 4)
    Task.objects.create(title="a")
    assert board.told("tasks")
    assert "does not answer" not in server.output[before:]
    assert "leads" not in server.output[before:]


def test_a_pool_in_session_mode_without_room_is_told_as_that(start_pooler, start_asgi_server, open_board):
    # With two, what the listener lacks is there as soon as the subscription has given up.
    pooler = start_pooler("session", default_pool_size="1")
    server = start_asgi_server(**behind(pooler, SUBSCRIBE_TIMEOUT=1))
    refusal(open_board(server))
    server.wait_for("the pooler in front of the database has no second connection for the listener.*next try in")
