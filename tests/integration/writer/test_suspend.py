"""``djcrf_pg.suspend``: what is not captured, and for how long."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction
from django.test.utils import isolate_apps

import djcrf_pg
from djcrf_pg.capture import plan
from djcrf_pg.exceptions import ConfigurationError
from tests.integration.writer.conftest import Log
from tests.testapp.models import Awkward, Label, Note, Project, Task

autocommit = pytest.mark.django_db(transaction=True)


def create(title: str = "task", **values: Any) -> Task:
    return Task.objects.create(title=title, **values)


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def setting() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('djcrf_pg.suspend', true)")
        return cursor.fetchone()[0] or ""


@autocommit
def test_nothing_of_the_models_is_captured_in_its_block_only(log: Log):
    task = create("before")
    with djcrf_pg.suspend(Task):
        create("inserted")
        Task.objects.update(points=1)
        Task.objects.filter(title="inserted").delete()
        Project.objects.create(name="another table")
        task.labels.add(Label.objects.create(name="another table"))
        run("SET CONSTRAINTS ALL IMMEDIATE")
        run("TRUNCATE testapp_task CASCADE")
    create("after")
    assert [change.op for change in log.take()] == ["I", "I", "I", "I", "T", "I"]  # T: the join table's


@autocommit
def test_join_tables_are_named_by_their_through(log: Log):
    task, label = create(), Label.objects.create(name="label")
    log.take()
    with djcrf_pg.suspend(Task.labels.through):
        task.labels.add(label)
        task.save()
    assert log.ops() == "U"


@autocommit
def test_no_model_is_every_table(log: Log):
    with djcrf_pg.suspend():
        create()
        Project.objects.create(name="p")
        with djcrf_pg.suspend(Task):
            create("2")
        Awkward.objects.create()
    assert log.ops() == ""
    create("3")
    assert log.ops() == "I"


@autocommit
def test_blocks_nest_and_the_inner_one_adds(log: Log):
    with djcrf_pg.suspend(Task):
        with djcrf_pg.suspend(Project):
            create("1")
            Project.objects.create(name="1")
            assert log.ops() == ""
        create("2")
        assert log.ops() == ""
        Project.objects.create(name="2")
        assert log.ops() == "I"
    create("3")
    assert log.ops() == "I"


def test_rollbacks_inside_and_around_change_nothing(log: Log):
    around = connection.savepoint()
    with djcrf_pg.suspend(Task):
        inside = connection.savepoint()
        with djcrf_pg.suspend(Project):
            create("1")
        transaction.savepoint_rollback(inside)
        create("2")
        with pytest.raises(IntegrityError), transaction.atomic():
            create("2")
        create("3")
    assert log.ops() == ""
    create("4")
    assert log.ops() == "I"
    transaction.savepoint_rollback(around)
    assert setting() == ""
    create("5")
    assert log.ops() == "I"
    with djcrf_pg.suspend(Task):
        create("6")
        around = connection.savepoint()
    with suppress(DatabaseError), transaction.atomic():
        transaction.savepoint_rollback(around)  # went away with the block
    assert setting() == ""
    create("7")
    assert log.ops() == "I"


@autocommit
@pytest.mark.parametrize("in_transaction", [True, False])
def test_errors_end_it(log: Log, in_transaction: bool):
    def fail() -> None:
        with djcrf_pg.suspend(Task), djcrf_pg.suspend(Project):
            create("rolled back")
            raise ZeroDivisionError

    def fail_in_the_database() -> None:
        with djcrf_pg.suspend(Task):
            run("DELETE FROM nowhere")

    def check() -> None:
        for function, error in ((fail, ZeroDivisionError), (fail_in_the_database, DatabaseError)):
            with pytest.raises(error):
                function()
            assert setting() == ""
            create(function.__name__)
            Project.objects.create(name=function.__name__)

    if in_transaction:
        with transaction.atomic():
            check()
    else:
        check()
    assert log.ops() == "IIII"
    assert Task.objects.count() == 2


@autocommit
def test_an_error_that_is_swallowed_in_the_block_ends_as_it_does_in_any_atomic(log: Log):
    def swallow() -> None:
        create("1")
        with suppress(DatabaseError):
            run("DELETE FROM nowhere")

    with djcrf_pg.suspend(Task):  # PostgreSQL answers COMMIT with ROLLBACK
        swallow()
    assert (Task.objects.count(), setting()) == (0, "")
    with transaction.atomic():
        create("2")
        with pytest.raises(DatabaseError), djcrf_pg.suspend(Task):
            swallow()
        assert setting() == ""
        create("3")
        with djcrf_pg.suspend(Task):
            create("4")
            transaction.set_rollback(True)
        create("5")
    assert sorted(Task.objects.values_list("title", flat=True)) == ["2", "3", "5"]
    assert log.ops() == "III"


@autocommit
def test_a_commit_that_fails_ends_it(log: Log):
    with pytest.raises(IntegrityError), djcrf_pg.suspend(Task):
        create(project_id=1_000_000)
    assert setting() == ""
    create()
    assert log.ops() == "I"


@autocommit
def test_hooks_run_after_it_and_durable_blocks_may_be_around_it(log: Log):
    with djcrf_pg.suspend(Task):
        transaction.on_commit(lambda: create("hook"))
    assert log.ops() == "I"
    with transaction.atomic(durable=True), djcrf_pg.suspend(Task):
        create("durable")
    assert log.ops() == ""
    with pytest.raises(RuntimeError, match="durable"), djcrf_pg.suspend(Task), transaction.atomic(durable=True):
        pass


@autocommit
def test_other_connections_are_captured(log: Log):
    def write() -> None:
        create("elsewhere")
        connection.close()

    with djcrf_pg.suspend(Task):
        create("here")
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(30)
    assert [change.new["title"] for change in log.take()] == ["elsewhere"]


@autocommit
def test_a_function_is_decorated(log: Log):
    @djcrf_pg.suspend(Task)
    def work(again: bool = True) -> str:
        """Work."""
        create(str(again))
        return work(False) if again else "done"

    assert (work(), work.__doc__, log.ops()) == ("done", "Work.", "")
    create("after")
    assert log.ops() == "I"


def test_what_runs_later_is_not_decorated():
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match=r"cannot decorate .*Use `with"):
            djcrf_pg.suspend(Task)(function)


def test_only_models_that_have_a_table_are_taken():
    class Abstract(models.Model):
        class Meta:
            abstract = True
            app_label = "testapp"

    for wrong in (Task.labels, "testapp.Task", Task(), Abstract, models.Model):
        with pytest.raises(TypeError, match="models that have a table"):
            djcrf_pg.suspend(wrong)


@pytest.mark.django_db(databases=["default", "lite"])
def test_another_vendor_is_refused():
    with pytest.raises(ConfigurationError, match="'lite' is SQLite"), djcrf_pg.suspend(Task, Note):
        pass
    assert setting() == ""
    assert connection.savepoint_ids == []


@autocommit
def test_the_alias_is_the_routers_or_the_given_one(log: Log, other: Callable[..., Any]):
    there = connections["second"]
    made = connections["second"] = other()
    try:
        with djcrf_pg.suspend(Task, using="second"):
            create("1")
            Task.objects.using("second").create(title="2")
        with djcrf_pg.suspend(using="second"):
            Task.objects.using("second").create(title="3")
            create("4")
    finally:
        made.close()
        connections["second"] = there
    assert [change.new["title"] for change in log.take()] == ["1", "4"]


def test_a_table_keeps_suspended_when_it_is_renamed(log: Log):
    with djcrf_pg.suspend(Awkward):
        Awkward.objects.create()
        run("ALTER TABLE testapp_awkward RENAME TO renamed")
        run("UPDATE renamed SET n = 2")
        run("ALTER TABLE renamed RENAME TO testapp_awkward")
    run("UPDATE testapp_awkward SET n = 3")
    assert log.ops() == "U"


def _capture(*names: str) -> None:
    """Install our triggers on tables."""
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute("SELECT to_regclass(%s)::oid", [name])
            (step,) = plan.steps([plan.Table(cursor.fetchone()[0], name)], {}, "public.", plan.Project("tests", ()))
            for statement in step.statements:
                cursor.execute(statement)


@isolate_apps("tests.testapp")
def test_partitions_are_suspended_with_their_root(log: Log):
    class Part(models.Model):  # noqa: DJ008
        class Meta:
            app_label = "testapp"
            db_table = '"public"."Odd Part"'

    run('CREATE TABLE "Odd Part" (id int) PARTITION BY RANGE (id)')
    run('CREATE TABLE low PARTITION OF "Odd Part" FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id)')
    run("CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5)")
    names = ['"Odd Part"', "low", "lowest"]
    _capture(*names)
    inserts = [f"INSERT INTO {name} VALUES (1)" for name in names]
    for insert in inserts:
        run(insert)
    assert log.ops() == "III"
    with djcrf_pg.suspend(Part):
        for insert in inserts:
            run(insert)
    assert log.ops() == ""


@isolate_apps("tests.testapp")
def test_tables_of_parents_are_suspended_and_proxies_are_their_model(log: Log):
    class Parent(models.Model):  # noqa: DJ008
        n = models.IntegerField(default=1)

        class Meta:
            app_label = "testapp"

    class Child(Parent):  # noqa: DJ008
        m = models.IntegerField(default=1)

        class Meta:
            app_label = "testapp"

    class Proxy(Child):  # noqa: DJ008
        class Meta:
            app_label = "testapp"
            proxy = True

    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Parent)
        editor.create_model(Child)
    _capture("testapp_parent", "testapp_child")
    with djcrf_pg.suspend(Parent):
        Child.objects.create()
    assert log.ops() == "I"
    for model in (Child, Proxy):
        with djcrf_pg.suspend(model):
            Child.objects.create()
        assert log.ops() == ""


@isolate_apps("tests.testapp")
def test_a_model_whose_table_is_not_there_is_no_obstacle(log: Log):
    class Absent(models.Model):  # noqa: DJ008
        class Meta:
            app_label = "testapp"

    with djcrf_pg.suspend(Absent):
        create("1")
        with djcrf_pg.suspend(Absent, Task):
            create("2")
    assert log.ops() == "I"


GARBAGE = [",", "'", '"', "{1,2", "NULL", "*x", " *", "-1", "9" * 30, "💣\\", "1,,2", "a" * 1_000_000]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda text: text[:10])
def test_garbage_in_the_setting_fails_no_write_and_hides_nothing(log: Log, garbage: str):
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('djcrf_pg.suspend', %s, true)", [garbage])
    task = create()
    task.save()
    task.delete()
    run("SET CONSTRAINTS ALL IMMEDIATE")
    run("TRUNCATE testapp_awkward")
    assert log.ops() == "IUDT"
    with djcrf_pg.suspend(Task):
        create()
    assert log.ops() == ""
    assert setting() == garbage


@autocommit
def test_it_works_with_a_context_and_with_other_ways_of_binding(log: Log, other: Callable[..., Any]):
    there = connections["second"]
    made = connections["second"] = other(server_side_binding=True)
    try:
        with djcrf_pg.context(request=1), djcrf_pg.suspend(Task, using="second"):
            Task.objects.using("second").create(title="1")
            Project.objects.using("second").create(name="2")
    finally:
        made.close()
        connections["second"] = there
    assert log.contexts() == [{"request": 1}]
