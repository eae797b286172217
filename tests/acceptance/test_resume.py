"""A client that was away goes on behind the last event that it has: nothing is missing, and nothing comes twice."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import OperationalError, connections, transaction
from django.db.models import F
from django.test import override_settings
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from rest_framework.serializers import ModelSerializer

from djcrf_pg import consistent_read, transaction_token
from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.changelog.reader import ChangeLog
from djcrf_pg.delivery.protocol import History
from djcrf_pg.delivery.resume import Cursor
from djcrf_pg.listener import embedded
from djcrf_pg.listener import replay as module
from djcrf_pg.listener.replay import Replays
from djcrf_pg.listener.session import Session
from djcrf_pg.observer import model_observer
from djcrf_pg.observer.consumers import inbox_of
from djcrf_pg.observer.generics import ObserverModelInstanceMixin
from tests.processes import meanwhile, until
from tests.testapp.models import Label, Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

STATUSES = ("todo", "doing", "done")
NUMBERS = count()


class Resuming(GenericAsyncAPIConsumer):  # type: ignore[misc]
    """Tells each event, with its cursor."""

    @model_observer(Task, many_to_many=["labels"])
    async def tasks(self, message: Any, cursor: str, transaction: str, action: str, **kwargs: Any) -> None:
        """Tasks by status."""
        told = {"cursor": cursor, "transaction": transaction, "for": kwargs["subscribing_request_ids"]}
        await self.send_json({"event": action, "body": message, **told})

    @tasks.groups_for_signal
    def tasks(self, instance: Task, **kwargs: Any):
        yield f"status__{instance.status}"

    @tasks.groups_for_consumer
    def tasks(self, status: str, **kwargs: Any):
        yield f"status__{status}"

    @tasks.serializer
    def tasks(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        return {"pk": instance.pk, "points": instance.points, "status": instance.status}

    @action()
    async def subscribe(self, status: str, since: str | None = None, request_id: Any = None, **kwargs: Any):
        """Subscribe to a status, where a cursor says so behind it."""
        await self.tasks.subscribe(status=status, since=since, request_id=request_id)
        return {"cursor": await self.tasks.current_cursor()}, 201

    @action()
    async def go_on_twice(self, request_id: Any = None, **kwargs: Any):
        """Subscribe behind a cursor, leave, and do so once more."""
        for _ in range(2):
            await self.tasks.unsubscribe(status=kwargs["status"], request_id=request_id)
            await self.tasks.subscribe(request_id=request_id, **_only(kwargs))
        return None, 201

    @action()
    async def subscribe_late(self, status: str, request_id: Any = None, **kwargs: Any):
        """Subscribe behind a cursor while older events wait for the consumer's other request."""
        for points in (1, 2):
            await Task.objects.acreate(title=f"waits {points}", points=points)
        inbox = inbox_of(self)

        def waits() -> int:
            """But for the resync of an earlier test's flush."""
            return sum(bool(group) for _, group, *_ in inbox._entries)

        await until(lambda: waits() == 2)
        since = await self.tasks.current_cursor()
        await Task.objects.acreate(title="missed", points=3)
        await until(lambda: waits() == 3)
        await self.tasks.subscribe(status=status, since=since, request_id=request_id)
        return None, 201

    @action()
    async def subscribe_beside(self, request_id: Any = None, **kwargs: Any):
        """Subscribe in a task of its own: other handlers of the consumer have their turns meanwhile."""
        self.task = asyncio.create_task(self.tasks.subscribe(request_id=request_id, **_only(kwargs)))
        return None, 202


def _only(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: kwargs[name] for name in ("status", "since")}


