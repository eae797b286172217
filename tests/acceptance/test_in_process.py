"""A project's own tests: consumers, writers and the embedded listener in one process, with a loop for each test."""

import asyncio
import gc
import threading
from typing import Any, ClassVar

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connection, connections
from django.test import override_settings
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from djcrf_pg.capture.install import install
from djcrf_pg.exceptions import ObserverError, SubscribeError
from djcrf_pg.listener import embedded, leadership
from djcrf_pg.observations import ConnectionFailed, ListenerEnded, Observation, PruneFailed, add_sink
from djcrf_pg.observer import handling
from djcrf_pg.routing import router
from tests.processes import until
from tests.servers import PgParams
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Project, Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def close_connections():
    """The thread of sync_to_async keeps a connection, as it does in any test of Channels consumers."""
    yield
    async_to_sync(sync_to_async(connections.close_all))()


async def talk(title: str, consumer_class: Any = BoardConsumer, name: str = "tasks") -> None:
    """Subscribe, write, and hear of it."""
    communicator = WebsocketCommunicator(consumer_class.as_asgi(), "/ws/board/")
    connected, _ = await communicator.connect()
    assert connected
    await communicator.send_json_to({"action": "subscribe", "name": name, "request_id": "r"})
    reply = await communicator.receive_json_from(timeout=10)
    assert reply["response_status"] == 201, reply
    task = await Task.objects.acreate(title=title)
    event = await communicator.receive_json_from(timeout=10)
    assert (event["action"], event["body"]) == ("create", {"pk": task.pk})
    await communicator.disconnect()
    await sync_to_async(connections.close_all)()


@pytest.mark.parametrize("number", range(5))
async def test_the_listener_follows_the_loop_and_survives_the_flush(number: int):
    # The fixture flushes every table, the log and its cursor among them, after each of these.
    await talk(f"test {number}")


async def test_it_ends_in_order_when_asked():
    await talk("first")
    here = embedded.runtime("default")
    assert here.listener is not None
    assert here.listener.leads
    await embedded.close_all()
    assert here.listener.session is None
    await talk("and begins again")


class Kept(BoardConsumer):
    """Can be had from outside."""

    async def websocket_connect(self, message: Any) -> None:
        kept.append(self)
        await super().websocket_connect(message)


kept: list[Kept] = []


async def connected() -> tuple[WebsocketCommunicator, Kept]:
    """A client, and its consumer."""
    communicator = WebsocketCommunicator(Kept.as_asgi(), "/ws/board/")
    await communicator.connect(timeout=10)
    return communicator, kept.pop()


@pytest.mark.parametrize("waits", [True, False])
async def test_a_consumer_that_has_ended_is_refused_and_nothing_of_it_is_left(
    waits: bool, monkeypatch: pytest.MonkeyPatch
):
    """A task of its own may be about to subscribe it, or be waiting, when the client goes."""
    await talk("first")
    communicator, consumer = await connected()
    subscribing = None
    if waits:
        asked, may_answer, ready = asyncio.Event(), asyncio.Event(), embedded.ready

        async def late(*arguments: Any) -> Any:
            answer = await ready(*arguments)
            asked.set()
            await may_answer.wait()
            return answer

        monkeypatch.setattr(embedded, "ready", late)
        subscribing = asyncio.create_task(consumer.tasks.subscribe(request_id="r"))
        await asked.wait()
        await communicator.disconnect()
        may_answer.set()
    else:
        await communicator.disconnect()
    with pytest.raises(SubscribeError, match=r"Kept subscribes to .* and has ended already"):
        await (subscribing or consumer.tasks.subscribe(request_id="r"))
    assert embedded.runtime("default").hub._lanes == {}
    assert not consumer.groups


async def test_a_consumer_that_ends_after_the_listener_begins_nothing_anew():
    communicator, consumer = await connected()
    await consumer.tasks.subscribe(request_id="r")
    await embedded.close_all()
    await communicator.disconnect()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("djcrf_pg")]


def test_a_loop_for_each_call():
    for number in range(3):
        asyncio.run(talk(f"call {number}"))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_with_its_tasks_running():
    def left_behind(coroutine: Any) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(coroutine)
        finally:
            # Not asyncio.run: it would cancel the listener's task, and this is about those who do not.
            loop.run_until_complete(loop.shutdown_default_executor())
            loop._default_executor = None
            loop.close()

    left_behind(talk("one"))
    asyncio.run(talk("two"))
    gc.collect()  # here, where the complaints about what was left behind are expected


