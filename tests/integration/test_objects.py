"""What ``migrate`` makes beyond the migrations: the doorbell's mode, resyncs; functions where migrations are off."""

import importlib.resources
import signal
from collections.abc import Callable

import pytest
from django.core.management import call_command
from django.test import override_settings

from djcrf_pg import sql as files
from djcrf_pg.capture import objects
from djcrf_pg.capture.objects import look
from tests.integration.log import observe, script, sql
from tests.project import Project
from tests.servers import DBNAME, DSN, EmbeddedPostgres, ManagePy

pytestmark = pytest.mark.django_db(transaction=True)


def test_notify_never_mutes_the_doorbell_before_any_listener_runs():
    with override_settings(DJCRF_PG={"NOTIFY": "never"}):
        call_command("migrate", verbosity=0)
    assert sql("SELECT last_value FROM djcrf_pg_listener_awake") == [(2,)]
    call_command("migrate", verbosity=0)
    assert sql("SELECT last_value FROM djcrf_pg_listener_awake") == [(0,)]


@pytest.mark.parametrize(("mode", "rings"), [("elide", 1), ("always", 1), ("never", 0), ("auto", 0)])
def test_writers_know_before_any_listener_runs_whether_to_ring_where_transactions_can_be_prepared(
    mode: str, rings: int
):
    with override_settings(DJCRF_PG={"NOTIFY": mode}):
        call_command("migrate", verbosity=0)
    assert sql("SELECT last_value FROM djcrf_pg_rings") == [(rings,)]
    call_command("migrate", verbosity=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("RENAME name TO swap; RENAME other TO name; RENAME swap TO other", True),
        ("DROP other; ADD other text", True),
        ("DROP name; RENAME other TO name; ADD other text", True),
        ("RENAME other TO another", False),
        ("DROP other", False),
        ("ADD another text", False),
        ("ALTER code TYPE text", False),
        ("ALTER other TYPE text USING upper(other)", True),
        ("ALTER other SET NOT NULL", False),
        ("DISABLE TRIGGER djcrf_pg_update; ENABLE TRIGGER djcrf_pg_update", True),
        ("ENABLE REPLICA TRIGGER djcrf_pg_update", True),
    ],
)
def test_a_table_whose_rows_read_otherwise_has_everybody_load_again(
    change: str, said: bool, make_table: Callable[..., str]
):
    make_table("shaped", "id int PRIMARY KEY, name text, other text, code varchar(5)")
    look("default")
    sql("DELETE FROM djcrf_pg_change")
    for part in change.split("; "):
        sql(f"ALTER TABLE shaped {part}")
    for _ in range(2):
        look("default")
    assert resyncs() == (["shaped"] if said else [])


def resyncs() -> list[str]:
    """The tables that the log has a resync of."""
    return [table for (table,) in sql("SELECT relation::text FROM djcrf_pg_change WHERE op = 'R' ORDER BY id")]


def looked(*statements: str) -> list[str]:
    """The tables that a look after these statements logs a resync of; one more look logs none."""
    sql("DELETE FROM djcrf_pg_change")
    script(statements)
    look("default")
    found = resyncs()
    look("default")
    assert resyncs() == found
    return found


@pytest.mark.parametrize("harmless", ["VACUUM FULL {0}", "CLUSTER {0} USING {0}_pkey", "TRUNCATE {0}", "ANALYZE {0}"])
def test_what_writes_a_table_anew_without_another_value_is_no_resync(harmless: str, make_table: Callable[..., str]):
    make_table("shaped", "id int PRIMARY KEY, name text")
    script(["INSERT INTO shaped VALUES (1, 'a')", "ALTER TABLE shaped ALTER name SET STATISTICS 5"])
    look("default")
    assert looked(harmless.format("shaped")) == []


def test_triggers_that_were_gone_are_a_resync_and_those_that_are_replaced_are_none():
    with override_settings(DJCRF_PG={"EXCLUDE": {"testapp.Task": ["body"]}}):
        call_command("migrate", verbosity=0)
    call_command("migrate", verbosity=0)
    assert resyncs() == []
    sql("DROP TRIGGER djcrf_pg_update ON testapp_task")
    call_command("migrate", verbosity=0)
    assert resyncs() == ["testapp_task"]


def test_partitions_that_come_and_go_are_a_resync_of_their_root():
    script(
        [
            "CREATE TABLE rooted (id int) PARTITION BY LIST (id)",
            "CREATE TABLE rooted_1 PARTITION OF rooted FOR VALUES IN (1) PARTITION BY LIST (id)",
            "CREATE TABLE leaf (id int)",
        ]
    )
    try:
        observe("rooted")
        look("default")
        assert looked("ALTER TABLE rooted_1 ATTACH PARTITION leaf FOR VALUES IN (1)") == ["rooted", "rooted_1"]
        assert looked("ALTER TABLE rooted_1 DETACH PARTITION leaf") == ["rooted", "rooted_1"]
        assert looked("ALTER TABLE rooted DETACH PARTITION rooted_1", "DROP TABLE rooted_1") == ["rooted"]
    finally:
        script(["DROP TABLE rooted", "DROP TABLE IF EXISTS leaf, rooted_1"])