class Each(GenericAsyncAPIConsumer):  # type: ignore[misc]
    """Tells each change, and through two groups at once."""

    @model_observer(Task, every_change=True)
    async def tasks(self, message: Any, cursor: str, action: str, group: str, **kwargs: Any) -> None:
        """Every change."""
        await self.send_json({"event": action, "points": message["points"], "cursor": cursor, "group": group})

    @tasks.groups
    def tasks(self, instance: Task | None = None, **kwargs: Any):
        yield from ("one", "other")

    @tasks.serializer
    def tasks(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        return {"points": instance.points}

    @action()
    async def subscribe(self, since: str | None = None, **kwargs: Any):
        """Subscribe to both groups."""
        await self.tasks.subscribe(since=since)
        return {"cursor": await self.tasks.current_cursor()}, 201


class TaskSerializer(ModelSerializer[Task]):
    """What the instance's page shows."""

    class Meta:
        model = Task
        fields = ("id", "points")


class Instance(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):  # type: ignore[misc]
    """Follows one task."""

    queryset = Task.objects.all()
    serializer_class = TaskSerializer


def defined_again() -> Any:
    """The same observer, as a module that is loaded again makes it."""
    first = Resuming.tasks
    again = model_observer(Task, many_to_many=["labels"])(first.func)
    again.groups_for_signal(first._group_names_for_signal).groups_for_consumer(first._group_names_for_consumer)
    again.serializer(first._serializer).__set_name__(Resuming, "tasks")
    return again


@pytest.fixture(autouse=True)
def close_connections() -> Iterator[None]:
    """The thread of sync_to_async keeps a connection."""
    yield
    async_to_sync(sync_to_async(connections.close_all))()


class Client:
    """A page that shows the tasks of one status, and keeps the cursor of the last event."""

    def __init__(self, status: str, *, joins: bool = False) -> None:
        self.status = status
        self.joins = joins
        self.rows: dict[int, int] = {}
        self.cursor: str | None = None
        self.events: list[tuple[str, int]] = []
        self._socket: Any = None

    async def connect(self) -> dict[str, Any]:
        """Connect and subscribe, behind what is there already."""
        self._socket = WebsocketCommunicator(Resuming.as_asgi(), "/ws/")
        assert (await self._socket.connect(timeout=10))[0]
        call = {"action": "subscribe", "status": self.status, "since": self.cursor, "request_id": self.status}
        await self._socket.send_json_to(call)
        reply: dict[str, Any] = await self._socket.receive_json_from(timeout=20)
        assert reply["response_status"] == 201, reply
        return reply

    async def begin(self) -> None:
        """Connect for the first time."""
        self.cursor = (await self.connect())["data"]["cursor"]

    async def take(self, count: int) -> None:
        """Take so many events."""
        for _ in range(count):
            self.show(await self._socket.receive_json_from(timeout=20))

    async def take_to(self, pk: int, points: int) -> None:
        """Take events up to one."""
        while (await self.next())["body"] != {"pk": pk, "points": points, "status": self.status}:
            pass

    async def next(self) -> dict[str, Any]:
        """Take an event."""
        event: dict[str, Any] = await self._socket.receive_json_from(timeout=20)
        self.show(event)
        return event

    def show(self, message: dict[str, Any]) -> None:
        """As a page does, and it complains of what cannot be."""
        assert "event" in message, message
        what, pk = message["event"], message["body"]["pk"]
        assert message["for"] == [self.status]
        # A row whose join rows changed is told as it is now, maybe before it is told that it came to be so.
        assert self.joins or (pk in self.rows) is (what != "create"), f"{what} of {pk}, with {self.events}"
        if what == "delete":
            self.rows.pop(pk, None)
        else:
            self.rows[pk] = message["body"]["points"]
        self.events.append((what, pk))
        self.cursor = message["cursor"]

    async def drop(self) -> None:
        """Lose the connection, with all that is on its way."""
        await self._socket.disconnect(timeout=10)


async def make(*titles: str, **values: Any) -> list[Task]:
    """Create tasks in one statement."""
    return list(await Task.objects.abulk_create([Task(title=title, **values) for title in titles]))


@pytest.fixture
def in_pieces() -> Iterator[None]:
    """Reads and messages are so small that windows are cut, and transactions with them."""
    with override_settings(DJCRF_PG={"BATCH_SIZE": 7, "ENVELOPE_EVENTS": 3}):
        yield


@pytest.mark.parametrize("seen", [1, 6, 7, 8, 20, 25])
@pytest.mark.usefixtures("in_pieces")
async def test_behind_any_event_of_a_window_in_pieces_the_others_come(seen: int) -> None:
    client = Client("todo")
    await client.begin()

    def change() -> list[int]:
        with transaction.atomic():
            tasks = Task.objects.bulk_create(Task(title=f"task {next(NUMBERS)}") for _ in range(25))
            Task.objects.update(points=1)
            return [task.pk for task in tasks]

    pks = await sync_to_async(change)()
    await client.take(seen)
    await client.drop()
    await client.connect()
    last = await Task.objects.acreate(title="last", points=9)
    await client.take_to(last.pk, 9)
    assert client.rows == {**dict.fromkeys(pks, 1), last.pk: 9}
    await client.drop()
    await embedded.close_all()


@pytest.mark.parametrize("seed", range(100, 106))
@pytest.mark.usefixtures("in_pieces")
async def test_pieces_leave_nothing_out_either(seed: int) -> None:
    await drop_again_and_again(seed)


@pytest.mark.parametrize("seen", [0, 1, 7, 299, 300])
async def test_behind_any_event_of_a_statement_the_others_come(seen: int) -> None:
    client = Client("todo")
    await client.begin()
    tasks = await make(*(f"task {number}" for number in range(300)))
    await client.take(seen)
    await client.drop()
    await client.connect()
    last = await Task.objects.acreate(title="last", points=9)
    await client.take_to(last.pk, 9)
    assert client.events == [("create", task.pk) for task in [*tasks, last]]
    await client.drop()
    await embedded.close_all()


async def test_a_row_that_was_changed_often_is_one_event() -> None:
    (task, other, gone, moved) = await make("often", "other", "gone", "moved")
    client = Client("todo")
    await client.begin()
    client.rows = dict.fromkeys((task.pk, other.pk, gone.pk, moved.pk), 0)
    await client.drop()
    for _ in range(50):
        await Task.objects.filter(pk=task.pk).aupdate(points=F("points") + 1)
    came_and_went = await Task.objects.acreate(title="came and went")
    await came_and_went.adelete()
    await Task.objects.filter(pk=gone.pk).aupdate(points=5)
    await Task.objects.filter(pk=gone.pk).adelete()
    await Task.objects.filter(pk=moved.pk).aupdate(status="doing", points=7)
    there_and_back = Task.objects.filter(pk=other.pk)
    await there_and_back.aupdate(status="done")
    await there_and_back.aupdate(status="todo", points=3)
    await client.connect()
    last = await Task.objects.acreate(title="last", points=9)
    await client.take_to(last.pk, 9)
    assert sorted(client.events) == sorted(
        [("update", task.pk), ("delete", gone.pk), ("delete", moved.pk), ("update", other.pk), ("create", last.pk)]
    )
    assert client.rows == {task.pk: 50, other.pk: 3, last.pk: 9}
    await client.drop()
    await embedded.close_all()


async def test_what_was_on_its_way_is_not_for_a_request_that_goes_on_behind_it() -> None:
    """Another request of the consumer has the group already, and waits for what the other one's list has."""
    client, other = Client("todo"), Client("todo")
    await client.begin()
    await other.begin()
    call = {"action": "subscribe_late", "status": "todo", "request_id": "late"}
    await client._socket.send_json_to(call)
    told = [await client._socket.receive_json_from(timeout=20) for _ in range(5)]
    reply = next(message for message in told if "response_status" in message)
    assert reply["response_status"] == 201
    events = [(message["body"]["points"], message["for"]) for message in told if "event" in message]
    assert events == [(3, ["late"]), (1, ["todo"]), (2, ["todo"]), (3, ["todo"])]
    await Task.objects.acreate(title="live", points=4)
    last = await client._socket.receive_json_from(timeout=20)
    assert (last["body"]["points"], sorted(last["for"])) == (4, ["late", "todo"])
    for each in (client, other):
        await each.drop()


async def test_a_replay_that_waits_ends_with_its_subscription() -> None:
    client = Client("todo")
    await client.begin()
    await client.drop()
    await make("missed", "as well")
    since = client.cursor
    client._socket = WebsocketCommunicator(Resuming.as_asgi(), "/ws/")
    assert (await client._socket.connect(timeout=10))[0]
    await client._socket.send_json_to({"action": "go_on_twice", "status": "todo", "since": since, "request_id": "todo"})
    assert (await client._socket.receive_json_from(timeout=20))["response_status"] == 201
    last = await Task.objects.acreate(title="last", points=9)
    await client.take_to(last.pk, 9)
    assert len(client.events) == 3, "nothing is twice"
    await client.drop()


async def test_a_role_that_may_not_read_the_log_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("todo")
    await client.begin()
    await client.drop()
    open_session = Session.open

    async def open_as_web(alias: str, role: str, *arguments: Any) -> Session:
        session = await open_session(alias, role, *arguments)
        if role == "replay":
            await session.execute("SET ROLE pg_monitor")
        return session

    monkeypatch.setattr(Session, "open", open_as_web)
    client._socket = WebsocketCommunicator(Resuming.as_asgi(), "/ws/")
    assert (await client._socket.connect(timeout=10))[0]
    call = {"action": "subscribe", "status": "todo", "since": client.cursor, "request_id": "todo"}
    await client._socket.send_json_to(call)
    reply = await client._socket.receive_json_from(timeout=20)
    assert reply["response_status"] == 503
    assert "as the owner, GRANT SELECT ON " in reply["errors"][0]
    await client.drop()


async def test_a_database_that_is_away_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("todo")
    await client.begin()
    await client.drop()
    missed = await make("missed")
    open_session, ends = Session.open, []

    async def open_and_lose(alias: str, role: str, *arguments: Any) -> Session:
        session = await open_session(alias, role, *arguments)
        if role == "replay" and len(ends) < 2:
            ends.append(session)
            await session.close()
        return session

    monkeypatch.setattr(Session, "open", open_and_lose)
    await embedded.runtime("default").replays.close()
    await client.connect()
    await client.take(1)
    assert client.events == [("create", missed[0].pk)]
    assert len(ends) == 2
    await client.drop()


async def test_a_connection_that_nobody_uses_is_closed_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.05)
    client = Client("todo")
    await client.begin()
    replays = embedded.runtime("default").replays
    for number in range(2):
        await client.drop()
        await make(f"missed {number}")
        await client.connect()
        await client.take(1)
        await until(lambda: replays._session is None and replays._worker is None)
    assert len(client.events) == 2
    await client.drop()


