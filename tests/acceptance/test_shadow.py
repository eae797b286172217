"""Shadow mode: DCRF's signals deliver as they always did, and what triggers would send otherwise is found."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.board import Board
from tests.processes import wait_until
from tests.project import Project
from tests.servers import AsgiServer

CONSUMERS = """
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import ModelObserver, model_observer
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from rest_framework.serializers import ModelSerializer

from shelf.models import Author, Book


class BookSerializer(ModelSerializer):
    class Meta:
        model = Book
        fields = ["id", "title", "secret"]


class ShelfConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.all()
    serializer_class = BookSerializer

    @model_observer(Book, serializer_class=BookSerializer)
    async def books(self, message, action, subscribing_request_ids=(), **kwargs):
        await self.send_json({"action": action, "body": message, "to": list(subscribing_request_ids)})

    @books.groups_for_signal
    def books(self, instance, **kwargs):
        yield f"letter-{instance.title[0]}"

    @books.groups_for_consumer
    def books(self, letter="a", **kwargs):
        yield f"letter-{letter}"

    @model_observer(Author)
    def authors(self, message, **kwargs):
        ...

    @action()
    async def follow(self, request_id, **kwargs):
        await self.books.subscribe(request_id=request_id)
        return {}, 201

    @action()
    async def run(self, code, **kwargs):
        await sync_to_async(exec)(code, globals())
        return {}, 200
"""

ASGI = """
import django
django.setup()

from djcrf_pg.shadow import comparison
comparison.PATIENCE, comparison.PAUSE = 0.3, 0.05

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from shelf.consumers import ShelfConsumer

application = ProtocolTypeRouter({"websocket": URLRouter([path("ws/shelf/", ShelfConsumer.as_asgi())])})
"""

SHADOW = {"SHADOW": True, "EXCLUDE": {"shelf.Book": ["secret"]}}
BOOKS = "shelf.consumers.ShelfConsumer.books"


class Shelf:
    """A project in shadow mode, whose consumer runs code in the server's process."""

    def __init__(self, project: Project, board: Board) -> None:
        self.project = project
        self.board = board

    def run(self, code: str) -> None:
        """Run code where the signals are connected and the consumers subscribed."""
        assert self.board.call("run", code=code)["response_status"] == 200

    def event(self) -> dict[str, Any]:
        """The next event that the client receives."""
        return self.board.runner.run(self.board.client.event())

    def report(self) -> dict[str, Any]:
        """What the command says."""
        return json.loads(self.project.manage("djcrf_pg", "shadow", "--json", settings=SHADOW).stdout)

    def results(self) -> dict[tuple[str, str, str], int]:
        """How often what was found, by observer, kind and what it is about."""
        rows = self.project.rows("SELECT observer, kind, what, times FROM djcrf_pg_shadow_result")
        return {(observer, kind, what): times for observer, kind, what, times in rows}

    def find(self, kind: str, what: str, times: int = 1, observer: str = BOOKS) -> None:
        """Wait until something was found so often."""
        wait_until(lambda: self.results().get((observer, kind, what)) == times)


@pytest.fixture
def shelf(project: Project, open_board: Callable[..., Board]) -> Iterator[Shelf]:
    project.write("shelf/consumers.py", CONSUMERS)
    project.write("shelf_asgi.py", ASGI)
    project.manage("migrate", "--verbosity", "0", settings=SHADOW)
    with AsgiServer(project.env(SHADOW), application="shelf_asgi:application") as server:
        board = open_board(server, "shelf")
        assert board.call("follow", request_id="books")["response_status"] == 201
        yield Shelf(project, board)


def test_signals_deliver_as_before_and_what_they_miss_is_found(shelf: Shelf) -> None:
    shelf.run("Book.objects.create(title='alpha')")
    event = shelf.event()
    assert (event["action"], event["body"]["title"], event["to"]) == ("create", "alpha", ["books"])
    shelf.find("equal", "")
    shelf.run("Book.objects.bulk_create([Book(title='amber'), Book(title='azure')])")
    shelf.find("missed", "create", 2)
    shelf.run("Book.objects.filter(title='alpha').update(title='arrow')")
    shelf.find("missed", "update")
    shelf.run("Book.objects.create(title='last of a')")
    shelf.run("Book.objects.create(title='after')")
    # Nothing of the triggers' has reached the client.
    assert shelf.event()["body"]["title"] == "after"
