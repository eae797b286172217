"""What a writer sees of the triggers: nothing."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings

from djcrf_pg.capture.install import plan
from djcrf_pg.capture.objects import _FILES
from djcrf_pg.capture.plan import Table, definition
from djcrf_pg.sql import load, render
from tests.integration.log import Log, observe, sql
from tests.processes import wait_until
from tests.servers import EmbeddedPostgres, postgres_version

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., str]


def wire(connection: "psycopg.Connection[Any]", *tables: str) -> None:
    """Make the log and the triggers of tables on a server that Django does not know."""
    for number in _FILES:
        connection.execute(render(load("djcrf_pg.capture", f"{number}_forwards.sql"), schema="public."))
    for table in tables:
        connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)")
        for event in ("insert", "update", "delete", "truncate"):
            connection.execute(definition(Table(0, table), event, "public."))


@pytest.fixture
def server() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Starts servers of the test's own, with settings."""
    started: list[EmbeddedPostgres] = []

    def start(**settings: str) -> EmbeddedPostgres:
        started.append(EmbeddedPostgres(settings=settings).start())
        return started[-1]

    yield start
    for each in started:
        each.terminate()


# -- Ids -----------------------------------------------------------------------------------------------------------


def test_lastval_is_the_writer_s_own(make_table: Make, log: Log) -> None:
    make_table("serial", "id serial PRIMARY KEY, name text")
    sql("INSERT INTO serial (name) VALUES ('a'), ('b')")
    assert sql("SELECT lastval(), (SELECT max(id) FROM serial)") == [(2, 2)]
    sql("UPDATE serial SET name = 'c'")
    sql("DELETE FROM serial")
    assert sql("SELECT lastval()") == [(2,)]


def test_a_role_that_may_only_write_may_ask_for_lastval(make_table: Make, log: Log) -> None:
    make_table("serial", "id serial PRIMARY KEY, name text")
    sql("CREATE ROLE clerk")
    try:
        sql("GRANT INSERT ON serial TO clerk; GRANT USAGE ON SEQUENCE serial_id_seq TO clerk")
        with transaction.atomic():
            sql("SET LOCAL ROLE clerk")
            sql("INSERT INTO serial (name) VALUES ('a')")
            assert sql("SELECT lastval()") == [(1,)]
    finally:
        sql("DROP OWNED BY clerk; DROP ROLE clerk")
    assert [entry.op for entry in log.entries()] == ["I"]


def test_ids_rise_within_a_transaction_and_over_those_of_one_row(make_table: Make, log: Log) -> None:
    make_table("rows", "id int PRIMARY KEY, name text")
    with transaction.atomic():
        sql("INSERT INTO rows SELECT i, 'x' FROM generate_series(1, 3000) AS i")
        sql("UPDATE rows SET name = 'y'")
        sql("DELETE FROM rows WHERE id > 1")
    for _ in range(3):
        sql("UPDATE rows SET name = name || '!'")
    found = sql("SELECT id FROM djcrf_pg_change WHERE relation = 'rows'::regclass")
    assert len({number for (number,) in found}) == 3000 + 3000 + 2999 + 3
    entries = log.entries()
    assert [
        entry.new["name"] for entry in entries if entry.op == "U" and entry.xid != entries[0].xid and entry.new
    ] == [
        "y!",
        "y!!",
        "y!!!",
    ]
    pairs = [(entry.old, entry.new) for entry in entries if entry.op == "U" and entry.xid == entries[0].xid]
    assert all(old and new and old["id"] == new["id"] for old, new in pairs)


def test_a_log_that_writes_no_wal_takes_every_change(server: Callable[..., EmbeddedPostgres]) -> None:
    minimal = server(wal_level="minimal", max_wal_senders="0")
    with minimal.params.connect() as writer:
        wire(writer, "t")
        with writer.transaction():
            # What is emptied and written in one transaction is not in the WAL: its position stands still.
            writer.execute("TRUNCATE djcrf_pg_change, t")
            writer.execute("INSERT INTO t SELECT i FROM generate_series(1, 50) AS i")
            for name in "abc":
                writer.execute("UPDATE t SET name = %s WHERE id = 1", [name])
        assert writer.execute("SELECT count(*), count(DISTINCT id) FROM djcrf_pg_change").fetchone() == (54, 54)
        writer.execute("ALTER TABLE djcrf_pg_change SET UNLOGGED; ALTER TABLE t SET UNLOGGED")
        with writer.transaction():
            for name in "abc":
                writer.execute("UPDATE t SET name = %s WHERE id = 1", [name])
        assert writer.execute("SELECT count(DISTINCT id) FROM djcrf_pg_change").fetchone() == (57,)