async def test_what_is_live_waits_for_what_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    client, other = Client("todo"), Client("todo")
    await client.begin()
    await client.drop()
    await other.begin()
    missed = await make("missed", "as well")
    await other.take(2)  # the leader has sent them
    replay = Replays.resume
    live: list[Task] = []

    async def replay_slowly(replays: Replays, *arguments: Any) -> Any:
        found = await replay(replays, *arguments)
        live.append(await Task.objects.acreate(title="live"))
        await other.take(1)  # and this one, which is in the other inbox too
        for _ in range(100):  # more turns than that takes to hand over what it may
            await asyncio.sleep(0)
        return found

    monkeypatch.setattr(Replays, "resume", replay_slowly)
    client._socket = WebsocketCommunicator(Resuming.as_asgi(), "/ws/")
    assert (await client._socket.connect(timeout=10))[0]
    call = {"action": "subscribe_beside", "status": "todo", "since": client.cursor, "request_id": "todo"}
    await client._socket.send_json_to(call)
    assert (await client._socket.receive_json_from(timeout=20))["response_status"] == 202
    await client.take(3)
    assert client.events == [("create", task.pk) for task in [*missed, *live]]
    await client.drop()
    await other.drop()
    await embedded.close_all()


def rename(pk: int) -> str:
    """Write, and name the transaction."""
    with transaction.atomic():
        Task.objects.filter(pk=pk).update(points=F("points") + 1)
        return transaction_token()


