"""A list, and the events that continue it: together they are the table, and what cannot be so is refused."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connections
from django.db.models import Count, F, Prefetch, Q, Subquery
from django.db.models.manager import Manager
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.mixins import ListModelMixin, PaginatedModelListMixin
from djangochannelsrestframework.pagination import WebsocketLimitOffsetPagination
from djangochannelsrestframework.permissions import BasePermission
from rest_framework.serializers import ListSerializer, ModelSerializer

from djcrf_pg.exceptions import ListError
from djcrf_pg.listener import embedded
from djcrf_pg.observer import model_observer
from djcrf_pg.observer.generics import ListAndSubscribeMixin
from tests.acceptance.test_resume import STATUSES, writers
from tests.testapp.models import Label, Note, Project, Remote, Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True, databases=["default", "second", "lite"])]


class TaskSerializer(ModelSerializer[Task]):
    """A row of the list, and the body of an event."""

    class Meta:
        model = Task
        fields = ("id", "points", "status")


class Listing(ListAndSubscribeMixin, ListModelMixin, GenericAsyncAPIConsumer):  # type: ignore[misc]
    """The tasks of a status."""

    queryset = Task.objects.order_by("-pk")
    serializer_class = TaskSerializer

    @model_observer(Task, serializer_class=TaskSerializer)
    async def tasks(self, message: Any, cursor: str, action: str, **kwargs: Any) -> None:
        """Tasks by status."""
        await self.send_json(
            {"event": action, "body": message, "cursor": cursor, "for": kwargs["subscribing_request_ids"]}
        )

    @tasks.groups_for_signal
    def tasks(self, instance: Task, **kwargs: Any) -> Iterator[str]:
        yield f"status__{instance.status}"

    @tasks.groups_for_consumer
    def tasks(self, status: str, **kwargs: Any) -> Iterator[str]:
        yield f"status__{status}"

    @tasks.rows_for_consumer
    def tasks(self, status: str, **kwargs: Any) -> Q:
        return Q(status=status)


@pytest.fixture(autouse=True)
def close_connections() -> Iterator[None]:
    """The thread of sync_to_async keeps a connection."""
    yield
    async_to_sync(sync_to_async(connections.close_all))()


class Client:
    """A page that shows the tasks of one status."""

    def __init__(self, status: str, consumer: Any = Listing) -> None:
        self.status = status
        self.rows: dict[int, int] = {}
        self.cursor: str | None = None
        self._consumer = consumer
        self._socket: Any = None

    async def connect(self) -> None:
        """Open a socket."""
        self._socket = WebsocketCommunicator(self._consumer.as_asgi(), "/ws/")
        assert (await self._socket.connect(timeout=10))[0]

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call an action and have its reply; what comes before it is for the page."""
        await self._socket.send_json_to({"action": name, "request_id": "the list", **arguments})
        while "event" in (message := await self._socket.receive_json_from(timeout=20)):
            self.show(message)
        reply: dict[str, Any] = message
        return reply

    async def list(self, **arguments: Any) -> None:
        """Load the list, or with a cursor go on behind it."""
        reply = await self.call("list_and_subscribe", status=self.status, **arguments)
        assert reply["response_status"] == 201, reply
        self.cursor = reply["data"]["cursor"]
        if "since" in arguments:
            assert reply["data"] == {"cursor": arguments["since"], "results": None}
        else:
            self.rows = {each["id"]: each["points"] for each in reply["data"]["results"]}
            assert list(self.rows) == sorted(self.rows, reverse=True), "in the order of the queryset"

    async def resume(self) -> None:
        """Lose the connection with all that is on its way, and go on behind what is shown."""
        await self.drop()
        await self.connect()
        await self.list(since=self.cursor)

    def show(self, message: dict[str, Any]) -> None:
        """As a page does, and it complains of what cannot be."""
        assert message["for"] == ["the list"]
        what, body = message["event"], message["body"]
        assert body["status"] == self.status
        assert (body["id"] in self.rows) is (what != "create"), f"{what} of {body['id']}"
        if what == "delete":
            del self.rows[body["id"]]
        else:
            self.rows[body["id"]] = body["points"]
        self.cursor = message["cursor"]

    async def next(self) -> dict[str, Any]:
        """Take an event."""
        message: dict[str, Any] = await self._socket.receive_json_from(timeout=20)
        assert "event" in message, message
        self.show(message)
        return message

    async def nothing(self) -> bool:
        """Whether nothing has come."""
        found: bool = await self._socket.receive_nothing(timeout=0.01)
        return found

    async def take_to(self, task: Task) -> None:
        """Take events up to a row's."""
        while (await self.next())["body"]["id"] != task.pk:
            pass

    async def drop(self) -> None:
        """Lose the connection."""
        await self._socket.disconnect(timeout=10)


