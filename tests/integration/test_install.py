"""Triggers come, are mended and go; and an install that has nothing to do touches nothing."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import override_settings

from djcrf_pg.capture import install as module
from djcrf_pg.capture.install import install, plan
from djcrf_pg.capture.plan import TRIGGERS
from djcrf_pg.exceptions import InstallError
from djcrf_pg.registry import registry
from tests.integration.log import Log, script, sql
from tests.servers import PgParams
from tests.testapp.models import Task, Unheard

pytestmark = pytest.mark.django_db(transaction=True)

UNHEARD = {"OBSERVE": ["testapp.Unheard"]}


def triggers(table: str) -> set[str]:
    """The names of our triggers on a table that are enabled."""
    return {
        name
        for (name,) in sql(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname LIKE 'djcrf%%' "
            "AND tgenabled IN ('O', 'A')",
            table,
        )
    }


def catalog_rows() -> list[tuple[Any, ...]]:
    """Every trigger with the transaction that wrote its row and its comment's."""
    return sql(
        "SELECT t.oid, t.xmin::text, d.xmin::text, t.tgenabled FROM pg_trigger AS t "
        "LEFT JOIN pg_description AS d ON d.objoid = t.oid WHERE tgname LIKE 'djcrf%%' ORDER BY t.oid"
    )


def states(alias: str = "default") -> dict[str, str]:
    """What there is to do, by table; tables where there is nothing are left out."""
    return {step.table.name: step.state for step in plan(alias) if step.statements}