async def test_a_page_knows_its_own_write_live_and_when_it_comes_back() -> None:
    one, other = await make("one", "other")
    client = Client("todo")
    await client.begin()
    client.rows = {one.pk: 0, other.pk: 0}
    token = await sync_to_async(rename)(one.pk)
    assert (await client.next())["transaction"] == token
    await client.drop()
    tokens = [await sync_to_async(rename)(pk) for pk in (one.pk, other.pk, one.pk)]
    await client.connect()
    found = [await client.next() for _ in range(2)]
    assert {each["body"]["pk"]: each["transaction"] for each in found} == {one.pk: tokens[2], other.pk: tokens[1]}
    await client.drop()
    await embedded.close_all()


async def listen(consumer: Any, since: str | None = None) -> tuple[Any, str]:
    """Connect and subscribe."""
    socket = WebsocketCommunicator(consumer.as_asgi(), "/ws/")
    assert (await socket.connect(timeout=10))[0]
    await socket.send_json_to({"action": "subscribe", "since": since, "request_id": 1})
    reply = await socket.receive_json_from(timeout=20)
    assert reply["response_status"] == 201, reply
    return socket, reply["data"]["cursor"]


@pytest.mark.parametrize("seen", range(5))
async def test_of_every_change_and_each_group_what_is_missing_comes(seen: int) -> None:
    socket, cursor = await listen(Each)

    def change() -> None:
        with transaction.atomic():
            task = Task.objects.create(title="changes")
            for points in (1, 2):
                Task.objects.filter(pk=task.pk).update(points=points)

    await sync_to_async(change)()
    told = []
    for _ in range(seen):
        told.append(await socket.receive_json_from(timeout=20))
        cursor = told[-1]["cursor"]
    await socket.disconnect()
    await Task.objects.aupdate(points=3)
    socket, _ = await listen(Each, since=cursor)
    told += [await socket.receive_json_from(timeout=20) for _ in range(8 - seen)]
    expected = [("create", 0), ("update", 1), ("update", 2), ("update", 3)]
    assert [(each["event"], each["points"]) for each in told] == [each for each in expected for _ in range(2)]
    assert len({each["group"] for each in told[:2]}) == 2
    await socket.disconnect()
    await embedded.close_all()


