"""``ObserverModelInstanceMixin``: single instances."""

import signal
from collections.abc import Callable

import pytest

from tests.acceptance.board import Board
from tests.client import Message
from tests.servers import AsgiServer
from tests.testapp.models import Label, Task


@pytest.fixture
def instances(transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]) -> Board:
    """A client of the instance consumer."""
    return open_board(asgi_server, "instance")


def next_event(client: Board) -> Message:
    """The next thing that the consumer says without being asked."""
    return client.runner.run(client.client.event())


def test_an_instance_s_changes_reach_those_who_subscribed_to_it(instances: Board):
    task, other = Task.objects.bulk_create([Task(title="a"), Task(title="b")])
    reply = instances.call("subscribe_instance", pk=task.pk, request_id="one")
    assert (reply["response_status"], reply["data"]) == (201, None)
    Task.objects.filter(pk=other.pk).update(points=9)
    Task.objects.filter(pk=task.pk).update(points=1)
    event = next_event(instances)
    assert (event["action"], event["request_id"], event["response_status"]) == ("update", "one", 200)
    assert event["data"]["points"] == 1
    task.labels.add(Label.objects.create(name="l"))
    assert next_event(instances)["action"] == "update"
    pk = task.pk
    task.delete()
    event = next_event(instances)
    assert (event["action"], event["response_status"], event["data"]) == ("delete", 204, {"pk": pk})


def test_unsubscribing_one_request_leaves_the_others(instances: Board):
    task, other = Task.objects.bulk_create([Task(title="a"), Task(title="b")])
    for request_id in ("one", "two"):
        instances.call("subscribe_instance", pk=task.pk, request_id=request_id)
    instances.call("subscribe_instance", pk=other.pk, request_id="one")
    assert instances.call("unsubscribe_instance", pk=task.pk, request_id="one")["response_status"] == 204
    Task.objects.filter(pk=task.pk).update(points=1)
    Task.objects.filter(pk=other.pk).update(points=2)
    told = {next_event(instances)["request_id"]: 1, next_event(instances)["request_id"]: 2}
    assert set(told) == {"one", "two"}
    # Without a request id, all of them.
    instances.call("unsubscribe_instance", pk=task.pk, request_id=None)
    Task.objects.filter(pk=task.pk).update(points=3)
    Task.objects.filter(pk=other.pk).update(points=4)
    event = next_event(instances)
    assert (event["request_id"], event["data"]["points"]) == ("one", 4)


def test_a_missing_or_malformed_request_id_is_an_error_reply_and_nothing_is_subscribed(instances: Board):
    task = Task.objects.create(title="a")
    for bad in (None, ["list"], {"a": "dict"}):
        reply = instances.call("subscribe_instance", pk=task.pk, request_id=bad)
        assert reply["response_status"] == 400
        assert "request_id must" in str(reply["errors"])
    Task.objects.filter(pk=task.pk).update(points=1)
    assert instances.call("subscribe_instance", pk=task.pk, request_id="good")["response_status"] == 201
    Task.objects.filter(pk=task.pk).update(points=2)
    assert next_event(instances)["data"]["points"] == 2


def test_nothing_follows_a_refused_permission(transactional_db, asgi_server, open_board):
    private = open_board(asgi_server, "private")
    task = Task.objects.create(title="a", status="open")
    assert private.call("subscribe_instance", pk=task.pk, request_id="one")["response_status"] == 201
    Task.objects.filter(pk=task.pk).update(status="closed", points=1)
    event = next_event(private)
    assert (event["response_status"], event["data"]) == (403, None)
    Task.objects.filter(pk=task.pk).update(status="open", points=2)
    event = next_event(private)
    assert (event["response_status"], event["data"]["points"]) == (200, 2)


def test_an_instance_that_does_not_exist_is_not_found(instances: Board):
    assert instances.call("subscribe_instance", pk=0, request_id="one")["response_status"] == 404


def test_an_update_of_a_row_that_is_deleted_meanwhile_is_404_and_then_the_delete(
    instances: Board, asgi_server: AsgiServer
):
    task = Task.objects.create(title="a")
    pk = task.pk
    instances.call("subscribe_instance", pk=pk, request_id="one")
    asgi_server.send_signal(signal.SIGSTOP)
    try:
        Task.objects.filter(pk=pk).update(points=1)
        task.delete()
    finally:
        asgi_server.send_signal(signal.SIGCONT)
    events = [next_event(instances) for _ in range(2)]
    assert [(event["action"], event["response_status"], event["data"]) for event in events] == [
        ("update", 404, None),
        ("delete", 204, {"pk": pk}),
    ]
