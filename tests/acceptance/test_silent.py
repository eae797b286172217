"""Subscriptions that no event would ever reach: refused with the reason, or said in the log where they may be meant."""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connections
from django.test import override_settings
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from rest_framework.permissions import IsAuthenticated

from djcrf_pg import observations
from djcrf_pg.listener import embedded
from djcrf_pg.registry import registry
from tests.testapp.models import Note, Task

Pair = tuple[Any, Any]


def make_consumers() -> Pair:
    """A consumer whose observers are each wrong in its own way, and one that lets everybody in.

    Made anew for each test, and gone with it: the checks of other tests are not to find them.
    """

    class SilentConsumer(GenericAsyncAPIConsumer):
        """Each observer is wrong in its own way."""

        async def send_event(self, message: Any, subscribing_request_ids: Any, **kwargs: Any) -> None:
            """Reply as DCRF's examples do."""
            for request_id in subscribing_request_ids:
                await self.reply(data=message, action=kwargs["action"], request_id=request_id)

        @model_observer(Task)
        async def tasks(self, message: Any, subscribing_request_ids: Any = (), **kwargs: Any) -> None:
            """Nothing is wrong with it."""
            await self.send_event(message, subscribing_request_ids, **kwargs)

        @model_observer(Task)
        async def rows_alone(self, message: Any, **kwargs: Any) -> None:
            """Groups of rows."""

        @rows_alone.groups_for_signal
        def rows_alone(self, instance: Task, **kwargs: Any) -> Any:
            yield "open"

        @model_observer(Task)
        async def subscriptions_alone(self, message: Any, **kwargs: Any) -> None:
            """Groups of subscriptions."""

        @subscriptions_alone.groups_for_consumer
        def subscriptions_alone(self, **kwargs: Any) -> Any:
            yield "open"

        @model_observer(Task)
        async def letters(self, message: Any, **kwargs: Any) -> None:
            """Text in place of a list."""

        @letters.groups_for_signal
        def letters(self, instance: Task, **kwargs: Any) -> Any:
            yield f"status {instance.status}"

        @letters.groups_for_consumer
        def letters(self, status: str, **kwargs: Any) -> Any:
            return f"status {status}" if status else []

        @model_observer(Note)
        async def notes(self, message: Any, **kwargs: Any) -> None:
            """In SQLite, by a router."""

        @action()
        async def subscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> Any:
            """Subscribe to an observer."""
            kwargs.pop("action")
            await getattr(self, name).subscribe(request_id=request_id, **kwargs)
            return None, 201

        @action()
        async def subscribe_by_position(self, request_id: Any, **kwargs: Any) -> Any:
            """Subscribe as nobody can."""
            await self.tasks.subscribe(request_id)
            return None, 201

    class GuardedConsumer(SilentConsumer):
        """Lets everybody in, against its will."""

        permission_classes: Any = (IsAuthenticated,)

    return SilentConsumer, GuardedConsumer


