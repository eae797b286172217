"""Subscribing and unsubscribing: what a client gets, from when on, and what it is told when it cannot be."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from tests.acceptance.board import Board
from tests.servers import AsgiServer, PgParams, free_port
from tests.testapp.models import Task


@contextmanager
def sql(do: str, undo: str) -> Iterator[None]:
    """Run a statement for the length of a block."""
    with connection.cursor() as cursor:
        cursor.execute(do)
        try:
            yield
        finally:
            cursor.execute(undo)


def refusal(board: Board, name: str = "tasks", **arguments: object) -> str:
    """The error that a subscription is refused with."""
    reply = board.call("subscribe", name=name, **arguments)
    assert reply["response_status"] == 503, reply
    (error,) = reply["errors"]
    return str(error)


def test_what_was_committed_before_is_not_told(board: Board):
    # The first subscription starts the listener, which finds these in the log.
    tasks = [Task.objects.create(title=f"before {number}") for number in range(50)]
    board.subscribe("tasks")
    Task.objects.filter(pk=tasks[0].pk).update(points=1)
    assert board.told("tasks") == [("update", {"pk": tasks[0].pk})]


def test_a_subscription_sees_every_commit_after_its_reply(board: Board):
    for number in range(20):
        board.subscribe("tasks")
        task = Task.objects.create(title=f"after {number}")
        assert board.told("tasks") == [("create", {"pk": task.pk})]
        board.call("unsubscribe", name="tasks")


def test_request_ids_are_given_back_until_they_end(board: Board):
    for request_id in ("one", 2, 2.5):
        board.call("subscribe", name="tasks", request_id=request_id)
    Task.objects.create(title="a")
    (message,) = board.messages("tasks")
    assert set(message["subscribing_request_ids"]) == {"one", 2, 2.5}
    board.call("unsubscribe", name="tasks", request_id="one")
    Task.objects.create(title="b")
    (message,) = board.messages("tasks")
    assert set(message["subscribing_request_ids"]) == {2, 2.5}
    board.call("unsubscribe", name="tasks", request_id=2)
    board.call("unsubscribe", name="tasks", request_id=2.5)
    board.subscribe("full")
    Task.objects.create(title="c")
    assert len(board.messages("full")) == 1
    assert board.client.take(lambda message: message["observer"] == "tasks" and message["body"]["pk"] < 10**6) == []


@pytest.mark.parametrize("bad", [["a"], {"a": 1}])
def test_a_malformed_request_id_is_refused_and_the_socket_lives_on(board: Board, bad: object):
    reply = board.call("subscribe", name="tasks", request_id=bad)
    assert reply["response_status"] == 400
    assert "request_id must be text or a number" in str(reply["errors"])
    board.subscribe("tasks")
    task = Task.objects.create(title="a")
    assert board.told("tasks") == [("create", {"pk": task.pk})]


def test_missing_triggers_refuse_and_name_the_mend(board: Board, run_command: Callable[..., str]):
    with sql("DROP TRIGGER djcrf_pg_update ON testapp_task", "SELECT 1"):
        assert "triggers" in refusal(board).lower()
        assert "testapp_task" in refusal(board)
        assert "manage.py migrate" in refusal(board)
        board.subscribe("documents")  # others are in no way concerned
        with pytest.raises(AssertionError, match=r"djcrf_pg.W005.*testapp_task.*missing(.|\n)*manage.py migrate"):
            run_command("check", "--database", "default", "--fail-level", "WARNING")
    run_command("migrate", "--verbosity", "0")
    board.subscribe("tasks")
    task = Task.objects.create(title="a")
    assert board.told("tasks") == [("create", {"pk": task.pk})]


def test_disabled_triggers_refuse_and_migrate_enables_them(board: Board, run_command: Callable[..., str]):
    with sql(
        "ALTER TABLE testapp_task_labels DISABLE TRIGGER USER", "ALTER TABLE testapp_task_labels ENABLE TRIGGER USER"
    ):
        assert "disabled" in refusal(board, "tagged")
        board.subscribe("tasks")  # without many-to-many the join table does not matter
        run_command("migrate", "--verbosity", "0")
        board.subscribe("tagged")


def test_a_consumer_that_subscribes_before_migrate(board: Board):
    with sql("ALTER TABLE djcrf_pg_change RENAME TO hidden", "ALTER TABLE hidden RENAME TO djcrf_pg_change"):
        error = refusal(board)
    assert "djcrf_pg_change" in error
    assert "manage.py migrate" in error
    with sql("ALTER TABLE testapp_document RENAME TO hidden", "ALTER TABLE hidden RENAME TO testapp_document"):
        error = refusal(board, "documents")
    assert "testapp_document" in error
    assert "manage.py migrate" in error


def test_no_channel_layer(transactional_db, start_asgi_server: Callable[..., AsgiServer], open_board):
    board = open_board(start_asgi_server(layers={}))
    assert "CHANNEL_LAYERS" in refusal(board)


def test_postgresql_unreachable_is_a_named_error_after_the_timeout(
    transactional_db, start_asgi_server: Callable[..., AsgiServer], open_board
):
    dsn = f"host=127.0.0.1 port={free_port()} user=nobody dbname=nothing"
    server = start_asgi_server(settings={"SUBSCRIBE_TIMEOUT": 0.5}, env={"DJCRF_PG_TEST_DSN": dsn})
    board = open_board(server)
    error = refusal(board)
    assert "within 0.5 s" in error
    assert "SUBSCRIBE_TIMEOUT" in error
    assert "cannot be reached" in error


def test_an_in_memory_layer_hears_nothing_of_another_process(
    board: Board, start_asgi_server: Callable[..., AsgiServer], open_board
):
    board.subscribe("tasks")  # its process leads
    second = open_board(start_asgi_server(settings={"SUBSCRIBE_TIMEOUT": 0.5}))
    error = refusal(second)
    assert "InMemoryChannelLayer" in error
    assert "another process leads" in error
    task = Task.objects.create(title="a")
    assert board.told("tasks") == [("create", {"pk": task.pk})]


def test_options_that_the_listener_cannot_use_are_named_each_time(
    transactional_db, start_asgi_server: Callable[..., AsgiServer], open_board, test_pg: PgParams
):
    # Django's driver knows it, asyncpg does not.
    server = start_asgi_server(env={"DJCRF_PG_TEST_DSN": f"{test_pg.dsn()} require_auth=!gss"})
    board = open_board(server)
    for _ in range(3):
        error = refusal(board)
        assert "cannot connect to database 'default' with 'require_auth'" in error
        assert "LISTENER_DATABASE" in error
