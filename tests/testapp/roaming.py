"""The consumer of `docs/how-to/resume.md`, with a group and a whole table to follow."""

from typing import Any

from channels.db import database_sync_to_async
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from djcrf_pg import consistent_read
from tests.testapp.consumers import TaskSerializer
from tests.testapp.models import Task


class RoamingConsumer(GenericAsyncAPIConsumer):
    """A list with its cursor the first time, and what a cursor has not seen after that."""

    async def tell(self, name: str, message: Any, cursor: str, action: str, change_id: int, **kwargs: Any) -> None:
        """Send an event, with the place in the log that says whether it came before."""
        await self.send_json({"action": action, "of": name, "task": message, "cursor": cursor, "change_id": change_id})

    @model_observer(Task, serializer_class=TaskSerializer)
    async def table(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """All tasks."""
        await self.tell("table", message, cursor, **kwargs)

    @model_observer(Task, serializer_class=TaskSerializer)
    async def lane(self, message: Any, cursor: str, **kwargs: Any) -> None:
        """The tasks of a status."""
        await self.tell("lane", message, cursor, **kwargs)

    @lane.groups_for_signal
    def lane(self, instance: Task, **kwargs: Any):
        yield f"status__{instance.status}"

    @lane.groups_for_consumer
    def lane(self, status: str, **kwargs: Any):
        yield f"status__{status}"

    @action()
    async def follow(
        self, of: str, since: str | None = None, request_id: Any = None, **kwargs: Any
    ) -> tuple[dict[str, Any], int]:
        """Follow the table or a lane, behind a cursor or with the list that one continues."""
        kwargs.pop("action", None)
        cursor, tasks = (since, None) if since else await self.list_of(**kwargs)
        await getattr(self, of).subscribe(since=cursor, request_id=request_id, **kwargs)
        return {"cursor": cursor, "tasks": tasks}, 200

    @database_sync_to_async
    def list_of(self, **filters: Any) -> tuple[str, Any]:
        """The rows of the groups, and the cursor that continues them."""
        with consistent_read() as cursor:
            return cursor, TaskSerializer(Task.objects.filter(**filters), many=True).data


CONSUMERS = {"roaming": RoamingConsumer}
