"""``manage.py djcrf_pg makemigrations``: triggers in the project's own migrations."""

import re

import pytest

from tests.integration.test_commands import BOOKS, EVENTS, JOINS
from tests.project import CONSUMERS, MODELS, SETTINGS, Project, create_database

OFF = {"AUTO_INSTALL": False}
SECRET = {"AUTO_INSTALL": False, "EXCLUDE": {"shelf.Book": ["secret"]}}

DEFINITIONS = """
    SELECT pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger') FROM pg_trigger
    WHERE tgname LIKE 'djcrf%' ORDER BY 1
"""


def make(project: Project, *arguments: str, settings: dict[str, object] | None = None) -> str:
    """Run the command and return what it says."""
    return project.manage("djcrf_pg", "makemigrations", "shelf", *arguments, settings=settings or OFF).stdout


def migrate(project: Project, *arguments: str, settings: dict[str, object] | None = None) -> None:
    project.manage("migrate", *arguments, "--verbosity", "0", settings=settings or OFF)


def text_of(project: Project, name: str) -> str:
    return (project.folder / "shelf/migrations" / f"{name}.py").read_text()


def names(project: Project) -> list[str]:
    return sorted(path.stem for path in (project.folder / "shelf/migrations").glob("0*.py"))


@pytest.fixture
def written(project: Project) -> Project:
    """A project whose second migration installs the triggers; migrated."""
    make(project)
    migrate(project)
    return project


def test_it_installs_what_observers_want_and_no_more(project: Project) -> None:
    output = make(project)
    assert "  - Create djcrf_pg triggers on book\n  - Create djcrf_pg triggers on book.authors\n" in output
    assert names(project) == ["0001_initial", "0002_djcrf_pg_triggers"]
    text = text_of(project, "0002_djcrf_pg_triggers")
    assert re.findall(r'^        \("(.+)", "(.+)"\),$', text, re.M)[0] == ("shelf", "0001_initial")
    assert '("djcrf_pg", "0' in text
    migrate(project)
    assert project.triggers() == BOOKS | JOINS
    project.manage("djcrf_pg", "status", "--check", settings=OFF)
    project.rows("INSERT INTO shelf_book (title, secret) VALUES ('a', '')")
    assert project.rows("SELECT op FROM djcrf_pg_change") == [("I",)]


def test_a_second_run_has_nothing_to_write(written: Project) -> None:
    assert make(written).startswith("No changes")
    assert names(written) == ["0001_initial", "0002_djcrf_pg_triggers"]
    # Nor is there anything that Django or an install would change.
    written.manage("makemigrations", "--check", "--dry-run", "auth", "contenttypes", settings=OFF)
    assert written.manage("djcrf_pg", "install", settings=OFF).stdout == "default: nothing to do\n"


def test_it_can_be_undone(written: Project) -> None:
    migrate(written, "shelf", "0001")
    assert written.triggers() == set()
    migrate(written)
    assert written.triggers() == BOOKS | JOINS


def test_a_changed_exclude_alters_only_what_differs(written: Project) -> None:
    before = written.rows(DEFINITIONS)
    output = make(written, "--name", "hide_the_secret", settings=SECRET)
    assert output.startswith("  - Alter djcrf_pg triggers on book\nWritten:")
    text = text_of(written, "0003_hide_the_secret")
    assert set(re.findall(r"['\"](djcrf_pg_[a-z]+)['\"]: \[", text)) == {f"djcrf_pg_{event}" for event in EVENTS[:3]}
    assert "authors" not in text
    migrate(written, settings=SECRET)
    written.manage("djcrf_pg", "status", "--check", settings=SECRET)
    assert make(written, settings=SECRET).startswith("No changes")
    migrate(written, "shelf", "0002", settings=SECRET)
    assert written.rows(DEFINITIONS) == before


def test_what_nobody_observes_any_more_is_dropped_and_can_come_back(written: Project) -> None:
    before = written.rows(DEFINITIONS)
    written.write("shelf/consumers.py", CONSUMERS.replace(", many_to_many=True", ""))
    assert make(written).startswith("  - Drop djcrf_pg triggers on book.authors\nWritten:")
    migrate(written)
    assert written.triggers() == BOOKS
    migrate(written, "shelf", "0002")
    assert written.rows(DEFINITIONS) == before


def test_a_dry_run_writes_nothing(project: Project) -> None:
    assert "class Migration(migrations.Migration):" in make(project, "--dry-run")
    assert names(project) == ["0001_initial"]


