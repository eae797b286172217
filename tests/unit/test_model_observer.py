"""``@model_observer``: what it refuses, what it passes on to handlers."""

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

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.exceptions import MalformedRequestId, ObserverError, SubscribeError
from djcrf_pg.listener.envelope import Event, pack
from djcrf_pg.listener.failures import PAUSE
from djcrf_pg.listener.gate import Moment
from djcrf_pg.listener.numbering import Control
from djcrf_pg.listener.routes import Routes
from djcrf_pg.observations import ObserverFailed, add_sink
from djcrf_pg.observer import ModelObserver, handling, model_observer
from djcrf_pg.observer.dcrf import DCRFModelObserver
from djcrf_pg.observer.handling import Handling
from djcrf_pg.observer.model_observer import check_request_id
from djcrf_pg.observer.subscriptions import Subscriptions
from djcrf_pg.registry import BATCH, registry
from tests.testapp.models import Document, Label, Task

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
    assert [type(serializer) for serializer in batch.values()] == [TaskSerializer]
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


async def test_a_malformed_request_id_is_refused_before_anything_is_done() -> None:
    for method in (observe(Task).subscribe, observe(Task).unsubscribe):
        with pytest.raises(MalformedRequestId):
            await method(consumer=None, request_id=[])


# -- handling ------------------------------------------------------------------------------------------------


def envelope(observer: ModelObserver, *bodies: Any) -> dict[str, Any]:
    """A message of an observer with events."""
    texts = [Event("update", body, number, 9, NOON.isoformat()).encode() for number, body in enumerate(bodies, 1)]
    control = Control(observer.resync_group(), "heard", observer.address)
    (message,) = pack(control, "DCRF-x", texts, term=1, max_events=100, max_bytes=10_000)
    return message


async def test_a_handler_is_called_for_each_event_in_order() -> None:
    calls: list[Any] = []

    async def heard(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append((message, kwargs))

    observer = model_observer(Task)(heard)
    await observer(envelope(observer, {"pk": 1}, {"pk": 2}))
    assert [message for message, _ in calls] == [{"pk": 1}, {"pk": 2}]
    assert calls[0][1] == {
        "observer": observer,
        "message_type": "heard",
        "subscribing_request_ids": [],
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
        observer = model_observer(Task)(handler)
        await observer(envelope(observer, {}))
    assert calls == ["update", 1]


async def test_a_message_without_an_envelope_is_dcrfs_own() -> None:
    calls: list[Any] = []

    async def heard(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append((message, kwargs["action"]))

    await model_observer(Task)(heard)({"type": "heard", "body": {"pk": 1}, "action": "create", "group": "g"})
    assert calls == [({"pk": 1}, "create")]


async def test_a_handler_that_fails_is_called_once_more_with_the_event_as_it_came() -> None:
    calls: list[Any] = []
    seen: list[Any] = []

    async def fails(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append(message)
        if isinstance(message, dict):
            raise KeyError(message.pop("pk"))
        raise KeyError("missing")

    remove = add_sink(lambda observation, error: seen.append((observation, error)))
    try:
        observer = model_observer(Task)(fails)
        await observer(envelope(observer, {"pk": 1}, "text"))
    finally:
        remove()
    assert calls == [{}, {}, "text", "text"]
    failure, error = seen[0]
    assert isinstance(failure, ObserverFailed)
    assert (failure.model, failure.change_id) == ("testapp.Task", 1)
    assert failure.observer.endswith("fails")
    assert repr(error) == "KeyError(1)"
    assert error.__context__ is None
    assert seen[1][0].pk is None


class Replying:
    """A consumer that notes its replies."""

    channel_layer = object()

    def __init__(self, observer: ModelObserver, *groups: str) -> None:
        self.replies: list[Any] = []
        requests = {group: {f"request of {group}"} for group in groups}
        self._observer_group_to_request_id = {observer._stable_observer_id: requests}

    async def send_json(self, content: Any) -> None:
        self.replies.append((content["action"], content["data"]["reason"], content["request_id"]))


async def test_a_consumer_is_told_once_in_a_while_that_its_handler_fails_and_in_the_end_of_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(self: Any, message: Any, **kwargs: Any) -> None:
        if message:
            raise KeyError

    observer = model_observer(Task)(fails)
    consumer, state, now = Replying(observer, "DCRF-x", "DCRF-y"), Subscriptions(observer), 0.0
    recorded: list[Any] = []
    kept = mock.Mock(record=lambda observer, failures: recorded.extend(failure.pk for failure in failures))
    monkeypatch.setattr(handling.membership, "keeper", lambda layer: kept)
    monkeypatch.setattr(handling.time, "monotonic", lambda: now)
    told = ("resync", "failed", "request of DCRF-x")

    async def take(*bodies: Any) -> None:
        await Handling(observer, consumer, state).take(envelope(observer, *bodies))

    await take({"pk": 1}, {"id": 2}, {"name": "no key"})
    assert consumer.replies == [told]
    assert recorded == ['["1"]', '["2"]', ""]
    now = PAUSE / 2
    await take({"pk": 3})
    await take({})
    assert consumer.replies == [told]
    now = PAUSE
    await take({})
    assert consumer.replies == [told, told]
    assert recorded[3:] == ['["3"]']


async def test_a_handler_may_stop_the_consumer() -> None:
    async def stops(self: Any, message: Any, **kwargs: Any) -> None:
        raise StopConsumer

    observer = model_observer(Task)(stops)
    with pytest.raises(StopConsumer):
        await observer(envelope(observer, {}))


# -- which observer a message is of --------------------------------------------------------------------------


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


class Consumer:
    """As much of a consumer as an observer asks for."""

    channel_layer = object()

    def __init__(self) -> None:
        self._observer_group_to_request_id: Any = defaultdict(lambda: defaultdict(set))


async def heard_by(message: dict[str, Any]) -> tuple[list[Any], bool]:
    """What a subscriber of the public one is given of a message, and whether it has to load again."""
    calls: list[Any] = []
    consumer, state = Consumer(), Subscriptions(PUBLIC)

    async def told(self: Any, message: Any, **kwargs: Any) -> None:
        calls.append(message)

    state.since["DCRF-x"] = Moment(Snapshot(1, 1), NOON)
    with mock.patch.object(PUBLIC, "func", told):
        await Handling(PUBLIC, consumer, state).take(message)
    return calls, state.stale


async def test_a_message_of_another_observer_of_the_group_is_not_handled() -> None:
    assert await heard_by(envelope(PUBLIC, {"pk": 1})) == ([{"pk": 1}], False)
    assert await heard_by(envelope(STAFF, {"pk": 1})) == ([], False)


async def test_one_of_an_observer_that_only_other_code_knows_is_not_handled_and_the_subscriber_loads_again() -> None:
    """A deploy that renames a consumer: the leader's code knows it by its former name."""
    message = envelope(PUBLIC, {"pk": 1})
    message["djcrf_pg"]["observer"] = "0123456789abcdef"
    assert await heard_by(message) == ([], True)


async def test_one_of_a_leader_of_version_0_1_0_does_not_say_and_is_handled() -> None:
    message = envelope(PUBLIC, {"pk": 1})
    del message["djcrf_pg"]["observer"]
    assert await heard_by(message) == ([{"pk": 1}], False)


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
    consumer = Consumer()
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
