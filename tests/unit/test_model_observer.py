"""``@model_observer``: what it refuses, what it passes on to handlers."""

import asyncio
import gc
import weakref
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import pytest
from channels.exceptions import StopConsumer
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.test import override_settings
from rest_framework.exceptions import ValidationError
from rest_framework.serializers import ModelSerializer

from djcrf_pg.changelog.cursor import Snapshot, Span
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.delivery.inbox import Moment, Subscription
from djcrf_pg.delivery.protocol import Origin
from djcrf_pg.delivery.resume import Cursor, Mark
from djcrf_pg.exceptions import MalformedRequestId, ObserverError, SubscribeError
from djcrf_pg.listener.failures import PAUSE
from djcrf_pg.observations import Observation, ObserverFailed, add_sink
from djcrf_pg.observer import ModelObserver, handling, model_observer
from djcrf_pg.observer.dcrf import DCRFModelObserver
from djcrf_pg.observer.model_observer import MAX_REQUEST_ID, check_request_id
from djcrf_pg.registry import BATCH, registry
from djcrf_pg.routing.routes import Routes
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Document, Label, Note, Task
from tests.unit.origin import ORIGIN

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_models_left_behind() -> Iterator[None]:
    known = apps.all_models["testapp"].copy()
    yield
    apps.all_models["testapp"].clear()
    apps.all_models["testapp"].update(known)
    apps.clear_cache()


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """A handler."""


def observe(model: Any, **kwargs: Any) -> ModelObserver:
    """Decorate `handler`."""
    return model_observer(model, **kwargs)(handler)


# -- what it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["testapp.Task", 5, object, Task()])
def test_what_is_no_model_is_refused_and_the_handler_named(model: Any) -> None:
    with pytest.raises(ObserverError, match=rf"{__name__}\.handler takes a Django model class, not ") as caught:
        observe(model)
    assert isinstance(caught.value, ImproperlyConfigured)


def test_an_abstract_model_is_refused_and_the_handler_named() -> None:
    class Base(models.Model):
        class Meta:
            app_label = "testapp"
            abstract = True

        def __str__(self) -> str:
            return "abstract"

    with pytest.raises(ObserverError, match=rf"{__name__}\.handler: Base is abstract"):
        observe(Base)


def unmanaged() -> type[models.Model]:
    """A model of a table or view that Django does not make."""

    class Report(models.Model):
        class Meta:
            app_label = "testapp"
            managed = False

        def __str__(self) -> str:
            return "a report"

    return Report


def test_an_unmanaged_model_is_refused_with_the_setting_that_allows_it() -> None:
    with pytest.raises(
        ObserverError, match=rf"{__name__}\.handler: testapp\.Report is unmanaged.*'OBSERVE': \['testapp\.Report'\]"
    ):
        observe(unmanaged())


@pytest.mark.parametrize("label", ["testapp.Report", "testapp.report", "testapp.Report.readers"])
def test_an_unmanaged_model_that_is_declared_a_table_is_observed(label: str) -> None:
    """OBSERVE goes through ``apps.get_model``, which does not tell upper from lower case in a model's name."""
    with override_settings(DJCRF_PG={"OBSERVE": [label]}):
        assert observe(unmanaged()).trigger_driven


def test_a_refused_observer_is_not_registered() -> None:
    before = list(registry)
    with pytest.raises(ObserverError):
        observe(unmanaged())
    assert list(registry) == before


# -- the registry --------------------------------------------------------------------------------------------


def test_an_observer_is_known_as_long_as_it_lives() -> None:
    version = registry.version
    observer = observe(Task)
    assert observer in list(registry)
    assert registry.version > version
    version = registry.version
    name = id(observer)
    del observer
    gc.collect()
    assert name not in map(id, registry)
    assert registry.version > version


def test_its_group_names_are_dcrfs() -> None:
    ours, theirs = observe(Task), object.__new__(DCRFModelObserver)
    theirs.__dict__.update(ours.__dict__)
    assert list(ours.group_names_for_signal(instance=Task())) == list(theirs.group_names_for_signal(instance=Task()))
    assert all(name.startswith("DCRF-") and len(name) == 69 for name in ours.group_names_for_signal(instance=Task()))


