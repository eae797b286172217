"""However Django connects: by a service, with passwords that a backend makes and that expire, out of a pool."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.board import Board
from tests.client import Message
from tests.processes import until, wait_until
from tests.project import Project
from tests.servers import AsgiServer, EmbeddedPostgres, ManagePy

pytestmark = pytest.mark.processes

SETTINGS = """
from shelf_settings import *

DATABASES["default"] = {database!r}
ASGI_APPLICATION = "shelf_asgi.application"
"""

CONSUMERS = """
from channels.db import database_sync_to_async
from django.db import connection
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import Book

def lent():
    stats = connection.pool.get_stats()
    return stats["pool_size"] - stats["pool_available"]

class Shelf(GenericAsyncAPIConsumer):
    @model_observer(Book)
    async def books(self, message, **kwargs):
        books = await database_sync_to_async(Book.objects.count)()
        await self.send_json({**message, "books": books})

    @books.serializer
    def books(self, instance, action, **kwargs):
        return {"title": instance.title, "authors": instance.authors.count()}

    @action()
    async def subscribe(self, **kwargs):
        await self.books.subscribe()
        return None, 201

    @action()
    async def lent(self, **kwargs):
        return await database_sync_to_async(lent)(), 200

    @action()
    async def ping(self, **kwargs):
        return None, 200
"""

ASGI = """
from django.core.asgi import get_asgi_application
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from shelf.consumers import Shelf

