"""Two projects with djcrf_pg in one database: neither takes the other's triggers, and a log serves one of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.acceptance.board import Board
from tests.acceptance.test_subscriptions import refusal
from tests.integration.test_commands import BOOKS, JOINS
from tests.project import Project
from tests.servers import DBNAME, AsgiServer, ManagePy, PgParams, app_env

pytestmark = pytest.mark.processes

CRATES = {("crate_crate", name) for _, name in BOOKS}

SETTINGS = """
from shelf_settings import *

INSTALLED_APPS = [*INSTALLED_APPS[:-1], "crate"]
"""

MODELS = """
from django.db import models

class Crate(models.Model):
    name = models.CharField(max_length=100)
"""

INITIAL = """
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel("Crate", [
            ("id", models.BigAutoField(primary_key=True, serialize=False)),
            ("name", models.CharField(max_length=100)),
        ]),
    ]
"""


class Two:
    """The project ``shelf``, and in its folder and database another one with the app ``crate``."""

    def __init__(self, shelf: Project) -> None:
        self.shelf = shelf
        shelf.write("crate_settings.py", SETTINGS)
        shelf.write("crate/__init__.py", "")
        shelf.write("crate/models.py", MODELS)
        shelf.write("crate/migrations/__init__.py", "")
        shelf.write("crate/migrations/0001_initial.py", INITIAL)

    def crate(self, *arguments: str, check: bool = True, **settings: Any) -> CompletedProcess[str]:
        """Run a command of the other project."""
        settings = {"OBSERVE": ["crate.Crate"], **settings}
        env = {**self.shelf.env(settings), "DJANGO_SETTINGS_MODULE": "crate_settings"}
        return ManagePy.run(*arguments, env=env, check=check)


@pytest.fixture
def two(migrated: Project) -> Two:
    return Two(migrated)


def test_neither_project_takes_the_other_s_triggers(two: Two):
    two.crate("migrate", "--verbosity", "0")
    assert two.shelf.triggers() == BOOKS | JOINS | CRATES
    two.shelf.manage("migrate", "--verbosity", "0")
    two.shelf.manage("djcrf_pg", "install")
    assert two.shelf.triggers() == BOOKS | JOINS | CRATES
    lines = [
        line.split() for line in two.crate("djcrf_pg", "status", "--check").stdout.splitlines() if "public." in line
    ]
    assert {table: state for _, table, state in lines} == {
        "public.crate_crate": "installed",
        "public.shelf_book": "other",
        "public.shelf_book_authors": "other",
    }
    (warning,) = {line for line in two.crate("check", "--database", "default").stderr.splitlines() if "W010" in line}
    assert "is also that of project 'shelf_settings', and this one is 'crate_settings'" in warning
    two.crate("djcrf_pg", "uninstall")
    assert two.shelf.triggers() == BOOKS | JOINS
    refused = two.crate("djcrf_pg", "uninstall", "--everything", check=False).stderr
    assert "also that of project 'shelf_settings', which has triggers on public.shelf_book" in refused
    assert two.crate("djcrf_pg", "uninstall", "--tables", "shelf_book", check=False).returncode
    assert two.shelf.triggers() == BOOKS | JOINS
    two.crate("djcrf_pg", "install", "--prune")
    assert two.shelf.triggers() == CRATES


def test_a_process_with_fewer_apps_takes_no_triggers_of_its_own_project(two: Two):
    two.crate("migrate", "--verbosity", "0", PROJECT="shelf_settings")
    assert two.shelf.triggers() == BOOKS | JOINS | CRATES
    two.crate("djcrf_pg", "install", "--prune", PROJECT="shelf_settings")
    assert two.shelf.triggers() == CRATES


def test_triggers_of_a_version_that_noted_no_project_belong_to_who_has_the_model(two: Two):
    for table, name in BOOKS | JOINS:
        two.shelf.rows(
            f"DO $$ BEGIN EXECUTE format('COMMENT ON TRIGGER {name} ON {table} IS %L', (SELECT substr("
            f"obj_description(oid, 'pg_trigger'), 1, 25) FROM pg_trigger WHERE tgname = '{name}' AND "
            f"tgrelid = '{table}'::regclass)); END $$"
        )
    two.crate("migrate", "--verbosity", "0")
    assert two.shelf.triggers() == BOOKS | JOINS | CRATES
    two.shelf.manage("djcrf_pg", "status", "--check")
    two.shelf.write("shelf/consumers.py", "")
    two.shelf.manage("migrate", "--verbosity", "0")
    assert two.shelf.triggers() == CRATES


def test_what_another_project_wants_otherwise_is_refused_and_kept(two: Two):
    two.shelf.write("crate_settings.py", SETTINGS.replace('"crate"', '"crate", "shelf"'))
    result = two.crate("migrate", "--verbosity", "0", EXCLUDE={"shelf.Book": ["secret"]}, PROJECT="other", check=False)
    assert "The triggers on public.shelf_book (project 'shelf_settings') in database 'default'" in result.stderr
    assert "W005" in result.stderr
    two.shelf.rows("INSERT INTO shelf_book (title, secret) VALUES ('a', 'b')")
    assert two.shelf.rows("SELECT new->>'secret' FROM djcrf_pg_change WHERE op = 'I'") == [("b",)]


# -- subscriptions -------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(test_pg: PgParams, project: Project, redis_url: str) -> Iterator[Callable[..., ManagePy]]:
    """Starts the listener of the project ``shelf`` on the database of the test application."""
    before = app_env(dbname=test_pg.dbname, redis=redis_url)

    def env(settings: Mapping[str, Any] | None = None) -> dict[str, str | None]:
        return {**before, **project.env(settings), DBNAME: test_pg.dbname, "DJCRF_PG_TEST_REDIS": redis_url}

    def tidy() -> None:
        with test_pg.connect() as connection:
            connection.execute("DROP TABLE IF EXISTS shelf_book, shelf_author, shelf_book_authors")
            connection.execute("DELETE FROM django_migrations WHERE app = 'shelf'")

    with ExitStack() as stack:
        stack.callback(tidy)
        ManagePy.run("migrate", "--verbosity", "0", env=env())

        def start(**settings: Any) -> ManagePy:
            command = stack.enter_context(ManagePy("djcrf_pg", "listen", env=env(settings)))
            command.wait_for("leads")
            return command

        yield start


def test_a_subscription_that_another_project_s_leader_would_not_serve_is_refused_by_name(
    transactional_db: None,
    stranger: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
    redis_url: str,
):
    leader = stranger()
    server = start_asgi_server(redis=redis_url, settings={"SUBSCRIBE_TIMEOUT": 0.5})
    error = refusal(open_board(server))
    assert "of project 'shelf_settings', and knows nothing of the observers of this one, 'tests'" in error
    assert "DJCRF_PG['PROJECT']" in error
    leader.stop()
    board = open_board(server)
    board.subscribe("tasks")