# -- Types that somebody has made ----------------------------------------------------------------------------------

MADE = """
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE DOMAIN temper AS mood;
    CREATE TYPE pair AS (first mood, second int);
    CREATE FUNCTION tell(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
    CREATE FUNCTION say(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
    CREATE FUNCTION tell(pair) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
"""
CASTS = """
    CREATE CAST (mood AS json) WITH FUNCTION tell(mood);
    CREATE CAST (mood AS text) WITH FUNCTION say(mood) AS ASSIGNMENT;
    CREATE CAST (pair AS json) WITH FUNCTION tell(pair);
"""
VALUES = {"m": "good", "t": "bad", "ms": "{good,NULL}", "ts": "{bad}", "p": "(good,1)", "ps": '{"(bad,2)"}', "n": None}


@pytest.fixture
def made(db: None) -> Iterator[None]:
    """Types whose owner has given them casts that fail."""
    sql(MADE)
    yield
    sql("DROP TYPE mood, pair CASCADE; DROP FUNCTION IF EXISTS tell(text), say(text)")


@pytest.mark.parametrize("rows", [1, 3])
def test_no_cast_is_called_and_the_image_has_what_the_driver_is_given(
    rows: int, made: None, make_table: Make, log: Log
) -> None:
    sql(CASTS)
    make_table(
        "moody", "id int PRIMARY KEY, m mood, t temper, ms mood[], ts temper[], p pair, ps pair[], n mood, d date"
    )
    sql(
        "INSERT INTO moody "
        "SELECT i, 'good', 'bad', '{good,NULL}', '{bad}', '(good,1)', '{\"(bad,2)\"}', NULL, '2020-01-02' "
        f"FROM generate_series(1, {rows}) AS i"
    )
    sql("UPDATE moody SET id = -id")
    sql("DELETE FROM moody")
    entries = log.entries()
    assert [entry.op for entry in entries] == ["I"] * rows + ["U"] * rows + ["D"] * rows
    for entry in entries:
        for image in (entry.old, entry.new):
            assert image is None or image == {"id": image["id"], "d": "2020-01-02", **VALUES}


def test_a_cast_or_a_column_that_comes_later_is_not_called_either(made: None, make_table: Make, log: Log) -> None:
    make_table("later", "id int PRIMARY KEY, name text, m mood")
    for number in range(8):  # the plans of this session are made
        sql(f"INSERT INTO later VALUES ({number}, 'x', 'good')")
    sql(CASTS)
    sql("INSERT INTO later VALUES (8, 'x', 'good')")
    sql("ALTER TABLE later ADD more pair")
    sql("UPDATE later SET more = '(bad,1)' WHERE id = 1")
    entries = log.entries()
    assert {entry.op for entry in entries} == {"I", "U"}
    assert entries[-1].new == {"id": 1, "name": "x", "m": "good", "more": "(bad,1)"}


def test_plans_of_a_session_end_with_the_table_s_types(made: None, make_table: Make, log: Log) -> None:
    sql(CASTS)
    make_table("plain", "id int PRIMARY KEY, name text")
    for number in range(8):
        sql(f"INSERT INTO plain VALUES ({number}, 'good')")
    sql("ALTER TABLE plain ALTER name TYPE mood USING name::mood")
    sql("INSERT INTO plain VALUES (8, 'bad')")
    sql("ALTER TABLE plain ALTER name TYPE text USING 'text', ADD m mood DEFAULT 'bad'")
    sql("INSERT INTO plain VALUES (9, 'more')")
    assert [entry.new for entry in log.entries()][-2:] == [
        {"id": 8, "name": "bad"},
        {"id": 9, "name": "more", "m": "bad"},
    ]