def test_writers_in_the_same_process_need_no_event_loop():
    Task.objects.create(title="nobody listens")
    with connection.cursor() as cursor:
        # The flush before the test has left a truncation of each table, and new content types.
        cursor.execute(
            "SELECT op, new->>'title' FROM djcrf_pg_change WHERE op <> 'T' AND relation = 'testapp_task'::regclass"
        )
        assert cursor.fetchall() == [("I", "nobody listens")]


async def refusal() -> str:
    """What a subscription is refused with."""
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    await communicator.connect()
    await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": "r"})
    reply = await communicator.receive_json_from(timeout=10)
    await communicator.disconnect()
    assert reply["response_status"] == 503, reply
    (error,) = reply["errors"]
    return str(error)


async def test_a_wrong_setting_refuses_and_is_named():
    with override_settings(DJCRF_PG={"BATCHSIZE": 1}):
        assert "no setting 'BATCHSIZE': did you mean 'BATCH_SIZE'" in await refusal()
    await talk("and with good ones it goes on")


async def test_consumers_that_cannot_be_imported_refuse_and_are_named():
    with override_settings(ASGI_APPLICATION="tests.nowhere.application"):
        error = await refusal()
    assert "ASGI_APPLICATION = 'tests.nowhere.application', which cannot be imported" in error
    await talk("and when they can it goes on")


async def test_the_leader_deletes_what_is_delivered_and_older_than_the_retention(
    monkeypatch: pytest.MonkeyPatch, test_pg: PgParams
):
    # The intervals alone are other than in production.
    monkeypatch.setattr(leadership, "_PRUNE", 0.0)
    monkeypatch.setattr(leadership, "_PRUNE_ROWS", 25)
    await Task.objects.abulk_create([Task(title=f"old {number}") for number in range(17)])
    with override_settings(DJCRF_PG={"RETENTION": 0.001}):
        await talk("new")
        with test_pg.connect() as admin:
            await until(lambda: admin.execute("SELECT count(*) FROM djcrf_pg_change").fetchone() == (0,))
    await sync_to_async(connections.close_all)()


async def test_a_leader_that_cannot_delete_old_changes_goes_on(
    monkeypatch: pytest.MonkeyPatch, observed: list[Observation], test_pg: PgParams
):
    monkeypatch.setattr(leadership, "_PRUNE", 0.0)
    with test_pg.connect() as admin:
        admin.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END $$;"
            "CREATE TRIGGER full_disk BEFORE DELETE ON djcrf_pg_change FOR EACH ROW EXECUTE FUNCTION full_disk()"
        )
        try:
            with override_settings(DJCRF_PG={"RETENTION": 0.001}):
                await talk("first")
                await until(lambda: any(isinstance(each, PruneFailed) for each in observed))
                await talk("second")
        finally:
            admin.execute("DROP FUNCTION full_disk() CASCADE")
    assert len([each for each in observed if isinstance(each, PruneFailed)]) == 1
    assert not [each for each in observed if isinstance(each, ConnectionFailed)]


async def test_a_leader_that_cannot_ask_who_has_subscribed_makes_events_for_all(
    monkeypatch: pytest.MonkeyPatch, observed: list[Observation], test_pg: PgParams
):
    with test_pg.connect() as admin:
        admin.execute("ALTER TABLE djcrf_pg_interest ALTER bits TYPE text")  # which bit_or() does not take
        try:
            await talk("heard")
        finally:
            await embedded.close_all()
            admin.execute("ALTER TABLE djcrf_pg_interest ALTER bits TYPE bit(1024) USING bits::bit(1024)")
    assert not [each for each in observed if isinstance(each, ConnectionFailed)]


async def test_a_leader_notices_what_fires_no_trigger(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leadership, "_PRUNE", 0.0)
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    await communicator.connect()
    await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": "r"})
    assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201

    @sync_to_async
    def run(*statements: str) -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    async def heard() -> tuple[str, Any]:
        message = await communicator.receive_json_from(timeout=10)
        return message["action"], message.get("body") or message["data"]

    resync = ("resync", {"reason": "unreadable", "model": "testapp.Task"})
    insert = "INSERT INTO task_heir (id, title, status, points, body) VALUES ({0}, 't{0}', '', 0, '')"
    try:
        await run("CREATE TABLE task_heir (LIKE testapp_task)", insert.format(1))
        await run("ALTER TABLE task_heir INHERIT testapp_task")
        assert await heard() == resync
        await sync_to_async(install)("default")
        await run(insert.format(2))
        assert await heard() == ("create", {"pk": 2})
        await run("ALTER TABLE task_heir NO INHERIT testapp_task")
        assert await heard() == resync
        await run(insert.format(3))
        task = await Task.objects.acreate(title="fence")
        assert await heard() == ("create", {"pk": task.pk})
    finally:
        await run("DROP TABLE task_heir")
        await communicator.disconnect()
        await sync_to_async(connections.close_all)()


