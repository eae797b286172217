"""The app's migrations, on databases of their own."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections, models
from django.test import override_settings
from pytest_django import DjangoDbBlocker

import djcrf_pg
from djcrf_pg import sql
from djcrf_pg.capture.plan import TRIGGERS
from djcrf_pg.exceptions import InstallError, TouchError
from djcrf_pg.models import Change, Cursor
from tests.servers import PgParams
from tests.testapp.models import Project

ALIAS = "migrated"

_READER = sql.queries("djcrf_pg.changelog", "reader.sql", schema="public.", window="", weight="", oid="", version="")


@contextmanager
def database(settings: dict[str, Any], blocker: DjangoDbBlocker) -> Iterator[Any]:
    """Another alias in ``DATABASES``, for as long as the block lasts; every model lives on it."""
    former = connections.databases.get(ALIAS)
    _forget()
    connections.databases[ALIAS] = connections.configure_settings({"default": settings})["default"]
    try:
        with blocker.unblock(), override_settings(DATABASE_ROUTERS=[]):
            yield connections[ALIAS]
    finally:
        _forget()
        connections.databases.pop(ALIAS)
        if former is not None:
            connections.databases[ALIAS] = former


def _forget() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.alias == ALIAS:
            connection.close()
            del connections[ALIAS]


@pytest.fixture
def connection(pg: PgParams, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Any]:
    """Django's connection to an empty database."""
    name = "djcrf_migrations"
    with pg.connect("postgres") as maintenance:
        maintenance.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type]
        maintenance.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        try:
            with database(pg.database(name).django(), django_db_blocker) as found:
                yield found
        finally:
            maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def migrate(*arguments: str) -> None:
    """``manage.py migrate`` on the database."""
    call_command("migrate", *arguments, database=ALIAS, verbosity=0, interactive=False)


def rows(connection: Any, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return found


# It asks every database for its history, and only those that tests have marked are there.
@pytest.mark.filterwarnings("ignore:Got an error checking a consistent migration history:RuntimeWarning")
def test_no_migration_is_missing(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    out = io.StringIO()
    with django_db_blocker.unblock():
        try:
            call_command("makemigrations", check_changes=True, dry_run=True, stdout=out)
        except SystemExit:
            pytest.fail(out.getvalue())


@pytest.mark.parametrize("model", [Change, Cursor])
def test_the_columns_of_a_model_are_those_of_its_table(model: type[models.Model], connection: Any) -> None:
    migrate("djcrf_pg")
    found = rows(
        connection,
        "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        model._meta.db_table,
    )
    fields = [field for field in model._meta.local_fields if field.column]
    assert sorted(found) == sorted((field.column, field.db_type(connection), field.null) for field in fields)
    key = rows(
        connection,
        "SELECT array_agg(attname::text ORDER BY array_position(indkey::int[], attnum::int)) FROM pg_index "
        "JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
        "WHERE indrelid = %s::regclass AND indisprimary",
        model._meta.db_table,
    )
    assert key == [([field.column for field in model._meta.pk_fields],)]


def test_the_models_read_what_the_triggers_write(connection: Any) -> None:
    migrate()
    rows(connection, "DELETE FROM djcrf_pg_change")  # what the migrations have written
    rows(connection, "INSERT INTO testapp_project (name) VALUES ('a')")
    change = Change.objects.using(ALIAS).get()
    assert (change.op, change.old, change.new["name"], change.context) == ("I", None, "a", None)
    assert Change.objects.using(ALIAS).get(pk=change.pk) == change
    Change.objects.using(ALIAS).all().delete()
    assert not Cursor.objects.using(ALIAS).exists()


class Writer(threading.Thread):
    """Writes to an observed table, again and again, until it is stopped; an error is kept."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.dsn = dsn
        self.written = 0
        self.error: Exception | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        """Write."""
        try:
            with psycopg.connect(self.dsn, autocommit=True) as session:
                while not self.stop.is_set():
                    session.execute("INSERT INTO testapp_project (name) VALUES ('live')")
                    session.execute("UPDATE testapp_project SET name = name || '!' WHERE name = 'live'")
                    self.written += 1
        except Exception as error:
            self.error = error

    def wait_for(self, more: int) -> None:
        """Return when it has written so often again."""
        goal, waiting = self.written + more, threading.Event()
        for _ in range(4_000):
            if self.written >= goal or self.error:
                return
            waiting.wait(0.005)
        raise AssertionError("the writer does not get on")


def test_forwards_backwards_and_forwards_under_a_writer_that_never_fails(connection: Any, pg: PgParams) -> None:
    migrate()
    writer = Writer(pg.dsn(connection.settings_dict["NAME"]))
    writer.start()
    try:
        writer.wait_for(20)
        migrate("djcrf_pg", "zero")
        assert rows(connection, "SELECT to_regclass('djcrf_pg_change')") == [(None,)]
        writer.wait_for(20)
        migrate()
        writer.wait_for(20)
        migrate("djcrf_pg", "zero")
        migrate()
        writer.wait_for(20)
    finally:
        writer.stop.set()
        writer.join()
    assert writer.error is None
    assert rows(connection, "SELECT count(*) FROM testapp_project") == [(writer.written,)], "every row is there"
    ((logged,),) = rows(connection, "SELECT count(*) FROM djcrf_pg_change WHERE op = 'U'")
    assert 20 <= logged < writer.written, "what was written since, and no more"
    assert triggers_of(connection, "testapp_project") == set(TRIGGERS)


def test_a_database_of_the_first_release_is_taken_further_and_back_with_its_log(connection: Any) -> None:
    migrate()
    migrate("djcrf_pg", "0001")
    rows(connection, "DELETE FROM djcrf_pg_change")
    project = Project.objects.using(ALIAS).create(name="before")
    with pytest.raises(TouchError, match=rf"manage\.py migrate --database {ALIAS}"):
        djcrf_pg.touch(project)
    for _ in range(2):
        migrate()
        djcrf_pg.touch(project)
        migrate("djcrf_pg", "0001")
    logged = [("I", project.pk), ("U", project.pk), ("U", project.pk)]
    assert rows(connection, "SELECT op::text, (new->>'id')::int FROM djcrf_pg_change ORDER BY id") == logged
    assert triggers_of(connection, "testapp_project") == set(TRIGGERS)


def triggers_of(connection: Any, table: str) -> set[str]:
    """The names of a table's triggers."""
    return {
        name
        for (name,) in rows(
            connection, "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", table
        )
    }


def test_everything_may_live_in_another_schema(
    pg: PgParams, connection: Any, django_db_blocker: DjangoDbBlocker
) -> None:
    rows(connection, 'CREATE SCHEMA "Odd Schema"')
    name = connection.settings_dict["NAME"]
    settings = pg.database(name).django()
    settings["OPTIONS"]["options"] = '-c search_path="Odd\\ Schema"'
    with database(settings, django_db_blocker) as odd:
        migrate()
        rows(odd, "DELETE FROM djcrf_pg_change")
        rows(odd, "INSERT INTO testapp_project (name) VALUES ('a')")
        djcrf_pg.touch(Project.objects.using(ALIAS).get())
        rows(odd, "SELECT djcrf_pg_touch('testapp_project', 7)")
        assert rows(odd, 'SELECT op::text FROM "Odd Schema".djcrf_pg_change') == [("I",), ("U",), ("U",)]
        assert rows(odd, "SELECT to_regclass('public.djcrf_pg_change')") == [(None,)]
        migrate("djcrf_pg", "zero")
        assert triggers_of(odd, "testapp_project") == set()
        rows(odd, "INSERT INTO testapp_project (name) VALUES ('b')")


def test_on_another_vendor_nothing_is_made(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path: Path
) -> None:
    # A file, as Django does not close a connection to a database in memory.
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "lite.sqlite")}
    with database(settings, django_db_blocker) as sqlite:
        migrate("djcrf_pg")
        assert not [name for name in sqlite.introspection.table_names() if name.startswith("djcrf")]
        migrate("djcrf_pg", "zero")


