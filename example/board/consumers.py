"""The board's consumer: DCRF as in its documentation, nothing here knows of djcrf_pg."""

from collections.abc import Iterable
from typing import Any

from django.db import connection
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.mixins import ListModelMixin
from djangochannelsrestframework.observer import model_observer
from rest_framework.permissions import AllowAny

from board.models import GRID_SIDE, Cell, Label, Task
from board.serializers import CellSerializer, LabelSerializer, TaskSerializer

Reply = tuple[dict[str, Any] | list[Any], int]


class BoardConsumer(ListModelMixin, GenericAsyncAPIConsumer):
    """Lists the rows, and forwards every change of a task, a label or a cell to its client.

    A client subscribes first and lists afterwards: what commits in between is in both, and nothing is in
    neither.
    """

    queryset = Task.objects.prefetch_related("labels")
    serializer_class = TaskSerializer
    permission_classes = (AllowAny,)  # a demo without users

    @model_observer(Task, serializer_class=TaskSerializer, many_to_many=True)
    async def task_changes(
        self, message: dict[str, Any], action: str, subscribing_request_ids: Iterable[str] = (), **kwargs: Any
    ) -> None:
        """Forward a change of a task, or of its labels."""
        await self.forward("board_task", message, action, subscribing_request_ids, **kwargs)

    @model_observer(Label, serializer_class=LabelSerializer)
    async def label_changes(
        self, message: dict[str, Any], action: str, subscribing_request_ids: Iterable[str] = (), **kwargs: Any
    ) -> None:
        """Forward a change of a label."""
        await self.forward("board_label", message, action, subscribing_request_ids, **kwargs)

    @model_observer(Cell, serializer_class=CellSerializer)
    async def cell_changes(
        self, message: dict[str, Any], action: str, subscribing_request_ids: Iterable[str] = (), **kwargs: Any
    ) -> None:
        """Forward a change of a cell."""
        await self.forward("board_cell", message, action, subscribing_request_ids, **kwargs)

    async def forward(
        self, table: str, row: dict[str, Any], action: str, request_ids: Iterable[str], **kwargs: Any
    ) -> None:
        """Send one change to the client, once per subscription.

        Args:
            table: Name of the table, for the feed.
            row: The serialized row.
            action: `create`, `update` or `delete`.
            request_ids: The subscriptions that asked for it.
            **kwargs: What else the observer knows; from a trigger also `committed_at` (ISO 8601).
        """
        for request_id in request_ids:
            await self.send_json(
                {
                    "event": action,
                    "table": table,
                    "row": row,
                    "committed_at": kwargs.get("committed_at"),
                    "request_id": request_id,
                }
            )

    @action()
    async def subscribe(self, request_id: str, **kwargs: Any) -> Reply:
        """Subscribe to all three tables; once the reply is out, whatever commits arrives."""
        await self.task_changes.subscribe(request_id=request_id)
        await self.label_changes.subscribe(request_id=request_id)
        await self.cell_changes.subscribe(request_id=request_id)
        return {}, 200

    @action()
    def list_labels(self, **kwargs: Any) -> Reply:
        """List the labels."""
        return LabelSerializer(Label.objects.all(), many=True).data, 200

    @action()
    def list_cells(self, **kwargs: Any) -> Reply:
        """List the grid in a compact form: `[x, y, value]` per cell."""
        cells = [list(row) for row in Cell.objects.values_list("x", "y", "value")]
        return {"side": GRID_SIDE, "cells": cells}, 200

    @action()
    def clock(self, **kwargs: Any) -> Reply:
        """Tell the database's time, from which the page works out by how much its own clock differs."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            return {"now": cursor.fetchone()[0].isoformat()}, 200
