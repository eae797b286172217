"""The page on development does what it says: its commands and settings, in the project of the tutorial."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from djcrf_pg.management.commands.djcrf_pg import _SUBCOMMANDS
from tests.acceptance.test_tutorial import MAKEMIGRATIONS, MIGRATE, Reader, block, server
from tests.client import Client
from tests.processes import ROOT, Process, wait_until

__all__ = ["server"]

PAGE = (ROOT / "docs" / "how-to" / "develop-and-troubleshoot.md").read_text("utf-8")
RUNSERVER = block(PAGE, "sh", "runserver").strip()


class Site(Reader):
    """The tutorial's project with the settings of the page."""

    def begin(self) -> None:
        """Make the files and the tables."""
        super().begin()
        settings = (self.folder / "settings.py").read_text("utf-8")
        self.write("settings.py", settings + block(PAGE, "python", '"daphne", ') + block(PAGE, "python", "LOGGING"))
        self.run(MAKEMIGRATIONS)
        self.run(MIGRATE)

    def runserver(self) -> Process:
        """The page's `runserver`, on a port of ours."""
        return self._process(f"{RUNSERVER} {self.port}")

    def listens(self) -> bool:
        """Whether the server takes connections; daphne says that it starts before it does."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def receive(self) -> None:
        """Subscribe, write, and receive."""

        async def work() -> None:
            client = await Client.open(f"ws://127.0.0.1:{self.port}/ws/notes/")
            assert (await client.call("subscribe_to_notes", request_id=1))["response_status"] == 201
            self.sql("INSERT INTO notes_note (text, done) VALUES ('milk', false)")
            assert (await client.event())["data"]["text"] == "milk"
            await client.close()

        asyncio.run(work())


@pytest.fixture
def site(tmp_path: Path, server: Any) -> Site:
    site = Site(tmp_path, server)
    site.begin()
    return site


def test_runserver_serves_and_serves_again_after_a_reload_and_says_who_leads(site: Site) -> None:
    with site.runserver() as serving:
        serving.wait_for("Starting ASGI/Daphne")
        wait_until(site.listens)
        site.receive()
        serving.wait_for("'default' leads")
        position = serving.position

        def reloads() -> bool:
            # Again and again: what changes before the reloader first looks at the files is no change to it.
            (site.folder / "notes" / "models.py").touch()
            return serving.find("changed, reloading", after=position) is not None

        wait_until(reloads)
        serving.wait_for("Starting ASGI/Daphne", after=position)
        wait_until(site.listens)
        site.receive()
        serving.wait_for("'default' leads", after=position)


def test_what_the_page_looks_at_first_finds_nothing_wrong(site: Site) -> None:
    check, status = block(PAGE, "sh", "status").splitlines()
    assert "no issues" in site.run(check)
    assert "installed" in site.run(status)
    site.run(block(PAGE, "sh", "failures").strip())
    site.sql(block(PAGE, "sql", "pg_stat_activity"))


@pytest.mark.skipif("tail" not in _SUBCOMMANDS, reason="no such command yet")
def test_tail_prints_a_change_and_explain_takes_its_id(site: Site) -> None:
    with site._process(block(PAGE, "sh", "tail").strip() + " --since 1h --json") as tail:
        site.sql("INSERT INTO notes_note (text, done) VALUES ('milk', false)")
        change = tail.wait_for(r'"change_id": (\d+)')[1]
    explained = site.run(block(PAGE, "sh", "explain").strip().replace("CHANGE", change))
    assert "note_changes" in explained