def test_it_needs_the_triggers_of_the_join_tables_it_watches() -> None:
    assert observe(Task).tables.keys() == {"testapp_task"}
    assert observe(Task, many_to_many=True).tables.keys() == {"testapp_task", "testapp_task_labels"}


def test_a_relation_of_a_kind_of_its_own_is_none_of_an_observer_that_does_not_watch_it() -> None:
    class Kind(models.Field):
        """Among the many-to-many fields, and its join table does not name the owner."""

        many_to_many, many_to_one, one_to_many, one_to_one = True, False, False, False

        def __init__(self) -> None:
            super().__init__(rel=models.ManyToManyRel(self, Label, through=Task.labels.through))

        @property
        def related_model(self) -> type[models.Model]:
            return Label

    class Thing(models.Model):
        odd = Kind()
        labels = models.ManyToManyField(Label)

        class Meta:
            app_label = "testapp"

        def __str__(self) -> str:
            return "a thing"

    assert [field.name for field in Thing._meta.many_to_many] == ["odd", "labels"]
    assert observe(Thing).relationships == []
    assert [relationship.name for relationship in observe(Thing, many_to_many=["labels"]).relationships] == ["labels"]
    for names in (True, ["odd"]):
        with pytest.raises(
            ObserverError, match=rf"{__name__}\.handler: many_to_many cannot watch testapp\.Thing\.odd, a Kind: .*names"
        ):
            observe(Thing, many_to_many=names)


# -- serializing ---------------------------------------------------------------------------------------------


class TaskSerializer(ModelSerializer[Task]):
    """Two fields."""

    class Meta:
        model = Task
        fields = ("id", "title")


class LoudSerializer(TaskSerializer):
    """Its ``data`` is its own."""

    @property
    def data(self) -> Any:
        return {"title": super().data["title"].upper()}


def test_the_default_body_is_the_key() -> None:
    from djangochannelsrestframework.observer.model_observer import Action

    assert observe(Task).serialize(Task(pk=5), Action.CREATE) == {
        "type": "handler",
        "body": {"pk": 5},
        "action": "create",
    }
    document = Document()
    assert observe(Document).serialize(document, Action.DELETE)["body"] == {"pk": str(document.pk)}


class WithItsOwnGroups(ModelObserver):
    """A subclass that wants the instance."""

    def group_names_for_signal(self, *args: Any, instance: Any = None, **kwargs: Any) -> Any:
        """A group for each title."""
        return [f"title-{instance.title}"]


class WithItsOwnBody(ModelObserver):
    """A subclass that wants whatever there is."""

    def serialize(self, instance: Any, action: Any, **kwargs: Any) -> dict[str, Any]:
        """The title."""
        return {"type": self.message_type, "body": instance.title, "action": action.value}


async def handler_of_old(self: Any, message: Any, old_instance: Any = None, **kwargs: Any) -> None:
    """A handler that names the instance before."""


def serialized(function: Any) -> ModelObserver:
    """An observer with a serializer."""
    return observe(Task).serializer(function)


@pytest.mark.parametrize(
    ("make", "row", "old"),
    [
        (lambda: observe(Task), False, False),
        (lambda: observe(Task, serializer_class=TaskSerializer), True, False),
        (lambda: serialized(lambda self, instance, action, **kwargs: {}), True, False),
        (lambda: serialized(lambda self, instance, action, old_instance, **kwargs: {}), True, True),
        (lambda: ModelObserver(handler_of_old, Task), True, True),
        (lambda: observe(Task).groups_for_signal(lambda self, instance, **kwargs: ["x"]), True, True),
        (lambda: observe(Task).groups(lambda self, instance=None, consumer=None, **kwargs: ["x"]), True, True),
        (lambda: WithItsOwnGroups(handler, Task), True, True),
        (lambda: WithItsOwnBody(handler, Task), True, True),
    ],
)
def test_it_says_what_of_a_row_somebody_is_given(make: Any, row: bool, old: bool) -> None:
    observer = make()
    assert (observer.needs_row, observer.needs_old) == (row, old)


