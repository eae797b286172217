"""What ``migrate`` makes beyond the migrations: the doorbell's mode, and the functions where migrations are off."""

import importlib.resources
from collections.abc import Callable

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from djcrf_pg.capture import objects
from djcrf_pg.capture.objects import note_shapes
from djcrf_pg.sql import load, render
from tests.integration.log import sql

pytestmark = pytest.mark.django_db(transaction=True)


def test_notify_never_mutes_the_doorbell_before_any_listener_runs():
    with override_settings(DJCRF_PG={"NOTIFY": "never"}):
        call_command("migrate", verbosity=0)
    assert sql("SELECT last_value FROM djcrf_pg_listener_awake") == [(2,)]
    if connection.cursor().execute("SHOW max_prepared_transactions").fetchone() != ("0",):
        sql("BEGIN; INSERT INTO testapp_project (name) VALUES ('two-phase'); PREPARE TRANSACTION 'p'")
        sql("COMMIT PREPARED 'p'")
    call_command("migrate", verbosity=0)
    assert sql("SELECT last_value FROM djcrf_pg_listener_awake") == [(0,)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("RENAME name TO swap; RENAME other TO name; RENAME swap TO other", True),
        ("DROP other; ADD other text", True),
        ("DROP name; RENAME other TO name; ADD other text", True),
        ("RENAME other TO another", False),
        ("DROP other", False),
        ("ADD another text", False),
        ("ALTER other TYPE varchar(50)", False),
    ],
)
def test_a_name_that_stands_for_another_column_has_everybody_load_again(
    change: str, said: bool, make_table: Callable[..., str]
):
    make_table("shaped", "id int PRIMARY KEY, name text, other text")
    note_shapes("default")
    sql("DELETE FROM djcrf_pg_change")
    for part in change.split("; "):
        sql(f"ALTER TABLE shaped {part}")
    for _ in range(2):
        note_shapes("default")
    assert sql("SELECT relation::text, op::text FROM djcrf_pg_change") == ([("shaped", "R")] if said else [])


def test_without_migrations_the_tables_of_the_models_become_the_change_log():
    call_command("migrate", "djcrf_pg", "zero", verbosity=0)
    try:
        with override_settings(MIGRATION_MODULES={"djcrf_pg": None}):
            call_command("migrate", run_syncdb=True, verbosity=0)
            files = importlib.resources.files("djcrf_pg.capture") / "sql"
            numbers = {path.name[:4] for path in files.iterdir() if path.name.endswith("_forwards.sql")}
            assert set(objects._FILES) == numbers
            sql("INSERT INTO testapp_project (name) VALUES ('captured')")
            assert sql("SELECT op::text, new->>'name' FROM djcrf_pg_change WHERE op = 'I'")[-1] == ("I", "captured")
            sql("SELECT djcrf_pg_touch('testapp_project', 1)")
            assert sql("SELECT count(*) FROM djcrf_pg_change WHERE depth = 0 AND op = 'U'") == [(1,)]
    finally:
        for number in sorted(objects._FILES, reverse=True):
            sql(render(load("djcrf_pg.capture", f"{number}_backwards.sql"), schema="public."))
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
