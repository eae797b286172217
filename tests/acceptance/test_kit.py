"""The test kit with consumers: what it hands over, what it waits for, and what it has go wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.test import TestCase as DjangoTestCase
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from djangochannelsrestframework.decorators import action

from djcrf_pg.listener import embedded
from djcrf_pg.observations import MessagesReplayed, Observation, add_sink
from djcrf_pg.observer import model_observer
from djcrf_pg.testing import capture_changes, deliver, faults, settled
from tests.processes import until
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

pytestmark = [pytest.mark.processes]

FULL = BoardConsumer.full


@asynccontextmanager
async def subscribed(consumer_class: Any = BoardConsumer, name: str = "full"):
    """A client that has subscribed to an observer of a consumer."""
    client = WebsocketCommunicator(consumer_class.as_asgi(), "/ws/")
    connected, _ = await client.connect()
    assert connected
    await client.send_json_to({"action": "subscribe", "name": name, "request_id": "r"})
    reply = await client.receive_json_from(timeout=20)
    assert reply["response_status"] == 201, reply
    try:
        yield client
    finally:
        await client.disconnect()


async def received(client: WebsocketCommunicator) -> list[dict[str, Any]]:
    """All that is there to be received at this moment."""
    found = []
    while not client.output_queue.empty():
        found.append(await client.receive_json_from(timeout=1))
    return found


async def titles(client: WebsocketCommunicator) -> list[tuple[str, str]]:
    """The action and the title of each event that is there."""
    return [(event["action"], event["body"]["title"]) for event in await received(client)]


def in_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine whose queries are made over the test's own connection."""
    async_to_sync(test)()


class TestDeliver:
    """In a test that is rolled back."""

    @pytest.mark.django_db
    def test_what_was_captured_is_handed_over_and_handled(self):
        async def test() -> None:
            async with subscribed() as client:
                async with capture_changes(FULL) as changes:
                    await Task.objects.abulk_create([Task(title="a"), Task(title="b")])
                    await Task.objects.filter(title="a").aupdate(points=1)
                assert await received(client) == []
                assert await deliver(changes) == 3
                assert await titles(client) == [("create", "a"), ("create", "b"), ("update", "a")]

        in_a_loop(test)

    @pytest.mark.django_db
    def test_it_is_for_those_alone_who_have_the_group(self):
        async def test() -> None:
            async with subscribed(name="tasks") as client:
                async with capture_changes(FULL) as changes:
                    await Task.objects.acreate(title="a")
                assert len(changes) == 1
                assert await deliver(changes) == 0
                assert await received(client) == []

        in_a_loop(test)

    @pytest.mark.django_db
    def test_a_resync_is_handed_over_too(self):
        async def test() -> None:
            async with subscribed() as client:
                async with capture_changes(FULL) as changes:
                    await truncate()
                assert await deliver(changes) == 1
                (resync,) = await received(client)
                assert (resync["action"], resync["response_status"]) == ("resync", 205)
                assert resync["data"]["reason"] == "truncate"

        in_a_loop(test)

    @pytest.mark.django_db
    def test_what_was_captured_before_the_subscription_is_handed_over(self):
        with capture_changes(FULL) as changes:
            Task.objects.create(title="a")

        async def test() -> None:
            async with subscribed() as client:
                await deliver(changes)
                assert await titles(client) == [("create", "a")]

        in_a_loop(test)

    @pytest.mark.django_db
    def test_without_a_subscription_it_says_so(self):
        async def test() -> None:
            with pytest.raises(RuntimeError, match="no consumer has subscribed on this event loop"):
                await deliver([])

        in_a_loop(test)

    @pytest.mark.django_db
    def test_what_a_handler_does_after_a_pause_is_waited_for(self):
        async def test() -> None:
            async with subscribed(Slow, "tasks") as client:
                async with capture_changes(Slow.tasks) as changes:
                    await Task.objects.acreate(title="a")
                handing_over = asyncio.create_task(deliver(changes))
                await entered.wait()
                assert not handing_over.done()
                go_on.set()
                await handing_over
                assert len(await received(client)) == 1

        entered, go_on = Slow.entered, Slow.go_on = asyncio.Event(), asyncio.Event()
        in_a_loop(test)


async def truncate() -> None:
    """Empty the table."""
    from asgiref.sync import sync_to_async
    from django.db import connection

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE testapp_task CASCADE")

    await sync_to_async(run)()


class Slow(AsyncAPIConsumer):
    """Its handler waits until it may go on."""

    entered: asyncio.Event
    go_on: asyncio.Event

    @action()
    async def subscribe(self, request_id: str, **kwargs: Any):
        await self.tasks.subscribe(request_id=request_id)
        return {}, 201

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        self.entered.set()
        await self.go_on.wait()
        await self.send_json(message)