async def there(status: str) -> dict[int, int]:
    """What the table has."""
    return {pk: points async for pk, points in Task.objects.filter(status=status).values_list("pk", "points")}


async def histories(seed: int, count: int) -> None:
    """So many clients load the list while two write; some of them load it again, or drop and come back."""
    some, clients = random.Random(seed), [Client("")] * 0
    with writers(seed):
        for _ in range(count):
            client = Client(some.choice(STATUSES))
            await client.connect()
            await client.list()
            clients.append(client)
            for other in some.sample(clients, min(len(clients), 3)):
                while some.random() < 0.8 and not await other.nothing():
                    await other.next()
                match some.randrange(4):
                    case 0:
                        await other.resume()
                    case 1:
                        await other.list()
    for client in clients:
        last = await Task.objects.acreate(title=f"last {id(client)}", points=99, status=client.status)
        await client.take_to(last)
        assert client.rows == await there(client.status)
        await client.drop()
    await embedded.close_all()


@pytest.mark.parametrize("seed", range(2))
async def test_the_list_and_its_events_are_the_table(seed: int) -> None:
    await histories(seed, 10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 125))
async def test_in_five_hundred_histories_the_list_and_its_events_are_the_table(seed: int) -> None:
    await histories(seed, 20)


# What is given.


async def test_the_reply_is_what_the_list_action_gives_and_its_cursor() -> None:
    await Task.objects.abulk_create(Task(title=f"task {number}", points=number) for number in range(3))
    client = Client("todo")
    await client.connect()
    listed = (await client.call("list"))["data"]
    reply = await client.call("list_and_subscribe", status="todo")
    assert (reply["response_status"], reply["action"]) == (201, "list_and_subscribe")
    assert reply["data"] == {"cursor": reply["data"]["cursor"], "results": listed}
    assert len(listed) == 3
    await client.drop()
    await embedded.close_all()


class Slow(Listing):
    """Its list action waits before it reads, and events wait for its end."""

    began = asyncio.Event()
    may_go_on = asyncio.Event()

    async def check_permissions(self, action: str, **kwargs: Any) -> None:
        """Wait, the second time."""
        if action == "list":
            if self.began.is_set():
                await self.may_go_on.wait()
            self.began.set()


async def test_a_list_that_is_loaded_again_takes_the_place_of_the_former_one() -> None:
    """What has come of the former one and was not told yet is in the new one."""
    Slow.began, Slow.may_go_on = asyncio.Event(), asyncio.Event()
    client, other = Client("todo", Slow), Client("todo")
    task = await Task.objects.acreate(title="task")
    for each in (client, other):
        await each.connect()
        await each.list()
    again = asyncio.create_task(client.list())
    for points in (1, 2):
        await Task.objects.filter(pk=task.pk).aupdate(points=points)
        await other.next()  # so it is in the inbox of the first one, whose action has the turn
    Slow.may_go_on.set()
    await again
    assert client.rows == {task.pk: 2}
    last = await Task.objects.acreate(title="last")
    assert (await client.next())["body"]["id"] == last.pk, "what is older than the list does not come"
    await client.drop()
    await other.drop()
    await embedded.close_all()


async def test_a_list_takes_the_place_of_one_whose_replay_still_waits() -> None:
    """The replay is for the same request, and the new list has what it would tell."""
    client, count = Client("todo"), 1_000
    await Task.objects.abulk_create(Task(title=f"task {number}") for number in range(count))
    await client.connect()
    await client.list()
    await client.drop()
    await Task.objects.aupdate(points=1)
    await client.connect()
    both = {"action": "list_and_subscribe", "request_id": "the list", "status": "todo"}
    await client._socket.send_json_to({**both, "since": client.cursor})
    await client._socket.send_json_to(both)  # has its turn among what the first one replays
    assert (await client._socket.receive_json_from(timeout=20))["data"]["results"] is None
    told = 0
    while "event" in (message := await client._socket.receive_json_from(timeout=20)):
        told += 1
    assert {each["points"] for each in message["data"]["results"]} == {1}
    assert told < count, "else nothing waited"
    client.rows = {each["id"]: 1 for each in message["data"]["results"]}
    last = await Task.objects.acreate(title="last")
    assert (await client.next())["body"]["id"] == last.pk, "what is older than the list does not come"
    await client.drop()
    await embedded.close_all()


