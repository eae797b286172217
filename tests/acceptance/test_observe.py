"""``OBSERVE`` for consumers that ``migrate`` does not find: their errors say what to add, and then they work."""

import re
from collections.abc import Callable

import pytest

from tests.acceptance.board import Board
from tests.project import Project
from tests.servers import AsgiServer

pytestmark = pytest.mark.processes

MODELS = """
from django.contrib.auth.models import Group
from django.db import models

class Place(models.Model):
    name = models.CharField(max_length=100)

class Library(Place):
    readers = models.ManyToManyField(Group)
"""

#: In no module that ``migrate`` or the listener imports by themselves.
CONSUMERS = """
from django.contrib.auth.models import User
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import Library

class Hidden(GenericAsyncAPIConsumer):
    @model_observer(User, many_to_many=True)
    async def users(self, message, action, **kwargs):
        await self.send_json({"action": action, "body": message})

    @model_observer(Library, many_to_many=["readers"])
    async def libraries(self, message, action, **kwargs):
        await self.send_json({"action": action, "body": message})

    @action()
    async def subscribe(self, name, **kwargs):
        await getattr(self, name).subscribe()
        return None, 201
"""

ASGI = """
from django.core.asgi import get_asgi_application
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from shelf.hidden import Hidden

websocket = URLRouter([path("ws/hidden/", Hidden.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
"""

WRITE = """
from django.contrib.auth.models import Group, User
from shelf.models import Library
group = Group.objects.create(name="staff")
User.objects.create(username="ada").groups.add(group)
Library.objects.create(name="Alexandria").readers.add(group)
Library.objects.update(name="Pergamon")
"""


@pytest.fixture
def project(project: Project) -> Project:
    """A project whose consumer is hidden; its tables are there, without triggers."""
    project.write("shelf/models.py", MODELS)
    project.write("shelf/consumers.py", "")
    project.write("shelf/hidden.py", CONSUMERS)
    project.write("hidden_asgi.py", ASGI)
    (project.folder / "shelf/migrations/0001_initial.py").unlink()
    project.manage("makemigrations", "shelf", "--verbosity", "0")
    return project


def served(project: Project, *observe: str) -> AsgiServer:
    """The project, migrated and served with a value of ``OBSERVE``."""
    settings = {"OBSERVE": list(observe)}
    project.manage("migrate", "--verbosity", "0", settings=settings)
    return AsgiServer(project.env(settings), application="hidden_asgi:application")


def refusal(board: Board, name: str) -> str:
    """Why a subscription is refused."""
    (error,) = board.call("subscribe", name=name)["errors"]
    return str(error)


def to_add(error: str) -> list[str]:
    """The entries that an error says to add."""
    found = re.search(r", add ('.*') to DJCRF_PG\['OBSERVE'\] first\.$", error)
    assert found, error
    return re.findall(r"'([^']+)'", found[1])


def test_a_plain_entry_brings_no_join_tables_and_the_error_says_what_to_add(
    project: Project, open_board: Callable[..., Board]
) -> None:
    with served(project, "auth.User", "shelf.Library") as server:
        assert {table for table, _ in project.triggers()} == {"auth_user", "shelf_place", "shelf_library"}
        board = open_board(server, "hidden")
        users, libraries = refusal(board, "users"), refusal(board, "libraries")
        assert to_add(users) == ["auth.User.groups", "auth.User.user_permissions"]
        assert to_add(libraries) == ["shelf.Library.readers"]
    with served(project, *to_add(users), *to_add(libraries)) as server:
        board = open_board(server, "hidden")
        for name in ("users", "libraries"):
            assert board.call("subscribe", name=name)["response_status"] == 201
        project.manage("shell", "-c", WRITE)
        events = board.runner.run(board.client.events(5))
        assert [event["action"] for event in events] == ["create", "update", "create", "update", "update"]


def test_the_error_says_all_that_an_observer_needs_and_nothing_that_is_there(
    project: Project, open_board: Callable[..., Board]
) -> None:
    with served(project) as server:
        board = open_board(server, "hidden")
        assert to_add(refusal(board, "libraries")) == ["shelf.Library", "shelf.Library.readers"]
    with served(project, "shelf.Library.readers") as server:
        project.rows("DROP TRIGGER djcrf_pg_update ON shelf_library_readers")
        error = refusal(open_board(server, "hidden"), "libraries")
        assert '"shelf_library_readers" (database' in error
        assert error.endswith("run `manage.py migrate`.")


def test_what_another_subscriber_lacks_refuses_nobody(project: Project, open_board: Callable[..., Board]) -> None:
    with served(project, "shelf.Library.readers") as server:
        board = open_board(server, "hidden")
        others = [open_board(server, "hidden") for _ in range(10)]
        for round in range(5):
            # At once, so that the gate asks for several together.
            for other in others:
                board.runner.run(other.client.cast("subscribe", name="users"))
            reply = board.call("subscribe", name="libraries", request_id=round)
            assert reply["response_status"] == 201, reply
