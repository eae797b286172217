"""The join table: one update for each owner of the relation, and no more."""

from django.db import connection, transaction

from tests.acceptance.board import Board
from tests.testapp.models import Label, Task


def _tasks(count: int = 2) -> list[Task]:
    return Task.objects.bulk_create([Task(title=f"t{number}") for number in range(count)])


def _labels(count: int = 3) -> list[Label]:
    return Label.objects.bulk_create([Label(name=f"l{number}") for number in range(count)])


def _updates(*tasks: Task) -> list[tuple[str, dict[str, int]]]:
    return [("update", {"pk": task.pk}) for task in tasks]


def test_add_set_remove_and_clear_from_the_owner(board: Board):
    task, other = _tasks()
    first, second, third = _labels()
    other.labels.add(first)
    board.subscribe("tagged", "tasks")
    task.labels.add(first, second)
    assert board.told("tagged") == _updates(task)
    task.labels.set([second, third])
    assert board.told("tagged") == _updates(task)
    task.labels.set([second, third])  # nothing changes, nothing is written
    assert board.told("tagged") == []
    task.labels.remove(third)
    assert board.told("tagged") == _updates(task)
    task.labels.clear()
    assert board.told("tagged") == _updates(task)
    # with many_to_many=False: silence
    assert [event for event in board.told("tasks") if event[1]["pk"] in (task.pk, other.pk)] == []


def test_add_set_remove_and_clear_from_the_other_side(board: Board):
    first, second = _tasks()
    (label,) = _labels(1)
    board.subscribe("tagged")
    label.tasks.add(first, second)
    assert sorted(board.told("tagged"), key=str) == sorted(_updates(first, second), key=str)
    label.tasks.remove(first)
    assert board.told("tagged") == _updates(first)
    label.tasks.set([first])
    assert sorted(board.told("tagged"), key=str) == sorted(_updates(first, second), key=str)
    label.tasks.clear()
    assert board.told("tagged") == _updates(first)


def test_deletion_of_the_related_object(board: Board):
    first, second = _tasks()
    (label,) = _labels(1)
    label.tasks.add(first, second)
    board.subscribe("tagged")
    label.delete()
    assert sorted(board.told("tagged"), key=str) == sorted(_updates(first, second), key=str)


def test_raw_dml_on_the_join_table(board: Board):
    first, second = _tasks()
    labels = _labels()
    board.subscribe("tagged")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_task_labels (task_id, label_id) SELECT %s, id FROM testapp_label", [first.pk]
        )
        assert board.told("tagged") == _updates(first)
        cursor.execute("UPDATE testapp_task_labels SET task_id = %s WHERE label_id = %s", [second.pk, labels[0].pk])
        assert sorted(board.told("tagged"), key=str) == sorted(_updates(first, second), key=str)
        cursor.execute("DELETE FROM testapp_task_labels")
        assert sorted(board.told("tagged"), key=str) == sorted(_updates(first, second), key=str)


def test_deleting_the_owner_is_one_delete_and_no_stray_update(board: Board):
    task, _ = _tasks()
    task.labels.set(_labels())
    board.subscribe("tagged")
    pk = task.pk
    task.delete()
    assert board.told("tagged") == [("delete", {"pk": pk})]


def test_an_owner_that_is_created_or_saved_with_its_relations_is_one_event(board: Board):
    labels = _labels()
    board.subscribe("tagged")
    with transaction.atomic():
        task = Task.objects.create(title="with labels")
        task.labels.set(labels)
    assert board.told("tagged") == [("create", {"pk": task.pk})]
    with transaction.atomic():
        task.labels.clear()
        task.points = 1
        task.save()
    assert board.told("tagged") == _updates(task)


def test_several_transactions_are_an_update_each(board: Board):
    task, _ = _tasks()
    first, second, _ = _labels()
    board.subscribe("tagged")
    task.labels.add(first)
    task.labels.add(second)
    assert board.told("tagged") == _updates(task, task)
