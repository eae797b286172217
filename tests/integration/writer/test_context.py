"""``djcrf_pg.context``: what the change log says of who wrote."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.models import Count, F, Q
from django.test.utils import CaptureQueriesContext
from psycopg import sql

import djcrf_pg
from djcrf_pg.writer import cursors
from tests.integration.writer.conftest import Log
from tests.testapp.models import Label, Project, Task

ONE = {"request": 1}
INSERT = "INSERT INTO testapp_task (title, status, points, body) VALUES (%s, '', 0, '')"

autocommit = pytest.mark.django_db(transaction=True)


def create(title: str = "task", **values: Any) -> Task:
    return Task.objects.create(title=title, **values)


def setting() -> str | None:
    """The setting as a raw cursor of psycopg's finds it, which is what COPY and others run with."""
    found = psycopg.ClientCursor(connection.connection).execute("SELECT current_setting('djcrf_pg.context', true)")
    return found.fetchone()[0]


@contextmanager
def function(name: str, body: str, kind: str = "FUNCTION", returns: str = "RETURNS void") -> Iterator[None]:
    """A function or procedure of the database's, for the length of a block."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE {kind} {name}() {returns} LANGUAGE plpgsql AS $$ BEGIN {body}; END $$")
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP {kind} {name}()")


# -- which statements ----------------------------------------------------------------------------------------


def write_everything() -> list[Any]:
    """Write in all ways there are, with the results that the callers see."""
    task = create("a")
    seen: list[Any] = [task.title]
    seen.append([made.title for made in Task.objects.bulk_create([Task(title="b"), Task(title="c")])])
    seen.append(Task.objects.filter(title="b").update(points=F("points") + 1))
    task.points = 7
    task.save()
    seen.append(Task.objects.bulk_update([task], ["points"]))
    seen.append(Task.objects.update_or_create(title="a", defaults={"points": 8})[1])
    task.labels.add(Label.objects.create(name="label"))
    with connection.cursor() as cursor:
        cursor.execute(INSERT + " RETURNING title, points", ["d%"])
        seen += [[column.name for column in cursor.description], cursor.rowcount, cursor.fetchall()]
        cursor.execute("UPDATE testapp_task SET body = '%' WHERE title = 'd%'")
        seen += [cursor.rowcount, cursor.description, cursor.statusmessage]
        cursor.execute("UPDATE testapp_task SET body = %(body)s WHERE title LIKE 'd%%'", {"body": "%s"})
        seen.append(cursor.rowcount)
        cursor.execute("UPDATE testapp_task SET points = 0 WHERE title = %s; SELECT 'second' AS name", ["d%"])
        seen += [cursor.rowcount, cursor.nextset(), cursor.fetchall(), cursor.nextset()]
        cursor.execute(sql.SQL("UPDATE {} SET points = 5 WHERE title = 'd%'").format(sql.Identifier("testapp_task")))
        seen.append(cursor.rowcount)
        cursor.execute(b"UPDATE testapp_task SET points = 6 WHERE title = 'd%'")
        seen.append(cursor.rowcount)
        cursor.executemany(INSERT, [["e"], ["f"]])
        seen.append(cursor.rowcount)
        with cursor.copy("COPY testapp_task (title, status, points, body) FROM STDIN") as copy:
            copy.write_row(["g", "", 0, ""])
            copy.write_row(["h", "", 0, ""])
        seen += [cursor.rowcount, list(cursor.stream("DELETE FROM testapp_task WHERE title = 'h' RETURNING title"))]
    connection.connection.execute("UPDATE testapp_task SET points = 9 WHERE title = 'g'")
    seen.append(Task.objects.filter(title="c").delete())
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("TRUNCATE testapp_task CASCADE")
    return seen


@autocommit
@pytest.mark.parametrize("around", [nullcontext, transaction.atomic])
def test_every_way_to_write_carries_it_and_has_the_results_it_has_without(log: Log, around: Callable[[], Any]):
    with around():
        without = write_everything()
    assert set(map(str, log.contexts())) == {"None"}
    with around(), djcrf_pg.context(**ONE):
        within = write_everything()
    assert within == without
    changes = log.take()
    assert {op: sum(change.op == op for change in changes) for op in "IUDT"} == {"I": 10, "U": 10, "D": 2, "T": 2}
    assert {change.context for change in changes} == {json.dumps(ONE)}


@autocommit
def test_reading_has_the_results_it_has_without(log: Log):
    project = Project.objects.create(name="p")
    Task.objects.bulk_create(Task(title=str(number), project=project, points=number) for number in range(250))

    def read() -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT points AS p FROM testapp_task ORDER BY 1 LIMIT 2")
            raw = [cursor.rowcount, [column.name for column in cursor.description], cursor.fetchmany(1), list(cursor)]
            cursor.execute("SELECT pg_backend_pid() > 0, %s", ["%"])
            raw += [cursor.rowcount, cursor.fetchone(), cursor.nextset()]
            cursor.callproc("generate_series", [1, 3])
            raw.append(cursor.fetchall())
        return [
            raw,
            list(Task.objects.order_by("points").values_list("points", "project__name")[:20]),
            Task.objects.filter(Q(points__gte=5) | Q(title="1")).count(),
            Task.objects.aggregate(Count("project", distinct=True)),
            [task.points for task in Task.objects.order_by("points").iterator(chunk_size=50)],
            Task.objects.filter(points=1).union(Task.objects.filter(points=2)).count(),
            Task.objects.filter(points=3).exists(),
            [task.title for task in project.tasks.select_related("project").order_by("pk")],
            Task.objects.raw("SELECT * FROM testapp_task WHERE points = %s", [4])[0].points,
        ]

    without = read()
    with djcrf_pg.context(**ONE):
        assert read() == without
        with transaction.atomic():
            assert read() == without


@autocommit
def test_a_function_that_a_select_calls_carries_it(log: Log):
    with (
        function("writes", "INSERT INTO testapp_task (title, status, points, body) VALUES (random(), '', 0, '')"),
        djcrf_pg.context(**ONE),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT writes()")
        cursor.callproc("writes")
    assert log.contexts() == [ONE, ONE]


@autocommit
def test_a_procedure_that_commits_works_and_carries_it_inside_of_a_transaction_only(log: Log):
    insert = "INSERT INTO testapp_task (title, status, points, body) VALUES (random(), '', 0, '')"
    with connection.cursor() as cursor:
        with function("commits", f"{insert}; COMMIT; {insert}", "PROCEDURE", ""), djcrf_pg.context(**ONE):
            cursor.execute("CALL commits()")
            assert log.contexts() == [None, None]
        with function("stays", insert, "PROCEDURE", ""), djcrf_pg.context(**ONE), transaction.atomic():
            cursor.execute("CALL stays()")
            assert log.contexts() == [ONE]


@autocommit
def test_statements_that_allow_no_company_work_inside_of_a_block(log: Log):
    with djcrf_pg.context(**ONE), connection.cursor() as cursor:
        cursor.execute("VACUUM testapp_task")
        cursor.execute("CREATE INDEX CONCURRENTLY alone ON testapp_task (points)")
        cursor.execute("DROP INDEX CONCURRENTLY alone")
        with transaction.atomic():
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            create()
    assert log.contexts() == [ONE]


# -- for how long --------------------------------------------------------------------------------------------


@autocommit
def test_it_ends_with_the_block_and_with_the_transaction(log: Log):
    with djcrf_pg.context(**ONE):
        create("autocommit")
        assert setting() == ""
        with transaction.atomic():
            create("atomic")
        assert setting() == ""
    with transaction.atomic():
        with djcrf_pg.context(**ONE):
            create("inside")
        create("after")
        with connection.cursor() as cursor:
            with cursor.copy("COPY testapp_task (title, status, points, body) FROM STDIN") as copy:
                copy.write_row(["copied", "", 0, ""])
            cursor.executemany(INSERT, [["many"]])
    create("later")
    assert log.contexts() == [ONE, ONE, ONE, None, None, None, None]


def test_it_ends_in_a_transaction_that_knows_it_from_a_statement_of_its_own(log: Log):
    with connection.cursor() as cursor:
        with djcrf_pg.context(**ONE):
            cursor.executemany(INSERT, [["1"]])
        cursor.executemany(INSERT, [["2"]])
    assert log.contexts() == [ONE, None]


def test_savepoints_change_nothing(log: Log):
    with djcrf_pg.context(at="outer"):
        create("1")
        around = connection.savepoint()
        with djcrf_pg.context(at="inner"):
            create("rolled back with the block")
            transaction.savepoint_rollback(around)
            create("2")
            inside = connection.savepoint()
            create("rolled back")
            transaction.savepoint_rollback(inside)
            create("3")
        create("4")
    before = connection.savepoint()
    with djcrf_pg.context(at="other"):
        create("5")
    create("6")
    transaction.savepoint_rollback(before)
    create("7")
    assert [(change.new["title"], change.context and json.loads(change.context)["at"]) for change in log.take()] == [
        ("1", "outer"),
        ("2", "inner"),
        ("3", "inner"),
        ("4", "outer"),
        ("7", None),
    ]


def test_a_reset_that_was_rolled_back_is_sent_again(log: Log):
    with djcrf_pg.context(**ONE):
        create("1")
    before = connection.savepoint()
    create("2")
    transaction.savepoint_rollback(before)
    create("3")
    assert log.contexts() == [ONE, None]


def test_an_error_ends_it(log: Log):
    with pytest.raises(ZeroDivisionError), djcrf_pg.context(at="inner"):
        _ = create("1"), 1 / 0
    create("2")
    with djcrf_pg.context(**ONE):
        with pytest.raises(IntegrityError), transaction.atomic():
            create("2")
        create("3")
    assert log.contexts() == [{"at": "inner"}, None, ONE]


@autocommit
def test_what_the_connection_was_opened_with_comes_back(log: Log, other: Callable[..., Any]):
    made = other(options='-c djcrf_pg.context={"program":"etl"}')
    with made.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(INSERT, ["1"])
        with djcrf_pg.context(**ONE):
            cursor.execute(INSERT, ["2"])
        cursor.execute(INSERT, ["3"])
        cursor.execute("COMMIT")
    assert log.contexts() == [{"program": "etl"}, ONE, {"program": "etl"}]


def test_an_aborted_transaction_says_what_it_says_without(log: Log):
    connection.ensure_connection()
    with djcrf_pg.context(**ONE), connection.cursor() as cursor:
        before = connection.savepoint()
        with pytest.raises(DatabaseError, match=r'^relation "nowhere" does not exist\nLINE \d: DELETE FROM nowhere\n'):
            cursor.execute("DELETE FROM nowhere")
        with pytest.raises(DatabaseError, match="current transaction is aborted"):
            cursor.executemany(INSERT, [["1"]])
        with pytest.raises(DatabaseError, match="current transaction is aborted"):
            cursor.execute(INSERT, ["1"])
        transaction.savepoint_rollback(before)
        create("1")
    assert log.contexts() == [ONE]


# -- which values --------------------------------------------------------------------------------------------

HOSTILE = [
    "'; DROP TABLE testapp_task; --",
    "\\'; DROP TABLE testapp_task; --",
    "\\",
    "%s %(x)s %% %",
    '"',
    "{}",
    "$$ $1",
    "/* -- */",
    "\n\r\t\x01\x7f",
    "ÄÖ € 🐘 \u2028",
    "\\u0000",
]


@autocommit
@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("conforming", ["on", "off"])
def test_a_value_is_data(log: Log, value: str, conforming: str):
    with connection.cursor() as cursor:
        cursor.execute(f"SET standard_conforming_strings = {conforming}")
        try:
            with djcrf_pg.context(**{"value": value, value: 1}):
                create("parameters")
                cursor.execute("UPDATE testapp_task SET body = '%'")
                cursor.execute("UPDATE testapp_task SET body = %(x)s || '%%'", {"x": "x"})
                cursor.executemany(INSERT, [["many"]])
        finally:
            cursor.execute("RESET standard_conforming_strings")
    assert log.contexts() == [{"value": value, value: 1}] * 4
    assert list(Task.objects.order_by("title").values_list("title", "body")) == [("many", ""), ("parameters", "x%")]


def test_a_context_has_up_to_8_kilobytes_and_what_is_longer_is_refused_by_name(log: Log):
    large = "'\\%" * 2_000
    too_large = r"^djcrf_pg.context\(large=…\): the context has 16026 bytes of JSON, and may have 8192"
    with pytest.raises(ValueError, match=too_large):
        djcrf_pg.context(little=1, large=large * 2).__enter__()
    with djcrf_pg.context(large=large):
        create()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE testapp_task SET points = 1")
    assert log.contexts() == [{"large": large}] * 2


def test_what_the_session_says_is_logged_and_never_fails(log: Log):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL djcrf_pg.context = 'no {json'")
        create("1")
        cursor.execute("SET LOCAL djcrf_pg.context = ''")
        create("2")
    assert [change.context for change in log.take()] == ["no {json", None]


def test_a_callable_is_called_for_what_writes(log: Log):
    calls: list[int] = []

    def number() -> int:
        # It may query, and even write; what it sends does not call it.
        if Project.objects.count() == 0:
            Project.objects.create(name="made by the callable")
        calls.append(1)
        return len(calls)

    with djcrf_pg.context(number=number, **ONE):
        assert Task.objects.count() == 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
        assert calls == []
        create("1")
        create("2")
    assert log.contexts() == [ONE, {**ONE, "number": 1}, {**ONE, "number": 2}]


def test_what_a_callable_raises_the_write_raises(log: Log):
    with djcrf_pg.context(number=lambda: 1 // 0), pytest.raises(ZeroDivisionError), transaction.atomic():
        create("1")
    create("2")
    assert log.contexts() == [None]


# -- which connections ---------------------------------------------------------------------------------------


@autocommit
@pytest.mark.parametrize("options", [{"server_side_binding": True}, {"prepare_threshold": 1}])
def test_other_ways_of_binding(log: Log, other: Callable[..., Any], options: dict[str, Any]):
    made = other(**options)
    with made.cursor() as cursor:

        def write() -> list[Any]:
            cursor.execute(INSERT + " RETURNING title", ["1"])
            seen = [cursor.rowcount, cursor.fetchall(), cursor.nextset()]
            cursor.execute("UPDATE testapp_task SET points = points + 1")
            seen += [cursor.rowcount, cursor.statusmessage]
            cursor.execute("SELECT count(*), pg_backend_pid() > 0 FROM testapp_task")
            seen.append(cursor.fetchall())
            cursor.executemany(INSERT, [["2"], ["3"]])
            seen.append(cursor.rowcount)
            with cursor.copy("COPY testapp_task (title, status, points, body) FROM STDIN") as copy:
                copy.write_row(["4", "", 0, ""])
            cursor.execute("DELETE FROM testapp_task")
            seen.append(cursor.rowcount)
            return seen

        without = write()
        assert set(log.contexts()) == {None}
        for begin, end in (("SELECT 1", "SELECT 1"), ("BEGIN", "COMMIT")):
            with djcrf_pg.context(**ONE):
                cursor.execute(begin)
                assert write() == without
                assert log.contexts() == ([] if begin == "BEGIN" else [ONE] * 9)
                cursor.execute(end)
            write()
            assert log.contexts() == ([ONE] * 9 if begin == "BEGIN" else []) + [None] * 9
        with djcrf_pg.context(**ONE), pytest.raises(IntegrityError):
            cursor.executemany(INSERT, [["5"], ["5"]])
        cursor.execute("SELECT count(*) FROM testapp_task")
        assert cursor.fetchone() == (0,)


@autocommit
def test_a_connection_without_autocommit(log: Log):
    transaction.set_autocommit(False)
    try:
        with djcrf_pg.context(**ONE):
            with connection.cursor() as cursor:
                cursor.executemany(INSERT, [["1"]])
            transaction.commit()
            create("2")
        create("3")
        transaction.commit()
        create("4")
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert log.contexts() == [ONE, ONE, None, None]


@autocommit
def test_a_pipeline(log: Log):
    with djcrf_pg.context(**ONE), connection.cursor() as cursor, connection.connection.pipeline():
        cursor.execute(INSERT, ["1"])
        cursor.execute(INSERT + " RETURNING title", ["2"])
        assert cursor.fetchall() == [("2",)]
    create("3")
    assert log.contexts() == [ONE, ONE, None]


@autocommit
def test_a_connection_that_is_opened_inside_of_the_block(log: Log):
    with djcrf_pg.context(**ONE):
        connection.close()
        create("1")
    assert log.contexts() == [ONE]


@autocommit
def test_a_connection_that_was_open_before_the_app_was_ready(log: Log, monkeypatch: pytest.MonkeyPatch):
    connection.close()
    monkeypatch.setattr("django.db.backends.signals.connection_created.send", lambda **kwargs: None)
    with djcrf_pg.context(**ONE):
        create("1")
        cursors.install()
        cursors.install()
        create("2")
    assert log.contexts() == [None, ONE]


@autocommit
def test_a_pooled_connection_is_given_back_clean(log: Log, other: Callable[..., Any]):
    pytest.importorskip("psycopg_pool", reason="psycopg's pool is not installed")
    first, second = other(pool={"min_size": 1, "max_size": 1}), other(pool={"min_size": 1, "max_size": 1})
    try:
        with djcrf_pg.context(**ONE), first.cursor() as cursor:
            cursor.execute(INSERT, ["1"])
        first.close()
        with second.cursor() as cursor:
            cursor.execute(INSERT, ["2"])
        second.close()
    finally:
        first.close_pool()
    assert log.contexts() == [ONE, None]


def test_others_cursor_factories_are_kept_and_strange_ones_left_alone(other: Callable[..., Any]):
    class Mine(psycopg.ClientCursor[Any]):
        """A project's own."""

    made = other(cursor_factory=Mine)
    made.connect()
    assert issubclass(made.connection.cursor_factory, Mine)
    strange = other()
    strange.connect()
    strange.connection.cursor_factory = factory = lambda connection: Mine(connection)
    cursors.adopt(strange)
    assert strange.connection.cursor_factory is factory
    cursors.adopt(connections["lite"])


