"""A leader with other code than the subscribers' process: who is not told of changes is told to load again."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.acceptance.test_subscriptions import refusal
from tests.client import Client
from tests.project import MODELS, Project
from tests.servers import AsgiServer, ManagePy
from tests.subscriber import Subscriber

pytestmark = pytest.mark.processes

ASGI = """
from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from shelf.consumers import BookConsumer

websocket = URLRouter([path("ws/books/", BookConsumer.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
"""

CONSUMER = """
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import Author, Book


class BookConsumer(GenericAsyncAPIConsumer):
    @model_observer(Book)
    async def books(self, message, action, **kwargs):
        await self.send_json({"observer": "books", "action": action, "body": message})

    @books.serializer
    def books(self, instance, action, **kwargs):
        return {"title": instance.title}

    @action()
    async def subscribe(self, name, request_id, **kwargs):
        await getattr(self, name).subscribe(request_id=request_id)
        return None, 201
"""

AUTHORS = """
    @model_observer(Author)
    async def authors(self, message, action, **kwargs):
        await self.send_json({"observer": "authors", "action": action, "body": message})
"""

UNOBSERVED = {"reason": "unobserved", "model": "shelf.Author"}


class Deploy:
    """The project ``shelf`` in several processes, each with the code that is there when it starts."""

    def __init__(self, shelf: Project, redis: str, runner: Any, stack: ExitStack) -> None:
        self.shelf, self.redis, self.runner, self.stack = shelf, redis, runner, stack
        shelf.write("shelf/asgi.py", ASGI)

    def env(self) -> dict[str, str | None]:
        """Of a process that starts now."""
        settings = {"OBSERVE": ["shelf.Author"], "EMBEDDED": False, "SUBSCRIBE_TIMEOUT": 0.5}
        return {**self.shelf.env(settings), "DJCRF_PG_TEST_REDIS": self.redis}

    def lead(self) -> ManagePy:
        """Start a listener."""
        listener = self.stack.enter_context(ManagePy("djcrf_pg", "listen", env=self.env()))
        listener.wait_for("leads")
        return listener

    def serve(self) -> AsgiServer:
        """Start a server."""
        return self.stack.enter_context(AsgiServer(self.env(), application="shelf.asgi:application"))

    def open(self, server: AsgiServer) -> Subscriber:
        """Connect a client."""
        client = self.runner.run(Client.open(server.consumer_url("books")))
        self.stack.callback(lambda: self.runner.run(client.close()))
        return Subscriber(self.runner, client)

    def code(self, text: str) -> None:
        """Have processes that start from now on run this."""
        self.shelf.write("shelf/consumers.py", text)


@pytest.fixture
def deploy(project: Project, redis_url: str, runner: Any) -> Iterator[Deploy]:
    with ExitStack() as stack:
        yield Deploy(project, redis_url, runner, stack)


def resync(client: Subscriber) -> Any:
    """The body of the next resync; nothing else may come before."""
    (event,) = client.events(1)
    assert event["action"] == "resync", event
    return event["data"]


def test_an_observer_that_the_old_leader_does_not_know_is_told_so_and_refused(deploy: Deploy):
    deploy.code(CONSUMER)
    deploy.shelf.manage("migrate", "--verbosity", "0", settings={"OBSERVE": ["shelf.Author"]})
    old = deploy.lead()
    deploy.code(CONSUMER + AUTHORS)
    server = deploy.serve()
    early = deploy.open(server)
    # The first one of a process is accepted before the leader has said anything.
    early.subscribe("authors")
    assert resync(early) == UNOBSERVED
    late = deploy.open(server)
    error = refusal(late, "authors")
    assert "leads, and its code does not have shelf.consumers.BookConsumer.authors" in error
    assert "restart it with the code of this process" in error
    late.subscribe("books")  # which both know
    deploy.shelf.rows("INSERT INTO shelf_author (name) VALUES ('lost')")
    deploy.shelf.rows("INSERT INTO shelf_book (title, secret) VALUES ('a', '')")
    assert [event["observer"] for event in late.events(1)] == ["books"]
    old.terminate()
    deploy.lead()
    assert resync(early) == UNOBSERVED
    late.subscribe("authors")
    ((pk,),) = deploy.shelf.rows("INSERT INTO shelf_author (name) VALUES ('told') RETURNING id")
    for client in (early, late):
        (event,) = client.events(1)
        assert (event["observer"], event["body"]["pk"]) == ("authors", pk)


def test_subscribers_of_an_observer_that_the_new_code_dropped_are_told_so(deploy: Deploy):
    deploy.code(CONSUMER + AUTHORS)
    deploy.shelf.manage("migrate", "--verbosity", "0", settings={"OBSERVE": ["shelf.Author"]})
    old = deploy.lead()
    server = deploy.serve()
    client = deploy.open(server)
    client.subscribe("books", "authors")
    ((pk,),) = deploy.shelf.rows("INSERT INTO shelf_author (name) VALUES ('told') RETURNING id")
    (event,) = client.events(1)
    assert event["body"] == {"pk": pk}
    old.terminate()
    deploy.code(CONSUMER)
    deploy.lead()
    assert resync(client) == UNOBSERVED
    server.wait_for("does not have shelf.consumers.BookConsumer.authors")
    deploy.shelf.rows("INSERT INTO shelf_book (title, secret) VALUES ('a', '')")
    (event,) = client.events(1)
    assert event["observer"] == "books"


def test_a_field_renamed_under_the_serializer_of_the_old_leader_is_a_resync(deploy: Deploy):
    deploy.code(CONSUMER)
    deploy.shelf.manage("migrate", "--verbosity", "0")
    deploy.lead()
    deploy.code(CONSUMER.replace("instance.title", "instance.name"))
    deploy.shelf.write("shelf/models.py", MODELS.replace("title =", "name ="))
    deploy.shelf.rows("ALTER TABLE shelf_book RENAME title TO name")
    client = deploy.open(deploy.serve())
    client.subscribe("books")
    deploy.shelf.rows("INSERT INTO shelf_book (name, secret) VALUES ('a', '')")
    assert resync(client) == {"reason": "failed", "model": "shelf.Book"}