async def test_the_leader_keeps_the_caps_also_while_it_delivers(monkeypatch: pytest.MonkeyPatch, test_pg: PgParams):
    former, blocked, released = router.net, threading.Event(), threading.Event()

    def waiting(rows: Any, key: Any) -> Any:
        blocked.set()
        released.wait(25)
        return former(rows, key)

    monkeypatch.setattr(leadership, "_PRUNE", 0.0)
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    with override_settings(DJCRF_PG={"LOG_MAX_ROWS": 2_000}):
        await communicator.connect()
        await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": "r"})
        assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
        monkeypatch.setattr(router, "net", waiting)
        await Task.objects.acreate(title="one")
        await until(blocked.is_set)
        with test_pg.connect() as writer:
            # Writers of this kind do not keep them.
            writer.execute("SET default_transaction_isolation = 'serializable'")
            writer.execute(
                "INSERT INTO testapp_task (title, status, points, body) "
                "SELECT 'many ' || i, '', 0, '' FROM generate_series(1, 6000) AS i"
            )
            await until(lambda: writer.execute("SELECT count(*) <= 2001 FROM djcrf_pg_change").fetchone() == (True,))
        released.set()
        await communicator.disconnect()
    await sync_to_async(connections.close_all)()


async def test_a_fault_that_nobody_foresaw_is_a_resync_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    def failing(rows: Any, key: Any) -> Any:
        monkeypatch.undo()
        raise ArithmeticError("unforeseen")

    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    await communicator.connect()
    await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": "r"})
    assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
    await Task.objects.acreate(title="all that was there before has been read")
    assert (await communicator.receive_json_from(timeout=10))["action"] == "create"
    monkeypatch.setattr(router, "net", failing)
    await Task.objects.abulk_create([Task(title="one"), Task(title="two")])
    resync = await communicator.receive_json_from(timeout=10)
    assert (resync["action"], resync["request_id"]) == ("resync", "r")
    assert resync["data"] == {"reason": "unreadable", "model": "testapp.Task"}
    task = await Task.objects.acreate(title="three")
    event = await communicator.receive_json_from(timeout=10)
    assert (event["action"], event["body"]) == ("create", {"pk": task.pk})
    await communicator.disconnect()
    await sync_to_async(connections.close_all)()


async def test_an_observer_that_was_made_a_moment_ago_is_served_at_once():
    await talk("the listener leads")
    hub = embedded.runtime("default").hub
    for number in range(4):

        class Late(BoardConsumer):
            @model_observer(Task, partition=f"made {number}")
            async def late(self, message: Any, action: str, **kwargs: Any) -> None:
                await self.send_json({"action": action, "body": message})

        communicator = WebsocketCommunicator(Late.as_asgi(), "/ws/board/")
        await communicator.connect()
        await communicator.send_json_to({"action": "subscribe", "name": "late", "request_id": "r"})
        assert (await communicator.receive_json_from(timeout=0.3))["response_status"] == 201
        beats = hub._inbound.beats
        await until(lambda beats=beats: hub._inbound.beats > beats)
        task = await Task.objects.acreate(title=f"late {number}")
        assert await communicator.receive_json_from(timeout=10) == {"action": "create", "body": {"pk": task.pk}}
        await communicator.disconnect()


async def test_a_listener_that_ends_for_good_says_so_and_starts_again():
    communicator = WebsocketCommunicator(BoardConsumer.as_asgi(), "/ws/board/")
    await communicator.connect()
    await communicator.send_json_to({"action": "subscribe", "name": "tasks", "request_id": "r"})
    assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
    said: list[Observation] = []
    forget = add_sink(lambda observation, error: said.append(observation))
    try:
        with override_settings(DJCRF_PG={"BATCHSIZE": 1}):
            await Project.objects.acreate(name="has it read")  # nobody here is told
            ended = await until(lambda: [each for each in said if isinstance(each, ListenerEnded)])
            assert "'BATCHSIZE'" in ended[0].error
            task = await Task.objects.acreate(title="meanwhile")
            told = await communicator.receive_json_from(timeout=10)
            assert (told["action"], told["data"]["reason"]) == ("resync", "listener"), told
        # Nobody asks for it.
        event = await communicator.receive_json_from(timeout=10)
        assert (event["action"], event["body"]) == ("create", {"pk": task.pk})
    finally:
        forget()
    await communicator.disconnect()


