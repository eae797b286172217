"""``manage.py djcrf_pg status``, ``install`` and ``uninstall``, as a user runs them."""

import json
from contextlib import ExitStack
from typing import Any

import pytest

from tests.processes import wait_until
from tests.project import SETTINGS, Project
from tests.servers import ManagePy

EVENTS = ("insert", "update", "delete", "truncate")
BOOKS = {("shelf_book", f"djcrf_pg_{event}") for event in EVENTS}
JOINS = {("shelf_book_authors", f"djcrf_pg_{event}") for event in EVENTS}


def states(project: Project, *arguments: str, settings: dict[str, Any] | None = None) -> dict[str, str]:
    """What ``status --json`` says: the state by table."""
    output = project.manage("djcrf_pg", "status", "--json", *arguments, settings=settings).stdout
    return {line["table"]: line["state"] for line in json.loads(output)}


def table(name: str) -> str:
    return f"public.{name}"


# -- status --------------------------------------------------------------------------------------------------


def test_status_knows_every_state(migrated: Project) -> None:
    assert states(migrated) == {table("shelf_book"): "installed", table("shelf_book_authors"): "installed"}
    migrated.rows("ALTER TABLE shelf_book DISABLE TRIGGER djcrf_pg_update")
    migrated.rows("DROP TRIGGER djcrf_pg_delete ON shelf_book_authors")
    assert states(migrated) == {table("shelf_book"): "disabled", table("shelf_book_authors"): "missing"}
    migrated.manage("djcrf_pg", "install")
    changed = {"EXCLUDE": {"shelf.Book": ["secret"]}, "OBSERVE": ["shelf.Author"]}
    assert states(migrated, settings=changed) == {
        table("shelf_book"): "outdated",
        table("shelf_book_authors"): "installed",
        table("shelf_author"): "missing",
    }
    migrated.write("shelf/consumers.py", "")
    assert states(migrated) == {table("shelf_book"): "unwanted", table("shelf_book_authors"): "unwanted"}


def test_status_is_an_aligned_table_that_says_what_mends(migrated: Project) -> None:
    migrated.rows("ALTER TABLE shelf_book DISABLE TRIGGER djcrf_pg_update")
    output = migrated.manage("djcrf_pg", "status", settings={"EXCLUDE": {"shelf.Book": []}}).stdout
    assert output.splitlines() == [
        "DATABASE  TABLE                      STATE      EXCLUDED",
        "default   public.shelf_book          disabled",
        "default   public.shelf_book_authors  installed",
        "",
        "`manage.py djcrf_pg install` fixes the triggers.",
    ]


def test_status_before_migrate_and_of_a_table_that_does_not_exist(project: Project) -> None:
    assert states(project) == {"shelf_book": "not migrated", "shelf_book_authors": "not migrated"}
    project.manage("migrate", "djcrf_pg", "--verbosity", "0")
    assert states(project) == {"shelf_book": "absent", "shelf_book_authors": "absent"}
    said = project.manage("djcrf_pg", "status").stdout
    assert 'lacks table "shelf_book", "shelf_book_authors": a migration of shelf makes it, and is not applied' in said


def test_status_fails_only_with_check(migrated: Project) -> None:
    assert migrated.manage("djcrf_pg", "status", "--check").returncode == 0
    migrated.rows("DROP TRIGGER djcrf_pg_delete ON shelf_book")
    assert migrated.manage("djcrf_pg", "status").returncode == 0
    assert migrated.manage("djcrf_pg", "status", "--check", check=False).returncode == 1
    assert migrated.manage("djcrf_pg", "status", "--check", "--json", check=False).returncode == 1


