"""What stays with Django's signals, and what leaves them."""

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.db import connections
from django.db.models.signals import post_delete, post_init, post_save
from djangochannelsrestframework.observer.model_observer import ModelObserver

from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Note, Task

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "lite"])


@pytest.fixture
async def client():
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    assert (await communicator.connect())[0]
    yield communicator
    await communicator.disconnect()
    await sync_to_async(connections.close_all)()


async def subscribe(client: WebsocketCommunicator, name: str) -> None:
    await client.send_json_to({"action": "subscribe", "name": name, "request_id": name})
    reply = await client.receive_json_from(timeout=10)
    assert reply["response_status"] == 201, reply


async def test_observer_of_a_signal_works_as_in_dcrf(client: WebsocketCommunicator):
    await subscribe(client, "logins")
    user = await User.objects.acreate(username="ada")
    await sync_to_async(user_logged_in.send)(sender=User, request=None, user=user)
    event = await client.receive_json_from(timeout=10)
    assert event["body"] == {"user": "ada"}
    assert event["subscribing_request_ids"] == ["logins"]


async def test_a_model_on_another_vendor_keeps_dcrf_s_signals(client: WebsocketCommunicator):
    await subscribe(client, "notes")
    note = await Note.objects.acreate(text="in SQLite")
    event = await client.receive_json_from(timeout=10)
    assert (event["action"], event["body"]) == ("create", {"pk": note.pk})
    assert "change_id" not in event
    assert not BoardConsumer.notes.trigger_driven


async def test_a_postgresql_model_has_no_signals_of_dcrf_s_so_nobody_hears_twice(client: WebsocketCommunicator):
    owners = {
        type(getattr(reference(), "__self__", None))
        for signal in (post_init, post_save, post_delete)
        for (_, sender), reference, *_ in signal.receivers
        if sender == id(Task)
    }
    assert not any(issubclass(owner, ModelObserver) for owner in owners)
    await subscribe(client, "tasks")
    first = await Task.objects.acreate(title="first")
    second = await Task.objects.acreate(title="second")
    told = [(await client.receive_json_from(timeout=10))["body"]["pk"] for _ in range(2)]
    assert told == [first.pk, second.pk]


def test_the_router_puts_no_trigger_on_sqlite():
    with connections["lite"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger' OR name LIKE 'djcrf%'")
        assert cursor.fetchone() == (0,)
    async_to_sync(sync_to_async(connections.close_all))()