async def test_a_definition_that_was_made_again_is_told_what_the_newest_one_is() -> None:
    client = Client("todo")
    await client.begin()
    await client.drop()
    (task,) = await make("missed")
    again = defined_again()
    await client.connect()
    await client.take(1)
    assert client.rows == {task.pk: 0}
    assert again.address == Resuming.tasks.address
    await client.drop()
    await embedded.close_all()


async def test_an_instance_is_followed_on_behind_a_cursor() -> None:
    (task,) = await make("followed")

    async def follow(**arguments: Any) -> tuple[Any, Any]:
        socket = WebsocketCommunicator(Instance.as_asgi(), "/ws/")
        assert (await socket.connect(timeout=10))[0]
        await socket.send_json_to({"action": "subscribe_instance", "pk": task.pk, "request_id": 1, **arguments})
        reply = await socket.receive_json_from(timeout=20)
        assert reply["response_status"] == 201, reply
        return socket, reply["data"]

    socket, data = await follow()
    assert data is None, "as DCRF's"
    await socket.disconnect()
    socket, data = await follow(cursor=True)
    await socket.disconnect()
    for _ in range(3):
        await Task.objects.filter(pk=task.pk).aupdate(points=F("points") + 1)
    socket, _ = await follow(since=data["cursor"])
    await Task.objects.filter(pk=task.pk).aupdate(points=10)
    told = [(await socket.receive_json_from(timeout=20))["data"]["points"] for _ in range(2)]
    assert told[1] == 10
    assert told[0] in (3, 10), "the row as it is when the event is handled"
    await socket.disconnect()
    await embedded.close_all()


