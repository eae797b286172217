"""Where no trigger rings, the leader reads by itself."""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.acceptance.board import Board
from tests.project import create_database
from tests.servers import DSN, AsgiServer, EmbeddedPostgres, ManagePy, PgParams, app_env, postgres_version

pytestmark = pytest.mark.processes

INSERT = "INSERT INTO testapp_task (id, title, status, points, body) VALUES (%s, gen_random_uuid(), 'todo', 0, '')"

App = Callable[..., tuple[PgParams, AsgiServer, dict[str, str]]]


@pytest.fixture
def app() -> Iterator[App]:
    """Starts a server with settings, and the test application on it."""
    started: list[EmbeddedPostgres | AsgiServer] = []

    def start(postgres: dict[str, str], **settings: float) -> tuple[PgParams, AsgiServer, dict[str, str]]:
        cluster = EmbeddedPostgres(settings=postgres).start()
        started.append(cluster)
        params = cluster.params.database("silent")
        create_database(cluster.params, params.dbname)
        env = app_env(dbname=params.dbname, settings=settings, env={DSN: cluster.params.dsn()})
        ManagePy.run("migrate", "--verbosity", "0", env=env)
        server = AsgiServer(env)
        started.append(server)
        server.start()
        return params, server, env

    yield start
    for each in reversed(started):
        each.stop()


def arrives(board: Board, pk: int) -> None:
    """Wait for the event of a row that was created."""
    board.runner.run(board.client.until(lambda message: message.get("body") == {"pk": pk}))


def test_a_prepared_transaction_is_told_when_it_is_committed(app: App, open_board: Callable[..., Board]) -> None:
    params, server, env = app({"max_prepared_transactions": "2"}, SAFETY_POLL=600.0)
    checked = ManagePy.run("check", "--database", "default", env=env)
    assert "djcrf_pg.I012" in checked.stdout + checked.stderr
    board = open_board(server)
    board.subscribe("tasks")
    with psycopg.connect(params.dsn()) as writer, params.connect() as other:
        other.execute(INSERT, [1])
        arrives(board, 1)
        writer.tpc_begin("prepared")
        writer.execute(INSERT, [2])
        writer.tpc_prepare()
        other.execute(INSERT, [3])
        arrives(board, 3)
        assert {"pk": 2} not in [message.get("body") for message in board.client.received]
        writer.tpc_commit()
        arrives(board, 2)


def test_events_come_while_the_queue_of_notifications_is_half_full(app: App, open_board: Callable[..., Board]) -> None:
    if postgres_version() in ("14", "15", "16", "debian"):
        pytest.skip("the queue has 8 GB before PostgreSQL 17")
    params, server, _ = app({"max_notify_queue_pages": "64"}, SAFETY_POLL=1.0)
    board = open_board(server)
    board.subscribe("tasks")
    with params.connect() as idle, params.connect() as filler:
        idle.execute("LISTEN something")
        idle.execute("BEGIN; SELECT 1")
        while filler.execute("SELECT pg_notification_queue_usage() < 0.6").fetchone() == (True,):
            filler.execute("SELECT pg_notify('other', i || repeat('x', 5000)) FROM generate_series(1, 5) AS i")
        before = filler.execute("SELECT pg_notification_queue_usage()").fetchone()
        for pk in range(1, 4):
            filler.execute(INSERT, [pk])
            arrives(board, pk)
        assert filler.execute("SELECT pg_notification_queue_usage()").fetchone() == before, "somebody rang"


def test_a_role_with_a_temp_file_limit_is_named_by_a_check(app: App) -> None:
    params, _, env = app({})
    with params.connect() as connection:
        connection.execute(f"ALTER DATABASE {params.dbname} SET temp_file_limit = '10MB'")  # type: ignore[arg-type]
    checked = ManagePy.run("check", "--database", "default", env=env)
    assert "djcrf_pg.W013" in checked.stdout + checked.stderr
    assert "10MB" in checked.stdout + checked.stderr
