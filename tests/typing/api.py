"""The public API as a project uses it: ``mypy --strict`` reads this file, and nothing runs it.

Every line must type-check, and every ``type: ignore`` must be needed: where an annotation is lost, or one changes
for the worse, the type checker fails here before it fails in a project.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, assert_type

from channels.consumer import AsyncConsumer
from django.db.models import Model, Q
from rest_framework.exceptions import APIException
from rest_framework.serializers import ModelSerializer

import djcrf_pg
from djcrf_pg.conf import NotifyMode, Settings, get_settings, problems
from djcrf_pg.exceptions import (
    ChannelLayerError,
    ConfigurationError,
    CursorExpired,
    DjcrfPgError,
    InstallError,
    InvalidCursor,
    LeadershipLost,
    ListenerUnavailable,
    ListError,
    MalformedRequestId,
    NotMigrated,
    ObserverError,
    ReadError,
    SubscribeError,
    TooManySubscriptions,
    TouchError,
    TriggersMissing,
)
from djcrf_pg.models import Change, Cursor
from djcrf_pg.observations import Leading, Observation, ObserverFailed, Sink, add_sink
from djcrf_pg.observer import BaseObserver, ModelObserver, Observer, model_observer, observer
from djcrf_pg.observer.base_observer import BaseObserver as BaseObserverToo
from djcrf_pg.observer.generics import ListAndSubscribeMixin, ObserverModelInstanceMixin
from djcrf_pg.observer.model_observer import ModelObserver as ModelObserverToo
from djcrf_pg.observer.observer import Observer as ObserverToo
from djcrf_pg.testing import CapturedChange, capture_changes, deliver, faults, settled
from tests.testapp.models import Task

__all__ = ["BaseObserver", "BaseObserverToo", "ModelObserverToo", "Observer", "ObserverToo", "observer"]


class TaskSerializer(ModelSerializer[Task]):
    """The row."""

    class Meta:
        model = Task
        fields = ("id", "title")


# djangochannelsrestframework and channels have no types, so a consumer's base is Any.
class Consumer(ObserverModelInstanceMixin, AsyncConsumer):  # type: ignore[misc]
    """The decorators, as in the documentation."""

    queryset = Task.objects.all()
    serializer_class = TaskSerializer

    @model_observer(Task)
    async def tasks(self, message: dict[str, Any], **kwargs: Any) -> None:
        """Default message."""

    @model_observer(Task, serializer_class=TaskSerializer, many_to_many=True)
    async def full(
        self, message: dict[str, Any], action: str, subscribing_request_ids: list[str], change_id: int, **kwargs: Any
    ) -> None:
        """A serializer, and what an event has besides."""

    async def connected(self) -> None:
        """Subscribing."""
        groups = await self.tasks.subscribe(consumer=self, request_id="a")
        for group in groups:
            assert_type(group, str)
        await self.tasks.unsubscribe(consumer=self, request_id="a")


class ListConsumer(ListAndSubscribeMixin, AsyncConsumer):  # type: ignore[misc]
    """A list, and what continues it."""

    list_observer = "tasks"

    @model_observer(Task)
    async def tasks(self, message: dict[str, Any], cursor: str, **kwargs: Any) -> None:
        """By points."""

    assert_type(tasks.rows_for_consumer(lambda self, points, **kwargs: Q(points=points)), ModelObserver)

    async def connected(self) -> None:
        """Going on behind a cursor."""
        cursor: str = await self.tasks.current_cursor(self)
        await self.tasks.subscribe(self, since=cursor, request_id=1, points=1)
        await self.list_and_subscribe(request_id=1, points=1)
        self.verify_list(points=1)


def reads() -> None:
    """A list, and its cursor."""
    with djcrf_pg.consistent_read(using="second") as cursor:
        assert_type(cursor, str)
    djcrf_pg.consistent_read("second")  # type: ignore[call-arg]


async def reads_asynchronously() -> None:
    """The same."""
    async with djcrf_pg.consistent_read() as cursor:
        assert_type(cursor, str)


assert_type(model_observer(Task), partial[ModelObserver])
model_observer("testapp.Task")  # type: ignore[arg-type]
model_observer(Task())  # type: ignore[arg-type]
model_observer(Task, serializer_class=Task)  # type: ignore[arg-type]


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """A handler outside of a class."""


observed = model_observer(Task)(handler)
assert_type(observed, ModelObserver)
assert_type(observed.label, str)
assert_type(observed.clean_group_name("x"), str)


def sink(observation: Observation, error: BaseException | None) -> None:
    """Count, say."""
    assert_type(observation.level, int)
    match observation:
        case ObserverFailed():
            assert_type(observation.change_id, int)
        case Leading():
            assert_type(observation.term, int)
        case _:
            str(observation)


named: Sink = sink
assert_type(add_sink(sink), Callable[[], None])
add_sink(print)
add_sink(lambda observation: None)  # type: ignore[arg-type, misc]

assert_type(get_settings(), Settings)
assert_type(get_settings().BATCH_SIZE, int)
assert_type(get_settings().RETENTION, float)
mode: NotifyMode = "elide"
wrong: NotifyMode = "sometimes"  # type: ignore[assignment]
assert_type(problems({}), list[str])


def refusals() -> Iterator[type[DjcrfPgError]]:
    """Everything that is raised on purpose has one base."""
    yield from (ConfigurationError, ObserverError, InstallError, LeadershipLost, MalformedRequestId, SubscribeError)
    yield from (TouchError, ReadError, InvalidCursor, CursorExpired)
    subscribe: list[type[SubscribeError]] = [
        NotMigrated,
        TriggersMissing,
        ListenerUnavailable,
        ChannelLayerError,
        TooManySubscriptions,
        ListError,
    ]
    yield from subscribe


answered: type[APIException] = SubscribeError
models: list[type[Model]] = [Change, Cursor]


def touches(task: Task) -> None:
    """An instance or a queryset."""
    djcrf_pg.touch(task)
    djcrf_pg.touch(Task.objects.filter(points=1)[:3], using="default")
    djcrf_pg.touch(Task.objects.values("pk"))
    djcrf_pg.touch(Task)  # type: ignore[arg-type]
    djcrf_pg.touch([task])  # type: ignore[arg-type]
    djcrf_pg.touch(task, "default")  # type: ignore[call-arg]


async def testing() -> None:
    """The test kit."""
    with capture_changes() as changes:
        assert_type(changes, list[CapturedChange])
    async with capture_changes(Consumer.tasks, using="default") as changes:
        assert_type(changes[0].groups, list[str])
    assert_type(await deliver(changes), int)
    await settled(timeout=5)
    with faults.drop(1), faults.repeat(), faults.delay(0.5):
        await faults.kill_leader("default")
    await faults.disconnect()
    await faults.resync()