def write(some: random.Random, *, joins: bool = False) -> None:
    """Change something, as a program might."""
    with transaction.atomic():
        for _ in range(some.randrange(1, 4)):
            pks = list(Task.objects.order_by("pk").values_list("pk", flat=True))
            few = Task.objects.filter(pk__in=some.sample(pks, min(len(pks), some.randrange(1, 6))))
            match some.randrange(7 if joins else 6):
                case 0 | 1:
                    Task.objects.bulk_create(
                        Task(title=f"task {next(NUMBERS)}", status=some.choice(STATUSES)) for _ in range(3)
                    )
                case 2 | 3:
                    few.update(points=F("points") + 1)
                case 4:
                    few.update(status=some.choice(STATUSES), points=F("points") + 1)
                case 5:
                    few.delete()
                case 6:
                    labels = list(Label.objects.all())
                    for task in few:
                        task.labels.set(some.sample(labels, 1))
        if some.random() < 0.1:
            transaction.set_rollback(True)


@contextmanager
def writers(seed: int) -> Iterator[None]:
    """Two of them, in threads of their own, which never stop."""

    def go_on(number: int, done: threading.Event) -> None:
        mine = random.Random(f"{seed}.{number}")
        try:
            while not done.is_set():
                with suppress(OperationalError):  # a deadlock of the two
                    write(mine)
        finally:
            connections.close_all()

    with meanwhile(partial(go_on, 0)), meanwhile(partial(go_on, 1)):
        yield


def read(status: str) -> tuple[str, dict[int, int]]:
    """A list, and what continues it."""
    with consistent_read() as cursor:
        return cursor, dict(Task.objects.filter(status=status).values_list("pk", "points"))


async def read_beside(status: str) -> tuple[str, dict[int, int]]:
    """The same, asynchronous."""
    async with consistent_read() as cursor:
        tasks = Task.objects.filter(status=status).values_list("pk", "points")
        return cursor, {pk: points async for pk, points in tasks}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_a_list_and_what_comes_after_it_are_the_table(seed: int, is_async: bool) -> None:
    """Under writers in threads of their own, which never stop meanwhile."""
    some = random.Random(seed)
    clients = []
    with writers(seed):
        for _ in range(12):
            client = Client(some.choice(STATUSES))
            reading = read_beside(client.status) if is_async else sync_to_async(read)(client.status)
            client.cursor, client.rows = await reading
            await client.connect()
            clients.append(client)
    last = {status: await Task.objects.acreate(title=f"last {status}", points=99, status=status) for status in STATUSES}
    for client in clients:
        await client.take_to(last[client.status].pk, 99)
        there = Task.objects.filter(status=client.status).values_list("pk", "points")
        assert client.rows == {pk: points async for pk, points in there}
        await client.drop()
    await embedded.close_all()


@pytest.mark.parametrize("seed", range(12))
async def test_a_client_that_drops_again_and_again_shows_what_is_there(seed: int) -> None:
    await drop_again_and_again(seed)


@pytest.mark.parametrize("seed", range(200, 208))
async def test_join_rows_leave_nothing_out_either(seed: int) -> None:
    await Label.objects.abulk_create(Label(name=f"label {number}") for number in range(3))
    await drop_again_and_again(seed, joins=True)


async def drop_again_and_again(seed: int, *, joins: bool = False) -> None:
    """Have clients come and go beside a writer."""
    some = random.Random(seed)
    clients = [Client(status, joins=joins) for status in STATUSES]
    for client in clients:
        await client.begin()
    for _ in range(15):
        await sync_to_async(write)(some, joins=joins)
        for client in clients:
            if some.random() < 0.5:
                continue  # takes nothing for a while
            if some.random() < 0.7 and client.events:
                # What it takes before it drops is what has come by then.
                while not await client._socket.receive_nothing(timeout=0.01) and some.random() < 0.8:
                    await client.next()
            await client.drop()
            if some.random() < 0.5:
                await sync_to_async(write)(some, joins=joins)
            await client.connect()
    for client in clients:
        last = await Task.objects.acreate(title=f"last of {client.status}", points=99, status=client.status)
        await client.take_to(last.pk, 99)
    for client in clients:
        there = {
            pk: points async for pk, points in Task.objects.filter(status=client.status).values_list("pk", "points")
        }
        assert client.rows == there
        await client.drop()
    await embedded.close_all()