def test_errors_name_what_is_wrong_and_what_mends(migrated: Project) -> None:
    for arguments, message in (
        (["status", "--database", "nowhere"], "There is no database 'nowhere' in DATABASES; there are default."),
        (["uninstall", "--tables", "shelf_author"], "no triggers of djcrf_pg on 'shelf_author' in database 'default'"),
        (["makemigrations", "nowhere"], "No installed app with label 'nowhere'."),
    ):
        result = migrated.manage("djcrf_pg", *arguments, check=False)
        assert result.returncode == 1
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_a_database_that_cannot_be_reached_is_no_traceback(project: Project) -> None:
    project.write("shelf_settings.py", f"{SETTINGS}\nDATABASES['default']['HOST'] = '/nowhere'\n")
    result = project.manage("djcrf_pg", "status", check=False)
    assert result.returncode == 1
    assert "CommandError: Database error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_observed_is_said(project: Project, redis_url: str) -> None:
    project.write("shelf/consumers.py", "")
    layers = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis_url]}}}
    project.write("shelf_settings.py", f"{SETTINGS}\nCHANNEL_LAYERS = {layers!r}\n")
    assert project.manage("djcrf_pg", "status", "--check").stdout.startswith("Nothing is observed in any PostgreSQL")
    result = project.manage("djcrf_pg", "listen", check=False)
    assert "there is nothing to listen for" in result.stderr


def test_listen_says_when_it_leads_whatever_logging_says(migrated: Project, redis_url: str) -> None:
    layers = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis_url]}}}
    migrated.write("shelf_settings.py", f"{SETTINGS}\nCHANNEL_LAYERS = {layers!r}\nLOGGING = {{}}\n")
    with ManagePy("djcrf_pg", "listen", env=migrated.env()) as listener:
        listener.wait_for(r"djcrf_pg: listener of database 'default' leads \(term \d+\)")
        assert listener.terminate() == 0
        assert listener.find("listener of database 'default' stopped")


# -- install -------------------------------------------------------------------------------------------------


def test_install_mends_and_tells(migrated: Project) -> None:
    migrated.rows("DROP TRIGGER djcrf_pg_delete ON shelf_book")
    migrated.rows("ALTER TABLE shelf_book_authors DISABLE TRIGGER USER")
    assert migrated.manage("djcrf_pg", "install").stdout.splitlines() == [
        "default: triggers created on public.shelf_book",
        "default: triggers enabled on public.shelf_book_authors",
    ]
    assert migrated.manage("djcrf_pg", "install").stdout == "default: nothing to do\n"
    assert migrated.manage("djcrf_pg", "status", "--check").returncode == 0


def test_a_dry_run_prints_sql_that_works_and_touches_nothing(migrated: Project) -> None:
    migrated.rows("DROP TRIGGER djcrf_pg_delete ON shelf_book")
    output = migrated.manage("djcrf_pg", "install", "--dry-run").stdout
    assert "-- default: public.shelf_book is missing" in output
    assert migrated.triggers() == (BOOKS | JOINS) - {("shelf_book", "djcrf_pg_delete")}
    migrated.rows(output)
    assert migrated.manage("djcrf_pg", "status", "--check").returncode == 0

    output = migrated.manage("djcrf_pg", "uninstall", "--dry-run").stdout
    assert migrated.triggers() == BOOKS | JOINS
    migrated.rows(output)
    assert migrated.triggers() == set()


def test_install_names_observed_tables_that_do_not_exist(project: Project) -> None:
    project.manage("migrate", "djcrf_pg", "--verbosity", "0")
    result = project.manage("djcrf_pg", "install")
    assert 'lacks table "shelf_book", "shelf_book_authors": a migration of shelf makes it, and is not' in result.stderr
    assert result.stdout == "default: nothing to do\n"


def test_install_without_a_change_log_says_so(project: Project) -> None:
    result = project.manage("djcrf_pg", "install", check=False)
    assert "Database 'default' lacks the change log djcrf_pg_change: run `manage.py migrate`" in result.stderr


def test_install_gives_up_on_a_table_in_use(migrated: Project) -> None:
    migrated.rows("DROP TRIGGER djcrf_pg_delete ON shelf_book")
    with migrated.pg.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO shelf_book (title, secret) VALUES ('a', '')")
        result = migrated.manage("djcrf_pg", "install", settings={"LOCK_TIMEOUT": 0.05}, check=False)
    assert "no lock on the table within 0.05 s (DJCRF_PG['LOCK_TIMEOUT'])" in result.stderr


