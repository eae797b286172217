"""Whoever writes, and however: exactly the expected events, in order, with the right bodies."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.db.models import F

from tests.acceptance.board import Board
from tests.processes import ROOT
from tests.servers import PgParams, app_env
from tests.testapp.models import Project, Task


def row(task: Task, **changes: Any) -> dict[str, Any]:
    """What TaskSerializer makes of a task."""
    names = ("id", "title", "status", "points", "body")
    return {**{name: getattr(task, name) for name in names}, "project": task.project_id, **changes}


def test_save_create_and_delete(board: Board):
    board.subscribe("full")
    task = Task(title="a", points=1)
    task.save()
    task.points = 2
    task.save()
    created = Task.objects.create(title="b", body="žluťoučký 🐎")
    pk = task.pk
    task.delete()
    task.pk = pk
    assert board.told("full") == [
        ("create", row(task, points=1)),
        ("update", row(task, points=2)),
        ("create", row(created)),
        ("delete", row(task, points=2)),
    ]


def test_the_default_body_and_the_keys_are_dcrf_s(board: Board):
    board.subscribe("tasks")
    task = Task.objects.create(title="a")
    (message,) = board.messages("tasks")
    assert message.pop("change_id") > 0
    assert message.pop("committed_at").startswith("20")
    assert message.pop("group").startswith("DCRF-")
    assert message == {
        "observer": "tasks",
        "body": {"pk": task.pk},
        "action": "create",
        "message_type": "tasks",
        "subscribing_request_ids": ["tasks"],
        "changed": [],
        "context": None,
    }


def test_bulk_create_and_its_update_conflicts(board: Board):
    board.subscribe("full")
    tasks = Task.objects.bulk_create([Task(title=f"t{i}", points=i) for i in range(5)])
    assert board.told("full") == [("create", row(task)) for task in tasks]
    again = [Task(title="t3", points=30), Task(title="new", points=1), Task(title="t1", points=10)]
    Task.objects.bulk_create(again, update_conflicts=True, unique_fields=["title"], update_fields=["points"])
    new = Task.objects.get(title="new")
    # One statement; PostgreSQL logs its inserts and its updates one after the other, each in order.
    told = board.told("full")
    assert [event for event in told if event[0] == "create"] == [("create", row(new))]
    assert [event for event in told if event[0] == "update"] == [
        ("update", row(tasks[3], points=30)),
        ("update", row(tasks[1], points=10)),
    ]
    assert len(told) == 3


def test_bulk_update(board: Board):
    tasks = Task.objects.bulk_create([Task(title=f"t{i}") for i in range(4)])
    board.subscribe("full")
    for task in tasks:
        task.points = task.pk
    Task.objects.bulk_update(tasks, ["points"])
    assert sorted(board.told("full"), key=str) == sorted((("update", row(task)) for task in tasks), key=str)


def test_update_with_f_and_queryset_delete(board: Board):
    first, second = Task.objects.bulk_create([Task(title="a", points=1), Task(title="b", points=2)])
    board.subscribe("full")
    Task.objects.order_by("pk").update(points=F("points") + 10)
    assert board.told("full") == [("update", row(first, points=11)), ("update", row(second, points=12))]
    Task.objects.filter(pk__in=[first.pk, second.pk]).delete()
    assert sorted(board.told("full"), key=str) == [
        ("delete", row(first, points=11)),
        ("delete", row(second, points=12)),
    ]


def test_an_update_or_delete_of_no_row_is_no_event(board: Board):
    board.subscribe("full")
    Task.objects.filter(title="nobody").update(points=1)
    Task.objects.filter(title="nobody").delete()
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO testapp_task (title, status, points, body) SELECT 'x', '', 0, '' WHERE false")
    assert board.told("full") == []


def test_cascade(board: Board):
    project = Project.objects.create(name="p")
    tasks = Task.objects.bulk_create([Task(title=f"t{i}", project=project) for i in range(3)])
    board.subscribe("tasks", "projects")
    pk = project.pk
    project.delete()
    assert sorted(board.told("tasks"), key=str) == [("delete", {"pk": task.pk}) for task in tasks]
    assert board.told("projects") == [("delete", {"pk": pk})]


def test_cascade_in_the_database(board: Board):
    project = Project.objects.create(name="p")
    task = Task.objects.create(title="t", project=project)
    board.subscribe("tasks")
    with connection.cursor() as cursor:
        name = "SELECT conname FROM pg_constraint WHERE conrelid = 'testapp_task'::regclass AND contype = 'f'"
        cursor.execute(name)
        (constraint,) = cursor.fetchone()
        alter = f'ALTER TABLE testapp_task DROP CONSTRAINT "{constraint}", ADD CONSTRAINT "{constraint}" FOREIGN KEY '
        tail = "(project_id) REFERENCES testapp_project DEFERRABLE INITIALLY DEFERRED"
        cursor.execute(alter + tail.replace(" DEFERRABLE", " ON DELETE CASCADE DEFERRABLE"))
        try:
            cursor.execute("DELETE FROM testapp_project")
        finally:
            cursor.execute(alter + tail)
    assert board.told("tasks") == [("delete", {"pk": task.pk})]


def test_raw_sql(board: Board):
    board.subscribe("full")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_task (title, status, points, body) VALUES ('a', 'todo', 1, ''), ('b', 'todo', 2, '')"
            " RETURNING id"
        )
        (a,), (b,) = cursor.fetchall()
        cursor.execute("UPDATE testapp_task SET points = points * 10 WHERE title = 'b'")
        cursor.execute("DELETE FROM testapp_task WHERE title = 'a'")
    told = board.told("full")
    assert [(action, body["id"], body["points"]) for action, body in told] == [
        ("create", a, 1),
        ("create", b, 2),
        ("update", b, 20),
        ("delete", a, 1),
    ]


def test_copy(board: Board):
    board.subscribe("full")
    with connection.cursor() as cursor:
        statement = "COPY testapp_task (id, title, status, points, body) FROM STDIN"
        with cursor.cursor.copy(statement) as copy:
            for number in range(3):
                copy.write_row((number + 1, f"c{number}", "todo", number, "x\ty\\"))
    assert [(action, body["title"], body["body"]) for action, body in board.told("full")] == [
        ("create", f"c{number}", "x\ty\\") for number in range(3)
    ]


def test_psql_as_another_process(board: Board, psql: Callable[..., str]):
    board.subscribe("tasks")
    pk = psql(
        "INSERT INTO testapp_task (title, status, points, body) VALUES ('from psql', 'todo', 1, '') RETURNING id;"
    )
    assert board.told("tasks") == [("create", {"pk": int(pk)})]


def test_a_process_that_never_imports_the_consumers(board: Board, test_pg: PgParams):
    board.subscribe("tasks")
    program = (
        "import django, sys; django.setup()\n"
        "from tests.testapp.models import Task\n"
        "task = Task.objects.create(title='from elsewhere'); task.points = 3; task.save()\n"
        "assert 'tests.testapp.consumers' not in sys.modules\n"
        "print(task.pk)\n"
    )
    pk = _python(program, test_pg)
    assert board.told("tasks") == [("create", {"pk": pk}), ("update", {"pk": pk})]


def test_a_shell(board: Board, test_pg: PgParams):
    board.subscribe("tasks")
    env = _environment(test_pg)
    program = "from tests.testapp.models import Task; print(Task.objects.create(title='shell').pk)"
    command = [sys.executable, "-m", "tests.manage", "shell", "--verbosity", "0", "-c", program]
    pk = int(subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert board.told("tasks") == [("create", {"pk": pk})]


def test_a_thread(board: Board):
    board.subscribe("tasks")
    pks: list[int] = []

    def work() -> None:
        try:
            pks.append(Task.objects.create(title="thread").pk)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert board.told("tasks") == [("create", {"pk": pk}) for pk in pks]
    assert pks


def test_code_inside_a_running_event_loop(board: Board):
    board.subscribe("tasks")

    async def work() -> int:
        task = await Task.objects.acreate(title="in a loop")
        await sync_to_async(connections.close_all)()
        return task.pk

    pk = asyncio.run(work())
    assert board.told("tasks") == [("create", {"pk": pk})]


def _environment(test_pg: PgParams) -> dict[str, str]:
    changes = app_env(dbname=test_pg.dbname)
    return {key: value for key, value in {**os.environ, **changes}.items() if value is not None}


def _python(program: str, test_pg: PgParams) -> int:
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=_environment(test_pg), cwd=ROOT, check=True, capture_output=True, text=True)
    return int(run.stdout)


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_every_isolation_level(board: Board, psql: Callable[..., str], level: str):
    board.subscribe("tasks")
    pk = psql(
        f"BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM testapp_task;"
        "INSERT INTO testapp_task (title, status, points, body) VALUES ('x', 'todo', 1, '') RETURNING id; COMMIT;"
    ).split()[-1]
    assert board.told("tasks") == [("create", {"pk": int(pk)})]
