"""The tutorial does what it says: its files and commands are read from the pages and run, on a server of their own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.processes import ROOT, Process, wait_until
from tests.servers import EmbeddedPostgres, free_port

README = (ROOT / "README.md").read_text("utf-8")
FROM_NOTHING = (ROOT / "docs" / "tutorial" / "from-nothing.md").read_text("utf-8")
FIRST_LIVE_LIST = (ROOT / "docs" / "tutorial" / "first-live-list.md").read_text("utf-8")
TEST_YOUR_CONSUMERS = (ROOT / "docs" / "how-to" / "test-your-consumers.md").read_text("utf-8")


def block(page: str, language: str, containing: str = "") -> str:
    """The page's one code block in a language that has a text in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (only,) = (text for text in found if containing in text)
    return only


SETUP, MIGRATIONS = block(FROM_NOTHING, "sh", "pip install"), block(FROM_NOTHING, "sh", "makemigrations")
MAKEMIGRATIONS, MIGRATE, SERVE = MIGRATIONS.splitlines()
WRITES = block(FROM_NOTHING, "sh", "objects.create").splitlines()


class Reader:
    """Who follows the tutorial: a directory, and a shell with the environment that the page asks for.

    The ports are not those of the page, and the virtual environment is that of the tests.
    """

    def __init__(self, folder: Path, server: EmbeddedPostgres) -> None:
        self.folder = folder
        self.server = server
        self.port = free_port()
        foreign = [name for name in os.environ if name.startswith(("PG", "DJCRF_", "DJANGO_"))]
        self.env: dict[str, str | None] = {
            **dict.fromkeys(foreign),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(server.bin), os.environ["PATH"]]),
            "PGHOST": server.params.host,
            "PGPORT": str(server.params.port),
            # Modules are rewritten within the second that a cache file's time stamp counts.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def begin(self) -> None:
        """Sections 1 and 2: the database and the files."""
        with self.server.params.connect() as connection:
            connection.execute("DROP DATABASE IF EXISTS live WITH (FORCE)")
            connection.execute("DROP ROLE IF EXISTS live")
        self.run(f"PGUSER=postgres {block(FROM_NOTHING, 'sh', 'psql')}")
        *environment, mkdir, touch = SETUP.splitlines()
        assert [line.split()[0] for line in environment] == ["python3", ".", "pip"]
        self.run(mkdir)
        self.run(touch)
        for name, text in re.findall(r"^\*\*`([\w./]+)`\*\*\n\n```python\n(.*?)^```$", FROM_NOTHING, re.M | re.S):
            self.write(name, text)

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        (self.folder / path).write_text(text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"))

    def run(self, line: str) -> str:
        """Run a command line to its end, and return what it wrote."""
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env={name: value for name, value in {**os.environ, **self.env}.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def sql(self, statements: str) -> None:
        """Run SQL as the user of the page."""
        with self.server.params.connect("live") as connection:
            connection.execute("SET ROLE live")
            connection.execute(statements.encode())

    def serve(self, options: str = "") -> Process:
        """The page's `uvicorn`."""
        return self._process(f"{SERVE.replace('8000', str(self.port))} {options}")

    def make_first_live_list(self) -> None:
        """Sections 2 and 3 of the second page."""
        self.write("notes/consumers.py", block(FIRST_LIVE_LIST, "python", "NoteConsumer"))
        self.write("urls.py", block(FIRST_LIVE_LIST, "python", "urlpatterns"))
        self.write("page.html", block(FIRST_LIVE_LIST, "html"))

    def watch(self) -> Process:
        """The page's `watch.py`."""
        return self._process(block(FROM_NOTHING, "sh", "watch.py").strip())

    def _process(self, line: str) -> Process:
        return Process(["sh", "-c", f"cd '{self.folder}' && exec {line}"], name=line, env=self.env)

    def reply(self) -> str:
        """Subscribe, and return the first line that `watch.py` prints."""
        with self.watch() as watch:
            return watch.wait_for(r".*subscribe_to_notes.*")[0]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp=True) as server:
        yield server


@pytest.fixture
def reader(tmp_path: Path, server: EmbeddedPostgres) -> Reader:
    reader = Reader(tmp_path, server)
    reader.begin()
    return reader


@pytest.fixture
def migrated(reader: Reader) -> Reader:
    reader.run(MAKEMIGRATIONS)
    reader.run(MIGRATE)
    return reader


def lines(process: Process) -> list[str]:
    return process.output.splitlines()


def test_the_project_from_nothing_prints_what_the_page_says(migrated: Reader) -> None:
    with migrated.serve() as server:
        server.wait_for("Uvicorn running")
        with migrated.watch() as watch:
            watch.wait_for("subscribe_to_notes")
            for line in WRITES:
                before = len(lines(watch))
                migrated.run(line)
                wait_until(lambda before=before: len(lines(watch)) > before, message=line)
            assert lines(watch) == block(FROM_NOTHING, "json").splitlines()


def test_a_step_that_was_left_out_is_named_in_the_reply_as_the_page_says(reader: Reader) -> None:
    def said(error: str) -> str:
        assert f"`{error}`" in FROM_NOTHING
        return error

    with reader.serve() as server:
        server.wait_for("Uvicorn running")
        assert said("Database 'default' lacks the change log") in reader.reply()
        server.wait_for(r"lacks the change log djcrf_pg_change: run `manage\.py migrate`; next try in")
        reader.run(MIGRATE)
        (error,) = json.loads(reader.reply())["errors"]
        assert said('lacks table "notes_note"') in error
        assert "`manage.py makemigrations notes`" in error
        reader.run(MAKEMIGRATIONS)
        reader.run(MIGRATE)
        assert json.loads(reader.reply())["response_status"] == 201


def test_the_page_with_the_list_stays_right(migrated: Reader) -> None:
    migrated.make_first_live_list()
    with migrated.serve() as server:
        server.wait_for("Uvicorn running")
        with urlopen(f"http://127.0.0.1:{migrated.port}/") as response:
            assert response.read().decode() == block(FIRST_LIVE_LIST, "html")
        with migrated.watch() as watch:
            watch.wait_for("subscribe_to_notes")
            for line in block(FIRST_LIVE_LIST, "sh", "bulk_create").splitlines():
                migrated.run(line)
            migrated.sql(block(FIRST_LIVE_LIST, "sql", "UPDATE"))
            migrated.sql(block(FIRST_LIVE_LIST, "sql", "TRUNCATE"))
            watch.wait_for("resync")
            replies = [json.loads(line) for line in lines(watch)]
    events = [(reply["action"], reply["data"].get("text")) for reply in replies[1:]]
    # The update of two rows is one statement, whose events have no order.
    assert [*events[:3], *sorted(events[3:])] == [
        *(("create", "milk"), ("create", "bread"), ("delete", "milk")),
        *(("create", "milk"), ("delete", "bread"), ("resync", None)),
    ]
    migrated.sql(block(FIRST_LIVE_LIST, "sql", "djcrf_pg_change"))


def test_the_tests_of_a_consumer_pass_in_that_project(migrated: Reader) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEST_YOUR_CONSUMERS, re.MULTILINE | re.DOTALL)
    for number, text in enumerate(blocks):
        migrated.write(f"test_{number}.py", text)
    migrated.write("pytest.ini", "[pytest]\nDJANGO_SETTINGS_MODULE = settings\n")
    assert "3 passed" in migrated.run("python -m pytest -p no:cacheprovider")


def test_status_prints_what_the_readme_shows(migrated: Reader) -> None:
    migrated.sql("ALTER TABLE notes_note DISABLE TRIGGER djcrf_pg_update")
    command, _, output = block(README, "console").partition("\n")
    assert migrated.run(command.removeprefix("$ ")) == output
