"""The page on access does what it says: its code, as it stands there, in the project of the tutorial."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from websockets.exceptions import InvalidStatus

from tests.acceptance.test_tutorial import MAKEMIGRATIONS, MIGRATE, Reader, block, server
from tests.client import Client
from tests.processes import ROOT
from tests.servers import EmbeddedPostgres

__all__ = ["server"]

PAGE = (ROOT / "docs" / "how-to" / "who-may-receive-what.md").read_text("utf-8")

#: Makes two users, and prints the key and the session of each.
USERS = """
from django.contrib.auth import get_user_model, login
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
for name in ("ann", "bob"):
    user, request = get_user_model().objects.create_user(name), HttpRequest()
    request.session = SessionStore()
    login(request, user)
    request.session.save()
    print(user.pk, request.session.session_key)
"""

#: The handler that asks, in a list and so indented as in a class.
(ASKS,) = re.findall(r"^    ```python\n(.*?)^    ```$", PAGE, re.MULTILINE | re.DOTALL)


class Site(Reader):
    """The tutorial's project with the code of the page, and two users."""

    def begin(self) -> None:
        """Make the files, the tables and the users."""
        super().begin()
        settings = (self.folder / "settings.py").read_text("utf-8")
        self.write("settings.py", settings.replace('"notes",', '"django.contrib.sessions", "notes",'))
        asgi = block(PAGE, "python", "# asgi.py")
        notes, route = "from notes.consumers import NoteConsumer", 'path("ws/notes/", NoteConsumer.as_asgi())'
        assert notes in asgi
        assert route in asgi
        projects = 'path("ws/projects/", ProjectConsumer.as_asgi())'
        self.write(
            "asgi.py",
            asgi.replace(notes, f"from notes.projects import ProjectConsumer\n{notes}").replace(
                route, f"{route}, {projects}"
            ),
        )
        for name in ("notes/models.py", "notes/consumers.py", "notes/projects.py"):
            self.write(name, block(PAGE, "python", f"# {name}"))
        self.run(MAKEMIGRATIONS)
        self.run(MIGRATE)
        self.write("users.py", USERS)
        found = re.findall(r"^(\d+) (\w{32})$", self.run("python manage.py shell < users.py"), re.MULTILINE)
        (self.ann, self.anns), (self.bob, self.bobs) = ((int(pk), session) for pk, session in found)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve for as long as the block lasts."""
        with self.serve() as server:
            server.wait_for("Uvicorn running")
            yield

    def connect(self, session: str | None, path: str = "ws/notes/", origin: str | None = None) -> Any:
        """Open a connection with the cookie of a session."""
        headers = {"Cookie": f"sessionid={session}"} if session else {}
        address = f"127.0.0.1:{self.port}"
        origin = origin or f"http://{address}"
        return Client.open(f"ws://{address}/{path}", origin=origin, additional_headers=headers)


@pytest.fixture
def site(tmp_path: Path, server: EmbeddedPostgres) -> Site:
    site = Site(tmp_path, server)
    site.begin()
    return site


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def test_each_user_receives_and_lists_its_own_notes(site: Site) -> None:
    async def work() -> None:
        ann, bob = await site.connect(site.anns), await site.connect(site.bobs)
        for client in (ann, bob):
            assert (await client.call("subscribe_to_notes"))["response_status"] == 201
        site.sql(
            f"INSERT INTO notes_note (owner_id, project, text) VALUES ({site.ann}, 7, 'hers'), ({site.bob}, 7, 'his')"
        )
        assert [(await client.event())["data"]["text"] for client in (ann, bob)] == ["hers", "his"]
        assert [row["text"] for row in (await ann.call("list"))["data"]] == ["hers"]
        site.sql(f"UPDATE notes_note SET owner_id = {site.bob}, text = 'given' WHERE text = 'hers'")
        left, entered = await ann.event(), await bob.event()
        assert (left["action"], left["data"]["text"]) == ("delete", "hers")
        assert (entered["action"], entered["data"]["text"]) == ("create", "given")
        for client in (ann, bob):
            await client.close()

    with site.serving():
        run(work)


def test_nobody_without_a_user_may_subscribe_or_come_from_another_site(site: Site) -> None:
    async def work() -> None:
        nobody = await site.connect(None)
        assert (await nobody.call("subscribe_to_notes"))["response_status"] == 403
        await nobody.close()
        with pytest.raises(InvalidStatus):
            await site.connect(site.anns, origin="http://elsewhere.example")

    with site.serving():
        run(work)


def test_a_project_is_for_its_members_until_they_are_none(site: Site) -> None:
    async def work() -> None:
        ann, bob = [await site.connect(session, "ws/projects/") for session in (site.anns, site.bobs)]
        assert (await bob.call("subscribe_to_project", project=7))["response_status"] == 403
        site.sql(f"INSERT INTO notes_membership (user_id, project) VALUES ({site.ann}, 7)")
        assert (await ann.call("subscribe_to_project", project=7))["response_status"] == 201
        site.sql(f"INSERT INTO notes_note (owner_id, project, text) VALUES ({site.bob}, 7, 'for members')")
        assert (await ann.event())["note"]["text"] == "for members"
        site.sql("DELETE FROM notes_membership")
        await ann.connection.wait_closed()
        ann = await site.connect(site.anns, "ws/projects/")
        assert (await ann.call("subscribe_to_project", project=7))["response_status"] == 403
        for client in (ann, bob):
            await client.close()

    with site.serving():
        run(work)


def test_a_handler_that_asks_sends_nothing_to_those_who_may_not(site: Site) -> None:
    projects = (site.folder / "notes" / "projects.py").read_text("utf-8")
    head, rest = projects.split("    @model_observer(Note, serializer_class=NoteSerializer)\n")
    rest = rest[rest.index("    @note_changes.groups_for_signal") :]
    # The connection stays, as it does for a moment.
    site.write("notes/projects.py", f"{head}{ASKS}\n{rest}".replace("await self.close()", "pass"))

    async def work() -> None:
        ann = await site.connect(site.anns, "ws/projects/")
        site.sql(f"INSERT INTO notes_membership (user_id, project) VALUES ({site.ann}, 7), ({site.ann}, 8)")
        for project in (7, 8):
            assert (await ann.call("subscribe_to_project", project=project))["response_status"] == 201
        site.sql("DELETE FROM notes_membership WHERE project = 7")
        site.sql(f"INSERT INTO notes_note (owner_id, project, text) VALUES ({site.bob}, 7, 'secret')")
        site.sql(f"INSERT INTO notes_note (owner_id, project, text) VALUES ({site.bob}, 8, 'news')")
        assert (await ann.event())["note"]["text"] == "news", "events of an observer come in their order"
        await ann.close()

    with site.serving():
        run(work)


def _statuses(consumer: type[Any]) -> list[int]:
    """The statuses of the replies that somebody without a user gets."""

    async def work() -> list[int]:
        client = WebsocketCommunicator(consumer.as_asgi(), "/")
        await client.connect()
        await client.send_json_to({"action": "enter", "request_id": 1})
        status: int = (await client.receive_json_from(timeout=10))["response_status"]
        await client.disconnect()
        return [status]

    return asyncio.run(work())


@pytest.mark.django_db(transaction=True)  # Channels looks at the connections of asgiref's thread
def test_without_the_auth_middleware_permissions_of_rest_framework_let_everybody_in() -> None:
    from djangochannelsrestframework.consumers import AsyncAPIConsumer
    from djangochannelsrestframework.decorators import action
    from djangochannelsrestframework.permissions import IsAuthenticated as Own
    from rest_framework.permissions import IsAuthenticated as Trap

    class Trapped(AsyncAPIConsumer):
        permission_classes = (Trap,)

        @action()
        async def enter(self, **kwargs: Any) -> tuple[None, int]:
            return None, 200

    class Right(Trapped):
        permission_classes = (Own,)

    assert _statuses(Trapped) == [200]
    assert _statuses(Right) == [403]
