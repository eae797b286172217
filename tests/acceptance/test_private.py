"""Nobody gets what is for others: neither of another observer, nor twice, nor of another room."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.client import Client
from tests.servers import AsgiServer
from tests.subscriber import Subscriber
from tests.testapp.models import Task


@pytest.fixture
def both(runner: asyncio.Runner, transactional_db: None) -> Any:
    """Opens two subscribed clients, and returns what each has got when the row of a fence has arrived."""
    clients: list[Client] = []

    def open_clients(server: AsgiServer, *consumers: str) -> Callable[[], list[list[Any]]]:
        for consumer in consumers:
            client = runner.run(Client.open(server.consumer_url(consumer)))
            clients.append(client)
            Subscriber(runner, client).subscribe("changes")

        def got() -> list[list[Any]]:
            fence = Task.objects.create(title="fence")
            for client in clients:
                runner.run(client.until(lambda message: message["body"]["id"] == fence.pk))
            taken = [client.take(lambda message: True) for client in clients]
            return [
                [message["body"] for message in messages if message["body"]["id"] != fence.pk] for messages in taken
            ]

        return got

    yield open_clients
    for client in clients:
        runner.run(client.close())


@pytest.mark.parametrize("layer", ["memory", "redis"])
def test_two_consumers_whose_handlers_share_a_name_get_each_their_own(
    layer: str, both: Any, start_asgi_server: Callable[..., AsgiServer], request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue("redis_url") if layer == "redis" else None
    got = both(start_asgi_server(redis=redis), "public", "staff")
    task = Task.objects.create(title="title", body="secret")
    assert got() == [
        [{"id": task.pk, "title": "title"}],
        [{"id": task.pk, "title": "title", "body": "secret"}],
    ]


def test_an_observer_that_is_defined_again_sends_each_event_once(
    both: Any, start_asgi_server: Callable[..., AsgiServer]
) -> None:
    got = both(start_asgi_server(), "other")
    task = Task.objects.create(title="title")
    assert got() == [[{"id": task.pk, "word": "other"}]]


def test_a_consumer_whose_observer_has_other_events_by_now_is_refused(
    start_asgi_server: Callable[..., AsgiServer], runner: asyncio.Runner, transactional_db: None
) -> None:
    client = runner.run(Client.open(start_asgi_server().consumer_url("later")))
    reply = runner.run(client.call("subscribe", name="changes"))
    runner.run(client.close())
    assert reply["response_status"] == 503
    (error,) = reply["errors"]
    assert "define.<locals>.Defined.changes was defined again" in error
    assert "partition=" in error


@pytest.mark.parametrize("layer", ["memory", "redis"])
def test_a_message_to_all_groups_of_a_consumer_comes_once_and_to_its_room_alone(
    layer: str,
    transactional_db: None,
    start_asgi_server: Callable[..., AsgiServer],
    runner: asyncio.Runner,
    request: pytest.FixtureRequest,
) -> None:
    redis = request.getfixturevalue("redis_url") if layer == "redis" else None
    server = start_asgi_server(redis=redis)

    async def chat() -> None:
        blue, also_blue, red = [await Client.open(f"{server.url}/ws/chat/{room}/") for room in ("blue", "blue", "red")]
        for client, room in ((blue, "blue"), (also_blue, "blue"), (red, "red")):
            groups = (await client.call("subscribe", status=room))["data"]
            assert groups["joined"] == sorted([*groups["subscribed"], f"room-{room}"])
        await blue.call("say", text="first")
        await red.call("say", text="last")
        for client, texts in ((blue, ["first", "first"]), (also_blue, ["first", "first"]), (red, ["last", "last"])):
            # Of the room, and of the group of its tasks.
            assert [message["text"] for message in await client.events(2)] == texts
        await Task.objects.acreate(title="blue", status="blue")
        await Task.objects.acreate(title="red", status="red")
        for client in (blue, also_blue, red):
            assert [message["observer"] for message in await client.events(1)] == ["changes"]
            await client.close()

    runner.run(chat())
