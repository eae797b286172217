"""Consumers written against DCRF's own names: what an existing project has."""

from typing import Any

from django.contrib.auth.signals import user_logged_in
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer, observer
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from djangochannelsrestframework.permissions import BasePermission
from rest_framework.serializers import ModelSerializer

from tests.testapp.models import Awkward, Document, Note, Project, Remote, Task


class TaskSerializer(ModelSerializer[Task]):
    """Every column."""

    class Meta:
        model = Task
        fields = ("id", "project", "title", "status", "points", "body")


class AwkwardSerializer(ModelSerializer[Awkward]):
    """Every column."""

    class Meta:
        model = Awkward
        fields = "__all__"


class BoardConsumer(GenericAsyncAPIConsumer):
    """One observer of each kind; each tells which one it is."""

    async def tell(self, name: str, message: Any, **kwargs: Any) -> None:
        """Send everything that the handler was given and that is JSON."""
        kwargs.pop("observer")
        await self.send_json({"observer": name, "body": message, **kwargs})

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None:
        """Default body, no many-to-many."""
        await self.tell("tasks", message, **kwargs)

    @model_observer(Task, many_to_many=True)
    async def tagged(self, message: Any, **kwargs: Any) -> None:
        """Default body, with many-to-many."""
        await self.tell("tagged", message, **kwargs)

    @model_observer(Task, serializer_class=TaskSerializer)
    async def full(self, message: Any, **kwargs: Any) -> None:
        """The whole row."""
        await self.tell("full", message, **kwargs)

    @model_observer(Task)
    async def by_status(self, message: Any, **kwargs: Any) -> None:
        """Groups by a column, and a serializer of its own."""
        await self.tell("by_status", message, **kwargs)

    @by_status.groups_for_signal
    def by_status(self, instance: Task, **kwargs: Any):
        yield f"status__{instance.status}"

    @by_status.groups_for_consumer
    def by_status(self, status: str | None = None, **kwargs: Any):
        if status is not None:
            yield f"status__{status}"

    @by_status.serializer
    def by_status(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        return {"id": instance.pk, "status": instance.status, "said": action.value}

    @model_observer(Task)
    async def moody(self, message: Any, **kwargs: Any) -> None:
        """Raises when a title tells it to, in each of its parts."""
        if message["title"] == "raise in handler":
            raise RuntimeError(message["title"])
        await self.tell("moody", message, **kwargs)

    @moody.groups
    def moody(self, instance: Task | None = None, **kwargs: Any):
        if instance is not None and instance.title == "raise in groups":
            raise RuntimeError(instance.title)
        yield "everything"

    @moody.serializer
    def moody(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        if instance.title == "raise in serializer":
            raise RuntimeError(instance.title)
        return {"pk": instance.pk, "title": instance.title}

    @model_observer(Task)
    async def asking(self, message: Any, **kwargs: Any) -> None:
        """Its serializer asks the database, of tasks whose title says so: other tests open no connection for it."""
        await self.tell("asking", message, **kwargs)

    @asking.groups
    def asking(self, instance: Task | None = None, **kwargs: Any):
        if instance is None or instance.title.startswith("ask"):
            yield "asked"

    @asking.serializer
    def asking(self, instance: Task, action: Any, **kwargs: Any) -> dict[str, Any]:
        return {"pk": instance.pk, "labels": instance.labels.count()}

    @model_observer(Project)
    async def projects(self, message: Any, **kwargs: Any) -> None:
        """The parent of the cascade."""
        await self.tell("projects", message, **kwargs)

    @model_observer(Document)
    async def documents(self, message: Any, **kwargs: Any) -> None:
        """UUID keys."""
        await self.tell("documents", message, **kwargs)

    @model_observer(Awkward, serializer_class=AwkwardSerializer)
    async def awkward(self, message: Any, **kwargs: Any) -> None:
        """Awkward columns."""
        await self.tell("awkward", message, **kwargs)

    @model_observer(Note)
    async def notes(self, message: Any, **kwargs: Any) -> None:
        """A model on another vendor."""
        await self.tell("notes", message, **kwargs)

    @model_observer(Remote)
    async def remotes(self, message: Any, **kwargs: Any) -> None:
        """A model in another database."""
        await self.tell("remotes", message, **kwargs)

    @observer(user_logged_in)
    async def logins(self, message: Any, **kwargs: Any) -> None:
        """A signal of Django's."""
        await self.tell("logins", message, **kwargs)

    @logins.serializer
    def logins(self, signal: Any, user: Any = None, **kwargs: Any) -> dict[str, Any]:
        return {"user": user.get_username()}

    @action()
    async def subscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[dict[str, Any], int]:
        """Subscribe to the observer ``name``."""
        kwargs.pop("action", None)
        groups = await getattr(self, name).subscribe(request_id=request_id, **kwargs)
        return {"groups": list(groups)}, 201

    @action()
    async def unsubscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End it."""
        kwargs.pop("action", None)
        await getattr(self, name).unsubscribe(request_id=request_id, **kwargs)
        return None, 204


class ElsewhereConsumer(BoardConsumer):
    """Its own messages travel through another layer than the default one."""

    channel_layer_alias = "elsewhere"


class InstanceConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Single tasks."""

    queryset = Task.objects.all()
    serializer_class = TaskSerializer
    observer_many_to_many_relationships = True


class OnlyOpen(BasePermission):
    """Events of a task that is not open are not for the client."""

    def has_permission(self, scope: Any, consumer: Any, action: str, pk: int | None = None, **kwargs: Any) -> bool:
        """Ask the database, as permissions of real projects do."""
        return action not in ("update", "delete") or Task.objects.filter(pk=pk, status="open").exists()


class PrivateConsumer(InstanceConsumer):
    """Checks a permission that a change of the row takes away."""

    permission_classes = (OnlyOpen,)


CONSUMERS = {
    "board": BoardConsumer,
    "elsewhere": ElsewhereConsumer,
    "instance": InstanceConsumer,
    "private": PrivateConsumer,
}