async def test_an_unsubscribed_list_is_told_nothing_more() -> None:
    client, other = Client("todo"), Client("todo")
    for each in (client, other):
        await each.connect()
        await each.list()
    assert (await client.call("unsubscribe_list", status="todo"))["response_status"] == 204
    await other.take_to(await Task.objects.acreate(title="after that"))
    assert await client.nothing()
    assert (await client.call("unsubscribe_list", status="todo", page=1))["response_status"] == 422
    await client.drop()
    await other.drop()
    await embedded.close_all()


class Whole(ListAndSubscribeMixin, GenericAsyncAPIConsumer):  # type: ignore[misc]
    """All labels: its observer has no groups. And another one, which is not meant."""

    queryset = Label.objects.all()

    class serializer_class(ModelSerializer[Label]):
        class Meta:
            model = Label
            fields = ("id", "name")

    @model_observer(Label)
    async def labels(self, message: Any, action: str, **kwargs: Any) -> None:
        """Each label."""
        await self.send_json({"event": action, "pk": message["pk"]})

    @model_observer(Project)
    async def projects(self, message: Any, **kwargs: Any) -> None:
        """Not of the list."""

    list_observer = "labels"


async def test_without_groups_the_list_is_the_whole_table() -> None:
    first = await Label.objects.acreate(name="first")
    client = Client("", Whole)
    await client.connect()
    reply = await client.call("list_and_subscribe")
    assert reply["data"]["results"] == [{"id": first.pk, "name": "first"}]
    second = await Label.objects.acreate(name="second")
    assert await client._socket.receive_json_from(timeout=20) == {"event": "create", "pk": second.pk}
    await client.drop()
    await embedded.close_all()


# What is refused, and what is not.


class OnlyReaders(BasePermission):  # type: ignore[misc]
    """Not the list."""

    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        """All but that."""
        return action != "list"


class ThreeOfThem(ListSerializer[Any]):
    """Leaves rows out."""

    def to_representation(self, data: Any) -> Any:
        """The first three."""
        return super().to_representation(data[:3])


def with_queryset(**functions: Any) -> Any:
    """A consumer that reads something else."""
    return type("Other", (Listing,), functions)


def of(queryset: Any) -> Any:
    """With another queryset, or a function of the arguments that makes it."""
    return with_queryset(get_queryset=lambda self, **kwargs: queryset(**kwargs) if callable(queryset) else queryset)


class Visible(Manager[Task]):
    """As of a model with soft deletion."""

    def get_queryset(self) -> Any:
        """Those that are not hidden."""
        return super().get_queryset().exclude(status="hidden")


def visible(**kwargs: Any) -> Any:
    manager = Visible()
    manager.model = Task
    return manager.all()


TASKS = Task.objects.all()

FILTERED = {
    "a filter": TASKS.filter(points=0),
    "an exclusion": TASKS.exclude(points=1),
    "another value": TASKS.filter(status="done"),
    "the filter, or more": lambda status, **kwargs: TASKS.filter(Q(status=status) | Q(points=1)),
    "a slice": TASKS.order_by("pk")[:3],
    "distinct fields": TASKS.order_by("points").distinct("points"),
    "nothing": TASKS.none(),
    "a union": TASKS.filter(status="todo").union(TASKS.filter(status="done")),
    "a join": TASKS.filter(labels__isnull=False),
    "an aggregate": TASKS.annotate(labelled=Count("labels")).filter(labelled__gt=0),
    "raw SQL": TASKS.extra(where=["points = 0"]),
    "a manager that hides rows": visible,
    "who asks": lambda status, request_id, **kwargs: TASKS.filter(status=status, title=request_id),
}

