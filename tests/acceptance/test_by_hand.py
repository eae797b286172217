"""Signals sent by hand and receivers called by hand: which events a client receives."""

import threading

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.db.models.signals import post_delete, post_save

from tests.acceptance.board import Board
from tests.acceptance.rows import Interrupted, row, task
from tests.servers import PgParams
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task


def test_post_save_sent_by_hand_is_a_touch(board: Board):
    touched = task()
    board.subscribe("full")
    with transaction.atomic():
        other = task("other")
        post_save.send(sender=Task, instance=touched, created=False)
    assert board.told("full") == [("create", row(other)), ("update", row(touched))]
    with transaction.atomic():
        touched.points = 1
        touched.save()
        post_save.send(sender=Task, instance=touched, created=False)
    assert board.told("full") == [("update", row(touched))]
    with pytest.raises(Interrupted), transaction.atomic():
        post_save.send(sender=Task, instance=touched, created=False)
        raise Interrupted
    assert board.told("full") == []


def test_a_save_is_one_event_as_ever(board: Board):
    board.subscribe("tasks")
    made = task()
    made.save()
    assert board.told("tasks") == [("create", {"pk": made.pk}), ("update", {"pk": made.pk})]


def test_a_receiver_called_after_a_bulk_operation_gives_no_second_event(board: Board):
    board.subscribe("full")
    tasks = Task.objects.bulk_create([Task(title=f"t{number}") for number in range(3)])
    for each in tasks:
        BoardConsumer.full.post_init_receiver(each)
        BoardConsumer.full.post_save_receiver(each, created=True)
        post_save.send(sender=Task, instance=each, created=True)
    assert board.told("full") == [("create", row(each)) for each in tasks]
    with transaction.atomic():
        Task.objects.update(points=1)
        for each in tasks:
            each.points = 1
            BoardConsumer.full.post_save_receiver(each, created=False)
    assert board.told("full") == [("update", row(each)) for each in tasks]
    gone = list(Task.objects.filter(pk=tasks[0].pk))
    Task.objects.filter(pk=tasks[0].pk).delete()
    for each in gone:
        BoardConsumer.full.post_delete_receiver(each)
        post_delete.send(sender=Task, instance=each)
    assert board.told("full") == [("delete", row(tasks[0]))]
    BoardConsumer.full.post_save_receiver(tasks[1], created=False)
    assert board.told("full") == [("update", row(tasks[1]))], "where nothing was written it is a touch"


def test_a_coroutine_sends_it_with_asend(board: Board):
    touched = task()
    board.subscribe("tasks")

    async def work() -> None:
        await post_save.asend(sender=Task, instance=touched, created=False)
        await sync_to_async(connections.close_all)()

    board.runner.run(work())
    assert board.told("tasks") == [("update", {"pk": touched.pk})]


def test_post_save_sent_by_hand_waits_for_nobody(board: Board, test_pg: PgParams):
    touched = task()
    board.subscribe("tasks")
    done = threading.Event()

    def send() -> None:
        try:
            with transaction.atomic():
                post_save.send(sender=Task, instance=touched, created=False)
        finally:
            connection.close()
            done.set()

    with psycopg.connect(test_pg.dsn()) as other:
        other.execute("SELECT FROM testapp_task FOR UPDATE")
        thread = threading.Thread(target=send)
        thread.start()
        assert done.wait(30), "it waits for the row's lock"
        thread.join()
    assert board.told("tasks") == [("update", {"pk": touched.pk})]
