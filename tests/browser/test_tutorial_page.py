"""The tutorial's page in a browser: it stays right, also when its server was gone, and under HTTPS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_tutorial import FIRST_LIVE_LIST, MAKEMIGRATIONS, MIGRATE, Reader, block, server
from tests.browser.chromium import MARKS, PATIENCE
from tests.servers import EmbeddedPostgres

pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'djcrf_pg[test]'")

from playwright.sync_api import Browser, Page, expect

__all__ = ["server"]

pytestmark = [*MARKS, pytest.mark.slow]

CREATE_TWO, CLOSE_ONE = block(FIRST_LIVE_LIST, "sh", "bulk_create").splitlines()
CREATE_WITHOUT_A_SERVER = block(FIRST_LIVE_LIST, "sh", "eggs").strip()


@pytest.fixture
def reader(tmp_path: Path, server: EmbeddedPostgres) -> Reader:
    reader = Reader(tmp_path, server)
    reader.begin()
    reader.run(MAKEMIGRATIONS)
    reader.run(MIGRATE)
    reader.make_first_live_list()
    return reader


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    complaints: list[str] = []
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert not complaints


def _expect(page: Page, *texts: str) -> None:
    expect(page.locator("li")).to_have_text(list(texts))


def _expect_state(page: Page, state: str) -> None:
    expect(page.locator("#state")).to_have_text(state)


def test_the_page_reconnects_after_a_restart_of_the_server_and_shows_what_it_missed(reader: Reader, page: Page) -> None:
    with reader.serve() as server:
        server.wait_for("Uvicorn running")
        page.goto(f"http://127.0.0.1:{reader.port}/")
        page.evaluate("window.loadedOnce = true")
        _expect_state(page, "Live")
        reader.run(CREATE_TWO)
        _expect(page, "milk", "bread")
    _expect_state(page, "Reconnecting …")
    reader.run(CLOSE_ONE)
    reader.run(CREATE_WITHOUT_A_SERVER)
    _expect(page, "milk", "bread")
    with reader.serve() as server:
        server.wait_for("Uvicorn running")
        _expect(page, "bread", "eggs")
        _expect_state(page, "Live")
        reader.sql(block(FIRST_LIVE_LIST, "sql", "TRUNCATE"))
        _expect(page)
        assert page.evaluate("window.loadedOnce"), "the page was loaded again"


def test_the_page_tries_again_after_a_refused_subscription(reader: Reader, page: Page) -> None:
    reader.sql("ALTER TABLE notes_note DISABLE TRIGGER USER")
    with reader.serve() as server:
        server.wait_for("Uvicorn running")
        page.goto(f"http://127.0.0.1:{reader.port}/")
        _expect_state(page, "Reconnecting …")
        reader.sql("ALTER TABLE notes_note ENABLE TRIGGER USER")
        _expect_state(page, "Live")


def test_the_page_works_under_https(reader: Reader, page: Page) -> None:
    reader.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 1 -keyout key.pem -out certificate.pem"
    )
    with reader.serve("--ssl-keyfile key.pem --ssl-certfile certificate.pem") as server:
        server.wait_for("Uvicorn running")
        page.goto(f"https://127.0.0.1:{reader.port}/")
        _expect_state(page, "Live")
        reader.run(CREATE_TWO)
        _expect(page, "milk", "bread")
