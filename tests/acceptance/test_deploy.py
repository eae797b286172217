"""The page on gunicorn and daphne does what it says: its commands and settings, in the project of the tutorial."""

import asyncio
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_tutorial import MAKEMIGRATIONS, MIGRATE, Reader, block, server
from tests.client import Client
from tests.processes import ROOT, Process

__all__ = ["server"]

PAGE = (ROOT / "docs" / "how-to" / "deploy-with-gunicorn-or-daphne.md").read_text("utf-8")
COMMANDS = {name: block(PAGE, "sh", name).strip() for name in ("gunicorn asgi", "daphne --bind")}
LISTEN = block(PAGE, "sh", "listen").strip()
READY = {"gunicorn asgi": r"(?:Application startup complete[\s\S]*){2}", "daphne --bind": "Listening on TCP address"}


class Site(Reader):
    """The tutorial's project, deployed."""

    def start(self, line: str) -> Process:
        """Start a command of the page."""
        return self._process(line.replace("8000", str(self.port)))

    def sessions(self) -> list[str]:
        """The roles of our sessions, by the query of the page."""
        with self.server.params.connect("live") as connection:
            rows = connection.execute(block(PAGE, "sql", "application_name").encode()).fetchall()
        return [re.sub(r"^djcrf_pg (\w+) .*", r"\1", name) for (name,) in rows]

    async def subscribed(self) -> Client:
        """A client that has subscribed."""
        client = await Client.open(f"ws://127.0.0.1:{self.port}/ws/notes/")
        assert (await client.call("subscribe_to_notes", request_id=1))["response_status"] == 201
        return client


@pytest.fixture
def site(tmp_path: Path, server: Any, redis_url: str) -> Site:
    site = Site(tmp_path, server)
    site.begin()
    site.env["REDIS_URL"] = redis_url
    settings = (site.folder / "settings.py").read_text("utf-8")
    site.write("settings.py", settings + block(PAGE, "python", "CHANNEL_LAYERS"))
    site.run(MAKEMIGRATIONS)
    site.run(MIGRATE)
    return site


def receive(site: Site, clients: int) -> list[str]:
    """Subscribe so many clients, each of which receives what is written; return the roles of our sessions then."""

    async def work() -> list[str]:
        subscribed = [await site.subscribed() for _ in range(clients)]
        site.sql("INSERT INTO notes_note (text, done) VALUES ('milk', false)")
        for client in subscribed:
            assert (await client.event())["data"]["text"] == "milk"
        sessions = site.sessions()
        for client in subscribed:
            await client.close()
        return sessions

    return asyncio.run(work())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_server_of_the_page_serves_with_an_embedded_listener(site: Site, name: str) -> None:
    with site.start(COMMANDS[name]) as serving:
        serving.wait_for(READY[name])
        # Enough for both workers to have some: the kernel shares connections out as it likes.
        sessions = receive(site, 8)
    assert sessions.count("leader") == 1
    assert sessions.count("gate") == sessions.count("listener") + 1, "each process with subscribers has a listener"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_server_of_the_page_serves_with_a_listener_of_its_own(site: Site, name: str) -> None:
    settings = (site.folder / "settings.py").read_text("utf-8")
    site.write("settings.py", settings + block(PAGE, "python", "EMBEDDED"))
    with ExitStack() as stack:
        serving = stack.enter_context(site.start(COMMANDS[name]))
        stack.enter_context(site.start(LISTEN)).wait_for("leads")
        serving.wait_for(READY[name])
        sessions = receive(site, 8)
    assert [role for role in sessions if role != "gate"] == ["leader"]