GIVEN = {
    "the filter of the groups": lambda status, **kwargs: TASKS.filter(status=status),
    "the same, twice": lambda status, **kwargs: TASKS.filter(status=status).order_by("points", "pk"),
    "related rows": TASKS.select_related("project").prefetch_related(Prefetch("labels")),
    "some columns": TASKS.only("points", "status"),
    "more columns": TASKS.annotate(twice=F("points") * 2, name=Subquery(Label.objects.values("name")[:1])),
    "each once": TASKS.distinct(),
    "another order": TASKS.order_by("labels__name", "?"),
}


async def reply_of(consumer: Any, **arguments: Any) -> dict[str, Any]:
    """The reply to a first call."""
    client = Client("todo", consumer)
    await client.connect()
    reply = await client.call("list_and_subscribe", **{"status": "todo", **arguments})
    await client.drop()
    await embedded.close_all()
    return reply


async def test_rows_are_given_whatever_is_said_of_order_and_columns() -> None:
    await Task.objects.abulk_create(Task(title=f"task {number}") for number in range(4))
    await Task.objects.acreate(title="other", status="done")
    for name, queryset in GIVEN.items():
        client = Client("todo", of(queryset))
        await client.connect()
        reply = await client.call("list_and_subscribe", status="todo")
        assert reply["response_status"] == 201, (name, reply)
        assert {each["status"] for each in reply["data"]["results"]} == {"todo"}, name
        assert len({each["id"] for each in reply["data"]["results"]}) == 4, name
        await client.drop()
    await embedded.close_all()


@pytest.mark.parametrize("name", FILTERED)
async def test_a_filter_that_the_groups_do_not_express_is_refused_whatever_is_in_the_table(name: str) -> None:
    reply = await reply_of(of(FILTERED[name]))
    assert (reply["response_status"], reply["data"]) == (422, None)
    (error,) = reply["errors"]
    assert "The queryset of Other is not the table testapp.Task with the filter of rows_for_consumer" in error
    assert "Have the groups express it" in error


async def test_behind_a_cursor_a_filter_is_refused_too() -> None:
    client = Client("todo")
    await client.connect()
    await client.list()
    await client.drop()
    reply = await reply_of(of(FILTERED["a filter"]), since=client.cursor)
    assert (reply["response_status"], "has another filter" in reply["errors"][0]) == (422, True)


class Unexpressed(Listing):
    """The list is filtered by points, and the groups are not."""

    @model_observer(Task, serializer_class=TaskSerializer)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """Tasks by status."""

    tasks.groups_for_signal(Listing.tasks._group_names_for_signal)
    tasks.groups_for_consumer(Listing.tasks._group_names_for_consumer)

    @tasks.rows_for_consumer
    def tasks(self, status: str, points: int = 0, **kwargs: Any) -> Q:
        return Q(status=status, points=points)


class MoreRows(Listing):
    """Lists what is in another group."""

    @model_observer(Task, serializer_class=TaskSerializer)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """Tasks by status, and none of the hidden ones."""

    @tasks.groups_for_signal
    def tasks(self, instance: Task, **kwargs: Any) -> Iterator[str]:
        if instance.points != 13:
            yield f"status__{instance.status}"

    tasks.groups_for_consumer(Listing.tasks._group_names_for_consumer)
    tasks.rows_for_consumer(Listing.tasks.rows_of_groups)


class FewerRows(Listing):
    """Does not list what is in the group."""

    @model_observer(Task, serializer_class=TaskSerializer)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """Tasks by status, and by that with the title."""

    @tasks.groups_for_signal
    def tasks(self, instance: Task, **kwargs: Any) -> Iterator[str]:
        yield from {f"status__{instance.status}", f"status__{instance.body}"}

    tasks.groups_for_consumer(Listing.tasks._group_names_for_consumer)
    tasks.rows_for_consumer(Listing.tasks.rows_of_groups)


class NoGroup(Listing):
    """Subscribes to none."""

    @model_observer(Task, serializer_class=TaskSerializer)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """Nothing."""

    tasks.groups_for_signal(Listing.tasks._group_names_for_signal)
    tasks.groups_for_consumer(lambda self, **kwargs: ())
    tasks.rows_for_consumer(Listing.tasks.rows_of_groups)