def replace_dispatch(consumer_class: Any) -> list[str]:
    """Replace a method as instrumentation does, and return the types of the messages that it dispatches."""
    seen: list[str] = []
    former = consumer_class.dispatch

    async def dispatch(self: Any, message: dict[str, Any]) -> None:
        seen.append(message["type"])
        await former(self, message)

    consumer_class.dispatch = dispatch
    return seen


async def test_a_class_whose_dispatch_is_replaced_later_has_its_events():
    class Replaced(BoardConsumer):
        pass

    seen = replace_dispatch(Replaced)
    await talk("there", Replaced)
    assert seen == ["websocket.connect", "websocket.receive", "websocket.disconnect"]

    class Owner(BoardConsumer):
        @model_observer(Task)
        async def own(self, message: Any, action: str, **kwargs: Any) -> None:
            await self.send_json({"action": action, "body": message})

    replace_dispatch(Owner)
    await talk("there too", Owner, "own")


def added_later(name: str) -> tuple[Any, Any]:
    """A class to which an observer was added after it was made."""

    class Bare(GenericAsyncAPIConsumer):
        subscribe = BoardConsumer.subscribe

    async def handler(self: Any, message: Any, action: str, **kwargs: Any) -> None:
        await self.send_json({"action": action, "body": message})

    observer = model_observer(Task)(handler)
    setattr(Bare, name, observer)
    return Bare, observer


async def test_an_observer_that_is_added_to_a_class_later_is_refused_with_what_to_do():
    bare, observer = added_later("late")
    communicator = WebsocketCommunicator(bare.as_asgi(), "/ws/")
    await communicator.connect()
    await communicator.send_json_to({"action": "subscribe", "name": "late", "request_id": "r"})
    with pytest.raises(ObserverError, match=r"handler became an observer of Bare after .*observer\.__set_name__\(Bare"):
        await communicator.receive_json_from(timeout=10)
    observer.__set_name__(bare, "late")
    await talk("later", bare, "late")


class Reloading(BoardConsumer):
    """Fails to load again, twice."""

    tries: ClassVar[list[str]] = []

    @model_observer(Task)
    async def reloaded(self, message: Any, action: str, **kwargs: Any) -> None:
        await self.send_json({"action": action, "body": message})

    @reloaded.resync
    async def on_resync(self, reason: str, subscribing_request_ids: list[Any], **kwargs: Any) -> None:
        self.tries.append(reason)
        if len(self.tries) < 3:
            raise RuntimeError("the database is full")
        await self.send_json({"resync": reason, "requests": subscribing_request_ids})


def truncate() -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE testapp_task CASCADE")


@pytest.mark.parametrize("reason", ["truncate", "channel_layer"])
async def test_a_resync_whose_handler_raised_comes_again(reason: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handling, "_AGAIN", 0.1)  # 10 s in production
    Reloading.tries.clear()
    communicator = WebsocketCommunicator(Reloading.as_asgi(), "/ws/board/")
    await communicator.connect()
    await communicator.send_json_to({"action": "subscribe", "name": "reloaded", "request_id": "r"})
    assert (await communicator.receive_json_from(timeout=10))["response_status"] == 201
    if reason == "truncate":
        await sync_to_async(truncate)()
    else:
        embedded.hub_of(Task).lose_all(reason)
    await until(lambda: Reloading.tries)
    # Events do not wait for it.
    task = await Task.objects.acreate(title="meanwhile")
    told = [await communicator.receive_json_from(timeout=10) for _ in range(2)]
    assert {"action": "create", "body": {"pk": task.pk}} in told
    assert {"resync": reason, "requests": ["r"]} in told
    # And it counts then.
    (subscription,) = embedded.hub_of(Task).subscriptions()
    assert subscription.lost is None
    assert Reloading.tries == [reason] * 3
    await communicator.disconnect()
    await sync_to_async(connections.close_all)()
