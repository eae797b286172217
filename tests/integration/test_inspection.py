"""The change log as people read it: pages, filters, a row's history; and what nobody may see."""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import InternalError, connection, transaction
from django.utils import timezone

import djcrf_pg
from djcrf_pg.exceptions import InspectionError
from djcrf_pg.inspection.entries import Entry, Key
from djcrf_pg.inspection.log import RIGHTS, START, Filters, Log, reading
from tests.integration.log import observe, sql
from tests.testapp.models import Awkward, Document, Project, Task, Unheard

EVERYTHING = Filters()


@pytest.fixture
def empty(transactional_db: None) -> Log:
    """The log of the default database, with nothing in it, as each write is a transaction of its own."""
    sql("DELETE FROM djcrf_pg_change")
    return Log("default")


def pages(log: Log, filters: Filters = EVERYTHING, **options: Any) -> Iterator[list[Entry]]:
    """All pages from the newest change on."""
    before: Key | None = None
    while True:
        page = log.page(filters, before=before, **options)
        yield page.entries
        before = page.more
        if before is None:
            return


def test_a_change_has_the_names_of_model_and_fields_and_what_differs(empty: Log) -> None:
    with djcrf_pg.context(user="ada"):
        task = Task.objects.create(title="buy milk", points=3)
    pk = str(task.pk)
    Task.objects.filter(pk=pk).update(status="done", points=5)
    task.delete()
    deleted, updated, created = empty.page().entries
    assert (created.action, created.model, created.pk) == ("create", "testapp.Task", pk)
    assert created.context == {"user": "ada"}
    assert (created.old, created.new["title"], created.new["project"]) == ({}, "buy milk", None)
    assert (updated.action, updated.old, updated.new) == (
        "update",
        {"status": "todo", "points": 3},
        {"status": "done", "points": 5},
    )
    assert updated.changed == ["status", "points"]
    assert (deleted.action, deleted.old["status"], deleted.new, deleted.context) == ("delete", "done", {}, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        deleted.pk = "1"  # type: ignore[misc]


def test_fields_are_named_as_the_model_names_them(empty: Log) -> None:
    Awkward.objects.create(strange="x")
    (entry,) = empty.page().entries
    assert entry.new["strange"] == "x"


def test_what_is_no_row_says_so(empty: Log) -> None:
    task = Task.objects.create(title="a")
    djcrf_pg.touch(task)
    sql("TRUNCATE testapp_task CASCADE")
    entries = [entry for entry in empty.page().entries if entry.model == "testapp.Task"]
    assert [(entry.action, entry.pk) for entry in entries] == [
        ("truncate", None),
        ("touch", str(task.pk)),
        ("create", str(task.pk)),
    ]


def test_pages_go_by_keys_and_meet_each_change_once_in_both_directions(empty: Log) -> None:
    for number in range(7):
        Task.objects.create(title=str(number))
    found = list(pages(empty, limit=3))
    assert [len(page) for page in found] == [3, 3, 1]
    downwards = [entry.new["title"] for page in found for entry in page]
    assert downwards == ["6", "5", "4", "3", "2", "1", "0"]
    first = empty.page(after=START, limit=4)
    assert [entry.new["title"] for entry in first.entries] == ["0", "1", "2", "3"]
    second = empty.page(after=first.more, limit=4)
    assert [entry.new["title"] for entry in second.entries] == ["4", "5", "6"]
    assert second.more is None
    key = first.entries[0].key
    assert Key.parse(str(key)) == key
    assert empty.page(before=key).entries == []


def test_a_page_looks_at_so_many_changes_and_says_where_it_goes_on(empty: Log) -> None:
    wanted = Project.objects.create(name="wanted")
    for number in range(6):
        Task.objects.create(title=str(number))
    page = empty.page(Filters(model=Project), scan=4)
    assert page.entries == []
    assert page.more is not None
    page = empty.page(Filters(model=Project), before=page.more, scan=4)
    assert [entry.pk for entry in page.entries] == [str(wanted.pk)]
    assert page.more is None


def test_filters_by_model_row_transaction_context_and_time(empty: Log) -> None:
    with djcrf_pg.context(user="Ada"), transaction.atomic():
        tasks = [Task.objects.create(title=f"task {number}") for number in range(12)]
        project = Project.objects.create(name="p")
    with djcrf_pg.context(user="bob"):
        Task.objects.filter(pk=tasks[1].pk).update(title="renamed")

    def keys(**given: Any) -> list[str | None]:
        return [entry.pk for entry in empty.page(Filters(**given)).entries]

    assert keys(model=Project) == [str(project.pk)]
    assert keys(model=Task, pk=str(tasks[1].pk)) == [str(tasks[1].pk)] * 2
    assert keys(model=Unheard) == []
    assert len(keys(context="ada")) == 13
    newest = empty.page().entries[0]
    assert keys(transaction=newest.xid) == [str(tasks[1].pk)]
    assert keys(since=timezone.now() + timedelta(minutes=1)) == []
    assert len(keys(until=newest.at)) == 13
    assert keys(since=newest.at) == [str(tasks[1].pk)]


def test_a_key_that_begins_like_another_is_another(empty: Log) -> None:
    Task.objects.bulk_create(Task(pk=pk, title=str(pk), points=5) for pk in (5, 50, 55))
    assert [entry.pk for entry in empty.history(Task, "5")] == ["5"]


def test_history_finds_rows_by_whatever_key_and_through_a_change_of_it(empty: Log) -> None:
    document = Document.objects.create(title="d")
    document.title = "e"
    document.save()
    for text in (str(document.pk), str(document.pk).upper()):
        assert [entry.action for entry in empty.history(Document, text)] == ["create", "update"]
    task = Task.objects.create(title="t")
    moved = task.pk + 1000
    sql("UPDATE testapp_task SET id = %s WHERE id = %s", moved, task.pk)
    (entry,) = empty.history(Task, str(moved))
    assert (entry.former_pk, entry.pk) == (str(task.pk), str(moved))
    assert [each.pk for each in empty.history(Task, str(task.pk))] == [str(task.pk), str(moved)]


def test_history_reads_the_log_in_parts(empty: Log) -> None:
    task = Task.objects.create(title="t")
    for number in range(5):
        Task.objects.create(title=str(number))
        Task.objects.filter(pk=task.pk).update(points=number + 1)
    found = list(empty.history(Task, str(task.pk), scan=2))
    assert [entry.new["points"] for entry in found] == [0, 1, 2, 3, 4, 5]


def test_a_key_that_is_none_is_refused_by_name(empty: Log) -> None:
    with pytest.raises(InspectionError, match=r"'milk' is no key of testapp\.Task, whose id is bigint: .*\"milk\""):
        empty.page(Filters(model=Task, pk="milk"))


@pytest.fixture
def partitioned(transactional_db: None) -> Iterator[str]:
    """A partitioned table with triggers, that no model has."""
    sql("CREATE TABLE parted (a int, b text, secret text, PRIMARY KEY (a, b)) PARTITION BY LIST (a)")
    sql("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)")
    observe("parted", ("secret",))
    yield "parted"
    sql("DROP TABLE IF EXISTS parted")


def test_partitions_are_named_by_their_table_and_composite_keys_with_commas(empty: Log, partitioned: str) -> None:
    sql("INSERT INTO parted_1 VALUES (1, 'x', 's')")
    (entry,) = empty.page().entries
    assert (entry.table, entry.part, entry.model, entry.pk) == ("public.parted", "public.parted_1", None, "1,x")
    assert entry.new == {"a": 1, "b": "x"}


def test_a_table_that_is_gone_shows_no_values(empty: Log, partitioned: str) -> None:
    sql("INSERT INTO parted VALUES (1, 'x', 's')")
    sql("DROP TABLE parted")
    (entry,) = empty.page().entries
    assert entry.table.startswith("a table that is gone (oid ")
    assert (entry.pk, entry.old, entry.new) == (None, {}, {})


def test_a_table_that_was_renamed_is_known_by_its_new_name(empty: Log, partitioned: str) -> None:
    sql("INSERT INTO parted VALUES (1, 'x', 's')")
    sql("ALTER TABLE parted RENAME TO divided")
    (entry,) = Log("default").page().entries
    assert (entry.table, entry.pk) == ("public.divided", "1,x")
    sql("DROP TABLE divided")


def test_what_was_excluded_after_it_was_logged_is_not_shown(empty: Log, settings: Any) -> None:
    Task.objects.create(title="a secret", body="another")
    settings.DJCRF_PG = {"EXCLUDE": {"testapp.Task": ["title"]}}
    (entry,) = Log("default").page().entries
    assert "title" not in entry.new
    assert entry.new["body"] == "another"
    Task.objects.update(title="not to be seen")
    entry = Log("default").page().entries[0]
    assert (entry.action, entry.changed) == ("update", [])


def test_the_password_of_the_user_model_is_not_shown_whoever_logged_it(empty: Log) -> None:
    observe("auth_user")
    try:
        get_user_model().objects.create_user("ada", password="secret")
        (entry,) = empty.page().entries
        assert entry.new["username"] == "ada"
        assert "password" not in entry.new
    finally:
        for event in ("insert", "update", "delete", "truncate"):
            sql(f"DROP TRIGGER djcrf_pg_{event} ON auth_user")


def test_it_reads_and_cannot_write_also_inside_of_a_transaction(transactional_db: None) -> None:
    with pytest.raises(InternalError, match="read-only transaction"), reading("default") as cursor:
        cursor.execute("DELETE FROM djcrf_pg_change")
    with transaction.atomic():
        Log("default").page(Filters(model=Task, pk="1"))
        Task.objects.create(title="written after it")
        assert sql("SHOW timezone") == [(connection.timezone_name,)]


def test_a_role_without_a_right_is_told_the_grant_and_with_it_may_look(empty: Log) -> None:
    task = Task.objects.create(title="t")
    sql("CREATE ROLE eyes")
    try:
        with transaction.atomic():
            sql("SET LOCAL ROLE eyes")
            with pytest.raises(InspectionError, match=r"GRANT SELECT ON djcrf_pg_change, .* TO eyes;"):
                empty.page()
        sql(RIGHTS.format(role="eyes"))
        with transaction.atomic():
            sql("SET LOCAL ROLE eyes")
            log = Log("default")
            assert [entry.action for entry in log.history(Task, str(task.pk))] == ["create"]
            assert log.reach().oldest == log.newest()
            assert log.leader().name is None
    finally:
        sql("DROP OWNED BY eyes")
        sql("DROP ROLE eyes")


def test_it_knows_how_far_back_the_log_goes(empty: Log) -> None:
    assert empty.reach().oldest is None
    Task.objects.create(title="t")
    (entry,) = empty.page().entries
    reach = empty.reach()
    assert (reach.oldest, reach.at) == (entry.key, entry.at)
    assert empty.find(entry.id)[0].xid == entry.xid
    assert empty.find(entry.id, entry.xid + 1) == []
    assert empty.first_since(entry.at) == entry.xid
