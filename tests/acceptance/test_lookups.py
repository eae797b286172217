"""``ObserverModelInstanceMixin``: how an instance is found, and which model it is of."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.board import Board
from tests.client import Message
from tests.servers import AsgiServer
from tests.testapp.models import Project, Task


@pytest.fixture
def open_consumer(
    transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]
) -> Callable[[str], Board]:
    """Opens clients of consumers by name."""
    return lambda name: open_board(asgi_server, name)


def told(client: Board) -> tuple[str, int, Any]:
    """The next thing that the consumer sends without being asked."""
    event: Message = client.runner.run(client.client.event())
    return event["action"], event["response_status"], event["data"]


def subscribe(client: Board, request_id: str = "one", **lookup: Any) -> None:
    reply = client.call("subscribe_instance", request_id=request_id, **lookup)
    assert reply["response_status"] == 201, reply


def test_an_instance_found_by_another_field_has_events(open_consumer: Callable[[str], Board]) -> None:
    client = open_consumer("title")
    task = Task.objects.create(title="a", status="open")
    subscribe(client, title="a")
    Task.objects.filter(pk=task.pk).update(points=1)
    action, status, data = told(client)
    assert (action, status, data["points"]) == ("update", 200, 1)


def test_it_keeps_them_when_that_field_changes_and_another_row_has_its_value(
    open_consumer: Callable[[str], Board],
) -> None:
    client = open_consumer("title")
    task = Task.objects.create(title="a", status="open")
    subscribe(client, title="a")
    Task.objects.filter(pk=task.pk).update(title="b")
    assert told(client)[2]["title"] == "b"
    other = Task.objects.create(title="a", status="open", points=5)
    Task.objects.filter(pk=task.pk).update(points=1)
    assert told(client)[2]["id"] == task.pk
    # It ends as it began; the other row has its subscription and keeps it.
    subscribe(client, "two", title="b")
    assert client.call("unsubscribe_instance", request_id="one", title="a")["response_status"] == 204
    Task.objects.filter(pk=other.pk).update(points=6)
    Task.objects.filter(pk=task.pk).delete()
    event = client.runner.run(client.client.event())
    assert (event["action"], event["request_id"], event["data"]) == ("delete", "two", {"pk": task.pk})
    assert client.call("unsubscribe_instance", request_id="two", title="b")["response_status"] == 204


def test_a_row_that_the_client_may_not_see_any_more_is_not_sent(open_consumer: Callable[[str], Board]) -> None:
    client = open_consumer("title")
    task = Task.objects.create(title="a", status="open")
    subscribe(client, title="a")
    Task.objects.filter(pk=task.pk).update(status="done")
    assert told(client) == ("update", 404, None)
    Task.objects.filter(pk=task.pk).update(status="open", points=2)
    assert told(client)[2]["points"] == 2


def test_a_client_cannot_look_up_by_a_key_that_the_consumer_does_not_take(
    open_consumer: Callable[[str], Board],
) -> None:
    client = open_consumer("title")
    secret = Task.objects.create(title="nobody can guess this", status="open")
    task = Task.objects.create(title="a", status="open")
    subscribe(client, title="a")
    reply = client.call("subscribe_instance", request_id="two", title="nobody knows", pk=secret.pk)
    assert reply["response_status"] == 404
    reply = client.call("retrieve", request_id="three", title="a", pk=secret.pk)
    assert reply["data"]["id"] == task.pk


def test_lookups_with_a_parameter_of_another_name_and_an_object_that_is_looked_at(
    open_consumer: Callable[[str], Board],
) -> None:
    client = open_consumer("named")
    task = Task.objects.create(title="Abc", status="open")
    subscribe(client, name="aBC")
    Task.objects.filter(pk=task.pk).update(points=1)
    assert told(client)[2]["points"] == 1
    Task.objects.filter(pk=task.pk).update(status="closed")
    assert told(client) == ("update", 403, None)


def test_an_object_found_by_parameters_of_its_own(open_consumer: Callable[[str], Board]) -> None:
    client = open_consumer("within")
    task = Task.objects.create(title="a", project=Project.objects.create(name="p"))
    subscribe(client, project="p", task="a")
    Task.objects.filter(pk=task.pk).update(points=1)
    assert told(client)[2]["points"] == 1


def test_a_consumer_without_a_model_says_what_is_missing(open_consumer: Callable[[str], Board]) -> None:
    reply = open_consumer("base").call("subscribe_instance", request_id="one", pk=1)
    assert reply["response_status"] == 503
    assert "BaseConsumer observes no model: set queryset, or a serializer_class with Meta.model" in reply["errors"][0]


def test_a_consumer_observes_its_own_model_whatever_it_derives_from(open_consumer: Callable[[str], Board]) -> None:
    client = open_consumer("project")
    project = Project.objects.create(name="p")
    subscribe(client, pk=project.pk)
    Project.objects.filter(pk=project.pk).update(name="P")
    assert told(client) == ("update", 200, {"name": "P"})