@pytest.mark.parametrize("change", ["ALTER plain TYPE mood USING plain::mood", "ADD m mood DEFAULT 'bad'"])
def test_a_transaction_with_an_older_snapshot_calls_none(
    change: str, made: None, make_table: Make, log: Log, test_pg: Any
) -> None:
    sql(CASTS)
    make_table("aged", "id int PRIMARY KEY, plain text")
    with test_pg.connect() as writer:
        for number in range(8):
            writer.execute("INSERT INTO aged (id, plain) VALUES (%s, 'good')", [number])
        writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        writer.execute("SELECT 1 FROM pg_class LIMIT 1")
        sql(f"ALTER TABLE aged {change}")
        writer.execute("INSERT INTO aged (id, plain) VALUES (8, 'good')")
        writer.execute("COMMIT")
        writer.execute("INSERT INTO aged (id, plain) VALUES (9, 'good')")
    ops = [entry.op for entry in log.entries()]
    assert len(ops) == 10
    assert set(ops) <= {"I", "R"}


# -- Plans that are kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["name text", "name text, span interval"])
@pytest.mark.parametrize("rows", [1, 2])
def test_what_a_session_did_to_many_rows_makes_those_with_few_no_slower(
    rows: int, columns: str, make_table: Make, log: Log, test_pg: Any
) -> None:
    make_table("often", f"id int PRIMARY KEY, {columns}")
    plans: list[str] = []
    with test_pg.connect() as writer:
        if not writer.execute("SELECT pg_jit_available()").fetchone()[0]:
            pytest.skip("no LLVM here: DJCRF_PG_TEST_POSTGRES=debian has it")
        writer.execute("INSERT INTO often (id, name) SELECT i, '' FROM generate_series(1, 3000) AS i")
        writer.execute("SET jit_above_cost = 1000; LOAD 'auto_explain'; SET auto_explain.log_nested_statements = on")
        writer.execute("SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on")
        for name in "abcdefgh":
            writer.execute("UPDATE often SET name = %s", [name])
        writer.add_notice_handler(lambda diagnostic: plans.append(diagnostic.message_primary or ""))
        writer.execute("SET client_min_messages = log")
        writer.execute("UPDATE often SET name = 'i' WHERE id <= %s", [rows])
        assert writer.execute("SHOW jit").fetchone() == ("on",)
    assert any("djcrf_pg_new" in plan for plan in plans)
    assert [plan for plan in plans if "JIT:" in plan] == []
    assert [entry.op for entry in log.entries()][-rows:] == ["U"] * rows


def test_a_statement_that_began_before_its_cascade_s_table_was_altered_calls_none(
    made: None, make_table: Make, log: Log, test_pg: Any
) -> None:
    sql(CASTS + "CREATE OR REPLACE FUNCTION tell(mood) RETURNS json LANGUAGE sql AS $$ SELECT '\"told\"'::json $$")
    make_table("above", "id int PRIMARY KEY")
    make_table("below", "id int PRIMARY KEY, above int REFERENCES above ON DELETE CASCADE, name text")
    sql("INSERT INTO above VALUES (1), (2); INSERT INTO below VALUES (1, 1, 'good'), (2, 2, 'good')")
    with test_pg.connect() as writer, ThreadPoolExecutor(1) as pool, test_pg.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM above WHERE id = 1 FOR UPDATE")
        deleting = pool.submit(writer.execute, "DELETE FROM above WHERE id = 1")
        waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        wait_until(lambda: bool(sql(waits, writer.info.backend_pid)))
        sql("ALTER TABLE below ALTER name TYPE mood USING name::mood")
        other.execute("COMMIT")
        deleting.result()
        writer.execute("DELETE FROM above WHERE id = 2")
    images = [entry.old for entry in log.entries() if entry.op == "D" and entry.table == "below"]
    assert images == [{"id": number, "above": number, "name": "good"} for number in (1, 2)]


