"""What the test kit says that a rolled-back test would send."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import Error, IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase as DjangoTestCase
from django.test import override_settings
from djangochannelsrestframework.consumers import AsyncAPIConsumer

import djcrf_pg
from djcrf_pg.exceptions import NotMigrated, ObserverError, TriggersMissing
from djcrf_pg.observer import model_observer
from djcrf_pg.testing import CapturedChange, capture_changes
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Document, Label, Note, Project, Remote, Task
from tests.zoo.consumers import ZooConsumer
from tests.zoo.models import Text

pytestmark = pytest.mark.django_db

FULL, TASKS, TAGGED = BoardConsumer.full, BoardConsumer.tasks, BoardConsumer.tagged


def told(changes: list[CapturedChange]) -> list[tuple[str, str]]:
    """Each event's action and title."""
    return [(change.action, change.body["title"]) for change in changes]


def numbers(changes: list[CapturedChange]) -> list[int]:
    """Each event's transaction."""
    return [change.transaction for change in changes]


def test_an_item_has_what_a_handler_would_get():
    task = Task.objects.create(title="old", status="todo")
    with djcrf_pg.context(user=7), capture_changes(BoardConsumer.by_status) as changes:
        Task.objects.filter(pk=task.pk).update(title="new", points=3)
    (change,) = changes
    assert change.action == "update"
    assert change.body == {"id": task.pk, "status": "todo", "said": "update"}
    assert change.observer is BoardConsumer.by_status
    assert change.groups == list(BoardConsumer.by_status.group_names_for_signal(instance=task))
    assert sorted(change.changed) == ["points", "title"]
    assert (change.instance.title, change.old_instance.title) == ("new", "old")
    assert change.context == {"user": 7}
    assert (change.alias, change.transaction) == ("default", 0)
    assert change.committed_at.tzinfo is not None


def test_each_statement_outside_of_a_block_is_a_transaction():
    with capture_changes(FULL) as changes:
        task = Task.objects.create(title="a")
        Task.objects.filter(pk=task.pk).update(points=1)
        task.delete()
    assert [change.action for change in changes] == ["create", "update", "delete"]
    assert numbers(changes) == [0, 1, 2]
    assert changes[2].instance.points == 1


def test_an_outermost_block_is_one_transaction():
    with capture_changes(FULL) as changes:
        with transaction.atomic():
            task = Task.objects.create(title="a")
            with transaction.atomic():
                Task.objects.filter(pk=task.pk).update(points=1)
            Task.objects.create(title="b")
        with transaction.atomic(savepoint=False):
            task.delete()
    assert told(changes) == [("create", "a"), ("create", "b"), ("delete", "a")]
    assert changes[0].instance.points == 1
    assert numbers(changes) == [0, 0, 1]


def test_blocks_without_a_savepoint_are_told_apart():
    @transaction.atomic(savepoint=False)
    def write(points: int) -> None:
        Task.objects.filter(title="a").update(points=points)

    Task.objects.create(title="a")
    with capture_changes(FULL) as changes:
        write(1)  # the same block twice, with no statement between its two ends
        write(2)
        Task.objects.bulk_create([Task(title="b"), Task(title="c")])
        Task.objects.bulk_create([Task(title="d")])
    assert [change.body["points"] for change in changes[:2]] == [1, 2]
    assert numbers(changes) == [0, 1, 2, 2, 3]


def test_what_a_savepoint_rolled_back_is_nothing():
    task = Task.objects.create(title="a")
    with capture_changes(FULL) as changes:
        with pytest.raises(RuntimeError), transaction.atomic():
            task.delete()
            raise RuntimeError
        with transaction.atomic():
            Task.objects.filter(title="a").update(points=1)
            with pytest.raises(IntegrityError), transaction.atomic():
                Task.objects.create(title="b")
                Task.objects.create(title="a")
        with pytest.raises(IntegrityError), transaction.atomic():
            Task.objects.create(title="a")
        point = connection.savepoint()
        Task.objects.create(title="c")
        transaction.savepoint_rollback(point)
        Task.objects.create(title="d")
    assert told(changes) == [("update", "a"), ("create", "d")]


def test_what_came_before_and_what_comes_after_is_not_captured():
    Task.objects.create(title="before")
    with capture_changes(FULL) as changes:
        pass
    Task.objects.create(title="after")
    assert changes == []


def test_one_in_the_other_captures_its_own():
    with capture_changes(FULL) as outer:
        Task.objects.create(title="a")
        with capture_changes(FULL) as inner:
            Task.objects.create(title="b")
            Task.objects.bulk_create([Task(title="c")])
            Task.objects.bulk_create([Task(title="d")])
        Task.objects.create(title="e")
    assert [title for _, title in told(inner)] == ["b", "c", "d"]
    assert [title for _, title in told(outer)] == ["a", "b", "c", "d", "e"]
    assert numbers(outer) == [0, 1, 2, 3, 4]
    assert type(connection.savepoint_ids) is list