@autocommit
def test_those_who_watch_queries_see_the_statement_and_nothing_else(log: Log):
    seen: list[str] = []

    def watch(execute: Any, text: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(text)
        return execute(text, params, many, context)

    with djcrf_pg.context(**ONE), connection.execute_wrapper(watch), CaptureQueriesContext(connection) as captured:
        create()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE testapp_task SET points = 1")
            with pytest.raises(DatabaseError):
                cursor.execute("DELETE FROM nowhere")
    assert [text.partition(" ")[0] for text in seen] == ["INSERT", "UPDATE", "DELETE"]
    assert [query["sql"].partition(" ")[0] for query in captured] == ["INSERT", "UPDATE", "DELETE"]


# -- at the same time ----------------------------------------------------------------------------------------


@autocommit
def test_threads_have_their_own(log: Log):
    together, failures = threading.Barrier(2, timeout=30), []

    def write(name: str) -> None:
        try:
            with djcrf_pg.context(thread=name), transaction.atomic():
                for number in range(5):
                    together.wait()
                    create(f"{name} {number}")
        except BaseException as error:
            failures.append(error)
            together.abort()
        finally:
            connection.close()

    with djcrf_pg.context(**ONE):
        threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    found = [(change.new["title"][0], json.loads(change.context)) for change in log.take()]
    assert sorted(found, key=str) == [("a", {"thread": "a"})] * 5 + [("b", {"thread": "b"})] * 5


@autocommit
async def test_tasks_have_their_own(transactional_db: None, thread_connections: None):
    log = await sync_to_async(Log)()
    together = asyncio.Barrier(2)

    async def write(name: str) -> None:
        with djcrf_pg.context(task=name):
            for number in range(5):
                await together.wait()
                await Task.objects.acreate(title=f"{name} {number}")

    with djcrf_pg.context(**ONE):
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(write("a"))
            tasks.create_task(write("b"))
        await Task.objects.acreate(title="c")
    await Task.objects.acreate(title="d")
    found = [
        (change.new["title"][0], change.context and json.loads(change.context))
        for change in await sync_to_async(log.take)()
    ]
    expected = {"a": {**ONE, "task": "a"}, "b": {**ONE, "task": "b"}, "c": ONE, "d": None}
    assert len(found) == 12
    assert all(context == expected[name] for name, context in found)