def test_one_serializer_serves_a_batch_and_each_instance_has_its_own_body() -> None:
    from djangochannelsrestframework.observer.model_observer import Action

    observer = observe(Task, serializer_class=TaskSerializer)
    tasks = [Task(pk=pk, title=f"task {pk}") for pk in range(3)]
    batch: dict[Any, Any] = {}
    token = BATCH.set(batch)
    try:
        bodies = [observer.serialize(task, Action.UPDATE)["body"] for task in tasks]
    finally:
        BATCH.reset(token)
    assert bodies == [{"id": pk, "title": f"task {pk}"} for pk in range(3)]
    assert [type(serializer) for serializer, _ in batch.values()] == [TaskSerializer]
    assert [observer.serialize(task, Action.UPDATE)["body"] for task in tasks] == bodies, "outside of a batch too"


def test_a_serializer_with_its_own_data_is_made_for_each_instance() -> None:
    from djangochannelsrestframework.observer.model_observer import Action

    observer = observe(Task, serializer_class=LoudSerializer)
    token = BATCH.set({})
    try:
        bodies = [observer.serialize(Task(pk=pk, title=f"task {pk}"), Action.UPDATE)["body"] for pk in (1, 2)]
    finally:
        BATCH.reset(token)
    assert bodies == [{"title": "TASK 1"}, {"title": "TASK 2"}]


# -- request ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", [None, "", "abc", 0, 5, -1, 1.5])
def test_text_and_numbers_are_request_ids(request_id: Any) -> None:
    check_request_id(request_id)