def test_names_that_cannot_be(project: Project) -> None:
    result = project.manage("djcrf_pg", "makemigrations", "shelf", "--name", "a-b", settings=OFF, check=False)
    assert "--name 'a-b' cannot be part of a module's name" in result.stderr
    (project.folder / "shelf/migrations/0001_initial.py").unlink()
    result = project.manage("djcrf_pg", "makemigrations", "shelf", settings=OFF, check=False)
    assert "The app 'shelf' has no migrations" in result.stderr
    assert "Run `manage.py makemigrations shelf` first" in result.stderr


def test_nothing_is_written_into_somebody_else_s_package(project: Project) -> None:
    settings = {**OFF, "OBSERVE": ["auth.Group"]}
    result = project.manage("djcrf_pg", "makemigrations", "auth", settings=settings, check=False)
    assert "The migrations of 'auth' are not this project's" in result.stderr
    assert "MIGRATION_MODULES['auth'], or install these triggers with `manage.py djcrf_pg install`" in result.stderr


def test_it_needs_no_database(project: Project) -> None:
    project.write("shelf_settings.py", f"{SETTINGS}\nDATABASES['default']['HOST'] = '/nowhere'\n")
    assert "Written:" in make(project)


def test_it_is_frozen_and_a_new_version_of_the_functions_is_another_migration(written: Project) -> None:
    first = text_of(written, "0002_djcrf_pg_triggers")
    # What a later djcrf_pg would bring, with functions that nothing has made here.
    written.write("shelf_settings.py", f"{SETTINGS}\nfrom djcrf_pg.capture import plan\nplan.FUNCTIONS = 'v9'\n")
    assert make(written).count("  - Alter djcrf_pg triggers on") == 2
    second = text_of(written, "0003_djcrf_pg_triggers_2")
    assert second.count("djcrf_pg_capture_update_v9(") == second.count("djcrf_pg_capture_update_v2(") == 2
    (written.folder / "shelf/migrations/0003_djcrf_pg_triggers_2.py").unlink()
    create_database(written.server, written.pg.dbname)
    migrate(written)
    assert text_of(written, "0002_djcrf_pg_triggers") == first
    assert "_v2()" in written.rows(DEFINITIONS)[0][0]


def test_renames_before_and_after_need_no_care(written: Project) -> None:
    written.write(
        "shelf/migrations/0003_rename.py",
        """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("shelf", "0002_djcrf_pg_triggers")]
    operations = [
        migrations.RenameModel("Book", "Tome"),
        migrations.RenameField("Tome", "authors", "writers"),
        migrations.AlterModelTable("Tome", "tomes"),
    ]
""",
    )
    models = MODELS.replace("Book", "Tome").replace("authors", "writers")
    written.write("shelf/models.py", f"{models}\n    class Meta:\n        db_table = 'tomes'\n")
    written.write("shelf/consumers.py", CONSUMERS.replace("Book", "Tome"))
    assert make(written).startswith("No changes")
    assert make(written, settings={**OFF, "EXCLUDE": {"shelf.Tome": ["secret"]}}).startswith("  - Alter")
    there = {(table, f"djcrf_pg_{event}") for table in ("tomes", "tomes_writers") for event in EVENTS}
    migrate(written)
    assert written.triggers() == there
    # From nothing, each operation meets the name that the table has at that point; and all the way back.
    create_database(written.server, written.pg.dbname)
    migrate(written)
    assert written.triggers() == there
    migrate(written, "shelf", "zero")


def test_a_deleted_model_and_field_need_nothing(written: Project) -> None:
    written.write(
        "shelf/migrations/0003_delete.py",
        """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("shelf", "0002_djcrf_pg_triggers")]
    operations = [migrations.RemoveField("Book", "authors"), migrations.DeleteModel("Book")]
""",
    )
    written.write("shelf/models.py", "")
    written.write("shelf/consumers.py", "")
    assert make(written).startswith("No changes")
    migrate(written)
    assert written.triggers() == set()


def test_squashed_migrations_install_the_same(written: Project) -> None:
    before = written.rows(DEFINITIONS)
    written.manage("squashmigrations", "shelf", "0001", "0002", "--no-input", settings=OFF)
    migrate(written)
    assert written.rows(DEFINITIONS) == before
    assert make(written).startswith("No changes")
    for name in ("0001_initial", "0002_djcrf_pg_triggers"):
        (written.folder / f"shelf/migrations/{name}.py").unlink()
    create_database(written.server, written.pg.dbname)
    migrate(written)
    assert written.rows(DEFINITIONS) == before


