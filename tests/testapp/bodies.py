"""A consumer whose bodies are what a task's ``body`` says, as a Python expression."""

import datetime as clock
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db import models
from django.utils.translation import gettext_lazy
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import ModelSerializer, SerializerMethodField

from tests.testapp.models import Task


class Status(models.TextChoices):
    """Choices are text and have a lazy label."""

    DONE = "done", gettext_lazy("yes")


class Priority(models.IntegerChoices):
    """Choices are integers."""

    HIGH = 3, "High"


class Kind(Enum):
    """An enumeration that is nothing else."""

    ONE = 1


#: The status of tasks whose bodies are expressions.
EXPRESSION = "expression"

NAMES = {
    **{name: getattr(clock, name) for name in ("UTC", "date", "datetime", "time", "timedelta")},
    **{thing.__name__: thing for thing in (Decimal, UUID, Task, Status, Priority, Kind)},
    "MappingProxyType": MappingProxyType,
    "ip_address": ip_address,
    "gettext_lazy": gettext_lazy,
}


def evaluate(expression: str) -> Any:
    """What a cell of the table in the docs stands for."""
    return eval(expression, dict(NAMES))


def value_of(task: Task) -> Any:
    """What the body of a task stands for; tasks of other tests have other bodies."""
    return evaluate(task.body) if task.status == EXPRESSION else None


class TaskSerializer(ModelSerializer[Task]):
    """Has it from one of its methods."""

    value = SerializerMethodField()

    class Meta:
        model = Task
        fields = ("value",)

    def get_value(self, task: Task) -> Any:
        """See above."""
        return value_of(task)


class BodyConsumer(GenericAsyncAPIConsumer):
    """One observer with a function, one with a serializer class."""

    @model_observer(Task)
    async def made(self, message: Any, **kwargs: Any) -> None:
        """By a function."""
        await self.send_json({"observer": "made", "body": message})

    @made.serializer
    def made(self, instance: Task, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return {"value": value_of(instance)}

    @model_observer(Task, serializer_class=TaskSerializer)
    async def serialized(self, message: Any, **kwargs: Any) -> None:
        """By a class."""
        await self.send_json({"observer": "serialized", "body": message})

    @action()
    async def subscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[dict[str, Any], int]:
        """Subscribe to the observer ``name``."""
        groups = await getattr(self, name).subscribe(request_id=request_id)
        return {"groups": list(groups)}, 201


CONSUMERS = {"bodies": BodyConsumer}
