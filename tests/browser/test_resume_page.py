"""The page on resuming does what it says: its consumer and its script, as they stand there, in a browser.

They are put into the project of the tutorial, which has a PostgreSQL of its own: what is written while the ASGI
server is down is what the browser has missed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.test_tutorial import MAKEMIGRATIONS, MIGRATE, Reader, block, server
from tests.browser.chromium import MARKS, PATIENCE
from tests.processes import ROOT, wait_until
from tests.servers import EmbeddedPostgres

pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'djcrf_pg[test]'")

from playwright.sync_api import Browser, Page, expect

__all__ = ["server"]

pytestmark = [*MARKS, pytest.mark.slow]

RESUME = (ROOT / "docs" / "how-to" / "resume.md").read_text("utf-8")

MODELS = """
from django.db import models


class Project(models.Model):
    pass


class Task(models.Model):
    project = models.ForeignKey(Project, models.CASCADE)
    title = models.TextField()
"""

CONSUMERS = f"""
import djcrf_pg
from channels.db import database_sync_to_async
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import ModelSerializer

from notes.models import Task


class TaskSerializer(ModelSerializer):
    class Meta:
        model = Task
        fields = ["id", "title"]


{block(RESUME, "python", "class TaskConsumer(GenericAsyncAPIConsumer)")}
"""

URLS = f"""
from django.http import HttpResponse
from django.urls import path

PAGE = '''<!doctype html><title>Tasks</title><link rel="icon" href="data:,"><ol></ol>
<script>
function show(tasks) {{
  const titles = [...tasks.values()].map((task) => task.title).sort();
  document.querySelector("ol").replaceChildren(...titles.map((title) => {{
    const line = document.createElement("li");
    line.textContent = title;
    return line;
  }}));
}}
</script>
<script>
{block(RESUME, "javascript", "WebSocket")}
</script>'''

urlpatterns = [path("", lambda request: HttpResponse(PAGE))]
"""


class Site(Reader):
    """A project with that consumer, and a page with that script."""

    def begin(self) -> None:
        """Makes the files and the tables."""
        super().begin()
        asgi = (self.folder / "asgi.py").read_text("utf-8")
        self.write("asgi.py", asgi.replace("ws/notes/", "ws/tasks/").replace("NoteConsumer", "TaskConsumer"))
        self.write("notes/models.py", MODELS)
        self.write("notes/consumers.py", CONSUMERS)
        self.write("urls.py", URLS)
        self.run(MAKEMIGRATIONS)
        self.run(MIGRATE)
        self.sql("INSERT INTO notes_project VALUES (7)")
        self.create("milk", "bread")

    def create(self, *titles: str) -> None:
        """Inserts tasks in one statement."""
        self.sql(
            "INSERT INTO notes_task (project_id, title) VALUES " + ", ".join(f"(7, '{title}')" for title in titles)
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serves for as long as the block lasts."""
        with self.serve() as server:
            server.wait_for("Uvicorn running")
            yield


class Frames:
    """What a page has been sent over its WebSockets."""

    def __init__(self, page: Page) -> None:
        self.messages: list[dict[str, object]] = []
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))

    def _received(self, frame: str | bytes) -> None:
        self.messages.append(json.loads(frame))

    def follows(self) -> list[tuple[object, bool]]:
        """Returns the status of each reply to `follow`, and whether it had the list."""
        found = []
        for message in self.messages:
            if message["action"] == "follow":
                data = message["data"]
                found.append((message["response_status"], isinstance(data, dict) and data["tasks"] is not None))
        return found


@pytest.fixture
def site(tmp_path: Path, server: EmbeddedPostgres) -> Site:
    site = Site(tmp_path, server)
    site.begin()
    return site


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    complaints: list[str] = []
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert not complaints


def _open(page: Page, site: Site) -> Frames:
    frames = Frames(page)
    page.goto(f"http://127.0.0.1:{site.port}/")
    _expect(page, "bread", "milk")
    page.evaluate("window.loadedOnce = true")
    return frames


def _expect(page: Page, *titles: str) -> None:
    expect(page.locator("li")).to_have_text(list(titles))


def test_the_script_shows_the_list_and_each_change(site: Site, page: Page) -> None:
    with site.serving():
        frames = _open(page, site)
        site.create("eggs", "rice")
        _expect(page, "bread", "eggs", "milk", "rice")
        site.sql("UPDATE notes_task SET title = upper(title) WHERE title IN ('milk', 'rice')")
        _expect(page, "MILK", "RICE", "bread", "eggs")
        site.sql("DELETE FROM notes_task WHERE title = 'bread'")
        _expect(page, "MILK", "RICE", "eggs")
        assert frames.follows() == [(200, True)]


def test_the_script_catches_up_after_a_restart_of_the_server(site: Site, page: Page) -> None:
    with site.serving():
        frames = _open(page, site)
        site.create("eggs")
        _expect(page, "bread", "eggs", "milk")
    before = len(frames.messages)
    site.create("rice", "salt")
    site.sql("UPDATE notes_task SET title = upper(title) WHERE title = 'milk'")
    site.sql("DELETE FROM notes_task WHERE title IN ('bread', 'salt')")
    with site.serving():
        _expect(page, "MILK", "eggs", "rice")
        assert frames.follows() == [(200, True), (200, False)]
        # One event for each row, and none for the one that came and went.
        told = [message["action"] for message in frames.messages[before:] if message["action"] != "follow"]
        assert sorted(map(str, told)) == ["create", "delete", "update"]
        site.create("tea")
        _expect(page, "MILK", "eggs", "rice", "tea")
        assert page.evaluate("window.loadedOnce"), "the page was not loaded again"


def test_the_script_begins_anew_where_its_cursor_is_refused(site: Site, page: Page) -> None:
    with site.serving():
        frames = _open(page, site)
    site.sql("UPDATE notes_task SET title = upper(title) WHERE title = 'milk'")
    site.sql("DELETE FROM notes_task WHERE title = 'bread'")
    settings = (site.folder / "settings.py").read_text("utf-8")
    site.write("settings.py", settings.replace('"change me"', '"changed"'))
    with site.serving():
        _expect(page, "MILK")
        assert frames.follows() == [(200, True), (400, False), (200, True)]
        site.create("tea")
        _expect(page, "MILK", "tea")


def test_the_script_begins_anew_after_a_resync(site: Site, page: Page) -> None:
    with site.serving():
        _open(page, site)
        site.sql("TRUNCATE notes_task")
        _expect(page)
        site.create("tea")
        _expect(page, "tea")


def test_the_script_tries_again_where_no_event_could_arrive(site: Site, page: Page) -> None:
    with site.serving():
        frames = _open(page, site)
    site.sql("ALTER TABLE notes_task DISABLE TRIGGER USER")
    with site.serving():
        # `evaluate` lets Playwright take what has come.
        wait_until(lambda: page.evaluate("true") and (503, False) in frames.follows())
        site.sql("ALTER TABLE notes_task ENABLE TRIGGER USER")
        site.create("tea")
        _expect(page, "bread", "milk", "tea")