@pytest.fixture
def consumers() -> Iterator[Pair]:
    """Those, until the test ends: also for the checks of other tests in this process, whoever holds them still."""
    yield make_consumers()
    gc.collect()
    known = [(each, each()) for each in registry._observers]
    registry._observers = [
        each for each, observer in known if observer is None or "make_consumers.<locals>" not in observer.identity
    ]
    registry.renamed()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What operators receive."""
    seen: list[str] = []
    remove = observations.add_sink(
        lambda observation, error: seen.append(f"{type(observation).__name__}: {observation}")
    )
    yield seen
    remove()
    async_to_sync(sync_to_async(connections.close_all))()


def about(said: list[str], kind: type[observations.Observation]) -> list[str]:
    """What was said of one kind."""
    return [line for line in said if line.startswith(f"{kind.__name__}: ")]


async def ask(consumer_class: Any, **content: Any) -> dict[str, Any]:
    """What a consumer replies."""
    communicator = WebsocketCommunicator(consumer_class.as_asgi(), "/ws/")
    await communicator.connect()
    await communicator.send_json_to({"action": "subscribe", **content})
    reply: dict[str, Any] = await communicator.receive_json_from(timeout=10)
    await communicator.disconnect()
    await embedded.close_all()
    return reply


async def refusal(consumer_class: Any, **content: Any) -> str:
    """What a subscription is refused with."""
    reply = await ask(consumer_class, **{"request_id": "r", **content})
    assert reply["response_status"] == 503, reply
    (error,) = reply["errors"]
    return str(error)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"name": "rows_alone"}, "has @….groups_for_signal and no @….groups_for_consumer, so the groups"),
        ({"name": "subscriptions_alone"}, "has @….groups_for_consumer and no @….groups_for_signal, so the groups"),
        ({"name": "letters", "status": "open"}, "returned the text 'status open', whose letters would be the groups"),
        (
            {"name": "letters"},
            "was subscribed to with (nothing), and the function for @….groups_for_consumer cannot be",
        ),
        ({"action": "subscribe_by_position"}, "takes what it is given by name: write self.tasks.subscribe(request"),
    ],
)
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
async def test_what_no_event_would_reach_is_refused_with_the_reason(
    content: Any, why: str, said: list[str], consumers: tuple[Any, Any]
) -> None:
    assert why in await refusal(consumers[0], **content)


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
@override_settings(DJCRF_PG={"EMBEDDED": False})
async def test_a_layer_that_no_listener_reaches_refuses_at_once(said: list[str], consumers: Pair) -> None:
    begun = time.monotonic()
    assert "use channels_redis, or EMBEDDED = True" in await refusal(consumers[0], name="tasks")
    assert time.monotonic() - begun < 5.0, "SUBSCRIBE_TIMEOUT is 10 s"


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
async def test_a_subscription_without_a_request_id_is_said_once(said: list[str], consumers: Pair) -> None:
    for _ in range(2):
        assert (await ask(consumers[0], name="tasks"))["response_status"] == 201
    (line,) = about(said, observations.RequestIdMissing)
    assert "SilentConsumer.tasks was subscribed to without a request_id" in line
    assert "subscribe(request_id=request_id)" in line


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
async def test_a_subscription_that_means_all_is_not_said(said: list[str], consumers: Pair) -> None:
    assert (await ask(consumers[0], name="tasks", request_id="r"))["response_status"] == 201
    kinds = (observations.RequestIdMissing, observations.ArgumentsIgnored, observations.NoGroups)
    assert [line for kind in kinds for line in about(said, kind)] == []


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
async def test_what_no_groups_take_is_said_once(said: list[str], consumers: Pair) -> None:
    for _ in range(2):
        assert (await ask(consumers[0], name="tasks", request_id="r", project=5))["response_status"] == 201
    (line,) = about(said, observations.ArgumentsIgnored)
    assert "SilentConsumer.tasks was subscribed to with (project), and has no groups_for_signal" in line


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
async def test_a_subscription_to_no_group_is_said_once(said: list[str], consumers: Pair) -> None:
    for _ in range(2):
        assert (await ask(consumers[0], name="letters", request_id="r", status=""))["response_status"] == 201
    (line,) = about(said, observations.NoGroups)
    assert "SilentConsumer.letters was subscribed to with (status), for which its groups_for_consumer yields no" in line


@pytest.mark.processes
@pytest.mark.django_db(transaction=True, databases=["default", "lite"])
async def test_signals_that_a_router_asks_for_work_and_are_said_once(
    said: list[str], consumers: tuple[Any, Any]
) -> None:
    for _ in range(2):
        assert (await ask(consumers[0], name="notes", request_id="r"))["response_status"] == 201
    (line,) = about(said, observations.SignalsOnly)
    assert "SilentConsumer.notes observes testapp.Note, which is in database 'lite', SQLite" in line


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
async def test_everybody_who_is_let_in_as_authenticated_is_said_once(
    said: list[str], consumers: tuple[Any, Any]
) -> None:
    for _ in range(2):
        reply = await ask(consumers[1], name="tasks", request_id="r")
        assert reply["response_status"] == 201, "as DCRF does"
    (line,) = about(said, observations.UserMissing)
    assert "GuardedConsumer has rest_framework.permissions.IsAuthenticated in permission_classes" in line
    assert "AuthMiddlewareStack" in line


PROJECT = """
import asyncio, json, sys
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x", USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", ROOT_URLCONF="urls",
    INSTALLED_APPS=["djcrf_pg", "channels", "rest_framework", "djangochannelsrestframework",
                    "django.contrib.contenttypes", "django.contrib.auth", "notes"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "there-is-no-such-folder/db.sqlite3"}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()
from channels.testing import WebsocketCommunicator
from django.core.checks import run_checks
from notes.consumers import NoteConsumer

async def subscribe():
    client = WebsocketCommunicator(NoteConsumer.as_asgi(), "/")
    await client.connect()
    await client.send_json_to({"action": "subscribe_to_notes", "request_id": 1})
    return await client.receive_json_from()

found = [(message.id, message.msg, message.hint) for message in run_checks()]
print(json.dumps([found, asyncio.run(subscribe())]))
"""

NOTES = """
from django.db import models

class Note(models.Model):
    text = models.CharField(max_length=200)
"""

CONSUMERS = """
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from notes.models import Note

class NoteConsumer(GenericAsyncAPIConsumer):
    @model_observer(Note)
    async def note_changes(self, message, **kwargs): ...

    @action()
    async def subscribe_to_notes(self, request_id, **kwargs):
        await self.note_changes.subscribe(request_id=request_id)
        return None, 201
"""


@pytest.mark.processes
def test_a_project_on_sqlite_is_told_by_the_check_and_by_the_reply(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name, text in {
        "urls.py": "urlpatterns = []",
        "notes/__init__.py": "",
        "notes/models.py": NOTES,
        "notes/consumers.py": CONSUMERS,
        "run.py": PROJECT,
    }.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    found, reply = json.loads(done.stdout.splitlines()[-1])
    ((id, message, hint),) = found
    assert id == "djcrf_pg.W020"
    why = "notes.Note is in database 'default', which is SQLite, and triggers of djcrf_pg are for PostgreSQL. Set "
    assert why in message
    assert "notes.consumers.NoteConsumer.note_changes" in message
    assert "DATABASES['default']['ENGINE'] to django.db.backends.postgresql" in message
    assert "SILENCED_SYSTEM_CHECKS" in hint
    assert reply["response_status"] == 503
    assert why in reply["errors"][0]