def test_children_that_come_and_go_are_a_resync_of_their_parent(make_table: Callable[..., str]):
    make_table("parent", "id int")
    look("default")
    assert looked("CREATE TABLE heir (id int)", "ALTER TABLE heir INHERIT parent") == ["parent"]
    assert looked("ALTER TABLE heir NO INHERIT parent", "DROP TABLE heir") == ["parent"]


@pytest.mark.parametrize("old", ["ALTER TABLE other RENAME TO swapped", "DROP TABLE other"])
def test_a_table_that_takes_the_name_of_another_is_a_resync(old: str, make_table: Callable[..., str]):
    make_table("shaped", "id int PRIMARY KEY")
    look("default")
    sql("CREATE TABLE fresh (id int PRIMARY KEY)")
    assert looked("ALTER TABLE shaped RENAME TO other", "ALTER TABLE fresh RENAME TO shaped", old) == ["shaped"]
    observe("shaped")
    assert looked() == ["shaped"]
    sql("DROP TABLE IF EXISTS swapped")


def test_two_tables_that_change_names_are_a_resync_of_both(make_table: Callable[..., str]):
    make_table("first", "id int PRIMARY KEY")
    make_table("second", "id int PRIMARY KEY")
    look("default")
    swap = [f"ALTER TABLE {names}" for names in ("first RENAME TO x", "second RENAME TO first", "x RENAME TO second")]
    assert sorted(looked(*swap)) == ["first", "second"]


def test_a_row_that_an_earlier_version_has_noted_is_no_resync(make_table: Callable[..., str]):
    make_table("shaped", "id int PRIMARY KEY")
    sql("DELETE FROM djcrf_pg_shape")
    sql(
        "INSERT INTO djcrf_pg_shape (relation, columns) SELECT attrelid, jsonb_object_agg(attname, attnum) "
        "FROM pg_attribute WHERE attrelid = 'shaped'::regclass AND attnum > 0 GROUP BY attrelid"
    )
    assert looked() == []
    assert sql("SELECT count(*), count(triggers) FROM djcrf_pg_shape WHERE relation = 'shaped'::regclass") == [(1, 1)]


def test_an_unlogged_table_that_a_crash_has_emptied_is_a_resync(project: Project):
    def found() -> list[tuple[str]]:
        ManagePy.run("migrate", "--verbosity", "0", env={**project.env(), DSN: server.params.dsn(), DBNAME: "postgres"})
        with server.params.connect() as other:
            return other.execute("SELECT relation::text FROM djcrf_pg_change WHERE op = 'R' ORDER BY 1").fetchall()

    with EmbeddedPostgres() as server:
        assert found() == []
        with server.params.connect() as other:
            other.execute("ALTER TABLE shelf_book_authors SET UNLOGGED")
        assert found() == []
        server.terminate()
        server.start()
        assert found() == [], "in good order it keeps its rows"
        server.send_signal(signal.SIGQUIT)
        server.wait()
        server.start()
        assert found() == [("shelf_book_authors",)]


def test_without_migrations_the_tables_of_the_models_become_the_change_log():
    call_command("migrate", "djcrf_pg", "zero", verbosity=0)
    try:
        with override_settings(MIGRATION_MODULES={"djcrf_pg": None}):
            call_command("migrate", run_syncdb=True, verbosity=0)
            folder = importlib.resources.files("djcrf_pg.capture") / "sql"
            numbers = {path.name[:4] for path in folder.iterdir() if path.name.endswith("_forwards.sql")}
            assert set(objects._FILES) == numbers
            sql("INSERT INTO testapp_project (name) VALUES ('captured')")
            assert sql("SELECT op::text, new->>'name' FROM djcrf_pg_change WHERE op = 'I'")[-1] == ("I", "captured")
            sql("SELECT djcrf_pg_touch('testapp_project', 1)")
            assert sql("SELECT count(*) FROM djcrf_pg_change WHERE depth = 0 AND op = 'U'") == [(1,)]
    finally:
        for number in sorted(objects._FILES, reverse=True):
            sql(files.render(files.load("djcrf_pg.capture", f"{number}_backwards.sql"), schema="public."))
        call_command("migrate", verbosity=0)


def test_wide_rows_are_read_in_pieces_of_so_many_bytes(test_pg):
    import asyncio

    import asyncpg

    from djcrf_pg.changelog.cursor import Position, Snapshot
    from djcrf_pg.changelog.reader import PIECE_BYTES, ChangeLog

    (start,) = sql("SELECT pg_current_snapshot()::text")[0]
    sql(
        "INSERT INTO testapp_task (title, status, points, body) "
        "SELECT 't' || i, '', 0, repeat('x', 500000) FROM generate_series(1, 100) AS i"
    )

    async def read() -> list[int]:
        address = {"host": test_pg.host, "port": test_pg.port, "user": test_pg.user, "database": test_pg.dbname}
        connection = await asyncpg.connect(**address, password=test_pg.password or None)
        try:
            log, position, sizes = await ChangeLog.open(connection), Position(Snapshot.parse(start)), []
            while True:
                piece = await log.read(position, 10_000)
                if not piece.changes:
                    return sizes
                sizes.append(sum(len(change.new or "") for change in piece.changes))
                position = piece.position
        finally:
            await connection.close()

    sizes = asyncio.run(read())
    assert sum(sizes) > 100 * 500_000
    assert max(sizes) < PIECE_BYTES + 1_000_000
    assert len(sizes) < 16
