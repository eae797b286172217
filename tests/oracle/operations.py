"""What writers do: each kind of write, on a few keys, so that they meet.

An operation takes the keys and a number that no other operation of the run has, and does what it can with the rows
that are there. It may well fail: on a key that is taken, on a lock, on a server that is gone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import F

from tests.oracle.tables import LABELS, LANES, PROJECTS
from tests.testapp.models import Label, Project, Task

Keys = Sequence[int]
Work = Callable[[Keys, int], Any]


class Operation(NamedTuple):
    """One kind of write.

    Attributes:
        family: ``"ORM"``, ``"SQL"`` or ``"relations"``.
        work: Does it.
    """

    family: str
    work: Work


OPERATIONS: dict[str, Operation] = {}


def operation(family: str, name: str) -> Callable[[Work], Work]:
    """Register an operation."""

    def register(work: Work) -> Work:
        OPERATIONS[name] = Operation(family, work)
        return work

    return register


def _lane(number: int) -> str:
    return LANES[number % len(LANES)]


def _labels(number: int) -> list[int]:
    return [label for label in LABELS if number >> label & 1] or [number % len(LABELS) + 1]


def _task(key: int, number: int) -> Task:
    body = f"by {number}" * (number % 3)
    return Task(pk=key, title=f"{number}-{key}", status=_lane(number), points=number, body=body)


def _sql(query: str, *arguments: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(query, arguments)


@operation("ORM", "save() of a new row")
def create(keys: Keys, number: int) -> None:
    _task(keys[0], number).save(force_insert=True)


@operation("ORM", "save()")
def save(keys: Keys, number: int) -> None:
    for task in Task.objects.filter(pk__in=keys[:2]).order_by("pk"):
        task.status, task.points = _lane(number), number
        task.save()


@operation("ORM", "save(update_fields)")
def save_fields(keys: Keys, number: int) -> None:
    for task in Task.objects.filter(pk=keys[0]):
        task.body = f"written {number}"
        task.save(update_fields=["body"])


@operation("ORM", "delete()")
def delete(keys: Keys, number: int) -> None:
    for task in Task.objects.filter(pk=keys[0]):
        task.delete()


@operation("ORM", "bulk_create()")
def bulk_create(keys: Keys, number: int) -> None:
    Task.objects.bulk_create([_task(key, number) for key in keys])


@operation("ORM", "bulk_create(ignore_conflicts)")
def bulk_create_ignoring(keys: Keys, number: int) -> None:
    Task.objects.bulk_create([_task(key, number) for key in keys], ignore_conflicts=True)


@operation("ORM", "bulk_create(update_conflicts)")
def bulk_upsert(keys: Keys, number: int) -> None:
    fields = ["title", "status", "points"]
    tasks = [_task(key, number) for key in sorted(keys)]
    Task.objects.bulk_create(tasks, update_conflicts=True, update_fields=fields, unique_fields=["id"])


@operation("ORM", "bulk_update()")
def bulk_update(keys: Keys, number: int) -> None:
    tasks = list(Task.objects.filter(pk__in=keys).order_by("pk"))
    for task in tasks:
        task.status, task.body = _lane(number + task.pk), f"bulk {number}"
    Task.objects.bulk_update(tasks, ["status", "body"])


@operation("ORM", "queryset.update()")
def update(keys: Keys, number: int) -> None:
    Task.objects.filter(pk__in=keys).update(status=_lane(number), points=number)


@operation("ORM", "update(F())")
def update_f(keys: Keys, number: int) -> None:
    Task.objects.filter(pk__in=keys).update(points=F("points") + 1)


@operation("ORM", "update() of everything")
def update_all(keys: Keys, number: int) -> None:
    Task.objects.update(status=_lane(number))


@operation("ORM", "update() and back")
def there_and_back(keys: Keys, number: int) -> None:
    tasks = Task.objects.filter(pk__in=keys)
    tasks.update(points=F("points") + number)
    tasks.update(points=F("points") - number)


@operation("ORM", "queryset.delete()")
def delete_many(keys: Keys, number: int) -> None:
    Task.objects.filter(pk__in=keys).delete()


@operation("SQL", "INSERT … ON CONFLICT DO NOTHING")
def insert(keys: Keys, number: int) -> None:
    _sql(
        "INSERT INTO testapp_task (id, title, status, points, body)"
        " SELECT key, %s || '-' || key, %s, %s, '' FROM unnest(%s::int[]) AS key ON CONFLICT DO NOTHING",
        *(str(number), _lane(number), number, list(keys)),
    )


@operation("SQL", "INSERT … ON CONFLICT DO UPDATE")
def upsert(keys: Keys, number: int) -> None:
    _sql(
        "INSERT INTO testapp_task (id, title, status, points, body)"
        " SELECT key, %s || '-' || key, %s, %s, '' FROM unnest(%s::int[]) AS key"
        " ON CONFLICT (id) DO UPDATE SET status = excluded.status, points = testapp_task.points + 1",
        *(str(number), _lane(number), number, sorted(keys)),
    )


@operation("SQL", "UPDATE … FROM")
def update_from(keys: Keys, number: int) -> None:
    _sql(
        "UPDATE testapp_task SET status = given.lane, body = given.lane || %s::text"
        " FROM unnest(%s::int[], %s::text[]) AS given (key, lane) WHERE id = given.key",
        *(number, list(keys), [_lane(number + key) for key in keys]),
    )


@operation("SQL", "MERGE")
def merge(keys: Keys, number: int) -> None:
    _sql(
        "MERGE INTO testapp_task AS task USING unnest(%s::int[]) AS given (key) ON task.id = given.key"
        " WHEN MATCHED AND task.points %% 3 = 0 AND NOT EXISTS"
        "   (SELECT FROM testapp_task_labels WHERE task_id = task.id) THEN DELETE"
        " WHEN MATCHED THEN UPDATE SET points = task.points + 1, status = %s"
        " WHEN NOT MATCHED THEN INSERT (id, title, status, points, body)"
        "   VALUES (given.key, %s || '-' || given.key, %s, %s, 'merged')",
        *(list(keys), _lane(number), str(number), _lane(number + 1), number),
    )


@operation("SQL", "DELETE and INSERT in a CTE")
def replace(keys: Keys, number: int) -> None:
    _sql(
        "WITH gone AS (DELETE FROM testapp_task WHERE id = ANY (%s) AND NOT EXISTS"
        "   (SELECT FROM testapp_task_labels WHERE task_id = testapp_task.id) RETURNING *)"
        " INSERT INTO testapp_task (id, title, status, points, body)"
        " SELECT id + 20, title || '!', status, points, body FROM gone",
        list(keys),
    )


@operation("SQL", "DELETE")
def delete_raw(keys: Keys, number: int) -> None:
    _sql("DELETE FROM testapp_task_labels WHERE task_id = ANY (%s)", list(keys))
    _sql("DELETE FROM testapp_task WHERE id = ANY (%s)", list(keys))


@operation("SQL", "UPDATE of the key")
def change_key(keys: Keys, number: int) -> None:
    _sql("UPDATE testapp_task SET id = %s WHERE id = %s", keys[-1], keys[0])


@operation("SQL", "UPDATE of several keys")
def change_keys(keys: Keys, number: int) -> None:
    _sql("UPDATE testapp_task SET id = 30 - id WHERE id = ANY (%s) OR id > 20", list(keys))


@operation("SQL", "COPY")
def copy(keys: Keys, number: int) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY testapp_task (id, title, status, points, body) FROM STDIN") as rows,
    ):
        for key in keys:
            rows.write_row((key, f"{number}-{key}", _lane(number), number, "copied"))


@operation("SQL", "TRUNCATE")
def truncate(keys: Keys, number: int) -> None:
    _sql("TRUNCATE testapp_task CASCADE")


@operation("relations", "TRUNCATE of the join table")
def truncate_join(keys: Keys, number: int) -> None:
    _sql("TRUNCATE testapp_task_labels")


def _m2m(key: int) -> Any:
    return Task(pk=key).labels


@operation("relations", "labels.add()")
def add(keys: Keys, number: int) -> None:
    for key in Task.objects.filter(pk__in=keys).order_by("pk").values_list("pk", flat=True):
        _m2m(key).add(*_labels(number))


@operation("relations", "labels.remove()")
def remove(keys: Keys, number: int) -> None:
    for key in keys[:2]:
        _m2m(key).remove(*_labels(number))


@operation("relations", "labels.set()")
def set_labels(keys: Keys, number: int) -> None:
    for task in Task.objects.filter(pk__in=keys[:2]).order_by("pk"):
        task.labels.set(_labels(number))


@operation("relations", "labels.clear()")
def clear(keys: Keys, number: int) -> None:
    _m2m(keys[0]).clear()


@operation("relations", "tasks.set() of a label")
def set_tasks(keys: Keys, number: int) -> None:
    for label in Label.objects.filter(pk=number % len(LABELS) + 1):
        label.tasks.set(Task.objects.filter(pk__in=keys))


@operation("relations", "delete() of a label")
def delete_label(keys: Keys, number: int) -> None:
    for label in Label.objects.filter(pk=number % len(LABELS) + 1):
        label.delete()


@operation("relations", "save() of a label")
def save_label(keys: Keys, number: int) -> None:
    Label(pk=number % len(LABELS) + 1, name=f"label {number}").save()


@operation("relations", "UPDATE of labels and projects")
def rename(keys: Keys, number: int) -> None:
    _sql("UPDATE testapp_label SET name = 'label ' || id || ' ' || %s", str(number))
    _sql("UPDATE testapp_project SET name = 'project ' || id || ' ' || %s", str(number))


@operation("SQL", "UPDATE of titles")
def retitle(keys: Keys, number: int) -> None:
    _sql("UPDATE testapp_task SET title = %s || '-' || id WHERE id = ANY (%s)", str(number), list(keys))


@operation("relations", "INSERT into the join table")
def insert_join(keys: Keys, number: int) -> None:
    _sql(
        "INSERT INTO testapp_task_labels (task_id, label_id) SELECT task.id, label.id"
        " FROM testapp_task AS task, testapp_label AS label WHERE task.id = ANY (%s) AND label.id = ANY (%s)"
        " ON CONFLICT DO NOTHING",
        *(list(keys), _labels(number)),
    )


@operation("relations", "UPDATE of the join table")
def update_join(keys: Keys, number: int) -> None:
    _sql(
        "UPDATE testapp_task_labels SET task_id = %s WHERE task_id = %s AND EXISTS"
        " (SELECT FROM testapp_task WHERE id = %s)",
        *(keys[-1], keys[0], keys[-1]),
    )


@operation("relations", "save() of a project with tasks")
def save_project(keys: Keys, number: int) -> None:
    project = Project(pk=number % len(PROJECTS) + 1, name=f"project {number}")
    project.save()
    Task.objects.filter(pk__in=keys).update(project=project)


@operation("relations", "delete() of a project with its tasks")
def delete_project(keys: Keys, number: int) -> None:
    for project in Project.objects.filter(pk=number % len(PROJECTS) + 1):
        project.delete()


@operation("SQL", "UPDATE that changes nothing")
def nothing(keys: Keys, number: int) -> None:
    Task.objects.filter(pk__in=keys).update(points=F("points"))
