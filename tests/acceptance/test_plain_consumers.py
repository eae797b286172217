"""Observers on consumers that are not DCRF's, and in a mixin."""

from collections.abc import Callable

from django.db import connection

from tests.acceptance.board import Board
from tests.client import Message
from tests.servers import AsgiServer
from tests.testapp.models import Task


def event(client: Board) -> Message:
    """The next thing that the consumer sends without being asked."""
    return client.runner.run(client.client.event())


def test_a_json_consumer_of_channels_has_events_and_resyncs(
    transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]
) -> None:
    client = open_board(asgi_server, "plain")
    for request_id in ("one", "two"):
        groups = client.call("subscribe", request_id=request_id)["groups"]
        assert "everybody" in groups
        assert any(group.startswith("DCRF-") for group in groups)
    task = Task.objects.create(title="a")
    told = event(client)
    assert (told["action"], told["body"], sorted(told["subscribing_request_ids"])) == (
        "create",
        {"pk": task.pk},
        ["one", "two"],
    )
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE testapp_task CASCADE")
    resyncs = [event(client), event(client)]
    assert sorted(resync.pop("request_id") for resync in resyncs) == ["one", "two"]
    data = {"reason": "truncate", "model": "testapp.Task"}
    assert resyncs == [{"action": "resync", "data": data, "errors": [], "response_status": 205}] * 2
    client.call("unsubscribe", request_id="one")
    task = Task.objects.create(title="b")
    assert event(client)["subscribing_request_ids"] == ["two"]
    assert client.call("unsubscribe", request_id="two")["groups"] == ["everybody"]


def test_a_text_consumer_of_channels_has_events_and_its_own_resync(
    transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]
) -> None:
    client = open_board(asgi_server, "text")
    client.call("subscribe", request_id="one")
    task = Task.objects.create(title="a")
    assert event(client) == {"action": "create", "body": {"pk": task.pk}}
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE testapp_task CASCADE")
    assert event(client) == {"action": "resync", "reason": "truncate"}


def test_an_observer_in_a_mixin_serves_each_consumer_that_has_it(
    transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]
) -> None:
    clients = [open_board(asgi_server, name) for name in ("mixed", "plain")]
    for client in clients:
        client.call("subscribe", request_id="one")
    task = Task.objects.create(title="a")
    for client in clients:
        told = event(client)
        assert (told["body"], told["subscribing_request_ids"]) == ({"pk": task.pk}, ["one"])
