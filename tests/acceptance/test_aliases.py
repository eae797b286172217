"""Two aliases of one database: another user, other options, a replica in name. There is one log, told once."""

from collections.abc import Callable

import pytest

from tests.acceptance.board import Board
from tests.project import Project
from tests.servers import AsgiServer, ManagePy

pytestmark = pytest.mark.processes

SETTINGS = """
from shelf_settings import *

DATABASES["reporting"] = {{**DATABASES["default"], "OPTIONS": {{"application_name": "reporting"}}}}
if DATABASES["default"]["HOST"].startswith("/"):  # the socket's folder, by another name
    DATABASES["reporting"]["HOST"] += "/"
DATABASE_ROUTERS = {routers}
ASGI_APPLICATION = "shelf_asgi.application"
"""

# Books are written as ``default`` and authors as ``reporting``; one alias is that of the owner of the tables.
ROUTERS = """
class Router:
    owner = None

    def db_for_write(self, model, **hints):
        return "reporting" if model._meta.model_name == "author" else "default"

    db_for_read = db_for_write

    def allow_relation(self, *objects, **hints):
        return True

    def allow_migrate(self, db, app_label, **hints):
        return self.owner in (None, db)

class OwnedByDefault(Router):
    owner = "default"

class OwnedByReporting(Router):
    owner = "reporting"
"""

CONSUMERS = """
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import Author, Book

def tell(self, instance, action, **kwargs):
    return [type(instance).__name__, getattr(instance, "title", None) or instance.name, instance._state.db]

class Shelf(GenericAsyncAPIConsumer):
    @model_observer(Book)
    async def books(self, message, action, **kwargs):
        await self.send_json({"action": action, "body": message})

    @model_observer(Author)
    async def authors(self, message, action, **kwargs):
        await self.send_json({"action": action, "body": message})

    books.serializer(tell)
    authors.serializer(tell)

    @action()
    async def subscribe(self, **kwargs):
        await self.books.subscribe()
        await self.authors.subscribe()
        return None, 201
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

WRITE = """
from shelf.models import Author, Book
for model, name in ((Book, "title"), (Author, "name")):
    for alias in ("default", "reporting"):
        model.objects.using(alias).create(**{name: f"by {alias}"})
    model.objects.create(**{name: "the last"})
"""

ROUTED = ["OwnedByDefault", "OwnedByReporting"]

WRITTEN = [("Book", "by default"), ("Book", "by reporting"), ("Author", "by default"), ("Author", "by reporting")]


def prepare(project: Project, router: str | None) -> Project:
    """Give a project the second alias, and migrate by whichever alias may."""
    project.settings = "aliases_settings"
    routers = [] if router is None else [f"shelf.routers.{router}"]
    project.write("aliases_settings.py", SETTINGS.format(routers=routers))
    project.write("shelf/routers.py", ROUTERS)
    project.write("shelf/consumers.py", CONSUMERS)
    project.write("shelf_asgi.py", ASGI)
    project.manage("migrate", "--database", owner(router), "--verbosity", "0")
    return project


def owner(router: str | None) -> str:
    """The alias that may migrate."""
    return "reporting" if router == "OwnedByReporting" else "default"


def told(board: Board) -> list[tuple[str, str, str]]:
    """Who was told of, by what name, and from which alias, up to the last of both: each observer has an order."""
    seen, last = [], {"Author", "Book"}
    while last:
        event = board.runner.run(board.client.event())
        assert event["action"] == "create"
        model, name, _ = event["body"]
        if name == "the last":
            last.remove(model)
        else:
            seen.append(tuple(event["body"]))
    return seen


@pytest.mark.parametrize("router", [None, *ROUTED])
def test_a_write_by_either_alias_is_told_once(project: Project, open_board: Callable[..., Board], router) -> None:
    prepare(project, router)
    authors = "reporting" if router else "default"
    with AsgiServer(project.env(), application="shelf_asgi:application") as server:
        board = open_board(server, "shelf")
        assert board.call("subscribe")["response_status"] == 201
        project.manage("shell", "-c", WRITE)
        # The instances come from where their model is written to, whoever leads.
        expected = [(model, name, authors if model == "Author" else "default") for model, name in WRITTEN]
        assert sorted(told(board)) == sorted(expected)


@pytest.mark.parametrize("router", ROUTED)
def test_no_alias_takes_the_triggers_that_another_one_wants(project: Project, router) -> None:
    prepare(project, router)
    triggers = project.triggers()
    assert {table for table, _ in triggers} == {"shelf_book", "shelf_author"}
    assert project.manage("djcrf_pg", "install").stdout.splitlines() == [
        "default: nothing to do",
        "reporting: nothing to do",
    ]
    assert project.triggers() == triggers
    project.manage("djcrf_pg", "status", "--check")
    # What no alias wants goes.
    project.write("shelf/consumers.py", CONSUMERS.replace("@model_observer(Book)", "@model_observer(Author)"))
    project.manage("djcrf_pg", "install", "--database", owner(router))
    assert {table for table, _ in project.triggers()} == {"shelf_author"}


@pytest.mark.parametrize(("router", "first"), [("OwnedByDefault", "reporting"), ("OwnedByReporting", "default")])
def test_one_listener_serves_both(
    project: Project, open_board: Callable[..., Board], redis_url: str, router: str, first: str
) -> None:
    prepare(project, router)
    env = {**project.env({"EMBEDDED": False}), "DJCRF_PG_TEST_REDIS": redis_url}
    second = "default" if first == "reporting" else "reporting"
    databases = ("--database", first, "--database", second)
    with (
        ManagePy("djcrf_pg", "listen", *databases, env=env) as listen,
        AsgiServer(env, application="shelf_asgi:application") as server,
    ):
        listen.wait_for(f"'{second}' is the same database as '{first}', whose listener serves it too")
        listen.wait_for(f"listener of database '{first}' leads")
        board = open_board(server, "shelf")
        assert board.call("subscribe")["response_status"] == 201
        project.manage("shell", "-c", WRITE)
        expected = [(model, name, "reporting" if model == "Author" else "default") for model, name in WRITTEN]
        assert sorted(told(board)) == sorted(expected)
        assert not listen.find("stands by")