# What is refused.


async def refused(cursor: Any) -> dict[str, Any]:
    """The reply to a client that resumes with a cursor; nothing of its subscription is left."""
    socket = WebsocketCommunicator(Resuming.as_asgi(), "/ws/")
    assert (await socket.connect(timeout=10))[0]
    await socket.send_json_to({"action": "subscribe", "status": "todo", "since": cursor, "request_id": 1})
    reply: dict[str, Any] = await socket.receive_json_from(timeout=20)
    # Without a cursor it is served, and told what comes from then on.
    await Task.objects.acreate(title=f"task {next(NUMBERS)}")
    await socket.send_json_to({"action": "subscribe", "status": "todo", "request_id": 2})
    assert (await socket.receive_json_from(timeout=20))["response_status"] == 201
    task = await Task.objects.acreate(title=f"task {next(NUMBERS)}")
    event = await socket.receive_json_from(timeout=20)
    assert (event["body"]["pk"], event["for"]) == (task.pk, [2])
    await socket.disconnect()
    return reply


@pytest.mark.parametrize("cursor", ["", "forged", "x" * 5_000, 7, ["a"], {"a": 1}])
async def test_what_is_no_cursor_is_refused(cursor: Any) -> None:
    reply = await refused(cursor)
    assert (reply["response_status"], reply["data"]) == (400, None)
    await embedded.close_all()


async def test_a_cursor_of_another_database_is_refused() -> None:
    other = Cursor.at(History(1, 2, 3, 4), Snapshot(5, 9)).encode()
    reply = await refused(other)
    assert (reply["response_status"], reply["errors"]) == (400, ["The cursor is of another database."])
    await embedded.close_all()


async def pruned(log: ChangeLog) -> None:
    """The retention deletes what was delivered."""
    assert await log.prune(Position(await log.now()), 0.0, 1_000)


async def trimmed(log: ChangeLog) -> None:
    """The caps do."""
    await log.set_caps(0.001, 10**9, 10**15)
    while await log.trim(1_000):
        pass


@pytest.mark.parametrize("delete", [pruned, trimmed])
async def test_a_cursor_has_expired_when_what_it_has_not_seen_was_deleted(delete: Any) -> None:
    client = Client("todo")
    await client.begin()
    await client.drop()
    await make("deleted from the log")
    session = await Session.open("default")
    try:
        await delete(await ChangeLog.open(session))
    finally:
        await session.close()
    reply = await refused(client.cursor)
    assert reply["response_status"] == 410
    assert "deleted from the log" in reply["errors"][0]
    client.cursor = None
    await client.begin()
    task = await Task.objects.acreate(title="after that")
    await client.drop()
    await client.connect()
    await client.take(1)
    assert client.rows == {task.pk: 0}, "a cursor from after that is good"
    await client.drop()
    await embedded.close_all()


async def test_a_cursor_has_expired_when_too_much_was_changed() -> None:
    client = Client("todo")
    await client.begin()
    await client.drop()
    await make(*(f"task {next(NUMBERS)}" for _ in range(21)))
    with override_settings(DJCRF_PG={"REPLAY_LIMIT": 20}):
        reply = await refused(client.cursor)
    assert (reply["response_status"], "REPLAY_LIMIT" in reply["errors"][0]) == (410, True)
    with override_settings(DJCRF_PG={"REPLAY_LIMIT": 40}):
        await client.connect()
        await client.take(23)
    await client.drop()
    await embedded.close_all()
