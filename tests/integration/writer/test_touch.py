"""``djcrf_pg.touch`` and its SQL functions: what is in the log, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, models, transaction
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils.functional import SimpleLazyObject

import djcrf_pg
from djcrf_pg.exceptions import TouchError
from tests.integration.log import observe
from tests.integration.writer.conftest import Log
from tests.testapp.models import Document, Note, Project, Task, Unheard
from tests.zoo.models import Car, Elsewhere, FastCar, Measure, Seat, Text, Unique

autocommit = pytest.mark.django_db(transaction=True)


def create(title: str = "task", **values: Any) -> Task:
    return Task.objects.create(title=title, **values)


def run(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def keys(log: Log) -> list[dict[str, Any]]:
    """The keys of the rows that were touched since the last call; all else must be as it is for a touch."""
    changes = log.take()
    assert all((change.op, change.depth, change.old) == ("U", 0, change.new) for change in changes)
    return [change.new for change in changes]


# -- what is logged ------------------------------------------------------------------------------------------


@autocommit
def test_the_log_has_the_key_alone_in_the_transaction_of_the_caller(log: Log):
    task = create()
    log.take()
    with transaction.atomic():
        djcrf_pg.touch(task)
        task.save()
    touch, update = log.take()
    assert (touch.op, touch.depth, touch.old, touch.new) == ("U", 0, {"id": task.pk}, {"id": task.pk})
    assert (touch.xid, touch.relation, touch.context) == (update.xid, update.relation, None)
    assert update.depth == 1


@autocommit
def test_an_instance_or_a_queryset_is_two_statements(log: Log):
    tasks = Task.objects.bulk_create([Task(title=f"t{number}") for number in range(2_500)])
    log.take()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        djcrf_pg.touch(tasks[7])
        djcrf_pg.touch(Task.objects.order_by("-pk"))
    assert len(queries) == 4
    assert keys(log) == [{"id": tasks[7].pk}, *({"id": task.pk} for task in reversed(tasks))]


def test_each_kind_of_key_is_as_the_triggers_write_it(log: Log):
    instances = [
        Text.objects.create(code="ä'\"b%s"),
        Unique.objects.create(),
        Seat.objects.create(hall="A", number=1),
        Measure.objects.create(id=1, year=2020, kind="a"),
        Elsewhere.objects.create(),
        Document.objects.create(title="d"),
    ]
    written = {change.relation: change.new for change in log.take()}
    for instance in instances:
        djcrf_pg.touch(instance)
        djcrf_pg.touch(type(instance)._default_manager.all())
        first, second = log.take()
        columns = [field.column for field in instance._meta.pk_fields]
        assert first.new == second.new == {column: written[first.relation][column] for column in columns}


def test_a_row_that_is_not_there_is_none(log: Log):
    djcrf_pg.touch(Task(pk=1_000_000))
    djcrf_pg.touch(Task.objects.filter(pk=1_000_000))
    djcrf_pg.touch(Task.objects.none())
    assert keys(log) == []


def test_parents_are_touched_and_a_proxy_is_its_model(log: Log):
    car = Car.objects.create()
    log.take()
    for rows in (car, FastCar.objects.get(), FastCar.objects.all()):
        djcrf_pg.touch(rows)
        assert keys(log) == [{"vehicle_ptr_id": car.pk}, {"id": car.pk}]


@isolate_apps("tests.testapp")
def test_parents_that_nobody_observes_are_left_out(log: Log):
    class Parent(models.Model):  # noqa: DJ008
        class Meta:
            app_label = "testapp"

    class Child(Parent):  # noqa: DJ008
        class Meta:
            app_label = "testapp"

    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Parent)
        editor.create_model(Child)
    child = Child.objects.create()
    with pytest.raises(TouchError, match=r"testapp_child .* has no triggers"):
        djcrf_pg.touch(child)
    observe("testapp_parent")
    djcrf_pg.touch(child)
    assert keys(log) == [{"id": child.pk}]


def test_a_lazy_object_is_what_it_stands_for(log: Log):
    task = create()
    log.take()
    djcrf_pg.touch(SimpleLazyObject(lambda: task))  # type: ignore[arg-type]
    assert keys(log) == [{"id": task.pk}]


def test_querysets_of_every_kind(log: Log):
    project = Project.objects.create(name="p")
    a, b, c = Task.objects.bulk_create([Task(title=title, points=ord(title), project=project) for title in "abc"])
    log.take()
    every = Task.objects.all()
    for rows, expected in [
        (every.order_by("-title")[1:], [b, a]),
        (every.filter(project__name="p", title__contains="%").none(), []),
        (every.filter(project__tasks__points__gt=0).order_by("title"), [a, b, c]),
        (every.values("title").order_by("-title"), [c, b, a]),
        (every.only("title").select_related("project").order_by("title"), [a, b, c]),
        (every.annotate(n=models.Count("project__tasks")).filter(n=3).order_by("title"), [a, b, c]),
        (every.extra(where=["title LIKE '%%b%%'"]), [b]),
        (every.filter(title="a").union(every.filter(title="b")).order_by("-title"), [b, a]),
        (every.distinct().order_by("-points", "title"), [c, b, a]),
        (project.tasks.select_for_update().order_by("title"), [a, b, c]),
    ]:
        djcrf_pg.touch(rows)
        assert keys(log) == [{"id": task.pk} for task in expected], str(rows.query)


def test_the_context_goes_with_it(log: Log):
    task = create()
    log.take()
    with djcrf_pg.context(request=1, later=lambda: 2):
        djcrf_pg.touch(task)
        djcrf_pg.touch(Task.objects.all())
        run("SELECT djcrf_pg_touch('testapp_task', %s)", task.pk)
    assert log.contexts() == [{"request": 1, "later": 2}] * 3


def test_nothing_is_logged_where_an_update_would_not_be(log: Log):
    task = create()
    log.take()
    with djcrf_pg.suspend(Task):
        djcrf_pg.touch(task)
    with djcrf_pg.suspend(Project):
        djcrf_pg.touch(task)
    assert len(keys(log)) == 1
    run("SET CONSTRAINTS ALL IMMEDIATE")
    run("ALTER TABLE testapp_task DISABLE TRIGGER djcrf_pg_update")
    djcrf_pg.touch(task)
    run("ALTER TABLE testapp_task ENABLE REPLICA TRIGGER djcrf_pg_update")
    djcrf_pg.touch(task)
    run("ALTER TABLE testapp_task ENABLE TRIGGER djcrf_pg_update")
    run("SET LOCAL session_replication_role = replica")
    djcrf_pg.touch(task)
    assert keys(log) == []
    run("ALTER TABLE testapp_task ENABLE ALWAYS TRIGGER djcrf_pg_update")
    djcrf_pg.touch(task)
    assert len(keys(log)) == 1


@autocommit
def test_the_alias_is_the_instance_s_the_queryset_s_or_the_given_one(log: Log, other: Callable[..., Any]):
    task = create()
    log.take()
    there = connections["second"]
    made = connections["second"] = other(server_side_binding=True)
    elsewhere = Task.objects.using("second").get()
    try:
        for rows, options in [
            (elsewhere, {"using": "second"}),
            (Task.objects.using("second"), {}),
            (Task.objects.using("default"), {"using": "second"}),
            (Seat.objects.using("second"), {}),
        ]:
            with CaptureQueriesContext(made) as queries, CaptureQueriesContext(connection) as none:
                djcrf_pg.touch(rows, **options)
            assert (len(queries), len(none)) == (2, 0)
    finally:
        made.close()
        connections["second"] = there
    assert keys(log) == [{"id": task.pk}] * 3


# -- in SQL --------------------------------------------------------------------------------------------------


def test_sql_takes_keys_one_after_the_other_or_as_an_array(log: Log):
    run("SELECT djcrf_pg_touch('testapp_task', 1, 2)")
    run("SELECT djcrf_pg_touch('testapp_task', VARIADIC ARRAY[3, 4]::bigint[])")
    run("SELECT djcrf_pg_touch('testapp_task', id) FROM generate_series(5, 6) AS id")
    run("SELECT djcrf_pg_touch('testapp_task', NULL::int), djcrf_pg_touch('testapp_task', VARIADIC '{}'::int[])")
    run("SELECT djcrf_pg_touch('testapp_task', VARIADIC NULL::int[])")
    assert keys(log) == [{"id": number} for number in range(1, 7)]
    run("SELECT djcrf_pg_touch('testapp_document', 'ABCDEF00-0000-4000-8000-000000000001'::text)")
    run("""SELECT djcrf_pg_touch('zoo_seat', '{"number": "1", "hall": "A"}'::jsonb, '{"hall": "B", "number": 2}')""")
    run("""SELECT djcrf_pg_touch('zoo_seat', '{"number": null, "hall": "A"}'::json)""")
    assert keys(log) == [
        {"id": "abcdef00-0000-4000-8000-000000000001"},
        {"hall": "A", "number": 1},
        {"hall": "B", "number": 2},
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'zoo_seat', 1", "zoo_seat has no primary key of one column"),
        ("'testapp_unheard', 1", "testapp_unheard has no triggers of djcrf_pg"),
        ("'pg_class', 1", "pg_class has no"),
        (
            "'testapp_task', '{\"title\": \"unique\"}'::jsonb",
            r"rows of public\.testapp_task cannot be named by \(title\)",
        ),
        ('\'testapp_task\', \'{"id": 1, "title": "false"}\'::jsonb', r"cannot be named by \(id, title\)"),
        ("'testapp_task', '{\"id\": 1, \"nothing\": 1}'::jsonb", "cannot be named by"),
        ("'testapp_task', '{}'::jsonb", "cannot be named by"),
        ("'testapp_task', 'x'::text", "invalid input syntax for type bigint"),
    ],
)
def test_sql_refuses_what_names_no_row(call: str, message: str, log: Log):
    with pytest.raises(DatabaseError, match=message), transaction.atomic():
        run(f"SELECT djcrf_pg_touch({call.replace('%', '%%')})")
    assert keys(log) == []


def test_nothing_of_somebody_else_s_type_is_run(log: Log):
    """A check or a cast would run with the rights of the functions' owner."""
    run("CREATE FUNCTION evil(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$")
    run("CREATE TYPE mood AS ENUM ('sad')")
    run("CREATE FUNCTION evil_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$")
    run("CREATE CAST (mood AS json) WITH FUNCTION evil_json(mood)")
    run("CREATE DOMAIN inner_code AS varchar(5)")
    run("CREATE DOMAIN code AS inner_code")
    run("CREATE TABLE moody (code code, mood mood, PRIMARY KEY (code, mood))")
    run("ALTER DOMAIN code ADD CHECK (evil(VALUE)) NOT VALID")
    observe("moody")
    run("""SELECT djcrf_pg_touch('moody', '{"code": "abc", "mood": "sad"}'::jsonb)""")
    assert keys(log) == [{"code": "abc", "mood": "sad"}]