def test_one_that_is_entered_again_begins_anew():
    again = capture_changes(FULL)
    with again as first:
        Task.objects.create(title="one")
    with again as second:
        Task.objects.create(title="two")
    assert (told(first), told(second)) == ([("create", "one")], [("create", "two")])


def test_the_stack_of_savepoints_is_django_s_again():
    stack = connection.savepoint_ids
    depth = len(stack)
    with pytest.raises(RuntimeError), transaction.atomic(), capture_changes(FULL):
        raise RuntimeError
    assert connection.savepoint_ids is stack
    assert len(stack) == depth


def test_raw_sql_and_copy_are_captured():
    with capture_changes(FULL) as changes, connection.cursor() as cursor:
        cursor.execute("INSERT INTO testapp_task (title, status, points, body) VALUES ('raw', 'todo', 0, '')")
        with cursor.copy("COPY testapp_task (title, status, points, body) FROM STDIN") as copy:
            copy.write_row(("copied", "todo", 0, ""))
        cursor.execute("UPDATE testapp_task SET points = 1")
    assert told(changes)[:2] == [("create", "raw"), ("create", "copied")]
    assert {(change.action, change.transaction) for change in changes[2:]} == {("update", 2)}


def test_cascades_and_join_tables_are_captured():
    project = Project.objects.create(name="p")
    task = Task.objects.create(title="a", project=project)
    key = task.pk
    with capture_changes(TAGGED) as changes:
        task.labels.add(Label.objects.create(name="l"))
    assert [(change.action, change.changed) for change in changes] == [("update", ["labels"])]
    with capture_changes(TAGGED) as changes:
        project.delete()
    assert [(change.action, change.body["pk"]) for change in changes] == [("delete", key)]


def test_truncate_and_mass_changes_are_a_resync():
    with override_settings(DJCRF_PG={"MASS_CHANGE": 2}), capture_changes(FULL) as changes:
        Task.objects.bulk_create([Task(title=str(n)) for n in range(3)])
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("TRUNCATE testapp_task CASCADE")
    assert [(change.action, change.body["reason"]) for change in changes] == [
        ("resync", "mass_change"),
        ("resync", "truncate"),
    ]
    assert changes[0].body["count"] == 3
    assert (changes[0].instance, changes[0].groups) == (None, [])


def test_all_observers_are_asked_unless_some_are_named():
    with capture_changes() as changes:
        task = Task.objects.create(title="a")
    assert {FULL, TASKS, TAGGED} <= {change.observer for change in changes}
    with capture_changes(FULL, TASKS) as changes:
        task.delete()
    assert [change.observer for change in changes] == [TASKS, FULL]


def test_the_queries_of_the_body_are_what_django_counts(django_assert_num_queries: Any):
    with capture_changes(FULL) as changes, django_assert_num_queries(2):
        Task.objects.create(title="a")
        Task.objects.update(points=1)
    assert len(changes) == 2


def test_a_serializer_that_raises_fails_the_test_and_says_whose_it_is():
    with pytest.raises(RuntimeError, match="raise in serializer") as raised, capture_changes(BoardConsumer.moody):
        Task.objects.create(title="raise in serializer")
    assert "serializer of tests.testapp.consumers.BoardConsumer.moody" in raised.value.__notes__[0]


def test_an_error_of_the_body_comes_through_as_it_is():
    with pytest.raises(ZeroDivisionError), capture_changes(BoardConsumer.moody):
        Task.objects.create(title="raise in serializer")
        1 / 0  # noqa: B018


def test_an_error_of_the_body_comes_through_also_where_the_connection_is_closed():
    with pytest.raises(LookupError), capture_changes():
        connection.close()
        raise LookupError


def test_a_transaction_that_a_failed_statement_has_aborted_is_named():
    with pytest.raises(TransactionManagementError, match="around what is to fail"), capture_changes(), suppress(Error):
        connection.cursor().execute("SELECT 1 / 0")


def test_what_a_block_without_a_savepoint_would_have_rolled_back_is_not_taken_for_sent():
    with (
        pytest.raises(TransactionManagementError, match="around what is to fail"),
        capture_changes(FULL),
        suppress(LookupError),
        transaction.atomic(savepoint=False),
    ):
        Task.objects.create(title="a")
        raise LookupError


@pytest.mark.django_db(transaction=True)
def test_a_test_that_commits_may_close_the_connection():
    with capture_changes(FULL) as changes:
        Task.objects.create(title="one")
        connection.close()
        Task.objects.create(title="two")
        connection.close()
    assert told(changes) == [("create", "one"), ("create", "two")]


