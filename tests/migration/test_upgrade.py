"""From a release to this version and back, while others write and processes of both versions run.

`tests/releases` has the wheels of the releases. A process of one runs with the wheel's modules before ours.
"""

import asyncio
import itertools
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.client import Client
from tests.processes import ROOT, meanwhile, wait_until
from tests.project import Project
from tests.servers import AsgiServer, PgParams
from tests.subscriber import Subscriber
from tests.unit.test_releases import RELEASES

#: What a lock is waited for, in seconds: `migrate` gives up after it, so nobody waits behind it for longer.
LOCK_TIMEOUT = 2.0

#: Writers, each without a pause between its statements.
WRITERS = 3

pytestmark = [pytest.mark.slow, pytest.mark.processes]

CONSUMERS = """
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import Book

class BookConsumer(GenericAsyncAPIConsumer):
    @model_observer(Book)
    async def books(self, message, action=None, **kwargs):
        await self.send_json({"action": action, "body": message})

    @books.serializer
    def books(self, instance, action, **kwargs):
        return {"pk": instance.pk, "title": instance.title}

    @action()
    async def subscribe(self, request_id, **kwargs):
        await self.books.subscribe(request_id=request_id)
        return {}, 201

    @action()
    async def ping(self, **kwargs):
        return {}, 200
"""

ASGI = """
from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from shelf.consumers import BookConsumer

application = ProtocolTypeRouter({"http": http, "websocket": URLRouter([path("ws/books/", BookConsumer.as_asgi())])})
"""


class Deployed(Project):
    """A project whose processes run with this version, or with a release.

    Attributes:
        release: The folder with the release's modules; None is this version.
        redis: The channel layer's server.
    """

    release: Path | None = None
    redis: str

    def env(self, settings: Mapping[str, Any] | None = None) -> dict[str, str | None]:
        """As the project's; the modules of the working directory do not come first."""
        path = os.pathsep.join(map(str, filter(None, [self.release, self.folder, ROOT])))
        env = super().env({"LOCK_TIMEOUT": LOCK_TIMEOUT, **(settings or {})})
        # uvicorn has the working directory come first, unless it is told otherwise.
        first = str(self.release or ROOT)
        more = {"PYTHONSAFEPATH": "1", "PYTHONPATH": path, "UVICORN_APP_DIR": first, "DJCRF_PG_TEST_REDIS": self.redis}
        return {**env, **more}


class Reader(Subscriber):
    """A subscriber that loads again when it is to.

    Args:
        runner: As a subscriber's.
        client: As a subscriber's.
        pg: The database that it loads from.
    """

    def __init__(self, runner: asyncio.Runner, client: Client, pg: PgParams) -> None:
        super().__init__(runner, client)
        self.pg = pg

    def has(self, keys: list[int], *, by_events: bool = False) -> None:
        """Wait until it has these rows, by events alone or by loading as well."""
        self.runner.run(self._has(set(keys), by_events))

    async def _has(self, missing: set[int], by_events: bool) -> None:
        while missing:
            event = await self.client.event()
            if event["action"] == "resync" and not by_events:
                with self.pg.connect() as connection:
                    missing.difference_update(pk for (pk,) in connection.execute("SELECT id FROM shelf_book"))
            else:
                assert event["action"] in {"create", "update"}, event
                missing.discard(event["body"]["pk"])