@contextmanager
def open_transaction(params: PgParams, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session that has run the statements in a transaction, which is rolled back in the end."""
    with params.connect() as other, other.transaction(force_rollback=True):
        for statement in statements:
            other.execute(statement)  # type: ignore[arg-type]
        yield other


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a table that no model knows be wanted: ``wanted("parted")``."""

    class More:
        names: tuple[str, ...] = ()
        observed = staticmethod(registry.observed)

        def tables(self, alias: str) -> dict[str, tuple[str, ...]]:
            return {**registry.tables(alias), **dict.fromkeys(self.names, ())}

    more = More()
    monkeypatch.setattr(module, "registry", more)

    def want(*names: str) -> None:
        more.names = names

    return want


# -- nothing to do -------------------------------------------------------------------------------------------


def test_migrate_has_installed_what_the_observers_want() -> None:
    for table in ("testapp_task", "testapp_task_labels", "testapp_project", "testapp_document", "testapp_awkward"):
        assert triggers(table) == set(TRIGGERS), table
    assert triggers("testapp_unheard") == set()
    assert states() == {}


def test_a_second_install_locks_no_table_and_writes_nothing(test_pg: PgParams) -> None:
    before = catalog_rows()
    with open_transaction(test_pg, "LOCK TABLE testapp_task, testapp_project IN ACCESS EXCLUSIVE MODE"):
        sql("SET lock_timeout = '2s'")
        try:
            assert install("default") == []
            out = io.StringIO()
            call_command("migrate", stdout=out, interactive=False)
        finally:
            sql("RESET lock_timeout")
    assert "triggers" not in out.getvalue()
    assert catalog_rows() == before
    assert before


def test_an_install_locks_only_the_tables_that_it_mends(test_pg: PgParams) -> None:
    with (
        open_transaction(test_pg, "LOCK TABLE testapp_task IN ACCESS EXCLUSIVE MODE"),
        override_settings(DJCRF_PG={**UNHEARD, "LOCK_TIMEOUT": 1}),
    ):
        assert [step.table.name for step in install("default")] == ["public.testapp_unheard"]
    assert install("default"), "it is released again"


# -- mending -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["DISABLE TRIGGER djcrf_pg_update", "ENABLE REPLICA TRIGGER djcrf_pg_update"])
def test_a_disabled_trigger_is_enabled_again(how: str, log: Log) -> None:
    sql(f"ALTER TABLE testapp_task {how}")
    assert states() == {"public.testapp_task": "disabled"}
    (step,) = install("default")
    assert step.state == "disabled"
    assert triggers("testapp_task") == set(TRIGGERS)
    assert install("default") == []
    Task.objects.create(title="a")
    Task.objects.update(points=1)
    assert [op for op, _, _ in log.images()] == ["I", "U"]


def test_a_trigger_that_fires_always_is_left_alone() -> None:
    sql("ALTER TABLE testapp_task ENABLE ALWAYS TRIGGER djcrf_pg_update")
    try:
        assert install("default") == []
    finally:
        sql("ALTER TABLE testapp_task ENABLE TRIGGER djcrf_pg_update")


def test_a_dropped_trigger_comes_back() -> None:
    sql("DROP TRIGGER djcrf_pg_delete ON testapp_task")
    assert states() == {"public.testapp_task": "missing"}
    install("default")
    assert triggers("testapp_task") == set(TRIGGERS)


def test_a_trigger_whose_definition_changed_is_replaced(log: Log) -> None:
    with override_settings(DJCRF_PG={"EXCLUDE": {"testapp.Task": ["body"]}}):
        assert states() == {"public.testapp_task": "outdated"}
        install("default")
        assert install("default") == []
        Task.objects.create(title="a", body="hush")
        ((_, _, new),) = log.images()
        assert new is not None
        assert "body" not in new
    install("default")
    Task.objects.create(title="b", body="heard")
    ((_, _, new),) = log.images()
    assert new is not None
    assert new["body"] == "heard"


def test_a_renamed_trigger_does_not_capture_twice(log: Log) -> None:
    sql("ALTER TRIGGER djcrf_pg_insert ON testapp_task RENAME TO somebody_renamed_it")
    try:
        install("default")
        Task.objects.create(title="a")
        assert len(log.entries()) == 1
    finally:
        sql("DROP TRIGGER IF EXISTS somebody_renamed_it ON testapp_task")


def test_a_table_that_nobody_observes_any_more_is_released(log: Log) -> None:
    with override_settings(DJCRF_PG=UNHEARD):
        install("default")
        assert triggers("testapp_unheard") == set(TRIGGERS)
        Unheard.objects.create(name="heard")
        assert len(log.entries()) == 1
    assert states() == {"public.testapp_unheard": "unwanted"}
    install("default")
    assert triggers("testapp_unheard") == set()
    Unheard.objects.create(name="unheard")
    assert log.entries() == []


def test_the_triggers_of_another_change_log_are_not_replaced() -> None:
    script(
        [
            "CREATE SCHEMA blog",
            "CREATE FUNCTION blog.djcrf_pg_capture_insert_v1() RETURNS trigger LANGUAGE plpgsql "
            "AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER djcrf_pg_insert AFTER INSERT ON testapp_unheard EXECUTE FUNCTION "
            "blog.djcrf_pg_capture_insert_v1()",
            "COMMENT ON TRIGGER djcrf_pg_insert ON testapp_unheard IS 'djcrf_pg:0123456789abcdef:blog:testapp_unheard'",
        ]
    )
    try:
        with (
            override_settings(DJCRF_PG=UNHEARD),
            pytest.raises(CommandError, match=r"on public\.testapp_unheard \(project 'blog'\).* belong to another"),
        ):
            migrate()
        assert triggers("testapp_unheard") == {"djcrf_pg_insert"}
        assert sql("SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgrelid = 'testapp_unheard'::regclass") == [
            ("blog.djcrf_pg_capture_insert_v1",)
        ]
    finally:
        sql("DROP SCHEMA blog CASCADE")


def test_an_observed_table_that_does_not_exist_yet_is_passed_over(wanted: Callable[..., None]) -> None:
    wanted("not_there_yet")
    assert install("default") == []


# -- partitions ----------------------------------------------------------------------------------------------


@pytest.fixture
def parted(transactional_db: None) -> Iterator[str]:
    """A partitioned table without triggers."""
    script(
        [
            "CREATE TABLE parted (id int, region text) PARTITION BY LIST (region)",
            "CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a')",
        ]
    )
    yield "parted"
    script(["DROP TABLE parted", "DROP TABLE IF EXISTS parted_b"])


def test_a_partition_that_is_attached_later_is_mended(parted: str, wanted: Callable[..., None], log: Log) -> None:
    wanted("parted")
    install("default")
    script(
        [
            "CREATE TABLE parted_b (id int, region text)",
            "ALTER TABLE parted ATTACH PARTITION parted_b FOR VALUES IN ('b')",
        ]
    )
    assert states() == {"public.parted_b": "missing"}
    (message,) = warnings()
    assert "public.parted_b (database 'default') are missing" in message.msg
    install("default")
    assert triggers("parted") == triggers("parted_a") == triggers("parted_b") == set(TRIGGERS)
    script(["INSERT INTO parted VALUES (1, 'b')", "INSERT INTO parted_b VALUES (2, 'b')"])
    assert [new and new["id"] for _, _, new in log.images()] == [1, 2]


def test_a_partition_that_is_detached_is_released(parted: str, wanted: Callable[..., None]) -> None:
    wanted("parted")
    script(["CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b')"])
    install("default")
    sql("ALTER TABLE parted DETACH PARTITION parted_b")
    assert states() == {"public.parted_b": "unwanted"}
    install("default")
    assert triggers("parted_b") == set()


# -- what cannot be done -------------------------------------------------------------------------------------


def test_no_lock_within_the_time_names_the_table_the_setting_and_the_command(test_pg: PgParams) -> None:
    with override_settings(DJCRF_PG={**UNHEARD, "LOCK_TIMEOUT": 0.1}):
        with (
            open_transaction(test_pg, "INSERT INTO testapp_unheard (name) VALUES ('being written')"),
            pytest.raises(InstallError) as caught,
        ):
            install("default")
        assert triggers("testapp_unheard") == set()
        assert sql("SHOW lock_timeout") == [("0",)], "the session's own setting is as it was"
        install("default")
        assert triggers("testapp_unheard") == set(TRIGGERS)
    message = str(caught.value)
    assert "public.testapp_unheard" in message
    assert "0.1 s (DJCRF_PG['LOCK_TIMEOUT'])" in message
    assert "`manage.py migrate`" in message


def test_a_missing_right_is_named_with_the_table_and_the_way_out() -> None:
    script(["CREATE ROLE djcrf_clerk", "GRANT INSERT ON testapp_unheard TO djcrf_clerk"])
    for (schema,) in sql("SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_'"):
        sql(f"GRANT USAGE ON SCHEMA {schema} TO djcrf_clerk")
    try:
        sql("SET ROLE djcrf_clerk")
        with override_settings(DJCRF_PG=UNHEARD), pytest.raises(InstallError) as caught:
            install("default")
    finally:
        script(["RESET ROLE", "DROP OWNED BY djcrf_clerk", "DROP ROLE djcrf_clerk"])
    message = str(caught.value)
    assert "public.testapp_unheard" in message
    assert "may not create or drop triggers there (permission denied" in message
    assert "as the owner of the table" in message


@pytest.fixture
def a_table() -> Iterator[str]:
    sql("CREATE TABLE a_table (id int PRIMARY KEY)")
    yield "a_table"
    sql("DROP TABLE a_table")


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_what_is_no_table_is_refused_by_name_and_the_others_get_theirs(
    kind: str, wanted: Callable[..., None], a_table: str
) -> None:
    sql(f"CREATE {kind} no_table AS SELECT 1 AS id")
    try:
        wanted("no_table", a_table)
        with pytest.raises(CommandError, match=rf"of public\.no_table \(a {kind.lower()}\) in database 'default'"):
            migrate()
        assert triggers("a_table") == set(TRIGGERS)
        assert states() == {}
        (warning,) = warnings()
        assert warning.msg.startswith(f"public.no_table (database 'default') is a {kind.lower()}, and takes no")
        out = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("djcrf_pg", "status", "--check", "--database", "default", stdout=out)
        assert re.search(r"public\.no_table +unfit", out.getvalue())
    finally:
        sql(f"DROP {kind} no_table")


def test_a_foreign_table_among_the_partitions_spares_the_whole(
    parted: str, wanted: Callable[..., None], a_table: str
) -> None:
    script(
        [
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE parted_f PARTITION OF parted FOR VALUES IN ('f') SERVER nowhere",
        ]
    )
    try:
        wanted(parted, a_table)
        with pytest.raises(CommandError, match=r"of public\.parted_f \(a foreign table\)"):
            migrate()
        assert triggers("a_table") == set(TRIGGERS)
        assert triggers("parted") == set()
    finally:
        sql("DROP FOREIGN DATA WRAPPER nothing CASCADE")


@pytest.fixture
def far(test_pg: PgParams, transactional_db: None) -> Iterator[str]:
    """A server of postgres_fdw that is this one, with a table ``remote (id, region)``."""
    if not sql("SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("no postgres_fdw: DJCRF_PG_TEST_POSTGRES=debian has it")
    script(
        [
            "CREATE EXTENSION postgres_fdw",
            f"CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{test_pg.host}', "
            f"port '{test_pg.port}', dbname '{test_pg.dbname}')",
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '{test_pg.user}', password "
            f"'{test_pg.password}')",
            "CREATE TABLE remote (id int, region text)",
            "INSERT INTO remote VALUES (7, 'far')",
        ]
    )
    yield "SERVER far OPTIONS (table_name 'remote')"
    script(["DROP EXTENSION postgres_fdw CASCADE", "DROP TABLE remote"])


@pytest.mark.parametrize(
    ("child", "write"),
    [
        ("PARTITION OF parted FOR VALUES IN ('f')", "INSERT INTO parted VALUES (1, 'f')"),
        ("() INHERITS (heired)", "UPDATE heired SET id = id + 1"),
        ("() INHERITS (heired)", "DELETE FROM heired"),
    ],
)
def test_a_foreign_child_that_comes_later_is_named_and_migrate_lets_writes_reach_it_again(
    child: str, write: str, parted: str, far: str, wanted: Callable[..., None]
) -> None:
    sql("CREATE TABLE heired (id int, region text)")
    try:
        wanted(parted, "heired")
        install("default")
        parent = "heired" if "heired" in child else parted
        sql(f"CREATE FOREIGN TABLE child {child} {far}")
        with pytest.raises(DatabaseError, match="cannot collect transition tuples from child foreign tables"):
            sql(write)
        sql(f"INSERT INTO {parent} VALUES (2, 'a')")
        first, *_ = warnings()
        assert first.msg.startswith(f"public.{parent} (database 'default') has a foreign table among its partitions")
        assert "each statement on it that changes a row of the foreign table fails" in first.msg
        with pytest.raises(CommandError, match=r"of public\.child \(a foreign table\)"):
            migrate()
        sql(write)
        assert triggers(parent) == set()
    finally:
        sql("DROP TABLE heired CASCADE")


def test_a_foreign_child_is_noticed_before_triggers_are_installed(wanted: Callable[..., None]) -> None:
    script(
        [
            "CREATE TABLE heired (id int)",
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE child () INHERITS (heired) SERVER nowhere",
        ]
    )
    try:
        wanted("heired")
        with pytest.raises(CommandError, match=r"of public\.child \(a foreign table\)"):
            migrate()
        assert triggers("heired") == set()
    finally:
        script(["DROP FOREIGN DATA WRAPPER nothing CASCADE", "DROP TABLE heired"])


def test_triggers_that_fail_writes_go_also_while_an_observed_table_does_not_exist(
    parted: str, wanted: Callable[..., None]
) -> None:
    wanted(parted)
    install("default")
    script(
        [
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE parted_f PARTITION OF parted FOR VALUES IN ('f') SERVER nowhere",
        ]
    )
    try:
        wanted(parted, "not_there_yet")
        assert states() == {"public.parted": "unfit", "public.parted_a": "unfit"}
        install("default")
        assert triggers("parted") == triggers("parted_a") == set()
    finally:
        sql("DROP FOREIGN DATA WRAPPER nothing CASCADE")


# -- migrate -------------------------------------------------------------------------------------------------


def migrate(*arguments: str) -> str:
    """Run the command and return what it said."""
    out = io.StringIO()
    call_command("migrate", *arguments, stdout=out, interactive=False)
    return out.getvalue()


def ours_in_the_catalog() -> list[tuple[Any, ...]]:
    """Everything that is named after us."""
    return sql(
        "SELECT 'class', relname::text FROM pg_class WHERE relname LIKE '%djcrf%' "
        "UNION ALL SELECT 'function', proname::text FROM pg_proc WHERE proname LIKE '%djcrf%' "
        "UNION ALL SELECT 'trigger', tgname::text FROM pg_trigger WHERE tgname LIKE '%djcrf%' "
        "UNION ALL SELECT 'type', typname::text FROM pg_type WHERE typname LIKE '%djcrf%' "
        "UNION ALL SELECT 'constraint', conname::text FROM pg_constraint WHERE conname LIKE '%djcrf%' "
        "UNION ALL SELECT 'comment', description FROM pg_description WHERE description LIKE '%djcrf%' "
        "UNION ALL SELECT 'namespace', nspname::text FROM pg_namespace WHERE nspname LIKE '%djcrf%' "
        "UNION ALL SELECT 'migration', name FROM django_migrations WHERE app = 'djcrf_pg' ORDER BY 1, 2"
    )


def test_unmigrating_leaves_nothing_of_ours_and_migrating_brings_it_back() -> None:
    before = ours_in_the_catalog()
    assert {kind for kind, _ in before} >= {"class", "function", "trigger", "comment", "migration"}
    Task.objects.create(title="before")
    try:
        migrate("djcrf_pg", "zero")
        assert ours_in_the_catalog() == []
        assert install("default") == []
        Task.objects.create(title="between")
        Task.objects.update(points=1)
    finally:
        migrate()
    assert ours_in_the_catalog() == before
    log = Log()
    Task.objects.update(points=2)
    assert len(log.entries()) == 2


def test_without_auto_install_migrate_leaves_triggers_alone() -> None:
    sql("DROP TRIGGER djcrf_pg_delete ON testapp_task")
    with override_settings(DJCRF_PG={"AUTO_INSTALL": False}):
        migrate()
    assert triggers("testapp_task") == {*TRIGGERS} - {"djcrf_pg_delete"}
    migrate()
    assert triggers("testapp_task") == set(TRIGGERS)


def test_a_failed_install_takes_nothing_back_of_what_was_installed_before(test_pg: PgParams) -> None:
    sql("DROP TRIGGER djcrf_pg_delete ON testapp_task")
    with (
        override_settings(DJCRF_PG={**UNHEARD, "LOCK_TIMEOUT": 0.1}),
        open_transaction(test_pg, "INSERT INTO testapp_unheard (name) VALUES ('being written')"),
        pytest.raises(InstallError),
    ):
        install("default")
    assert triggers("testapp_task") == set(TRIGGERS)


def test_writers_can_write_while_an_install_waits_for_its_lock_only_as_long_as_it_may(test_pg: PgParams) -> None:
    """After the error nothing of the install is queued for the table's lock any more."""
    with open_transaction(test_pg, "INSERT INTO testapp_unheard (name) VALUES ('a')"):
        with override_settings(DJCRF_PG={**UNHEARD, "LOCK_TIMEOUT": 0.1}), pytest.raises(InstallError):
            install("default")
        sql("SELECT 1 FROM testapp_unheard")
        with transaction.atomic():
            sql("SET LOCAL lock_timeout = '2s'")
            Unheard.objects.create(name="b")


# -- system checks -------------------------------------------------------------------------------------------


def warnings() -> list[CheckMessage]:
    """What the checks of the database say of us."""
    found = run_checks(tags=["database"], databases=["default"])
    return [message for message in found if str(message.id).startswith("djcrf_pg.")]


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("ALTER TABLE testapp_task DISABLE TRIGGER djcrf_pg_update", "disabled"),
        ("DROP TRIGGER djcrf_pg_update ON testapp_task", "missing"),
        ("COMMENT ON TRIGGER djcrf_pg_update ON testapp_task IS NULL", "outdated"),
    ],
)
def test_triggers_that_do_not_work_are_told_with_the_table_and_the_command(statement: str, state: str) -> None:
    assert warnings() == []
    sql(statement)
    (message,) = warnings()
    assert message.id == "djcrf_pg.W005"
    assert f"public.testapp_task (database 'default') are {state}" in message.msg
    assert message.hint == "Run `manage.py migrate --database default`."
    migrate()
    assert warnings() == []


def test_check_with_a_database_says_so_too() -> None:
    sql("DROP TRIGGER djcrf_pg_update ON testapp_task")
    err = io.StringIO()
    call_command("check", databases=["default"], stderr=err)
    assert "djcrf_pg.W005" in err.getvalue()
    call_command("check", fail_level="WARNING")


def test_unwanted_triggers_are_no_reason_to_warn() -> None:
    with override_settings(DJCRF_PG=UNHEARD):
        install("default")
    assert warnings() == []
    install("default")


def test_a_model_that_does_not_exist_is_told_and_breaks_no_check() -> None:
    with override_settings(DJCRF_PG={"OBSERVE": ["testapp.Nothing"]}):
        (message,) = warnings()
    assert message.id == "djcrf_pg.W006"
    assert "testapp.Nothing" in message.msg


def test_the_connection_is_of_use_after_every_error() -> None:
    assert not connection.in_atomic_block
    assert sql("SELECT 1") == [(1,)]
