"""Consumers whose groups, serializers and handlers raise: where a title says so, or as long as a label is there."""

import asyncio
from typing import Any

from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import ModelSerializer

from tests.testapp.models import Label, Task
from tests.testapp.twins import TwinConsumer


class Unprintable(Exception):
    """It has neither a text nor a repr()."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Empty(Exception):
    """It is false."""

    def __len__(self) -> int:
        return 0


#: What is raised for a task of this title.
RAISED: dict[str, BaseException] = {
    "exit": SystemExit("cannot do this"),
    "cancelled": asyncio.CancelledError("cannot do this"),
    "unprintable": Unprintable(),
    "empty": Empty("cannot do this"),
}


def fail_while_broken(task: Task, part: str) -> None:
    """Raise for tasks with points, as long as there is a label that says so: deleting it is the fix."""
    if task.points and Label.objects.filter(name=f"broken {part}").exists():
        if task.title in RAISED:
            raise RAISED[task.title]
        raise RuntimeError("cannot do this")


class OnceSerializer(ModelSerializer[Task]):
    """Can be used once."""

    class Meta:
        model = Task
        fields = ("id", "title")

    def to_representation(self, instance: Task) -> Any:
        """Raises from the second call on."""
        if hasattr(self, "_used"):
            raise RuntimeError("used already")
        self._used = True
        return super().to_representation(instance)


class FailingConsumer(TwinConsumer):
    """One observer for each part that may raise."""

    @model_observer(Task)
    async def bodied(self, message: Any, group: str, **kwargs: Any) -> None:
        """Its serializer raises; a group for each status."""
        await self.send_json({"observer": "bodied", "action": kwargs["action"], "body": message})

    @bodied.groups_for_signal
    def bodied(self, instance: Task, **kwargs: Any):
        yield instance.status

    @bodied.groups_for_consumer
    def bodied(self, **kwargs: Any):
        yield self_status(kwargs)

    @bodied.serializer
    def bodied(self, instance: Task, action: Any, **kwargs: Any) -> Any:
        fail_while_broken(instance, "bodied")
        return {"pk": instance.pk}

    @model_observer(Task)
    async def grouped(self, message: Any, **kwargs: Any) -> None:
        """Its groups raise."""
        await self.send_json({"observer": "grouped", "action": kwargs["action"], "body": message})

    @grouped.groups_for_signal
    def grouped(self, instance: Task, **kwargs: Any):
        fail_while_broken(instance, "grouped")
        yield instance.status

    @grouped.groups_for_consumer
    def grouped(self, **kwargs: Any):
        yield self_status(kwargs)

    @model_observer(Task)
    async def handled(self, message: Any, **kwargs: Any) -> None:
        """Its handler raises; it takes from the message what it was given."""
        if message.pop("title") == "raise":
            raise RuntimeError(f"cannot handle {message}")
        await self.send_json({"observer": "handled", "action": kwargs["action"], "body": message})

    @handled.serializer
    def handled(self, instance: Task, action: Any, **kwargs: Any) -> Any:
        return {"pk": instance.pk, "title": instance.title}

    @model_observer(Task, serializer_class=OnceSerializer, reuse_serializer=True)
    async def once(self, message: Any, **kwargs: Any) -> None:
        """Its serializer raises where it is reused."""
        await self.send_json({"observer": "once", "action": kwargs["action"], "body": message})


def self_status(kwargs: dict[str, Any]) -> str:
    """The status of the consumer's address."""
    status: str = kwargs["consumer"].scope["url_route"]["kwargs"]["status"]
    return status