@pytest.mark.parametrize(("columns", "excluded"), [("m mood", ()), ("secret text, m text", ("secret",))])
def test_a_table_that_a_transaction_does_not_see_yet_is_a_resync(
    columns: str, excluded: tuple[str, ...], made: None, make_table: Make, log: Log, test_pg: Any
) -> None:
    sql(CASTS)
    with test_pg.connect() as writer:
        writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        writer.execute("SELECT 1 FROM pg_class LIMIT 1")
        make_table("young", f"id int PRIMARY KEY, {columns}", excluded=excluded)
        writer.execute("INSERT INTO young (id, m) VALUES (1, 'good')")
        writer.execute("INSERT INTO young (id, m) VALUES (2, 'good'), (3, 'bad')")
        writer.execute("COMMIT")
    assert log.images() == [("R", None, None)] * 2


@pytest.mark.parametrize("columns", ["", "id int"])
def test_what_was_altered_in_vain_is_no_resync_in_later_transactions(
    columns: str, make_table: Make, log: Log, test_pg: Any
) -> None:
    make_table("tried", columns)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        sql("ALTER TABLE tried ADD more int, " + ("ALTER id TYPE bigint" if columns else "ADD most int"))
        raise ZeroDivisionError
    with test_pg.connect() as writer, writer.transaction():
        writer.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        writer.execute("INSERT INTO tried DEFAULT VALUES")
        with writer.transaction(force_rollback=True):
            writer.execute("ALTER TABLE tried " + ("ALTER id SET DEFAULT 5" if columns else "ADD most int"))
            writer.execute("INSERT INTO tried DEFAULT VALUES")
        writer.execute("INSERT INTO tried DEFAULT VALUES")
    image = {"id": None} if columns else {}
    assert log.images() == [("I", None, image)] * 2


# -- Images that cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2])
def test_a_small_row_with_an_image_over_a_gigabyte_is_a_resync(rows: int, make_table: Make, log: Log) -> None:
    make_table("numbers", "id int PRIMARY KEY, n numeric[]")
    sql(f"INSERT INTO numbers SELECT i, array_fill(1e131071::numeric, '{{9000}}') FROM generate_series(1, {rows}) AS i")
    assert sql("SELECT max(pg_column_size(numbers.*)) < 3000 FROM numbers") == [(True,)]
    sql("UPDATE numbers SET id = id + 10")
    sql("DELETE FROM numbers")
    assert [entry.op for entry in log.entries()] == ["R", "R", "R"]


# -- Settings ------------------------------------------------------------------------------------------------------

SETTINGS = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Kolkata",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "search_path": "public, pg_catalog",
}


@pytest.mark.parametrize("rows", [1, 2])
def test_images_are_the_same_whatever_the_session_has_set_and_it_keeps_that(
    rows: int, make_table: Make, log: Log
) -> None:
    make_table("dated", "id int PRIMARY KEY, at timestamptz, r tstzrange, i interval, b bytea, f float8, c regclass")
    statement = (
        "INSERT INTO dated "
        "SELECT i + %s, '2020-02-01 00:00+00', '[2020-02-01 00:00+00,)', 'P1DT2H', 'ab', 1/3.0, 'dated' "
        "FROM generate_series(1, %s) AS i"
    )
    sql(statement, 0, rows)
    with transaction.atomic():
        for name, value in SETTINGS.items():
            sql(f"SET LOCAL {name} = {value if name == 'search_path' else repr(value)}")
        before = sql("SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'djcrf%%'")
        sql(statement, 10, rows)
        sql("UPDATE dated SET id = -id WHERE id > 10")
        assert sql("SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'djcrf%%'") == before
    images = [image for entry in log.entries() for image in (entry.old, entry.new) if image is not None]
    assert len({tuple(sorted((k, v) for k, v in image.items() if k != "id")) for image in images}) == 1
    assert images[0] == {
        "id": 1,
        "at": "2020-02-01T00:00:00+00:00",
        "r": '["2020-02-01 00:00:00+00",)',
        "i": "P1DT2H",
        "b": "\\x6162",
        "f": images[0]["f"],
        "c": "public.dated",
    }
    assert float(images[0]["f"]) == 1 / 3