class TestInDjangosTestCase(DjangoTestCase):
    """A coroutine of Django's own class."""

    async def test_deliver_works_and_nothing_is_left(self):
        async with subscribed() as client:
            async with capture_changes(FULL) as changes:
                await Task.objects.acreate(title="a")
            await deliver(changes)
            assert await titles(client) == [("create", "a")]

    async def test_waiting_for_a_commit_is_refused(self):
        async with subscribed():
            with pytest.raises(RuntimeError, match="runs in a transaction that is rolled back"):
                await settled()


@pytest.mark.django_db(transaction=True)
class TestSettled:
    """In a test that commits."""

    async def test_what_is_committed_is_there(self):
        async with subscribed() as client:
            for n in range(20):
                await Task.objects.acreate(title=str(n))
                await settled()
                assert await titles(client) == [("create", str(n))]

    async def test_what_nobody_observes_does_not_hold_it_up(self):
        async with subscribed():
            from django.contrib.contenttypes.models import ContentType

            await ContentType.objects.acreate(app_label="x", model="y")
            await settled(timeout=5)

    async def test_it_waits_for_the_handlers(self):
        Slow.entered, Slow.go_on = asyncio.Event(), asyncio.Event()
        async with subscribed(Slow, "tasks") as client:
            await Task.objects.acreate(title="a")
            with pytest.raises(TimeoutError, match="a handler or an action of a consumer has not returned"):
                await settled(timeout=1)
            Slow.go_on.set()
            await settled()
            assert len(await received(client)) == 1

    async def test_it_says_that_nobody_leads(self):
        async with subscribed():
            listener = embedded.runtime("default").listener
            assert listener is not None
            listener.stop()
            await until(lambda: listener.session is None)
            await Task.objects.acreate(title="a")
            with pytest.raises(TimeoutError, match="nobody leads for database 'default'"):
                await settled(timeout=1)

    async def test_without_a_subscription_it_says_so(self):
        with pytest.raises(RuntimeError, match="no consumer has subscribed on this event loop"):
            await settled()


@pytest.mark.django_db(transaction=True)
class TestFaults:
    """Each has its cure, which the consumer sees."""

    async def test_what_is_dropped_is_read_from_the_log(self):
        seen: list[Observation] = []
        remove = add_sink(lambda observation, error: seen.append(observation))
        try:
            async with subscribed() as client:
                await settled()  # the flush after the last test is on its way
                with faults.drop(1):
                    await Task.objects.acreate(title="a")
                    await settled()
                assert await titles(client) == [("create", "a")]
        finally:
            remove()
        assert any(isinstance(each, MessagesReplayed) for each in seen)

    async def test_all_can_be_dropped_for_a_while(self):
        async with subscribed() as client:
            with faults.drop():
                await Task.objects.acreate(title="a")
                with pytest.raises(TimeoutError, match="has not sent all that is committed, or the channel layer"):
                    await settled(timeout=1)
                assert await received(client) == []
            await settled()
            assert await titles(client) == [("create", "a")]

    async def test_what_comes_twice_is_handled_once(self):
        async with subscribed() as client:
            with faults.repeat():
                await Task.objects.acreate(title="a")
                await settled()
            assert await titles(client) == [("create", "a")]

    async def test_a_slow_layer_is_waited_for(self):
        async with subscribed() as client:
            with faults.delay(0.3):
                await Task.objects.acreate(title="a")
                await settled()
            assert await titles(client) == [("create", "a")]

    async def test_the_layer_is_the_project_s_again(self):
        from channels.layers import get_channel_layer

        layer: Any = get_channel_layer()
        before = layer.group_send
        with faults.drop(), faults.delay(1):
            assert layer.group_send != before
        assert layer.group_send == before

    async def test_after_a_disconnect_nothing_is_missing(self):
        async with subscribed() as client:
            await faults.disconnect()
            await Task.objects.acreate(title="a")
            await settled(timeout=20)
            assert ("create", "a") in await titles(client)

    async def test_after_the_leader_is_killed_nothing_is_missing(self):
        async with subscribed() as client:
            await faults.kill_leader()
            await Task.objects.acreate(title="a")
            await settled(timeout=20)
            assert ("create", "a") in await titles(client)

    async def test_a_resync_can_be_had(self):
        async with subscribed() as client:
            await faults.resync("channel_layer")
            (resync,) = await received(client)
            assert (resync["action"], resync["data"]["reason"]) == ("resync", "channel_layer")