websocket = URLRouter([path("ws/shelf/", Shelf.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
"""

#: A backend that fetches the password where it is kept, and may have to wait for it.
BACKEND = """
import time
from pathlib import Path

from django.db.backends.postgresql import base

VAULT = Path(__file__).parent.parent / "vault"

class DatabaseWrapper(base.DatabaseWrapper):
    def get_connection_params(self):
        while (VAULT / "sealed").exists():
            (VAULT / "asked").touch()
            time.sleep(0.01)
        return {**super().get_connection_params(), "password": (VAULT / "password").read_text()}
"""

#: The one role that is asked for a password, by the one server that asks.
ROLE = "keeper"


@pytest.fixture(scope="module")
def asking() -> Iterator[EmbeddedPostgres]:
    """A server that asks a role for its password."""
    with EmbeddedPostgres(tcp=True) as server:
        access = server.data / "pg_hba.conf"
        access.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        with server.params.connect() as admin:
            admin.execute(f"CREATE ROLE {ROLE} LOGIN SUPERUSER".encode())
            admin.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def project(tmp_path: Path, asking: EmbeddedPostgres) -> Iterator[Project]:
    """A project on that server; how Django connects is for the test to say."""
    with Project(tmp_path, asking.params, "djcrf_pg_project") as project:
        project.settings = "connecting_settings"
        project.write("shelf/consumers.py", CONSUMERS)
        project.write("shelf_asgi.py", ASGI)
        yield project


def connect_with(project: Project, **database: object) -> None:
    """Have Django connect with these settings, and migrate."""
    django = {**project.pg.django(), "USER": ROLE, **database}
    project.write("connecting_settings.py", SETTINGS.format(database=django))
    project.manage("migrate", "--verbosity", "0")


def set_password(project: Project, password: str) -> None:
    """Change the role's password."""
    project.rows(f"ALTER ROLE {ROLE} PASSWORD '{password}'")


def create(project: Project, title: str) -> None:
    """Write a row; not by Django, whose connection is what is tested."""
    project.rows(f"INSERT INTO shelf_book (title, secret) VALUES ('{title}', '')")


def subscribed(server: AsgiServer, open_board: Callable[..., Board]) -> Board:
    """A client of the server that is subscribed to books."""
    board = open_board(server, "shelf")
    reply = board.call("subscribe")
    assert reply["response_status"] == 201, reply
    return board


# -- services ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["by the service", "by NAME"])
@pytest.mark.parametrize("password", ["in the service", "in a passfile"])
def test_a_service_says_where_the_listener_connects_as_it_does_to_django(
    project: Project, open_board: Callable[..., Board], monkeypatch: pytest.MonkeyPatch, named: str, password: str
) -> None:
    set_password(project, "open sesame")
    pg = project.pg
    dbname = pg.dbname if named == "by the service" else "postgres"
    service = f"[shelf]\nhost={pg.host}\nport={pg.port}\ndbname={dbname}\nuser={ROLE}\n"
    options = {"service": "shelf"}
    if password == "in the service":
        service += "password=open sesame\n"
    else:
        passfile = project.write("passwords", f"{pg.host}:{pg.port}:*:{ROLE}:open sesame\n")
        passfile.chmod(0o600)
        options["passfile"] = str(passfile)
    monkeypatch.setenv("PGSERVICEFILE", str(project.write("services.conf", service)))
    name = "" if named == "by the service" else pg.dbname
    connect_with(project, HOST="", PORT="", USER="", NAME=name, OPTIONS=options)
    with AsgiServer(project.env(), application="shelf_asgi:application") as server:
        board = subscribed(server, open_board)
        create(project, "by a service")
        assert board.events(1) == [{"title": "by a service", "authors": 0, "books": 1}]


# -- backends ------------------------------------------------------------------------------------------------


@pytest.fixture
def vault(project: Project) -> Path:
    """The folder from which the backend of the project has its password."""
    set_password(project, "the first")
    password = project.write("vault/password", "the first")
    project.write("shelf_backend/__init__.py", "")
    project.write("shelf_backend/base.py", BACKEND)
    connect_with(project, ENGINE="shelf_backend")
    return password.parent


def test_the_listener_asks_the_backend_for_the_password_at_each_connection(
    project: Project, vault: Path, open_board: Callable[..., Board]
) -> None:
    with AsgiServer(project.env(), application="shelf_asgi:application") as server:
        board = subscribed(server, open_board)
        create(project, "with the first password")
        assert board.events(1)[0]["title"] == "with the first password"
        # It expires, and then the sessions end.
        set_password(project, "the second")
        project.rows(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{ROLE}'")
        server.wait_for(r"password authentication failed for user .* next try in")
        (vault / "password").write_text("the second")
        create(project, "with the second password")
        board.runner.run(board.client.until(lambda event: event["title"] == "with the second password"))
        # Subscriptions are asked for over another connection.
        subscribed(server, open_board)


def test_a_backend_that_has_to_wait_for_its_password_holds_up_nobody_else(
    project: Project, vault: Path, open_board: Callable[..., Board]
) -> None:
    with AsgiServer(project.env(), application="shelf_asgi:application") as server:
        waiting, other = open_board(server, "shelf"), open_board(server, "shelf")
        (vault / "sealed").touch()

        async def subscribe_meanwhile() -> Message:
            reply = asyncio.create_task(waiting.client.call("subscribe"))
            await until((vault / "asked").exists)
            await other.client.call("ping")
            (vault / "sealed").unlink()
            return await reply

        assert waiting.runner.run(subscribe_meanwhile())["response_status"] == 201


def test_a_backend_that_has_no_password_is_an_error_with_its_reason_and_is_asked_again(
    project: Project, vault: Path, open_board: Callable[..., Board]
) -> None:
    away = (vault / "password").rename(vault / "away")
    with AsgiServer(project.env({"SUBSCRIBE_TIMEOUT": 0.5}), application="shelf_asgi:application") as server:
        board = open_board(server, "shelf")
        (error,) = board.call("subscribe")["errors"]
        assert "database cannot be reached (get_connection_params() of the ENGINE of database 'default'" in error
        assert "FileNotFoundError" in error
        away.rename(vault / "password")

        def is_subscribed() -> bool:
            return board.call("subscribe")["response_status"] == 201

        wait_until(is_subscribed)


# -- pools ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pooled(project: Project) -> Callable[[int], Project]:
    """Gives the project's processes a pool of so many connections."""

    def connect(size: int) -> Project:
        set_password(project, "open sesame")
        pool = {"min_size": 1, "max_size": size, "timeout": 3}
        connect_with(project, PASSWORD="open sesame", OPTIONS={"pool": pool})
        return project

    return connect


@pytest.mark.parametrize("size", [1, 2])
def test_the_listener_gives_its_connections_back_to_the_pool(
    pooled: Callable[[int], Project], open_board: Callable[..., Board], size: int
) -> None:
    project = pooled(size)
    with AsgiServer(project.env(), application="shelf_asgi:application") as server:
        board = subscribed(server, open_board)
        for number in range(1, 4):
            create(project, f"number {number}")
            assert board.events(1) == [{"title": f"number {number}", "authors": 0, "books": number}]
        wait_until(lambda: board.call("lent")["data"] == 0)
        assert "PoolTimeout" not in server.output


def test_listen_works_out_of_a_pool_of_one(
    pooled: Callable[[int], Project], open_board: Callable[..., Board], redis_url: str
) -> None:
    project = pooled(1)
    env = {**project.env({"EMBEDDED": False}), "DJCRF_PG_TEST_REDIS": redis_url}
    with (
        ManagePy("djcrf_pg", "listen", env=env) as listen,
        AsgiServer(env, application="shelf_asgi:application") as server,
    ):
        listen.wait_for("listener of database 'default' leads")
        board = subscribed(server, open_board)
        for number in range(1, 4):
            create(project, f"number {number}")
            assert board.events(1) == [{"title": f"number {number}", "authors": 0, "books": number}]
        assert "PoolTimeout" not in listen.output


def test_without_a_pool_the_listener_keeps_its_connection(project: Project, open_board: Callable[..., Board]) -> None:
    set_password(project, "open sesame")
    connect_with(project, PASSWORD="open sesame")
    sessions = (
        "SELECT pid, backend_start FROM pg_stat_activity"
        f" WHERE usename = '{ROLE}' AND datname = current_database() AND application_name NOT LIKE 'djcrf_pg%'"
    )
    with AsgiServer(project.env(), application="shelf_asgi:application") as server:
        board = subscribed(server, open_board)
        kept = set()
        for number in range(1, 6):
            create(project, f"number {number}")
            board.events(1)
            # Those of handlers end with them.
            kept = (kept or set(project.rows(sessions))) & set(project.rows(sessions))
        assert len(kept) == 1
