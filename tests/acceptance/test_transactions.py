"""What a transaction amounts to, and in which order."""

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.db import connection, transaction

from tests.acceptance.board import Board
from tests.servers import PgParams
from tests.testapp.models import Document, Task


@pytest.fixture
def other(test_pg: PgParams) -> Iterator[psycopg.Connection]:
    """A second writer, in a transaction of its own."""
    with psycopg.connect(test_pg.dsn()) as other:
        yield other


class Interrupted(Exception):
    """Rolls a block back."""


def test_rolled_back_is_nothing(board: Board):
    board.subscribe("full")
    with pytest.raises(Interrupted), transaction.atomic():
        Task.objects.create(title="never")
        raise Interrupted
    assert board.told("full") == []


def test_a_rolled_back_savepoint_is_nothing_of_the_transaction(board: Board):
    task = Task.objects.create(title="a")
    board.subscribe("tasks")
    with transaction.atomic():
        kept = Task.objects.create(title="kept")
        with pytest.raises(Interrupted), transaction.atomic():
            Task.objects.create(title="dropped")
            Task.objects.filter(pk=task.pk).update(points=1)
            raise Interrupted
        later = Task.objects.create(title="later")
    assert board.told("tasks") == [("create", {"pk": kept.pk}), ("create", {"pk": later.pk})]


def test_three_saves_in_a_transaction_are_one_event_with_the_last_state(board: Board):
    task = Task.objects.create(title="a")
    board.subscribe("full")
    with transaction.atomic():
        for points in (1, 2, 3):
            task.points = points
            task.save()
    told = board.told("full")
    assert [(action, body["points"]) for action, body in told] == [("update", 3)]


def test_three_transactions_are_three_events(board: Board):
    task = Task.objects.create(title="a")
    board.subscribe("full")
    for points in (1, 2, 3):
        task.points = points
        task.save()
    assert [body["points"] for _, body in board.told("full")] == [1, 2, 3]


def test_create_and_delete_are_nothing(board: Board):
    board.subscribe("tasks", "documents")
    with transaction.atomic():
        Task.objects.create(title="short").delete()
        Document.objects.create(title="short").delete()
    assert board.told("tasks") == []
    assert board.told("documents") == []


def test_create_and_update_are_one_create_with_the_last_state(board: Board):
    board.subscribe("full", "documents")
    key = uuid.uuid4()
    with transaction.atomic():
        task = Task.objects.create(title="a")
        Task.objects.filter(pk=task.pk).update(points=5)
        document = Document.objects.create(pk=key, title="first")
        document.title = "second"
        document.save()
    ((action, body),) = board.told("full")
    assert (action, body["points"]) == ("create", 5)
    assert board.told("documents") == [("create", {"pk": str(key)})]


def test_update_and_delete_are_one_delete(board: Board):
    task = Task.objects.create(title="a", points=1)
    board.subscribe("full")
    with transaction.atomic():
        Task.objects.filter(pk=task.pk).update(points=2)
        task.delete()
    ((action, body),) = board.told("full")
    assert (action, body["points"]) == ("delete", 1)


def test_a_changed_key_is_a_delete_and_a_create(board: Board):
    Task.objects.create(pk=1, title="a")
    board.subscribe("tasks")
    Task.objects.filter(pk=1).update(id=2)
    assert board.told("tasks") == [("delete", {"pk": 1}), ("create", {"pk": 2})]


def test_a_row_that_raw_sql_moves_between_groups(board: Board, open_board: Callable[..., Board], asgi_server):
    done = open_board(asgi_server)
    board.subscribe("by_status", status="todo")
    done.subscribe("by_status", status="done", request_id="d")
    task = Task.objects.create(title="a", status="todo")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE testapp_task SET status = 'done'")
        cursor.execute("UPDATE testapp_task SET points = 7")
        cursor.execute("UPDATE testapp_task SET status = 'todo'")
    assert board.told("by_status") == [
        ("create", {"id": task.pk, "status": "todo", "said": "create"}),
        ("delete", {"id": task.pk, "status": "todo", "said": "delete"}),
        ("create", {"id": task.pk, "status": "todo", "said": "create"}),
    ]
    there = [
        (event["action"], event["body"], event["subscribing_request_ids"])
        for event in done.runner.run(done.client.events(3))
    ]
    assert there == [
        ("create", {"id": task.pk, "status": "done", "said": "create"}, ["d"]),
        ("update", {"id": task.pk, "status": "done", "said": "update"}, ["d"]),
        ("delete", {"id": task.pk, "status": "done", "said": "delete"}, ["d"]),
    ]


def test_commits_out_of_order_arrive_once_each(board: Board, other: psycopg.Connection):
    board.subscribe("tasks")
    insert = "INSERT INTO testapp_task (title, status, points, body) VALUES (%s, 'todo', 0, '') RETURNING id"
    (early,) = other.execute(insert, ["begun first"]).fetchone()
    late = Task.objects.create(title="begun later, committed first")
    # The fence of `told` is committed too, and its event has come, before the first one commits.
    assert board.told("tasks") == [("create", {"pk": late.pk})]
    other.commit()
    assert board.told("tasks") == [("create", {"pk": early})]


def test_a_transaction_that_stays_open_delays_only_itself(board: Board, other: psycopg.Connection):
    board.subscribe("tasks")
    other.execute("INSERT INTO testapp_task (id, title, status, points, body) VALUES (1, 'x', 'todo', 0, '')")
    for number in range(20):
        task = Task.objects.create(title=f"t{number}")
        assert board.told("tasks") == [("create", {"pk": task.pk})]
    other.rollback()
    assert board.told("tasks") == []


def test_one_row_s_changes_keep_the_order_of_their_commits(board: Board, other: psycopg.Connection):
    task = Task.objects.create(title="a")
    board.subscribe("full")
    # The other transaction has the lower xid and gets to the row later.
    other.execute("SELECT pg_current_xact_id()")
    Task.objects.filter(pk=task.pk).update(points=1)
    other.execute("UPDATE testapp_task SET points = 2 WHERE id = %s", [task.pk])
    other.commit()
    assert [body["points"] for _, body in board.told("full")] == [1, 2]


def test_a_serialization_failure_that_is_retried_is_told_once(
    board: Board, other: psycopg.Connection, test_pg: PgParams
):
    task = Task.objects.create(title="a")
    board.subscribe("full")
    add = "UPDATE testapp_task SET points = points + 1 WHERE id = %s"
    other.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    other.execute("SELECT points FROM testapp_task")
    with psycopg.connect(test_pg.dsn()) as winner:
        winner.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        winner.execute(add, [task.pk])
    with pytest.raises(psycopg.errors.SerializationFailure):
        other.execute(add, [task.pk])
    other.rollback()
    other.execute(add, [task.pk])
    other.commit()
    assert [(action, body["points"]) for action, body in board.told("full")] == [("update", 1), ("update", 2)]