@pytest.mark.parametrize("migration", ["0001", "0003", "0005"])
@pytest.mark.parametrize(("backwards", "words"), [(False, "CREATE FUNCTION"), (True, "DROP FUNCTION")])
def test_sqlmigrate_shows_what_runs(backwards: bool, words: str, migration: str, connection: Any) -> None:
    out = io.StringIO()
    call_command("sqlmigrate", "djcrf_pg", migration, database=ALIAS, backwards=backwards, stdout=out)
    shown = out.getvalue()
    assert words in shown
    assert "/* :" not in shown
    assert rows(connection, "SELECT to_regclass('djcrf_pg_change')") == [(None,)], "it was only shown"


def test_a_migration_that_has_to_wait_for_a_writer_gives_up_and_says_so(connection: Any, pg: PgParams) -> None:
    migrate()
    migrate("djcrf_pg", "0004")
    with psycopg.connect(pg.dsn(connection.settings_dict["NAME"])) as writer:
        writer.execute("INSERT INTO testapp_project (name) VALUES ('open')")
        with (
            override_settings(DJCRF_PG={"LOCK_TIMEOUT": 0.2}),
            pytest.raises(InstallError, match=r"0005_forwards\.sql .* within 0\.2 s"),
        ):
            migrate("djcrf_pg")
        writer.commit()
    migrate("djcrf_pg")


def test_a_listener_of_a_role_of_its_own_goes_on_after_an_upgrade_without_new_grants(connection: Any) -> None:
    migrate()
    migrate("djcrf_pg", "0004")
    rows(connection, "CREATE ROLE djcrf_listener")
    try:
        rows(connection, "GRANT EXECUTE ON FUNCTION djcrf_pg_trim_v1(bigint) TO djcrf_listener")
        rows(connection, "GRANT SELECT, DELETE, UPDATE ON djcrf_pg_change TO djcrf_listener")
        rows(connection, "GRANT SELECT, INSERT, UPDATE ON djcrf_pg_cursor TO djcrf_listener")
        rows(connection, "GRANT UPDATE ON SEQUENCE djcrf_pg_listener_awake TO djcrf_listener")
        migrate("djcrf_pg")
        rows(connection, "SET ROLE djcrf_listener")
        rows(connection, _READER["trim"].replace("$1", "1"))
        rows(connection, _READER["prune"].replace("$1", "'1:1:'").replace("$2", "1").replace("$3", "1"))
        rows(connection, _READER["adopt"])
        rows(connection, sql.set_rings("", True))
        assert rows(connection, "SELECT last_value FROM djcrf_pg_rings") == [(1,)]
        rows(connection, sql.set_rings("", False))
        rows(connection, "RESET ROLE")
    finally:
        rows(connection, "DROP OWNED BY djcrf_listener; DROP ROLE djcrf_listener")
