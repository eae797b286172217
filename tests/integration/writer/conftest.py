"""What the integration tests share."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections, models

from djcrf_pg.models import Change


class Log:
    """The change log, from the moment it was made."""

    def __init__(self) -> None:
        self._start = self._last()

    def _last(self) -> int:
        return Change.objects.aggregate(last=models.Max("id"))["last"] or 0

    def take(self) -> list[Change]:
        """The changes since the last call, in order."""
        found = list(Change.objects.filter(id__gt=self._start).order_by("id"))
        self._start = max((change.id for change in found), default=self._start)
        # Users are observed too, by the zoo, and here they are only needed to be there.
        return [change for change in found if change.relation != "auth_user"]

    def contexts(self) -> list[Any]:
        """Their contexts."""
        return [change.context and json.loads(change.context) for change in self.take()]

    def ops(self) -> str:
        """Their operations, one letter each."""
        return "".join(change.op for change in self.take())


@pytest.fixture
def log(db: None) -> Log:
    """The change log, from the start of the test."""
    return Log()


@pytest.fixture
def thread_connections() -> Iterator[None]:
    """Closes what the thread of sync_to_async has opened."""
    yield
    async_to_sync(sync_to_async(connections.close_all))()


@pytest.fixture
def other(transactional_db: None) -> Iterator[Any]:
    """Makes other Django connections to the test database: ``other(server_side_binding=True)``."""
    opened = []

    def connect(**options: Any) -> Any:
        made = connection.copy()
        made.settings_dict["OPTIONS"] |= options
        opened.append(made)
        return made

    yield connect
    for made in opened:
        made.close()
