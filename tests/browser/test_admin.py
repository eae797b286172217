"""The pages in Django's admin, in a browser: at three widths, light and dark, and while something happens."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest

from tests.browser.chromium import MARKS
from tests.processes import wait_until
from tests.project import create_database, drop_database
from tests.servers import ManagePy, PgParams, app_env, free_port

pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'djcrf_pg[test]'")

from playwright.sync_api import Browser, Page, expect

pytestmark = [*MARKS, pytest.mark.slow]

#: Where screenshots go, for whoever wants to look at them.
SCREENSHOTS = os.environ.get("DJCRF_PG_TEST_SCREENSHOTS")

DATABASES = ("djcrf_admin", "djcrf_admin_second")


class Site(NamedTuple):
    """The test application's admin, behind Django's development server."""

    browser: Browser
    url: str
    state: Any
    database: psycopg.Connection[Any]
    errors: list[str]

    def open(self, path: str, *, width: int = 1280, scheme: Any = "light") -> Page:
        """Open a page as a superuser; what goes wrong in its scripts is in ``errors``."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, storage_state=self.state
        )
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{self.url}{path}")
        return page

    def compare(self) -> None:
        """What fills the page of shadow mode: long names, long values, each kind."""
        groups = [f"TaskConsumer-tasks-of-a-team-with-a-long-name-{n}" for n in range(3)]
        body = {"id": 5, "title": "task 5" + " long" * 20, "status": "todo", "token": "x" * 400, "tags": ["a", "b"]}
        changed = {**body, "status": "done", "token": "x" * 200 + "y" * 200}
        origin = {"change": 26341208, "transaction": "771", "context": {"user": "kim", "request": "c0ffee" * 6}}
        origin |= {"at": "2026-11-28T09:30:00.123456+00:00"}
        process = {"process": "gunicorn (process 1234 on web-7f9c6d-long-name-of-a-host)"}
        samples = {
            ("different", "update: status, token"): ({"update": [groups, body]}, {"update": [groups[:2], changed]}),
            ("different", "create instead of update"): ({"create": [groups, body]}, {"update": [groups, body]}),
            ("missed", "update"): (None, {"update": [groups, body]}),
            ("extra", "delete"): ({"delete": [groups, {"pk": 5}]}, None),
            ("failed", "serializer: KeyError: 'a_key_that_is_not_there'"): (None, None),
            ("equal", ""): None,
        }
        for (kind, what), sides in samples.items():
            lines = []
            if sides is not None:
                found = origin | (process if kind in ("different", "extra") else {})
                pk = json.dumps(["5"])
                lines = [json.dumps({"pk": pk, "signals": sides[0], "triggers": sides[1], "origin": found})] * 2
            for observer in ("a_shop.consumers.ConsumerOfAllTasksOfATeam.tasks_of_the_team", "shop.consumers.Shop.all"):
                self.database.execute(
                    "INSERT INTO djcrf_pg_shadow_result (observer, address, model, kind, what, times, samples) "
                    "VALUES (%s, %s, 'testapp.Task', %s, %s, 1234, %s) ON CONFLICT DO NOTHING",
                    [observer, observer, kind, what, "\n".join(lines)]
                    if observer[0] == "a" or kind == "equal"
                    else [observer, observer, "equal", "", ""],
                )

    def write(self) -> None:
        """What fills a page: long values, many fields, each action."""
        self.database.execute(
            "INSERT INTO testapp_task (title, status, points, body) "
            "SELECT 'task ' || n || repeat(' long', 9) || clock_timestamp(), 'todo', 0, repeat('x', 500) "
            "FROM generate_series(1, 30) AS n"
        )
        self.database.execute("UPDATE testapp_task SET points = points + 1, status = 'done'")
        self.database.execute("DELETE FROM testapp_task WHERE id = (SELECT max(id) FROM testapp_task)")


