"""The board's consumer: DCRF as in its documentation, and cursors for clients that come back."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from channels.db import database_sync_to_async
from django.db import connection
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.observer import model_observer
from rest_framework.permissions import AllowAny

import djcrf_pg
from board.models import Cell, Task
from board.serializers import CellSerializer, TaskSerializer

Reply = tuple[dict[str, Any], int]


class BoardConsumer(AsyncAPIConsumer):
    """Gives its client the rows, then forwards every change of a task or a cell.

    Each change carries a cursor. A client that was away sends back the last cursor of each table. It then receives what
    has changed since, instead of all rows.
    """

    permission_classes = (AllowAny,)  # a demo without users

    async def reply(self, *args: Any, **kwargs: Any) -> None:
        """Reply, unless the tab has closed meanwhile: that is no error, and DCRF would log a traceback."""
        # OSError is what ASGI specifies; uvicorn raises RuntimeError after its own close.
        with suppress(OSError, RuntimeError):
            await super().reply(*args, **kwargs)

    @model_observer(Task, serializer_class=TaskSerializer, related=True)
    async def task_changes(
        self,
        message: dict[str, Any],
        action: str,
        cursor: str,
        subscribing_request_ids: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        """Forward a change of a task, of its set of labels, or of one of these labels: many cards show one."""
        await self.forward("board_task", message, action, cursor, subscribing_request_ids, **kwargs)

    @model_observer(Cell, serializer_class=CellSerializer)
    async def cell_changes(
        self,
        message: dict[str, Any],
        action: str,
        cursor: str,
        subscribing_request_ids: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        """Forward a change of a cell."""
        await self.forward("board_cell", message, action, cursor, subscribing_request_ids, **kwargs)

    async def forward(
        self, table: str, row: dict[str, Any], action: str, cursor: str, request_ids: Iterable[str], **kwargs: Any
    ) -> None:
        """Send one change to the client, once per subscription.

        Args:
            table: Name of the table.
            row: The serialized row.
            action: `create`, `update` or `delete`.
            cursor: Where a subscription goes on that has this change.
            request_ids: The subscriptions that asked for it.
            **kwargs: What else the observer knows; from a trigger also `committed_at` (ISO 8601).
        """
        for request_id in request_ids:
            await self.send_json(
                {
                    "event": action,
                    "table": table,
                    "row": row,
                    "cursor": cursor,
                    "committed_at": kwargs.get("committed_at"),
                    "request_id": request_id,
                }
            )

    @action()
    async def follow(self, request_id: str, since: dict[str, str] | None = None, **kwargs: Any) -> Reply:
        """Subscribe to both tables: behind the client's cursors, or behind the rows that the reply has.

        The reply to a cursor that the log cannot resume is 400 or 410. Another subscription may stand by then, so the
        client closes the connection and begins anew.

        Args:
            request_id: Comes back with each change.
            since: Table to the cursor of its last change that the client has; None to be given the rows.
            **kwargs: Not used.

        Returns:
            The cursors, the rows unless there were cursors, and the database's time. A change that was written before
            that time and arrives after this reply is one that the client has missed.
        """
        rows = None
        if since is None:
            cursor, rows = await self.read_board()
            since = dict.fromkeys(("board_task", "board_cell"), cursor)
        # An empty text is no cursor: a missing one raises InvalidCursor, and leaves no gap.
        await self.task_changes.subscribe(request_id=request_id, since=since.get("board_task", ""))
        await self.cell_changes.subscribe(request_id=request_id, since=since.get("board_cell", ""))
        return {"cursors": since, "rows": rows, "now": await self.read_clock()}, 200

    @database_sync_to_async
    def read_board(self) -> tuple[str, dict[str, Any]]:
        """Read the rows of both tables in one snapshot, and the cursor behind it."""
        with djcrf_pg.consistent_read() as cursor:
            return cursor, {
                "tasks": TaskSerializer(Task.objects.prefetch_related("labels"), many=True).data,
                # In a compact form: x, y, value.
                "cells": list(Cell.objects.values_list("x", "y", "value")),
            }

    @action()
    async def clock(self, **kwargs: Any) -> Reply:
        """Tell the database's time, from which the page works out by how much its own clock differs."""
        return {"now": await self.read_clock()}, 200

    @database_sync_to_async
    def read_clock(self) -> str:
        """Read the database's time, ISO 8601."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            now: str = cursor.fetchone()[0].isoformat()
            return now