def test_a_time_has_the_offset_of_its_session_in_whatever_way_it_is_logged(make_table: Make, log: Log) -> None:
    """So the text of a value differs where the value does."""
    make_table("zoned", "id int PRIMARY KEY, at timestamptz, f float8")
    make_table("left_out", "id int PRIMARY KEY, at timestamptz, f float8, secret text", excluded=("secret",))
    with transaction.atomic():
        sql("SET LOCAL TimeZone = 'Asia/Kolkata'")
        sql("SET LOCAL extra_float_digits = 0")
        for table in ("zoned", "left_out"):
            sql(f"INSERT INTO {table} VALUES (1, '2020-02-01 00:00+00', 1/3.0)")
            sql(f"INSERT INTO {table} VALUES (2, '2020-02-01 00:00+00', 1/3.0), (3, '2020-02-01 00:00+00', 1/3.0)")
            sql(f"UPDATE {table} SET id = -id WHERE id = 1")
            sql(f"UPDATE {table} SET id = -id WHERE id > 1")
            sql(f"DELETE FROM {table}")
        assert sql("SHOW TimeZone") == [("Asia/Kolkata",)]
        assert sql("SHOW extra_float_digits") == [("0",)]
    images = [image for entry in log.entries() for image in (entry.old, entry.new) if image is not None]
    assert len(images) == 2 * 12
    assert {image["at"] for image in images} == {"2020-02-01T05:30:00+05:30"}
    assert {float(image["f"]) for image in images} == {1 / 3}


TRAPS = """
    CREATE SCHEMA trap;
    CREATE FUNCTION trap.spring() RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'called as %', current_user; END $$;
"""
OPERATORS = [
    (left, right, name)
    for left, right in [
        ("int", "int"),
        ("bigint", "bigint"),
        ("bigint", "int"),
        ("text", "text"),
        ("oid", "oid"),
        ("boolean", "boolean"),
        ("numeric", "numeric"),
        ("pg_lsn", "pg_lsn"),
        ("smallint", "int"),
        ("name", "name"),
    ]
    for name in ("=", "<>", "<", "<=", ">", ">=", "-", "+", "&")
]


def test_what_the_writer_s_search_path_has_is_not_called(make_table: Make, log: Log) -> None:
    make_table("target", "id int PRIMARY KEY, at timestamptz, f float8, i interval")
    make_table("hidden", "id int PRIMARY KEY, secret text", excluded=("secret",))
    sql(TRAPS)
    try:
        for number, (left, right, name) in enumerate(OPERATORS):
            sql(
                f"CREATE FUNCTION trap.op_{number}({left}, {right}) RETURNS boolean "
                f"LANGUAGE sql AS 'SELECT trap.spring()'"
            )
            sql(f"CREATE OPERATOR trap.{name} (FUNCTION = trap.op_{number}, LEFTARG = {left}, RIGHTARG = {right})")
        body = "LANGUAGE plpgsql AS 'BEGIN RETURN trap.spring(); END'"
        for name, arguments in {
            "row_to_json": "record",
            "current_setting": "text, boolean",
            "octet_length": "text",
            "pg_trigger_depth": "",
            "pg_backend_pid": "",
            "format": "text, text",
            "pg_sequence_last_value": "regclass",
            "pg_current_wal_insert_lsn": "",
            "count": "anyelement",
            "max": "bigint",
            "row_number": "",
            "set_config": "text, text, boolean",
            "pg_column_size": "anyelement",
        }.items():
            sql(f"CREATE FUNCTION trap.{name}({arguments}) RETURNS boolean {body}")
        sql("CREATE DOMAIN trap.text AS pg_catalog.text CHECK (trap.spring())")
        sql("CREATE DOMAIN trap.json AS pg_catalog.json CHECK (trap.spring())")
        sql("CREATE DOMAIN trap.int8 AS pg_catalog.int8 CHECK (trap.spring())")
        for rows in (1, 2):
            with transaction.atomic():
                for table, rest in (("target", "now(), 1, '1 day'"), ("hidden", "'hush'")):
                    sql("SET LOCAL search_path = public, pg_catalog")
                    select = (
                        f"INSERT INTO public.{table} SELECT v.i, {rest} FROM (VALUES (1), (2)) AS v (i) LIMIT {rows}"
                    )
                    sql("SET LOCAL search_path = trap, pg_catalog, public")
                    sql(select)
                    sql(f"UPDATE public.{table} SET id = id OPERATOR(pg_catalog.+) 10")
                    sql(f"DELETE FROM public.{table}")
                    sql(f"TRUNCATE public.{table}")
    finally:
        sql("DROP SCHEMA trap CASCADE")
    ops = [entry.op for entry in log.entries()]
    assert "R" not in ops
    assert len(ops) == 2 * (3 + 6 + 2)


