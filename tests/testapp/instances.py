"""Consumers of single instances, found in other ways than by the primary key."""

from typing import Any

from django.db.models import QuerySet
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from rest_framework.exceptions import PermissionDenied

from tests.testapp.consumers import TaskSerializer
from tests.testapp.models import Label, Project, Task


class TitleConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """By a unique field, and only what is open; the model is that of the serializer."""

    serializer_class = TaskSerializer
    lookup_field = "title"

    def get_queryset(self, **kwargs: Any) -> QuerySet[Task]:
        """What the client may see."""
        return Task.objects.filter(status="open")


class NamedConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """By a lookup, whose parameter has another name; an own ``get_object()`` looks at what it found."""

    queryset = Task.objects.all()
    serializer_class = TaskSerializer
    lookup_field = "title__iexact"
    lookup_url_kwarg = "name"

    def get_object(self, **kwargs: Any) -> Task:
        """The task, unless it is closed."""
        task: Task = super().get_object(**kwargs)
        if task.status == "closed":
            raise PermissionDenied
        return task


class WithinConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Finds tasks by parameters of its own."""

    queryset = Task.objects.all()
    serializer_class = TaskSerializer

    def get_object(self, **kwargs: Any) -> Task:
        """The task of a project."""
        return Task.objects.get(project__name=kwargs["project"], title=kwargs["task"])


class BaseConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Says nothing of a model."""

    observer_many_to_many_relationships = True


class LabelConsumer(BaseConsumer):
    """Says it."""

    queryset = Label.objects.all()

    @action()
    def retrieve(self, **kwargs: Any) -> tuple[dict[str, Any], int]:
        """The name."""
        return {"name": self.get_object(**kwargs).name}, 200


class ProjectConsumer(LabelConsumer):
    """Another model than the class that it derives from."""

    queryset = Project.objects.all()


CONSUMERS = {
    "title": TitleConsumer,
    "named": NamedConsumer,
    "within": WithinConsumer,
    "base": BaseConsumer,
    "label": LabelConsumer,
    "project": ProjectConsumer,
}