@pytest.fixture(scope="module")
def site(pg: PgParams, browser: Browser) -> Iterator[Site]:
    for name in DATABASES:
        create_database(pg, name)
    env = app_env(dbname=DATABASES[0], env={"DJANGO_SUPERUSER_PASSWORD": "secret"})
    for alias in ("default", "second"):
        ManagePy.run("migrate", "--verbosity", "0", "--database", alias, env=env)
    ManagePy.run("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com", env=env)
    port = free_port()
    url = f"http://127.0.0.1:{port}/admin/djcrf_pg/changelog/"
    with (
        # Without DEBUG only --insecure serves the style sheets.
        ManagePy("runserver", "--noreload", "--insecure", f"127.0.0.1:{port}", env=env),
        closing(pg.database(DATABASES[0]).connect()) as database,
        closing(browser.new_context()) as context,
    ):
        wait_until(lambda: _answers(url))
        page = context.new_page()
        page.goto(url)
        page.get_by_label("Username").fill("root")
        page.get_by_label("Password").fill("secret")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Database default")).to_be_visible()
        yield Site(browser, url, context.storage_state(), database, [])
    for name in DATABASES:
        drop_database(pg, name)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except (URLError, ConnectionError):
        return False


@pytest.fixture(autouse=True)
def no_errors_of_scripts(site: Site) -> Iterator[None]:
    site.errors.clear()
    yield
    for context in site.browser.contexts:
        context.close()
    assert site.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 820, 1280])
def test_nothing_sticks_out_at_any_width(site: Site, width: int, scheme: str):
    site.write()
    site.compare()
    for path in ("", "log/", "log/?model=testapp.Task", "triggers/", "shadow/"):
        page = site.open(path, width=width, scheme=scheme)
        expect(page.get_by_role("link", name="Overview")).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        overhang = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if SCREENSHOTS:
            name = f"{path.partition('?')[0].strip('/') or 'overview'}-{width}-{scheme}.png"
            page.screenshot(path=Path(SCREENSHOTS, name), full_page=path == "shadow/")
        assert overhang <= 0, path


def test_the_chart_moves_while_something_is_written(site: Site):
    page = site.open("")
    section = page.locator('[data-database="default"]')
    for _ in range(60):
        site.write()
        page.wait_for_timeout(500)  # the page asks each two seconds
        if float(section.locator('[data-fact="most-rate"]').inner_text()) > 1:
            break
    assert len((section.locator("polyline.djcrf-rate").get_attribute("points") or "").split()) >= 1
    assert float(section.locator('[data-fact="most-rate"]').inner_text()) > 1
    if SCREENSHOTS:
        page.wait_for_timeout(10_000)
        page.screenshot(path=Path(SCREENSHOTS, "chart.png"), full_page=True)


def test_from_a_change_to_the_history_of_its_row_and_back(site: Site):
    site.write()
    page = site.open("log/")
    page.get_by_label("Model").fill("testapp.Task")
    page.get_by_role("button", name="Filter").click()
    page.locator("tbody tr", has_text="delete").first.locator("a[href*='pk=']").click()
    expect(page.get_by_role("heading", name="History of testapp.Task")).to_be_visible()
    expect(page.locator("tbody tr", has_text="create")).to_have_count(1)
    expect(page.locator("tbody tr", has_text="delete")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    expect(page.get_by_role("heading", name="Changes", exact=True)).to_be_visible()


def test_the_button_installs(site: Site):
    site.database.execute("ALTER TABLE testapp_document DISABLE TRIGGER djcrf_pg_update")
    page = site.open("triggers/")
    section = page.locator("section", has_text="Database default")
    section.get_by_role("button", name="Install triggers").click()
    expect(page.get_by_text("Triggers enabled on public.testapp_document")).to_be_visible()


def test_from_a_difference_to_its_sides_and_to_its_row(site: Site):
    site.compare()
    page = site.open("")
    page.get_by_role("link", name="Shadow").click()
    row = page.locator("tbody", has_text="update: status, token").first
    mark = row.locator("mark", has_text='"done"').first
    expect(mark).not_to_be_visible()
    row.locator("summary").click()
    expect(mark).to_be_visible()
    expect(row.locator("mark", has_text='"todo"').first).to_be_visible()
    row.get_by_role("link", name="testapp.Task 5").first.click()
    expect(page.get_by_role("heading", name="History of testapp.Task 5")).to_be_visible()
