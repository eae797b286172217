"""What ``@model_observer`` and an observer's decorators refuse, since no event could call it; and what not."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from rest_framework.serializers import ModelSerializer

from djcrf_pg.exceptions import GroupsError, ObserverError
from djcrf_pg.observer import ModelObserver, model_observer
from djcrf_pg.observer.signatures import returns_nothing
from tests.testapp.models import Task


class TaskSerializer(ModelSerializer[Task]):
    """One field."""

    class Meta:
        model = Task
        fields = ("title",)


def observer() -> ModelObserver:
    """One whose handler is good."""

    async def tasks(self: Any, message: Any, **kwargs: Any) -> None: ...

    return model_observer(Task)(tasks)


# -- the model -----------------------------------------------------------------------------------------------


def test_without_parentheses_it_says_what_goes_into_them() -> None:
    async def tasks(self: Any, message: Any, **kwargs: Any) -> None: ...

    with pytest.raises(ObserverError, match=r"tasks stands without its model: write @model_observer\(YourModel\)"):
        model_observer(tasks)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("testapp.Task", r"`from tests\.testapp\.models import Task`, then @model_observer\(Task\)"),
        ("testapp.Nothing", r"Import the class, and write @model_observer\(YourModel\)"),
        ("Task", r"Import the class, and write @model_observer\(YourModel\)"),
        (Task(), r"Write @model_observer\(Task\)"),
        (Task.objects, r"Write @model_observer\(Task\)"),
        (Task.objects.all(), r"Write @model_observer\(Task\)"),
        (TaskSerializer, r"Write @model_observer\(Task, serializer_class=TaskSerializer\)"),
        (get_user_model, None),
        (5, r"Write @model_observer\(YourModel\)"),
    ],
)
def test_what_is_no_model_class_is_refused_with_the_line_that_was_meant(given: Any, line: str | None) -> None:
    async def tasks(self: Any, message: Any, **kwargs: Any) -> None: ...

    with pytest.raises(ObserverError, match=line or r"Write @model_observer\(get_user_model\(\)\)") as caught:
        model_observer(given)(tasks)
    assert "tasks takes a Django model class, not " in str(caught.value)


def test_two_models_cannot_share_a_handler() -> None:
    with pytest.raises(ObserverError, match=r"tasks: the handler has an observer already, of testapp\.Task, .* each"):
        model_observer(Task)(observer())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"serializer_class": TaskSerializer()},
            r"serializer_class is TaskSerializer\(\).*Write serializer_class=TaskSer",
        ),
        ({"serializer_class": "TaskSerializer"}, r"serializer_class is 'TaskSerializer', which is no class"),
        ({"shows": TaskSerializer(), "related": True}, r"shows is TaskSerializer\(\)"),
        ({"fields": "title"}, r"fields is the text 'title', and takes a list of names\. Write fields=\['title'\]"),
        ({"many_to_many": "labels"}, r"Write many_to_many=\['labels'\]"),
        ({"parents": "project"}, r"Write parents=\['project'\]"),
        ({"prefetch": "project"}, r"Write prefetch=\['project'\]"),
        ({"related": "project"}, r"Write related=\['project'\]"),
    ],
)
def test_an_option_that_is_surely_another_thing_is_refused(options: dict[str, Any], why: str) -> None:
    async def tasks(self: Any, message: Any, **kwargs: Any) -> None: ...

    with pytest.raises(ObserverError, match=rf"(?s)@model_observer on .*tasks: .*{why}"):
        model_observer(Task, **options)(tasks)


@pytest.mark.parametrize(
    ("option", "hint"),
    [("serializer", r"Did you mean serializer_class\?"), ("feilds", "Did you mean fields?"), ("xyz", "It has parti")],
)
def test_an_option_that_there_is_not_is_refused_with_the_next_one(option: str, hint: str) -> None:
    with pytest.raises(ObserverError, match=rf"@model_observer has no argument '{option}'\. {hint}"):
        model_observer(Task, **{option: 1})


def test_parentheses_that_are_empty_are_refused() -> None:
    with pytest.raises(ObserverError, match=r"not given its model: write @model_observer\(YourModel\)"):
        model_observer()  # type: ignore[call-arg]
    for decorator in (
        "serializer",
        "groups",
        "groups_for_signal",
        "groups_for_consumer",
        "resync",
        "rows_for_consumer",
    ):
        with pytest.raises(ObserverError, match=rf"parentheses and is given nothing: write @tasks\.{decorator}, above"):
            getattr(observer(), decorator)()


def test_the_signature_is_the_documented_one() -> None:
    assert [*inspect.signature(model_observer).parameters] == ["model", "serializer_class", "many_to_many", "kwargs"]
    assert [*inspect.signature(ModelObserver.subscribe).parameters][1:3] == ["consumer", "args"]


# -- the handler ---------------------------------------------------------------------------------------------


def does_nothing(self: Any, message: Any, **kwargs: Any) -> None:
    """Nobody can await it."""


def yields(self: Any, message: Any, **kwargs: Any) -> Iterator[int]:
    """Nobody can await it."""
    yield 1


async def yields_too(self: Any, message: Any, **kwargs: Any) -> Any:
    """Nobody can await it."""
    yield 1


async def without_keywords(self: Any, message: Any) -> None:
    """Is given more."""


async def with_one(self: Any, message: Any, action: str) -> None:
    """Is given more."""


async def wants_what_nobody_has(self: Any, message: Any, room: Any, **kwargs: Any) -> None:
    """Is given less."""


async def without_self(message: Any, **kwargs: Any) -> None:
    """Is given the consumer first."""


async def in_another_order(self: Any, action: Any, message: Any, **kwargs: Any) -> None:
    """Is given the action twice."""


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (does_nothing, r"does_nothing: the handler is not asynchronous, .* `async def does_nothing\(self, message, "),
        (yields, "yields: the handler has a yield"),
        (yields_too, "yields_too: the handler has a yield"),
        (without_keywords, r"\(got an unexpected keyword argument 'action'\).* end its parameters with \*\*kwargs"),
        (with_one, r"\(got an unexpected keyword argument 'group'\)"),
        (wants_what_nobody_has, r"\(missing a required.* argument: 'room'\)"),
        (without_self, r"\(too many positional arguments\)"),
        (in_another_order, r"\(multiple values for argument 'action'\)"),
        (None, "the handler is a NoneType, which cannot be called"),
        (classmethod(without_keywords), "the handler is a classmethod, which cannot be called"),
    ],
)
def test_a_handler_that_no_event_could_call_is_refused(handler: Any, why: str) -> None:
    with pytest.raises(ObserverError, match=rf"@model_observer on .*{why}"):
        model_observer(Task)(handler)


async def with_all_by_name(
    self: Any, message: Any, observer: Any, message_type: Any, subscribing_request_ids: Any, group: Any, action: Any
) -> None:
    """Names all that DCRF gives."""


async def with_ours_by_name(
    self: Any, message: Any, old_instance: Any, cursor: Any, changed: Any, **kwargs: Any
) -> None:
    """Names what DCRF does not give, without defaults."""


def passes_on(self: Any, message: Any, **kwargs: Any) -> Any:
    """Gives something to await."""
    return with_ours_by_name(self, message, **kwargs)


def is_abstract(self: Any, message: Any, **kwargs: Any) -> Any:
    """Is for others to define."""
    raise NotImplementedError


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that brings an argument of its own."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, room=1, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "handler", [with_all_by_name, with_ours_by_name, passes_on, is_abstract, decorated(wants_what_nobody_has)]
)
def test_a_handler_that_an_event_may_call_is_not_refused(handler: Any) -> None:
    assert model_observer(Task)(handler).func is handler


# -- the decorators of an observer ---------------------------------------------------------------------------


async def asynchronous(self: Any, instance: Any = None, action: Any = None, **kwargs: Any) -> Any:
    """Nobody awaits it."""


async def yields_asynchronously(self: Any, instance: Any = None, action: Any = None, **kwargs: Any) -> Any:
    """Nobody iterates over it asynchronously."""
    yield "a"


def forgets(self: Any, instance: Any = None, **kwargs: Any) -> Any:
    """Gives no groups."""
    f"task-{instance}"


@pytest.mark.parametrize("function", [asynchronous, yields_asynchronously])
@pytest.mark.parametrize("decorator", ["serializer", "groups", "groups_for_signal", "groups_for_consumer"])
def test_what_is_not_awaited_may_not_be_asynchronous(function: Any, decorator: str) -> None:
    with pytest.raises(ObserverError, match=rf"{function.__name__}|tasks is asynchronous, and is not awaited"):
        getattr(observer(), decorator)(function)


@pytest.mark.parametrize("decorator", ["groups", "groups_for_signal", "groups_for_consumer"])
def test_a_groups_function_that_gives_no_groups_is_refused(decorator: str) -> None:
    with pytest.raises(ObserverError, match=rf"@….{decorator} of .*tasks gives no groups: .* Write `yield"):
        getattr(observer(), decorator)(forgets)


@pytest.mark.parametrize(
    ("decorator", "function", "why"),
    [
        ("groups_for_signal", lambda self, task, **kwargs: [], r"missing a required argument: 'task'"),
        ("groups_for_signal", lambda self: [], r"unexpected keyword argument 'instance'"),
        ("groups_for_signal", lambda instance: [], r"multiple values for argument 'instance'"),
        ("groups_for_consumer", lambda self: [], r"unexpected keyword argument 'consumer'"),
        ("groups_for_consumer", lambda self, status=None: [], r"unexpected keyword argument 'consumer'"),
        ("groups", lambda self, instance: [], r"unexpected keyword argument 'consumer'"),
        ("groups", lambda self, consumer: [], r"missing a required argument: 'consumer'"),
        ("serializer", lambda self, instance: {}, r"too many positional arguments"),
        ("serializer", lambda self, instance, action, request: {}, r"missing a required argument: 'request'"),
    ],
)
def test_a_function_that_could_not_be_called_is_refused(decorator: str, function: Any, why: str) -> None:
    with pytest.raises(ObserverError, match=rf"of .*tasks cannot be called as it will be \(.*({why})\)\. Write `def "):
        getattr(observer(), decorator)(function)


@pytest.mark.parametrize(
    ("decorator", "function"),
    [
        ("groups_for_signal", lambda self, instance: ["a"]),
        ("groups_for_signal", lambda self, instance, **kwargs: ("a",)),
        ("groups_for_consumer", lambda self, status, consumer: {"a"}),
        ("groups_for_consumer", lambda self, *args, **kwargs: iter("a")),
        ("groups", lambda self, instance=None, **kwargs: ["a"]),
        ("groups", lambda self, *args, **kwargs: ["a"]),
        ("serializer", lambda self, instance, action: {}),
        ("serializer", lambda self, instance, action, changed, old_instance: {}),
        ("serializer", lambda self, instance, action, **kwargs: {}),
        ("serializer", None),
        ("groups", None),
    ],
)
def test_a_function_that_can_be_called_is_not_refused(decorator: str, function: Any) -> None:
    made = observer()
    assert getattr(made, decorator)(function) is made


def test_a_serializer_class_is_no_function() -> None:
    with pytest.raises(ObserverError, match=r"is the class TaskSerializer.*serializer_class=TaskSerializer\)"):
        observer().serializer(TaskSerializer)


def test_what_is_called_for_a_resync_is_awaited_and_takes_what_it_is_given() -> None:
    with pytest.raises(ObserverError, match=r"@….resync of .*tasks is not asynchronous, and is awaited\. Write `async"):
        observer().resync(does_nothing)

    async def narrow(self: Any, reason: str) -> None: ...

    with pytest.raises(ObserverError, match=r"cannot take a resync \(got an unexpected keyword argument 'model'\)"):
        observer().resync(narrow)

    async def wide(self: Any, reason: str, **kwargs: Any) -> None: ...

    assert observer().resync(wide).resync_handler is wide


class ItsOwn(ModelObserver):
    """Calls what is decorated in its own way."""

    def group_names_for_signal(self, *args: Any, instance: Any = None, **kwargs: Any) -> Any:
        """As it likes."""
        return self._group_names_for_signal(instance)


def test_a_subclass_that_calls_it_otherwise_decides_itself() -> None:
    async def tasks(self: Any, message: Any, **kwargs: Any) -> None: ...

    made = ItsOwn(tasks, Task).groups_for_signal(lambda task: [task.title])
    assert list(made.group_names_for_signal(instance=Task(title="a"))) == ["a"]


@pytest.mark.parametrize(
    ("function", "nothing"),
    [
        (lambda: None, True),
        (lambda: 5, False),
        (does_nothing, True),
        (is_abstract, False),
        (yields, False),
        (asynchronous, False),
        (print, False),
        (lambda x: x or None, False),
    ],
)
def test_a_function_returns_nothing_where_each_of_its_returns_says_so(function: Any, nothing: bool) -> None:
    assert returns_nothing(function) == nothing


# -- what is called by mistake -------------------------------------------------------------------------------


async def test_a_call_on_the_class_or_without_a_message_says_how_to_subscribe() -> None:
    made = observer()
    for method in (made.subscribe, made.unsubscribe):
        with pytest.raises(
            GroupsError, match=r"called on the class.*write self\.tasks\.(un)?subscribe\(request_id=reque"
        ):
            await method(request_id="r")  # type: ignore[call-arg]
    with pytest.raises(
        GroupsError, match=r"without a message: .* `await self\.tasks\.subscribe\(request_id=request_id\)`"
    ):
        await made(request_id="r")


def test_who_takes_the_observer_for_the_consumer_is_told_what_it_is() -> None:
    made: Any = observer()
    with pytest.raises(AttributeError, match=r"no attribute 'scope'\. In groups functions .* self is the observer"):
        made.scope  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute '_private'$"):
        made._private  # noqa: B018


class Faulty(ModelObserver):
    """Has an error in a property."""

    @property
    def parents(self) -> Any:
        raise AttributeError("of its own")


def test_an_error_in_a_property_stays_what_it_is() -> None:
    made = object.__new__(Faulty)
    with pytest.raises(AttributeError, match=r"^of its own$"):
        made.parents  # noqa: B018