class Writers:
    """Writes rows for as long as it lasts, and measures what a write waits.

    Args:
        pg: Where to.
        pause: Seconds between the rows of a writer.

    Attributes:
        written: The keys of what was committed.
        longest: The longest that a statement took, in seconds.
        errors: What statements failed with.
    """

    def __init__(self, pg: PgParams, pause: float = 0.0) -> None:
        self.pg = pg
        self.pause = pause
        self.written: list[int] = []
        self.longest = 0.0
        self.errors: list[str] = []
        self._keys = itertools.count(1)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Write during the block."""
        with ExitStack() as stack:
            for _ in range(WRITERS):
                stack.enter_context(meanwhile(self._work))
            yield

    def more(self, count: int) -> list[int]:
        """Wait for so many more rows, whose writing begins now, and return their keys."""
        first, before = next(self._keys), len(self.written)
        wait_until(lambda: len(self.written) >= before + count + WRITERS or self.errors)
        return [key for key in self.written[before:] if key > first]

    def _work(self, done: threading.Event) -> None:
        with psycopg.connect(self.pg.dsn(), autocommit=True) as connection:
            while not done.wait(self.pause):
                key = next(self._keys)
                for statement in (
                    "INSERT INTO shelf_book (id, title, secret) VALUES (%s, 'a', '')",
                    "UPDATE shelf_book SET title = 'b' WHERE id = %s",
                ):
                    begun = time.monotonic()
                    try:
                        connection.execute(statement, [key])
                    except psycopg.Error as error:
                        self.errors.append(str(error))
                        return
                    self.longest = max(self.longest, time.monotonic() - begun)
                self.written.append(key)


@pytest.fixture(params=RELEASES, ids=lambda path: path.name.split("-")[1])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The modules of a release."""
    folder = tmp_path / "release"
    with zipfile.ZipFile(request.param) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture
def deployed(tmp_path: Path, pg: PgParams, redis_url: str) -> Iterator[Deployed]:
    with Deployed(tmp_path / "project", pg, "djcrf_upgrade") as project:
        project.redis = redis_url
        project.write("shelf/consumers.py", CONSUMERS)
        project.write("shelf_asgi.py", ASGI)
        yield project


@pytest.fixture
def serve(deployed: Deployed, processes_stack: ExitStack) -> Callable[[], AsgiServer]:
    """Starts a server with the version that is deployed now."""

    def start() -> AsgiServer:
        server = AsgiServer(deployed.env(), application="shelf_asgi:application")
        return processes_stack.enter_context(server)

    return start


@pytest.fixture
def reader(runner: asyncio.Runner, deployed: Deployed) -> Iterator[Callable[[AsgiServer], Reader]]:
    """Subscribes at a server."""
    with ExitStack() as stack:

        def start(server: AsgiServer) -> Reader:
            client = runner.run(Client.open(server.consumer_url("books")))
            stack.callback(lambda: runner.run(client.close()))
            subscribed = Reader(runner, client, deployed.pg)
            subscribed.subscribe("books")
            return subscribed

        yield start


def version(deployed: Deployed) -> str:
    """The version that the project's processes run."""
    code = "import djcrf_pg; print(djcrf_pg.__file__)"
    return deployed.manage("shell", "--no-imports", "-c", code).stdout.strip()


def test_a_release_is_upgraded_under_writes_and_back(
    deployed: Deployed, release: Path, serve: Callable[[], AsgiServer], reader: Callable[[AsgiServer], Reader]
) -> None:
    deployed.release = release
    assert str(release) in version(deployed)
    deployed.manage("migrate", "--verbosity", "0")
    writers = Writers(deployed.pg)

    def replace(server: AsgiServer, subscriber: Reader) -> tuple[AsgiServer, Reader]:
        """Start a server of the version that is deployed now beside another one, and stop that."""
        successor = serve()
        other = reader(successor)
        both = writers.more(100)
        subscriber.has(both)
        other.has(both)
        server.stop()
        other.has(writers.more(100))
        return successor, other

    with writers.at_work():
        writers.more(100)  # the log has rows before anybody reads it
        old_server = serve()
        old = reader(old_server)
        old.has(writers.more(100))

        deployed.release = None
        deployed.manage("migrate", "--verbosity", "0")
        old.has(writers.more(100))
        new_server, new = replace(old_server, old)

        # Back: the old processes first, on what this version has made, then the migration.
        deployed.release = release
        _, old = replace(new_server, new)
        deployed.release = None
        deployed.manage("migrate", "djcrf_pg", "0001", "--verbosity", "0")
        deployed.release = release
        assert deployed.manage("djcrf_pg", "status").returncode == 0
        old.has(writers.more(100))
    assert not writers.errors
    assert writers.longest < LOCK_TIMEOUT