def test_nothing_is_released_while_an_observed_table_does_not_exist(migrated: Project) -> None:
    """It may be the same table, under the name that a migration gives it later."""
    renamed = (migrated.folder / "shelf/models.py").read_text() + "\n    class Meta:\n        db_table = 'tome'\n"
    migrated.write("shelf/models.py", renamed)
    migrated.manage("migrate", "auth", "--verbosity", "0")
    assert migrated.triggers() == BOOKS | JOINS
    migrated.rows("ALTER TABLE shelf_book RENAME TO tome")
    migrated.rows("ALTER TABLE shelf_book_authors RENAME TO tome_authors")
    assert migrated.manage("djcrf_pg", "status", "--check").returncode == 0


# -- uninstall -----------------------------------------------------------------------------------------------


def test_uninstall_drops_triggers_and_keeps_the_log(migrated: Project) -> None:
    migrated.rows("INSERT INTO shelf_book (title, secret) VALUES ('a', '')")
    result = migrated.manage("djcrf_pg", "uninstall")
    assert result.stdout.splitlines() == [
        "default: triggers dropped on public.shelf_book",
        "default: triggers dropped on public.shelf_book_authors",
    ]
    assert "The next `migrate` installs" in result.stderr
    assert migrated.triggers() == set()
    assert migrated.rows("SELECT count(*) FROM djcrf_pg_change") == [(1,)]
    assert migrated.manage("djcrf_pg", "uninstall", settings={"AUTO_INSTALL": False}).stderr == ""


@pytest.mark.parametrize("name", ["shelf_book", "public.shelf_book"])
def test_uninstall_of_one_table(migrated: Project, name: str) -> None:
    migrated.manage("djcrf_pg", "uninstall", "--tables", name)
    assert migrated.triggers() == JOINS


#: What the catalog holds, without what belongs to Django's own tables' contents.
CATALOG = """
    SELECT 'class', oid::regclass::text FROM pg_class
    UNION ALL SELECT 'proc', oid::regprocedure::text FROM pg_proc
    UNION ALL SELECT 'trigger', tgrelid::regclass || '.' || tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'type', oid::regtype::text FROM pg_type
    UNION ALL SELECT 'depend', pg_describe_object(classid, objid, objsubid)
        || ' on ' || pg_describe_object(refclassid, refobjid, refobjsubid) FROM pg_depend
        WHERE deptype <> 'p' -- pinned by PostgreSQL 14, and on nothing
    UNION ALL SELECT 'comment', pg_describe_object(classoid, objoid, objsubid) FROM pg_description
    UNION ALL SELECT 'migration', app || '.' || name FROM django_migrations
"""


def test_uninstalling_everything_leaves_nothing(project: Project) -> None:
    settings = {"AUTO_INSTALL": False}
    for app in ("contenttypes", "auth", "shelf"):
        project.manage("migrate", app, "--verbosity", "0", settings=settings)
    before = sorted(project.rows(CATALOG))
    project.manage("migrate", "--verbosity", "0")
    project.rows("INSERT INTO shelf_book (title, secret) VALUES ('a', '')")
    assert project.triggers() == BOOKS | JOINS
    dry = project.manage("djcrf_pg", "uninstall", "--everything", "--dry-run").stdout
    assert "DROP TABLE" in dry
    assert "DROP TRIGGER" in dry
    assert project.triggers() == BOOKS | JOINS
    output = project.manage("djcrf_pg", "uninstall", "--everything").stdout
    assert output.splitlines()[-1] == "default: change log and functions dropped"
    assert sorted(project.rows(CATALOG)) == before
    project.rows("UPDATE shelf_book SET title = 'b'")
    # And back again.
    project.manage("migrate", "--verbosity", "0")
    assert project.triggers() == BOOKS | JOINS


def test_everything_is_refused_while_migrations_depend_on_it(project: Project) -> None:
    """Migrating our app to zero would take the other app's later migrations along, and their columns."""
    project.manage("djcrf_pg", "makemigrations", "shelf")
    project.manage("migrate", "--verbosity", "0")
    result = project.manage("djcrf_pg", "uninstall", "--everything", check=False)
    assert "The migrations shelf.0002_djcrf_pg_triggers of database 'default' depend on djcrf_pg" in result.stderr
    assert project.triggers() == BOOKS | JOINS