# -- The doorbell --------------------------------------------------------------------------------------------------


def test_a_transaction_can_be_prepared_while_the_listener_sleeps(server: Callable[..., EmbeddedPostgres]) -> None:
    two_phase = server(max_prepared_transactions="2")
    with two_phase.params.connect() as writer:
        wire(writer, "t")
        assert writer.execute("SELECT last_value FROM djcrf_pg_listener_awake").fetchone() == (0,)
        writer.execute("BEGIN; INSERT INTO t VALUES (1); UPDATE t SET id = 2; DELETE FROM t; PREPARE TRANSACTION 'p'")
        writer.execute("COMMIT PREPARED 'p'")
        assert writer.execute("SELECT count(*) FROM djcrf_pg_change").fetchone() == (3,)
        # Who says that nothing is prepared is rung for.
        writer.execute("SELECT setval('djcrf_pg_rings', 1)")
        writer.execute("BEGIN; INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            writer.execute("PREPARE TRANSACTION 'p'")


def test_a_full_queue_of_notifications_fails_no_commit(server: Callable[..., EmbeddedPostgres]) -> None:
    if postgres_version() in ("14", "15", "16", "debian"):
        pytest.skip("the queue has 8 GB before PostgreSQL 17")
    small = server(max_notify_queue_pages="64")
    with small.params.connect() as idle, small.params.connect() as writer, small.params.connect() as filler:
        wire(writer, "t")
        idle.execute("BEGIN")
        idle.execute("LISTEN something")
        idle.execute("COMMIT")
        idle.execute("BEGIN; SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="too many notifications"):
            for _ in range(1000):
                filler.execute("SELECT pg_notify('other', i || repeat('x', 5000)) FROM generate_series(1, 20) AS i")
        writer.execute("INSERT INTO t VALUES (1)")
        assert writer.execute("SELECT count(*) FROM djcrf_pg_change").fetchone() == (1,)


# -- What the session says -----------------------------------------------------------------------------------------


def test_settings_of_absurd_size_fail_nothing_and_are_not_stored(make_table: Make, log: Log) -> None:
    make_table("said", "id int PRIMARY KEY")
    with transaction.atomic():
        sql("SELECT set_config('djcrf_pg.context', repeat('x', 100000000), true)")
        sql("SELECT set_config('djcrf_pg.suspend', repeat('1,', 50000000), true)")
        sql("INSERT INTO said VALUES (1)")
        sql("INSERT INTO said VALUES (2), (3)")
        sql("UPDATE said SET id = id + 10")
        sql("TRUNCATE said")
    entries = log.entries()
    assert [entry.op for entry in entries] == ["I", "I", "I", "U", "U", "U", "T"]
    assert {entry.context for entry in entries} == {""}


# -- Ways to write -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_each_isolation_level_and_copy_and_partitions_are_captured(level: str, make_table: Make, log: Log) -> None:
    make_table(
        "parted",
        "id int PRIMARY KEY, name text",
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (100)",
        options="PARTITION BY RANGE (id)",
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        with cursor.copy("COPY parted FROM STDIN") as copy:
            copy.write("1\ta\n2\tb\n")
        cursor.execute("INSERT INTO parted_2 VALUES (20, 'c')")
        cursor.execute("UPDATE parted SET id = id + 10 WHERE id < 3")
        cursor.execute("UPDATE parted SET name = 'd' WHERE id = 20")
        cursor.execute("DELETE FROM parted_2 WHERE id = 20")
    ops = [(entry.table, entry.op) for entry in log.entries()]
    # Rows that move to another partition are the business of the statement: as updates, or as deletes and inserts.
    assert ops[:3] == [("parted", "I"), ("parted", "I"), ("parted_2", "I")]
    assert ops[-2:] == [("parted", "U"), ("parted_2", "D")]
    assert {table for table, _ in ops[3:-2]} == {"parted"}


def test_a_replica_s_session_is_captured_where_the_trigger_is_always(make_table: Make, log: Log) -> None:
    make_table("replayed", "id int PRIMARY KEY")
    with transaction.atomic():
        sql("SET LOCAL session_replication_role = replica")
        sql("INSERT INTO replayed VALUES (1)")
    assert log.entries() == []
    sql("ALTER TABLE replayed ENABLE ALWAYS TRIGGER djcrf_pg_insert")
    with transaction.atomic():
        sql("SET LOCAL session_replication_role = replica")
        sql("INSERT INTO replayed VALUES (2)")
    assert [entry.new for entry in log.entries()] == [{"id": 2}]


def test_what_a_migration_named_of_former_functions_goes_on_beside(make_table: Make, log: Log) -> None:
    make_table("mixed", "id int PRIMARY KEY")
    sql(definition(Table(0, "mixed"), "update", "", "v1"))
    sql("INSERT INTO mixed VALUES (1)")
    sql("UPDATE mixed SET id = 2")
    assert sql("SELECT op::text, new->>'id' FROM djcrf_pg_change WHERE relation = 'mixed'::regclass ORDER BY op") == [
        ("I", "1"),
        ("U", "2"),
    ]
    observe("mixed")


# -- There and back ------------------------------------------------------------------------------------------------


def functions_of(table: str) -> set[str]:
    """The versions of the functions that the triggers of a table call."""
    return {
        name.rpartition("_")[2]
        for (name,) in sql(
            "SELECT p.proname FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid "
            "WHERE t.tgrelid = %s::regclass AND p.proname LIKE 'djcrf%%'",
            table,
        )
    }


def test_migrating_back_and_forth_replaces_the_triggers_and_ids_go_on_rising() -> None:
    numbers = itertools.count()

    def write() -> int:
        sql("INSERT INTO testapp_project (name) VALUES (%s)", f"project {next(numbers)}")
        return int(sql("SELECT id FROM djcrf_pg_change ORDER BY xid DESC LIMIT 1")[0][0])

    ids = [write()]
    try:
        # Before migrate has come to the triggers: no write goes without.
        with override_settings(DJCRF_PG={"AUTO_INSTALL": False}):
            call_command("migrate", "djcrf_pg", "0003", verbosity=0)
        assert functions_of("testapp_project") == {"v1"}
        ids.append(write())
        call_command("migrate", "djcrf_pg", "0003", verbosity=0)
        assert functions_of("testapp_project") == {"v1"}
        assert [step.state for step in plan("default") if step.state != "installed"] == []
        ids.append(write())
        with override_settings(DJCRF_PG={"AUTO_INSTALL": False}):
            call_command("migrate", "djcrf_pg", verbosity=0)
        assert functions_of("testapp_project") == {"v1"}
        assert {step.state for step in plan("default")} == {"outdated"}
        ids.append(write())
    finally:
        call_command("migrate", verbosity=0)
    assert functions_of("testapp_project") == {"v2"}
    ids.append(write())
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


# -- Our own objects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "logged"),
    [
        ("SEQUENCE djcrf_pg_listener_awake", "RRRT"),
        ("SEQUENCE djcrf_pg_trimmed", "IIUDDT"),
        ("SEQUENCE djcrf_pg_rings", "IIUDDT"),
        ("TABLE djcrf_pg_cap", "IIUDDT"),
        ("FUNCTION djcrf_pg_trim_v2(bigint)", "IIUDDT"),
        ("FUNCTION djcrf_pg_columns_v2(oid, text[])", "RURT"),
    ],
)
def test_a_missing_object_of_ours_fails_no_write(gone: str, logged: str, make_table: Make, log: Log) -> None:
    make_table("spared", "id int PRIMARY KEY, name text")
    with transaction.atomic():
        sql(f"DROP {gone}")
        sql("INSERT INTO spared VALUES (1), (2)")
        sql("UPDATE spared SET name = 'x' WHERE id = 1")
        sql("DELETE FROM spared")
        sql("TRUNCATE spared")
        assert "".join(entry.op for entry in log.entries()) == logged
        transaction.set_rollback(True)