@pytest.mark.parametrize("request_id", [[], {}, [1], {"a": 1}])
def test_other_json_is_no_request_id_and_the_client_is_told(request_id: Any) -> None:
    with pytest.raises(MalformedRequestId, match=r"must be text or a number, not (list|dict)") as caught:
        check_request_id(request_id)
    assert isinstance(caught.value, ValidationError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("longest", ["x" * MAX_REQUEST_ID, 10**MAX_REQUEST_ID - 1, -(10**MAX_REQUEST_ID) + 1])
def test_a_request_id_has_a_limit_since_each_event_repeats_it(longest: Any) -> None:
    check_request_id(longest)
    longer = longest + "x" if isinstance(longest, str) else longest * 10
    with pytest.raises(MalformedRequestId, match=f"{MAX_REQUEST_ID} characters or digits at most"):
        check_request_id(longer)


async def test_a_malformed_request_id_is_refused_before_anything_is_done() -> None:
    for method in (observe(Task).subscribe, observe(Task).unsubscribe):
        with pytest.raises(MalformedRequestId):
            await method(consumer=None, request_id=[])


# -- handling ------------------------------------------------------------------------------------------------

MOMENT = Moment(Snapshot(5, 5), NOON)


class Consumer:
    """As much of a consumer as an observer asks for; it notes its replies."""

    channel_layer = object()

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self._observer_group_to_request_id: Any = defaultdict(lambda: defaultdict(set))

    async def send_json(self, content: Any) -> None:
        """As Channels'."""
        self.replies.append((content["action"], content["data"]["reason"], content["request_id"]))


class Waiting:
    """An inbox that has nothing handed over by itself."""

    def __init__(self) -> None:
        self.gone = False
        self.reminders = 0

    def remind(self, subscription: Subscription) -> None:
        """As the inbox's."""
        self.reminders += 1


def subscribed(observer: ModelObserver, *groups: str) -> Subscription:
    """A consumer's subscription to groups, with a request id of each."""
    consumer: Any = Consumer()
    subscription = Subscription(observer, consumer, Waiting())  # type: ignore[arg-type]
    for group in groups or ("DCRF-x",):
        consumer._observer_group_to_request_id[observer._stable_observer_id][group] = {f"request of {group}"}
        subscription.since[group] = MOMENT
    return subscription


async def take(subscription: Subscription, *bodies: Any, group: str = "DCRF-x", xid: int = 9) -> None:
    """Have a consumer handle events."""
    for number, body in enumerate(bodies, 1):
        line = Event("update", body, number, xid, NOON.isoformat()).encode()
        await subscription.observer.receive(subscription, group, line, ORIGIN)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the rows of which the hub was to record a failure."""
    keys: list[str] = []
    hub = mock.Mock(record=lambda failures: keys.extend(failure.pk for failure in failures))
    monkeypatch.setattr(handling.embedded, "hub_of", lambda model: hub)
    return keys


@pytest.fixture
def seen() -> Iterator[list[tuple[Observation, BaseException | None]]]:
    """What operators receive."""
    seen: list[tuple[Observation, BaseException | None]] = []
    remove = add_sink(lambda observation, error: seen.append((observation, error)))
    yield seen
    remove()


async def test_a_handler_is_called_for_each_event_in_order() -> None:
    calls: list[Any] = []

    async def heard(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append((message, kwargs))

    observer = model_observer(Task)(heard)
    await take(subscribed(observer), {"pk": 1}, {"pk": 2})
    assert [message for message, _ in calls] == [{"pk": 1}, {"pk": 2}]
    assert calls[0][1] == {
        "observer": observer,
        "message_type": "heard",
        "subscribing_request_ids": ["request of DCRF-x"],
        "group": "DCRF-x",
        "action": "update",
        "change_id": 1,
        "committed_at": NOON.isoformat(),
        "changed": [],
        "context": None,
    }


async def test_what_dcrf_does_not_pass_goes_only_to_handlers_that_take_it() -> None:
    calls: list[Any] = []

    async def strict(
        self: Any, message: Any, observer: Any, message_type: Any, subscribing_request_ids: Any, group: Any, action: Any
    ) -> None:
        calls.append(action)

    async def curious(
        self: Any,
        message: Any,
        observer: Any,
        message_type: Any,
        subscribing_request_ids: Any,
        group: Any,
        action: Any,
        change_id: int = 0,
    ) -> None:
        calls.append(change_id)

    for handler in (strict, curious):
        await take(subscribed(model_observer(Task)(handler)), {})
    assert calls == ["update", 1]


async def test_a_message_of_dcrf_s_form_is_an_application_s_own() -> None:
    calls: list[Any] = []

    async def heard(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append((message, kwargs["action"]))

    observer = model_observer(Task)(heard)
    await observer({"type": "heard", "body": {"pk": 1}, "action": "create", "group": "g"})
    assert calls == [({"pk": 1}, "create")]
    await observer({"type": "heard", "group": "g", "djcrf_pg": {"v": 1, "events": "[]"}})
    assert len(calls) == 1, "what a listener of 0.1.0 sends comes by way of no hub"


@pytest.mark.parametrize(
    ("group", "xid", "is_news"),
    [
        ("DCRF-x", 9, True),
        ("DCRF-x", 4, False),
        ("DCRF-left", 9, False),
        ("DCRF-waiting", 4, True),
        ("", 9, True),
        ("", 4, False),
    ],
)
async def test_an_event_that_the_subscription_had_seen_or_whose_group_was_left_is_not_handled(
    group: str, xid: int, is_news: bool
) -> None:
    calls: list[Any] = []

    async def heard(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append(message)

    subscription = subscribed(model_observer(Task)(heard))
    subscription.wait(["DCRF-waiting"])
    await take(subscription, {"pk": 1}, group=group, xid=xid)
    assert bool(calls) is is_news


async def test_what_is_for_everybody_is_not_for_whoever_has_left_all_groups() -> None:
    observer = observe(Task)
    subscription = subscribed(observer)
    subscription.since.clear()
    line = Event("resync", {"reason": "truncate"}, 1, 9, NOON.isoformat()).encode()
    await observer.receive(subscription, "", line, ORIGIN)
    subscription.lose("channel_layer")
    await observer.settle(subscription)
    assert subscription.consumer.replies == []


async def test_a_handler_that_fails_is_called_once_more_with_the_event_as_it_came(
    seen: list[tuple[Any, Any]],
) -> None:
    calls: list[Any] = []

    async def fails(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append(message)
        if isinstance(message, dict):
            raise KeyError(message.pop("pk"))
        raise KeyError("missing")

    await take(subscribed(model_observer(Task)(fails)), {"pk": 1}, "text")
    assert calls == [{}, {}, "text", "text"]
    failure, error = seen[0]
    assert isinstance(failure, ObserverFailed)
    assert (failure.model, failure.change_id) == ("testapp.Task", 1)
    assert failure.observer.endswith("fails")
    assert repr(error) == "KeyError(1)"
    assert error.__context__ is None
    assert seen[1][0].pk is None


async def test_a_handler_whose_client_is_gone_has_not_failed(seen: list[Any]) -> None:
    calls: list[Any] = []

    async def fails(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append(message)
        subscription.inbox.gone = True
        raise OSError("the client is gone")

    subscription = subscribed(model_observer(Task)(fails))
    await take(subscription, {"pk": 1})
    assert len(calls) == 1
    assert seen == []
    assert subscription.failed is None


async def test_a_consumer_loads_again_once_in_a_while_when_its_handler_fails_and_in_the_end_everything(
    monkeypatch: pytest.MonkeyPatch, recorded: list[str]
) -> None:
    async def fails(self: Any, message: Any, **kwargs: Any) -> None:
        if message:
            raise KeyError

    observer, now = model_observer(Task)(fails), 0.0
    subscription = subscribed(observer, "DCRF-x", "DCRF-y")
    replies = subscription.consumer.replies
    monkeypatch.setattr(handling, "time", mock.Mock(monotonic=lambda: now))
    told = ("resync", "failed", "request of DCRF-x")

    await take(subscription, {"pk": 1}, {"id": 2}, {"name": "no key"})
    assert subscription.inbox.reminders  # type: ignore[attr-defined]
    await observer.settle(subscription)
    assert replies == [told]
    assert recorded == ['["1"]', '["2"]', ""]
    now = PAUSE / 2
    await take(subscription, {"pk": 3}, {})
    await observer.settle(subscription)
    assert replies == [told]
    assert subscription.timer is not None, "the rest is due later"
    subscription.timer.cancel()
    now = PAUSE
    await observer.settle(subscription)
    assert replies == [told, told]
    assert recorded[3:] == ['["3"]']


async def test_a_handler_may_stop_the_consumer() -> None:
    async def stops(self: Any, message: Any, **kwargs: Any) -> None:
        raise StopConsumer

    with pytest.raises(StopConsumer):
        await take(subscribed(model_observer(Task)(stops)), {})


# -- resyncs -------------------------------------------------------------------------------------------------


def with_resync(answers: list[Any]) -> ModelObserver:
    """An observer whose resync handler does what the answers say, one after the other."""

    async def again(self: Any, reason: str, **kwargs: Any) -> None:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        answer(reason)

    return observe(Task).resync(again)


async def test_a_resync_is_delivered_again_until_its_handler_has_returned(seen: list[Any]) -> None:
    reasons: list[str] = []
    observer = with_resync([KeyError("first"), KeyError("second"), reasons.append])
    subscription = subscribed(observer)
    subscription.lose("channel_layer")
    delays = []
    for _ in range(2):
        await observer.settle(subscription)
        assert subscription.lost is not None
        assert subscription.timer is not None
        delays.append(round(subscription.timer.when() - asyncio.get_running_loop().time()))
        subscription.timer.cancel()
    assert delays == [10, 20]
    await observer.settle(subscription)
    assert reasons == ["channel_layer"]
    assert subscription.lost is None
    await observer.settle(subscription)
    assert reasons == ["channel_layer"]
    assert len(seen) == 2


async def test_a_resync_of_the_leader_that_was_not_handled_is_delivered_again() -> None:
    reasons: list[str] = []
    observer = with_resync([KeyError("first"), reasons.append])
    subscription = subscribed(observer)
    line = Event("resync", {"reason": "truncate", "model": "testapp.Task"}, 1, 9, NOON.isoformat()).encode()
    await observer.receive(subscription, "", line, ORIGIN)
    assert subscription.timer is not None
    subscription.timer.cancel()
    await observer.settle(subscription)
    assert reasons == ["truncate"]


async def test_what_is_lost_while_a_resync_is_handled_is_another_one() -> None:
    """The handler may have loaded already when it came."""
    reasons: list[str] = []

    def lose(reason: str) -> None:
        reasons.append(reason)
        subscription.lose("behind")

    observer = with_resync([lose, reasons.append])
    subscription = subscribed(observer)
    subscription.lose("channel_layer")
    await observer.settle(subscription)
    await observer.settle(subscription)
    assert reasons == ["channel_layer", "behind"]


# -- which observer a change is of ---------------------------------------------------------------------------


class Twins:
    """Two with one handler's name, so that DCRF's groups are the same."""

    class Public:
        """For everybody."""

        @model_observer(Task)
        async def told(self, message: Any, **kwargs: Any) -> None:
            """A handler."""

    class Staff:
        """For staff."""

        @model_observer(Task)
        async def told(self, message: Any, **kwargs: Any) -> None:
            """A handler."""


PUBLIC, STAFF = vars(Twins.Public)["told"], vars(Twins.Staff)["told"]


def test_groups_are_dcrfs_and_addresses_differ() -> None:
    assert list(PUBLIC.group_names_for_signal()) == list(STAFF.group_names_for_signal())
    assert PUBLIC.address != STAFF.address
    assert registry.at(PUBLIC.address) is PUBLIC
    assert registry.at(STAFF.address) is STAFF


# -- defined again -------------------------------------------------------------------------------------------


def define(word: str, form: str = "a") -> Any:
    """Define an observer, as a factory or a fixture does."""

    class Defined:
        @model_observer(Task)
        async def told(self, message: Any, **kwargs: Any) -> None:
            """A handler."""

        if form == "a":

            @told.serializer
            def told(self, instance: Task, action: Any, **kwargs: Any) -> Any:
                return word

    return vars(Defined)["told"]


def test_of_one_identity_the_newest_is_told_of_changes() -> None:
    former, later = define("same"), define("same")
    assert former.address == later.address
    assert [observer for observer in registry if observer in (former, later)] == [later]
    assert former.makes_the_same(later)


def test_an_observer_that_another_class_has_too_keeps_its_identity() -> None:
    observer = define("shared")
    before = observer.identity, observer.address
    type("Other", (), {"told": observer})
    assert (observer.identity, observer.address) == before


def test_another_word_or_another_form_is_not_the_same() -> None:
    observer = define("one")
    assert not observer.makes_the_same(define("other"))
    assert not observer.makes_the_same(define("one", form="b"))


async def test_who_is_replaced_by_other_events_refuses_subscriptions_and_says_what_to_do() -> None:
    former, later = define("former"), define("later")
    consumer = BoardConsumer()
    with pytest.raises(SubscribeError, match=r"Defined\.told was defined again.*partition="):
        await former.subscribe(consumer)
    assert later.address == former.address


def test_what_is_garbage_is_let_go_although_a_leader_has_routes_for_it() -> None:
    observer = define("gone")
    reference, address = weakref.ref(observer), observer.address
    routes = Routes(["default"])
    route = routes.by_oid({"testapp_task": 1})[1]
    assert observer in route.audience().observers
    del observer
    gc.collect()
    assert reference() is None
    assert registry.at(address) is None


async def test_a_module_that_is_loaded_under_two_names_has_observers_with_groups_of_their_own() -> None:
    first, second = define("same"), define("same")
    second.func.__module__ = second._home = "by_another_name"
    observer = ModelObserver(second.func, Task)
    assert set(observer.group_names_for_signal()).isdisjoint(first.group_names_for_signal())
    assert observer.address != first.address


@pytest.mark.parametrize(
    ("last", "loaded", "seen"),
    [(3, None, 5), (7, None, 7), (3, 8, 8)],
)
async def test_a_cursor_has_seen_what_had_been_committed_when_the_subscription_began(
    last: int, loaded: int | None, seen: int
) -> None:
    cursors: list[str] = []

    async def handler(self: Any, message: Any, cursor: str, **kwargs: Any) -> None:
        cursors.append(cursor)

    observer = model_observer(Task)(handler)
    subscription = subscribed(observer)
    if loaded is not None:
        subscription.loaded = Moment(Snapshot(loaded, loaded), NOON)
    span = Span(Snapshot(last, last), Snapshot(20, 20), 4, 9)
    event = Event("update", {"pk": 1}, 7, 9, NOON.isoformat(), row=3)
    await observer.receive(subscription, "DCRF-x", event.encode(), Origin(ORIGIN.history, span))
    found = Cursor.decode(cursors[0], ORIGIN.history, observer.address)
    assert found.span == span._replace(last=Snapshot(seen, seen))
    assert found.mark == Mark.of(7, 3, "update", "DCRF-x")
    # What is told again of what was missed begins where the client's cursor was.
    await observer.receive(subscription, "DCRF-x", event.encode(), Origin(ORIGIN.history, span, ("request",)))
    assert Cursor.decode(cursors[1], ORIGIN.history, observer.address).span == span


async def test_a_model_without_a_log_has_no_cursors() -> None:
    observer = observe(Note)
    for call in (observer.current_cursor(consumer=Consumer()), observer.subscribe(consumer=Consumer(), since="x")):
        with pytest.raises(SubscribeError, match=r"testapp\.Note is not on PostgreSQL"):
            await call