class NoRows(Listing):
    """Does not say which rows."""

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """Some."""

    tasks.groups_for_signal(Listing.tasks._group_names_for_signal)
    tasks.groups_for_consumer(Listing.tasks._group_names_for_consumer)


class SomeOfOneGroup(Listing):
    """One group for all, and a list of some."""

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """All."""

    tasks.rows_for_consumer(lambda self, status, **kwargs: Q(status="todo"))


class NoQ(Listing):
    """Returns a queryset."""

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """All."""

    tasks.rows_for_consumer(lambda self, status, **kwargs: Task.objects.all())


class Two(Listing):
    """Has two of them."""

    @model_observer(Task)
    async def more(self, message: Any, **kwargs: Any) -> None:
        """All."""

    more.rows_for_consumer(lambda self, **kwargs: Q())


class Lite(ListAndSubscribeMixin, GenericAsyncAPIConsumer):  # type: ignore[misc]
    """In SQLite."""

    queryset = Note.objects.all()

    @model_observer(Note)
    async def notes(self, message: Any, **kwargs: Any) -> None:
        """All."""

    notes.rows_for_consumer(lambda self, status, **kwargs: Q())


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a page": (Listing, {"limit": 10}, "takes no 'limit': its list is that of the groups"),
    "a filter of the client": (Listing, {"points": 1}, "takes no 'points'"),
    "an argument that only the list has": (
        Unexpressed,
        {"points": 0},
        "filtered by 'points', and groups of tests.acceptance.test_listing.Unexpressed.tasks are the same",
    ),
    "pagination": (
        type("Pages", (PaginatedModelListMixin, Listing), {"pagination_class": WebsocketLimitOffsetPagination}),
        {},
        "Pages has a pagination_class",
    ),
    "a list of its own": (with_queryset(list=lambda self, **kwargs: ([], 200)), {}, "Other has a list() of its own"),
    "filter_queryset": (
        with_queryset(filter_queryset=lambda self, queryset, **kwargs: queryset.filter(points__lt=3)),
        {},
        "its get_queryset(), filter_queryset() or the manager has another filter",
    ),
    "values": (of(TASKS.values("id")), {}, "gives no instances of testapp.Task"),
    "no queryset": (of([]), {}, "gives no instances of testapp.Task"),
    "another model": (of(Label.objects.all()), {}, "lists testapp.Label, and tests.acceptance.test_listing.Listing"),
    "no group": (NoGroup, {}, "gives no group for status='todo'"),
    "no rows": (NoRows, {}, "no model observer that says which rows are in its groups: decorate"),
    "a named one without": (type("Named", (NoRows,), {"list_observer": "tasks"}), {}, "does not say which rows"),
    "a name that is none": (
        type("Named", (Listing,), {"list_observer": "list"}),
        {},
        "list_observer is 'list', and no",
    ),
    "some of one group": (SomeOfOneGroup, {}, "has one group for all rows, and its rows_for_consumer leaves some out"),
    "no Q": (NoQ, {}, "returned QuerySet, and no Q"),
    "two": (Two, {}, "may mean tests.acceptance.test_listing.Two.more, tests.acceptance.test_listing.Listing.tasks"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_list_that_is_not_known_to_be_that_of_the_groups_is_refused(name: str) -> None:
    consumer, arguments, expected = WRONG[name]
    reply = await reply_of(consumer, **arguments)
    assert (reply["response_status"], reply["data"]) == (422, None), reply
    (error,) = reply["errors"]
    assert expected in error


async def test_an_argument_of_the_groups_is_needed() -> None:
    client = Client("todo")
    await client.connect()
    reply = await client.call("list_and_subscribe")
    assert (reply["response_status"], reply["errors"]) == (422, ["Listing.list_and_subscribe needs status."])
    await client.drop()


async def test_a_list_with_a_row_that_is_in_no_group_is_refused() -> None:
    await Task.objects.acreate(title="in no group", points=13)
    reply = await reply_of(MoreRows)
    assert (reply["response_status"], "is in none of the groups" in reply["errors"][0]) == (422, True)
    assert (await reply_of(MoreRows, status="done"))["response_status"] == 201


async def test_a_serializer_that_leaves_rows_out_is_refused() -> None:
    await Task.objects.abulk_create(Task(title=f"task {number}") for number in range(4))
    reply = await reply_of(with_queryset(serializer_class=Some))
    assert (reply["response_status"], "gives 3 of 4 rows" in reply["errors"][0]) == (422, True)


async def test_who_may_not_list_may_not_subscribe_to_the_list_either() -> None:
    reader = type("Reader", (Listing,), {"permission_classes": [OnlyReaders]})
    assert (await reply_of(reader))["response_status"] == 403
    client = Client("todo")
    await client.connect()
    await client.list()
    await client.drop()
    assert (await reply_of(reader, since=client.cursor))["response_status"] == 403


class Some(TaskSerializer):
    """Serializes three of them."""

    class Meta(TaskSerializer.Meta):
        """With a list serializer that filters."""

        list_serializer_class = ThreeOfThem


async def test_a_refusal_leaves_nothing_subscribed_and_nothing_unsubscribed() -> None:
    """Each client is refused at another check; the last one has a list, and is refused another."""
    await Task.objects.abulk_create(Task(title=f"task {number}") for number in range(4))
    refused: list[tuple[Any, dict[str, Any], int]] = [
        (Listing, {"limit": 10}, 422),
        (Listing, {"since": "forged"}, 400),
        (with_queryset(permission_classes=[OnlyReaders]), {}, 403),
        (of(FILTERED["a filter"]), {}, 422),
        (with_queryset(serializer_class=Some), {}, 422),
    ]
    clients, keeps = [], Client("todo")
    for consumer, arguments, expected in refused:
        client = Client("todo", consumer)
        await client.connect()
        reply = await client.call("list_and_subscribe", status="todo", **arguments)
        assert reply["response_status"] == expected, reply
        clients.append(client)
    await keeps.connect()
    await keeps.list()
    assert (await keeps.call("list_and_subscribe", status="todo", limit=10))["response_status"] == 422
    await keeps.take_to(await Task.objects.acreate(title="after that"))
    for client in clients:
        await client.call("list")  # what has come by now is shown before the reply
        assert client.rows == {}
        await client.drop()
    await keeps.drop()
    await embedded.close_all()


async def test_a_request_id_is_needed_and_a_cursor_is_one() -> None:
    assert (await reply_of(Listing, request_id=None))["response_status"] == 400
    reply = await reply_of(Listing, since="forged")
    assert (reply["response_status"], reply["data"]) == (400, None)


async def test_a_model_of_another_vendor_has_no_list_to_follow() -> None:
    reply = await reply_of(Lite)
    assert (reply["response_status"], "is not on PostgreSQL" in reply["errors"][0]) == (503, True)


def test_a_test_of_the_project_can_verify_a_list() -> None:
    """It reads the whole table, and sees what no list shows."""
    Task.objects.create(title="one", status="doing", body="todo")
    Task.objects.create(title="other", points=13)
    Listing().verify_list(status="todo")
    Whole().verify_list()
    FewerRows().verify_list(status="doing")
    with pytest.raises(ListError, match=r"FewerRows does not list testapp\.Task \d+, which is in the groups"):
        FewerRows().verify_list(status="todo")
    with pytest.raises(ListError, match=r"MoreRows lists .* in none of the groups"):
        MoreRows().verify_list(status="todo")
    with pytest.raises(ListError, match="takes no 'page'"):
        Listing().verify_list(status="todo", page=1)


# Where it is.


class Far(ListAndSubscribeMixin, GenericAsyncAPIConsumer):  # type: ignore[misc]
    """In the second database, whatever the queryset says."""

    queryset = Remote.objects.using("default")

    class serializer_class(ModelSerializer[Remote]):
        class Meta:
            model = Remote
            fields = ("id",)

    @model_observer(Remote)
    async def remotes(self, message: Any, action: str, **kwargs: Any) -> None:
        """Each of them."""
        await self.send_json({"event": action, "pk": message["pk"]})


async def test_the_list_is_read_where_its_events_come_from() -> None:
    first = await Remote.objects.acreate(text="first")
    client = Client("", Far)
    await client.connect()
    reply = await client.call("list_and_subscribe")
    assert reply["data"]["results"] == [{"id": first.pk}], reply
    second = await Remote.objects.acreate(text="second")
    assert await client._socket.receive_json_from(timeout=20) == {"event": "create", "pk": second.pk}
    await client.drop()
    await embedded.close_all()