# -- what is refused -----------------------------------------------------------------------------------------


def test_what_is_no_row_is_refused():
    for wrong in (Task, Task.objects, [Task()], "testapp.Task", None):
        with pytest.raises(TypeError, match="takes a model instance or a queryset, not"):
            djcrf_pg.touch(wrong)
    for unsaved in (Task(title="x"), Seat(hall="A")):
        with pytest.raises(ValueError, match="has no primary key"):
            djcrf_pg.touch(unsaved)


@pytest.mark.django_db(databases=["default", "lite"])
def test_another_vendor_and_a_table_without_triggers_are_refused_and_the_transaction_goes_on(log: Log):
    with pytest.raises(TouchError, match=r"testapp\.Note is in database 'lite', which is SQLite"):
        djcrf_pg.touch(Note.objects.create(text="x"))
    unheard = Unheard.objects.create(name="x")
    for rows in (unheard, Unheard.objects.all()):
        with pytest.raises(TouchError, match=r"testapp_unheard .*'default'.* has no triggers of djcrf_pg.*manage.py"):
            djcrf_pg.touch(rows)
    djcrf_pg.touch(create())
    assert log.ops() == "IU"


@autocommit
def test_before_the_migration_it_says_to_migrate_and_the_rest_works(log: Log):
    task = create()
    try:
        for target in ("0001", "zero"):
            call_command("migrate", "djcrf_pg", target, verbosity=0)
            with transaction.atomic():
                with pytest.raises(TouchError, match=r"'default'.* run `manage"):
                    djcrf_pg.touch(task)
                task.save()
    finally:
        call_command("migrate", verbosity=0)


async def test_a_coroutine_is_told_to_use_a_thread():
    with pytest.raises(SynchronousOnlyOperation):
        djcrf_pg.touch(Task(pk=1))
