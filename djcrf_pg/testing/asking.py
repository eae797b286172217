"""Ask by way of a connection of Django's what the listener asks by way of asyncpg.

A test that is rolled back is to be read over its own connection: no other sees what it has written, and a table that
it has altered is locked for all others.
"""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import RawCursor

T = TypeVar("T")


class Record(tuple[Any, ...]):
    """A row whose values are had by number and by name, as asyncpg's are."""

    names: Sequence[str]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


def _records(cursor: psycopg.Cursor[Any]) -> Any:
    names = [column.name for column in cursor.description or ()]

    def make(values: Sequence[Any]) -> Record:
        record = Record(values)
        record.names = names
        return record

    return make


class Asking:
    """What :class:`~djcrf_pg.changelog.reader.Asks` wants, without waiting for anything: see :func:`run`.

    The queries are not Django's, so neither ``assertNumQueries()`` nor an ``execute_wrapper`` sees them.

    Args:
        connection: A PostgreSQL connection of Django's.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection

    def ask(self, query: str, *args: Any) -> list[Any]:
        """Return the rows; parameters are ``$1`` and so on.

        Raises:
            psycopg.Error: As the server says.
        """
        # Outside of a transaction, the body may have closed it: close_old_connections() does.
        self._connection.ensure_connection()
        connection: psycopg.Connection[Any] = self._connection.connection
        with RawCursor(connection, row_factory=_records) as cursor:
            cursor.execute(query.encode(), args or None)
            if connection.info.pipeline_status:  # in a pipeline of the test's, which has not asked yet
                return cursor.fetchall()
            return cursor.fetchall() if cursor.description else []

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Return the rows."""
        return self.ask(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Return the first row."""
        return next(iter(self.ask(query, *args)), None)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return the first value of the first row."""
        rows = self.ask(query, *args)
        return rows[0][0] if rows else None

    async def execute(self, query: str, *args: Any) -> str:
        """Run a command."""
        self.ask(query, *args)
        return ""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nothing, without an event loop.

    Raises:
        RuntimeError: It waits.
    """
    try:
        work.send(None)
    except StopIteration as finished:
        value: T = finished.value
        return value
    work.close()
    raise RuntimeError(f"{work} waits for something.")