def test_several_leaves_are_named(project: Project) -> None:
    for name in ("0002_a", "0002_b"):
        project.write(
            f"shelf/migrations/{name}.py",
            "from django.db import migrations\n"
            "class Migration(migrations.Migration):\n"
            "    dependencies = [('shelf', '0001_initial')]\n",
        )
    result = project.manage("djcrf_pg", "makemigrations", "shelf", settings=OFF, check=False)
    assert "The app 'shelf' has several leaf migrations (0002_a, 0002_b): merge them first." in result.stderr


def test_its_sql_can_be_shown_without_a_database_and_does_what_the_migration_does(project: Project) -> None:
    make(project)
    statements = project.manage("sqlmigrate", "shelf", "0002", settings=OFF).stdout
    assert "lock_timeout" not in statements
    migrate(project, "djcrf_pg")
    migrate(project, "shelf", "0001")
    assert project.triggers() == set()
    project.rows(statements)
    project.manage("djcrf_pg", "status", "--check", settings=OFF)
    project.rows(project.manage("sqlmigrate", "shelf", "0002", "--backwards", settings=OFF).stdout)
    assert project.triggers() == set()


ROUTERS = """
class Router:
    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return not (db == "default" and model_name == "book")
"""


def test_routers_and_other_vendors_are_left_alone(project: Project) -> None:
    make(project)
    project.write("shelf_routers.py", ROUTERS)
    lite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(project.folder / "lite.sqlite")}
    settings = f"{SETTINGS}\nDATABASES['lite'] = {lite!r}\n"
    project.write("shelf_settings.py", settings)
    migrate(project, "--database", "lite")
    project.write("shelf_settings.py", f"{settings}\nDATABASE_ROUTERS = ['shelf_routers.Router']\n")
    migrate(project)
    assert project.triggers() == set()


def test_the_functions_may_be_in_another_schema_than_the_tables(project: Project) -> None:
    make(project)
    project.rows("CREATE SCHEMA log; CREATE SCHEMA app")
    path = "\nDATABASES['default']['OPTIONS'] = {'options': '-c search_path=%s'}\n"
    project.write("shelf_settings.py", SETTINGS + path % "log")
    migrate(project, "djcrf_pg")
    project.write("shelf_settings.py", SETTINGS + path % "app,log")
    migrate(project)
    (definition,) = project.rows(
        "SELECT DISTINCT tgfoid::regproc::text FROM pg_trigger WHERE tgname = 'djcrf_pg_insert'"
    )
    assert definition == ("log.djcrf_pg_capture_insert_v2",)
    project.manage("djcrf_pg", "status", "--check", settings=OFF)


def test_partitions_get_theirs(project: Project) -> None:
    make(project)
    migrate(project, "shelf", "0001")
    migrate(project, "djcrf_pg")
    project.rows("DROP TABLE shelf_book CASCADE")
    project.rows(
        "CREATE TABLE shelf_book (id bigint, title text, secret text) PARTITION BY RANGE (id);"
        "CREATE TABLE shelf_book_1 PARTITION OF shelf_book FOR VALUES FROM (0) TO (100)"
    )
    migrate(project)
    assert {table for table, _ in project.triggers()} == {"shelf_book", "shelf_book_1", "shelf_book_authors"}
    migrate(project, "shelf", "0001")
    assert project.triggers() == set()


def test_the_migration_gives_up_on_a_table_in_use_and_keeps_its_own_lock_timeout(project: Project) -> None:
    make(project)
    migrate(project, "shelf", "0001")
    impatient = {**OFF, "LOCK_TIMEOUT": 0.05}
    with project.pg.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO shelf_book (title, secret) VALUES ('a', '')")
        result = project.manage("migrate", settings=impatient, check=False)
    assert "canceling statement due to lock timeout" in result.stderr
    migration = project.folder / "shelf/migrations/0002_djcrf_pg_triggers.py"
    after = "        migrations.RunSQL(\"CREATE TABLE seen AS SELECT current_setting('lock_timeout')\"),\n    ]\n"
    migration.write_text(migration.read_text().removesuffix("    ]\n") + after)
    migrate(project, settings=impatient)
    assert project.rows("SELECT * FROM seen") == [("0",)]
