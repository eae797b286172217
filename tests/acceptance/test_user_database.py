"""User code in the listener asks the database over connections of its own, and finds it gone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from psycopg.sql import SQL, Identifier

from tests.acceptance.board import Board
from tests.servers import AsgiServer, PgParams
from tests.testapp.models import Label, Task

pytestmark = pytest.mark.processes

FAILED = r"groups or serializers failed in database 'default' \(try 1\)"


def end_sessions_of_user_code(test_pg: PgParams) -> None:
    """Terminate every session of Django's but our own; those of the listener and the gate go on."""
    with connection.cursor() as cursor, test_pg.connect("postgres") as admin:
        cursor.execute("SELECT current_database(), pg_backend_pid()")
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
            " AND backend_type = 'client backend' AND application_name NOT LIKE 'djcrf_pg%%' AND pid <> %s",
            cursor.fetchone(),
        ).fetchall()
    assert (True,) in ended


@contextmanager
def closed_to_new_sessions(test_pg: PgParams) -> Iterator[None]:
    """For the length of a block, the database takes no new connection."""
    name = Identifier(test_pg.dbname)
    with test_pg.connect("postgres") as admin:
        admin.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        try:
            yield
        finally:
            admin.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


@pytest.fixture
def asking(
    transactional_db: None, start_asgi_server: Callable[..., AsgiServer], open_board
) -> tuple[AsgiServer, Board]:
    """A server whose listener has a connection of user code, and a client of it."""
    server = start_asgi_server()
    board = open_board(server)
    board.subscribe("tasks", "tagged", "asking")
    task = Task.objects.create(title="ask before")
    assert board.told("asking") == [("create", {"pk": task.pk, "labels": 0})]
    return server, board


def test_the_same_events_are_made_again_on_a_new_connection(asking: tuple[AsgiServer, Board], test_pg: PgParams):
    server, board = asking
    end_sessions_of_user_code(test_pg)
    task = Task.objects.create(title="ask after")
    assert ("create", {"pk": task.pk}) in board.told("tasks")
    assert board.told("asking") == [("create", {"pk": task.pk, "labels": 0})]
    server.wait_for(FAILED)
    # The same for owners that a change of their join table makes it load.
    label, before = Label.objects.create(name="a"), server.position
    board.messages("tagged")
    end_sessions_of_user_code(test_pg)
    task.labels.add(label)
    assert board.told("tagged") == [("update", {"pk": task.pk})]
    server.wait_for(FAILED, after=before)
    assert "next try in" not in server.output


def test_others_do_not_wait_for_ever_where_it_stays_gone(asking: tuple[AsgiServer, Board], test_pg: PgParams):
    server, board = asking
    task, label = Task.objects.get(title="ask before"), Label.objects.create(name="a")
    board.messages("tagged")
    with closed_to_new_sessions(test_pg):
        end_sessions_of_user_code(test_pg)
        with transaction.atomic():
            task.labels.add(label)
            other = Task.objects.create(title="ask while it is gone")
        assert ("create", {"pk": other.pk}) in board.told("tasks")
        resync = board.runner.run(board.client.until(lambda message: message.get("action") == "resync"))
        assert (resync["request_id"], resync["data"]["reason"]) == ("tagged", "unreadable")
    assert server.find(rf"BoardConsumer\.asking failed on testapp\.Task pk={other.pk}")
    assert server.output.count("(try 4)") >= 1
    later = Task.objects.create(title="ask when it is back")
    assert ("create", {"pk": later.pk, "labels": 0}) in board.told("asking")


def test_nothing_is_lost_where_the_listener_s_own_session_ends_too(asking: tuple[AsgiServer, Board], test_pg: PgParams):
    server, board = asking
    before = server.position
    with closed_to_new_sessions(test_pg), test_pg.connect("postgres") as admin:
        end_sessions_of_user_code(test_pg)
        task = Task.objects.create(title="ask while both are gone")
        server.wait_for(FAILED, after=before)
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE 'djcrf_pg leader%%'",
            [test_pg.dbname],
        )
        server.wait_for("not currently accepting connections; next try in", after=before)
    server.wait_for("listener of database 'default' leads", after=before)
    assert ("create", {"pk": task.pk}) in board.told("tasks")
    assert ("create", {"pk": task.pk, "labels": 0}) in board.told("asking")
