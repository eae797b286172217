"""One listener that begins: none before it, a cursor that is not its own, and a window that is larger than a batch.

These start servers of their own, for the shared one would lead.
"""

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection

from tests.acceptance.board import Board
from tests.acceptance.test_subscriptions import refusal
from tests.servers import AsgiServer
from tests.testapp.models import Task

pytestmark = pytest.mark.processes


def test_without_any_listener_the_command_is_named(
    transactional_db, start_asgi_server: Callable[..., AsgiServer], open_board, redis_url: str
):
    settings = {"EMBEDDED": False, "SUBSCRIBE_TIMEOUT": 0.3}
    error = refusal(open_board(start_asgi_server(redis=redis_url, settings=settings)))
    assert "within 0.3 s" in error
    assert "no listener runs: start `manage.py djcrf_pg listen`" in error
    # A process of its own could not reach this one.
    error = refusal(open_board(start_asgi_server(settings=settings)))
    assert "EMBEDDED'] is False" in error
    assert "use channels_redis, or EMBEDDED = True" in error


def test_a_window_is_delivered_in_pieces_and_in_order(
    transactional_db: None, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
):
    board = open_board(start_asgi_server(settings={"BATCH_SIZE": 7}))
    board.subscribe("tasks")
    for _ in range(2):
        tasks = Task.objects.bulk_create([Task(title=f"{uuid4()}") for _ in range(100)])
        assert board.told("tasks") == [("create", {"pk": task.pk}) for task in tasks]


def test_a_cursor_of_another_cluster_is_told_and_the_log_is_read_from_its_start(
    transactional_db: None, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
):
    server = start_asgi_server()
    board = open_board(server)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM djcrf_pg_cursor")
        cursor.execute(
            "INSERT INTO djcrf_pg_cursor (name, snapshot, term) VALUES ('leader', '9000000000:9000000000:', 5)"
        )
    board.subscribe("tasks")
    server.wait_for("the saved cursor 9000000000:9000000000: lies in this server's future")
    task = Task.objects.create(title="a")
    assert board.told("tasks") == [("create", {"pk": task.pk})]


def test_an_embedded_leader_with_a_backlog_accepts_subscribers(
    transactional_db, start_command, start_asgi_server, open_board, redis_url
):
    first = start_command("djcrf_pg", "listen", redis=redis_url)
    first.wait_for("leads")
    waiting = open_board(start_asgi_server(redis=redis_url, settings={"EMBEDDED": False}))
    waiting.subscribe("tasks")
    first.kill()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_task (title, status, points, body) "
            "SELECT 'w' || n, 'todo', 0, '' FROM generate_series(1, 60000) AS n"
        )
    board = open_board(start_asgi_server(redis=redis_url))
    board.subscribe("tasks")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_visible_in_snapshot(xid, snapshot) FROM djcrf_pg_cursor, djcrf_pg_change "
            "WHERE op = 'I' ORDER BY xid DESC LIMIT 1"
        )
        assert cursor.fetchall() == [(False,)]
    # Nothing of the backlog is for it.
    task = Task.objects.create(title="new")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
