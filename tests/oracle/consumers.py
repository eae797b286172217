"""A consumer that tells all that a replica needs."""

from typing import Any

from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import ModelSerializer

from tests.oracle.tables import OWN
from tests.testapp.consumers import TaskSerializer
from tests.testapp.models import Project, Task
from tests.testapp.related import CardSerializer, ProgrammeSerializer


class LabelledSerializer(ModelSerializer[Task]):
    """What the join table says of a task."""

    class Meta:
        model = Task
        fields = ("id", "labels")


class ProjectSerializer(ModelSerializer[Project]):
    """Every column."""

    class Meta:
        model = Project
        fields = ("id", "name")


class OracleConsumer(GenericAsyncAPIConsumer):
    """Each event goes to each request id that subscribed to its group."""

    async def tell(
        self, body: Any, cursor: str, action: str, subscribing_request_ids: list[str], change_id: int, **kwargs: Any
    ) -> None:
        """Send an event."""
        event = {"action": action, "body": body, "change_id": change_id, "cursor": cursor}
        for request_id in subscribing_request_ids:
            await self.send_json({"mirror": request_id, **event})

    @model_observer(Task, serializer_class=TaskSerializer)
    async def all_tasks(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """The rows as the log has them."""
        await self.tell(message, cursor, **kwargs)

    @model_observer(Task, serializer_class=TaskSerializer)
    async def lane(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """Rows enter and leave its groups."""
        await self.tell(message, cursor, **kwargs)

    @lane.groups_for_signal
    def lane(self, instance: Task, **kwargs: Any):
        yield f"status__{instance.status}"

    @lane.groups_for_consumer
    def lane(self, group: str = "", **kwargs: Any):
        yield f"status__{group}"

    @model_observer(Task, serializer_class=TaskSerializer)
    async def own(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """Each client has a group of its own."""
        await self.tell(message, cursor, **kwargs)

    @own.groups_for_signal
    def own(self, instance: Task, **kwargs: Any):
        yield f"own__{instance.pk % len(OWN)}"

    @own.groups_for_consumer
    def own(self, group: str = "", **kwargs: Any):
        yield f"own__{group}"

    @model_observer(Task, serializer_class=LabelledSerializer, many_to_many=True)
    async def labelled(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """Its serializer asks the database."""
        await self.tell(message, cursor, **kwargs)

    @model_observer(Project, serializer_class=ProjectSerializer)
    async def all_projects(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """The parents."""
        await self.tell(message, cursor, **kwargs)

    @model_observer(Task, serializer_class=CardSerializer, related=True)
    async def cards(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """Told when other rows change."""
        await self.tell(message, cursor, **kwargs)

    @model_observer(Project, serializer_class=ProgrammeSerializer, related=True)
    async def boards(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """Told when rows of rows change."""
        await self.tell(message, cursor, **kwargs)

    @action()
    async def subscribe(self, observer: str, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """Subscribe to an observer."""
        kwargs.pop("action", None)
        await getattr(self, observer).subscribe(request_id=request_id, **kwargs)
        return None, 201