def test_the_statements_of_a_pipeline_are_captured():
    with capture_changes(FULL) as changes, connection.connection.pipeline():
        Task.objects.create(title="one")
        Task.objects.create(title="two")
    assert told(changes) == [("create", "one"), ("create", "two")]


def test_an_altered_table_is_read_as_it_is():
    with capture_changes(ZooConsumer.text) as changes:
        with connection.cursor() as cursor:
            # Of a table that other tests do not look at: its rows in the catalog keep what was rolled back.
            cursor.execute("ALTER TABLE zoo_text ALTER COLUMN points TYPE bigint")
        Text.objects.create(pk="a", points=3)
    assert [change.instance.points for change in changes] == [3]


def test_what_is_not_in_postgresql_is_refused():
    with pytest.raises(ObserverError, match="not in PostgreSQL"), capture_changes(BoardConsumer.notes):
        Note.objects.create(text="a")


def test_what_is_no_observer_is_refused():
    with pytest.raises(ObserverError, match="using="), capture_changes("default"):
        pass


def test_a_table_without_triggers_is_refused():
    class Bare(AsyncAPIConsumer):
        @model_observer(Label)
        async def labels(self, message: Any, **kwargs: Any) -> None:
            pass

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE testapp_document DISABLE TRIGGER USER")
    with pytest.raises(TriggersMissing, match="testapp_document"), capture_changes(BoardConsumer.documents):
        Document.objects.create(title="a")


def test_a_table_that_is_not_there_is_refused():
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE testapp_document RENAME TO gone")
    with pytest.raises(NotMigrated, match="testapp_document"), capture_changes(BoardConsumer.documents):
        pass


def test_in_a_coroutine_it_is_async_with():
    async def write() -> list[CapturedChange]:
        async with capture_changes(FULL) as changes:
            await Task.objects.acreate(title="a")
            await Task.objects.aupdate(points=1)
        return changes

    assert told(async_to_sync(write)()) == [("create", "a"), ("update", "a")]

    async def wrong() -> None:
        with capture_changes(FULL):
            pass

    with pytest.raises(Exception, match="async with capture_changes"):
        async_to_sync(wrong)()


@pytest.mark.django_db(databases=["default", "second"])
def test_several_databases_are_looked_at():
    with capture_changes(FULL, BoardConsumer.remotes) as changes:
        Task.objects.create(title="a")
        Remote.objects.create(text="b")
    assert [(change.alias, change.observer) for change in changes] == [
        ("default", FULL),
        ("second", BoardConsumer.remotes),
    ]
    with capture_changes(using="second") as changes:
        Task.objects.create(title="c")
        Remote.objects.create(text="d")
    assert {change.alias for change in changes} == {"second"}


def test_a_database_that_the_test_may_not_use_is_left_out():
    with capture_changes() as changes:
        Task.objects.create(title="a")
    assert {change.alias for change in changes} == {"default"}


@pytest.mark.django_db(transaction=True)
def test_a_test_that_commits_has_its_own_transactions():
    with capture_changes(FULL) as changes:
        Task.objects.create(title="a")
        with transaction.atomic():
            Task.objects.bulk_create([Task(title="b"), Task(title="c", points=1)])
            Task.objects.filter(title="b").delete()
        with pytest.raises(RuntimeError), transaction.atomic():
            Task.objects.create(title="d")
            raise RuntimeError
    assert told(changes) == [("create", "a"), ("create", "c")]
    assert len(set(numbers(changes))) == 2


class TestInDjangosTestCase(DjangoTestCase):
    """The class that projects use."""

    task: Task

    @classmethod
    def setUpTestData(cls) -> None:
        cls.task = Task.objects.create(title="of the class")

    def test_what_the_class_made_is_there_and_not_captured(self):
        with capture_changes(FULL) as changes:
            self.task.delete()
        assert told(changes) == [("delete", "of the class")]

    def test_callbacks_at_commit_write_on_their_own(self):
        with capture_changes(FULL) as changes, self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            Task.objects.create(title="a")
            transaction.on_commit(lambda: Task.objects.update(points=1))
        assert [change.action for change in changes] == ["create", "update", "update"]
        assert numbers(changes) == [0, 1, 1]


def test_values_are_as_json_has_them():
    class Serializing(AsyncAPIConsumer):
        @model_observer(Task)
        async def tasks(self, message: Any, **kwargs: Any) -> None:
            pass

        @tasks.serializer
        def tasks(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
            return {"price": Decimal("1.50")}

    with capture_changes(Serializing.tasks) as changes:
        Task.objects.create(title="a")
    assert changes[0].body == {"price": "1.50"}