# -- migrate -------------------------------------------------------------------------------------------------


def partition(project: Project) -> None:
    """Make the table of books a partitioned one, of one partition."""
    project.rows("DROP TABLE shelf_book CASCADE")
    project.rows(
        "CREATE TABLE shelf_book (id bigint, title text, secret text) PARTITION BY RANGE (id);"
        "CREATE TABLE shelf_book_1 PARTITION OF shelf_book FOR VALUES FROM (0) TO (100)"
    )


def test_a_second_migrate_waits_for_no_observed_table(migrated: Project) -> None:
    partition(migrated)
    migrated.manage("migrate", "--verbosity", "0")
    with migrated.pg.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE shelf_book, shelf_book_authors IN ACCESS EXCLUSIVE MODE")
        # Any lock on them, even for reading, would be waited for in vain.
        migrated.manage("migrate", "--verbosity", "0", settings={"LOCK_TIMEOUT": 0.05})
        migrated.manage("djcrf_pg", "status", "--check")
        assert migrated.manage("djcrf_pg", "install").stdout == "default: nothing to do\n"


def test_a_partition_attached_later_is_noticed_and_mended(migrated: Project) -> None:
    partition(migrated)
    migrated.manage("djcrf_pg", "install")
    migrated.rows("CREATE TABLE shelf_book_2 PARTITION OF shelf_book FOR VALUES FROM (100) TO (200)")
    migrated.rows("CREATE TABLE shelf_book_3 (LIKE shelf_book) PARTITION BY LIST (id)")
    migrated.rows("CREATE TABLE shelf_book_3a PARTITION OF shelf_book_3 DEFAULT")
    migrated.rows("ALTER TABLE shelf_book ATTACH PARTITION shelf_book_3 FOR VALUES FROM (200) TO (300)")
    found = {name for name, state in states(migrated).items() if state == "missing"}
    assert found == {table(f"shelf_book_{name}") for name in ("2", "3", "3a")}
    warnings = migrated.manage("check", "--database", "default").stderr
    assert warnings.count("djcrf_pg.W005") == 3
    assert "Run `manage.py migrate --database default`." in warnings
    warnings = migrated.manage("check", "--database", "default", settings={"AUTO_INSTALL": False}).stderr
    assert "Run `manage.py djcrf_pg install --database default`, or write a migration" in warnings
    migrated.manage("djcrf_pg", "install")
    assert "missing" not in states(migrated).values()
    migrated.rows("INSERT INTO shelf_book_3a VALUES (250, 'a', '')")
    assert ("shelf_book", "R") in migrated.rows("SELECT relation::text, op FROM djcrf_pg_change")
    assert migrated.rows("SELECT relation::text FROM djcrf_pg_change WHERE op = 'I'") == [("shelf_book_3a",)]
    migrated.rows("ALTER TABLE shelf_book DETACH PARTITION shelf_book_2")
    assert states(migrated)[table("shelf_book_2")] == "unwanted"
    migrated.manage("djcrf_pg", "install")
    assert table("shelf_book_2") not in states(migrated)


def test_two_migrates_at_once_both_succeed_and_share_the_work(project: Project, processes_stack: ExitStack) -> None:
    project.manage("migrate", "--verbosity", "0", settings={"AUTO_INSTALL": False})
    assert project.triggers() == set()
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'"
    )
    with project.pg.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE shelf_book, shelf_book_authors IN ROW EXCLUSIVE MODE")
        env = project.env({"LOCK_TIMEOUT": 60})
        migrates = [processes_stack.enter_context(ManagePy("migrate", env=env)) for _ in range(2)]
        wait_until(lambda: project.rows(waiting) == [(2,)])
    assert [migrate.wait() for migrate in migrates] == [0, 0], [migrate.output for migrate in migrates]
    assert project.triggers() == BOOKS | JOINS
    assert sum(migrate.output.count("triggers created on") for migrate in migrates) == 2
