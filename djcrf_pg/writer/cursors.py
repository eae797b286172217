"""Send the context with the statements that may write, over Django's PostgreSQL connections.

The cursors of a connection come from its ``cursor_factory`` (a public attribute of a psycopg connection), which
is replaced by a subclass of itself as soon as Django opens one. An ``execute_wrapper`` would do for the ORM
alone: it never sees ``COPY``, other wrappers would be shown our SQL, and one that is installed while another is
active is removed in its place.

**Where it can, it costs no round trip.** Django's cursors bind on the client, so a statement may be several:
``SELECT set_config('djcrf_pg.context', …, true); <statement>``, and the cursor is moved on to the statement's
own result. PostgreSQL runs both in one transaction (manual, 53.2.2.1 "Multiple Statements in a Simple Query"), so
the setting is gone with it, also in autocommit. That costs 35 µs on a statement of 140 µs (PostgreSQL 18 behind a
Unix socket, 2 cores); a second statement in the same transaction would cost 60 µs and a round trip, and is what is
sent where several cannot be: server-side binding, ``executemany()``, ``COPY``, psycopg's pipelines; in autocommit
these get a transaction of their own. Outside of any block a statement costs 0.4 µs more than without us.

``SELECT set_config`` and not ``SET LOCAL``: up to PostgreSQL 17 the latter would be a new entry of
``pg_stat_statements`` for each value. On a line of its own, because an error quotes the line that it is about.

**It keeps no account of what the server knows.** Each statement inside of a block brings its context, so a
rollback to a savepoint, a commit or a reconnect cannot make it wrong. After the block, statements of the same
transaction bring a reset, until the connection is seen between transactions.

Not reached: psycopg's server-side (named) cursors, which Django's ``iterator()`` uses and which cannot write but
through a function; ``CALL`` and ``DO`` in autocommit, for they may end transactions; connections that are not
Django's. What a trigger writes when it is deferred to COMMIT carries the context of the last statement before.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

import psycopg
from django.db import connections
from django.db.backends.signals import connection_created
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus

from djcrf_pg.writer.statements import Kind, kind
from djcrf_pg.writer.values import current

if TYPE_CHECKING:
    Cursor = psycopg.Cursor[Any]
    Connection = psycopg.Connection[Any]
else:
    Cursor = psycopg.Cursor

_SET = "SELECT set_config('djcrf_pg.context', %s, true);\n"
_SET_LITERAL = sql.SQL("SELECT set_config('djcrf_pg.context', {}, true);\n")

#: An attribute of a psycopg connection: its transaction may have a context.
_TOLD = "_djcrf_pg_told"

#: A callable of the context is running, and what it sends must not call it again.
_resolving: ContextVar[bool] = ContextVar("djcrf_pg.context.resolving", default=False)


def install() -> None:
    """Look after every connection that Django opens from now on, and after those of this thread."""
    connection_created.connect(_created, dispatch_uid="djcrf_pg.context")
    for connection in connections.all(initialized_only=True):
        adopt(connection)


def adopt(connection: Any) -> None:
    """Let the cursors of a connection of Django's send the context; those of other vendors are left alone.

    So is a ``cursor_factory`` in ``OPTIONS`` that is no subclass of :class:`psycopg.Cursor`.
    """
    if connection.vendor != "postgresql" or connection.connection is None:
        return
    factory = connection.connection.cursor_factory
    if isinstance(factory, type) and issubclass(factory, psycopg.Cursor):
        connection.connection.cursor_factory = _subclass(cast(Any, factory))


def _created(*, connection: Any, **kwargs: Any) -> None:
    adopt(connection)


@cache
def _subclass(factory: type[Any]) -> type[Any]:
    if issubclass(factory, ContextCursor):
        return factory
    return type(f"Context{factory.__name__}", (ContextCursor, factory), {})


class ContextCursor(Cursor):
    """Put before the cursor class that a connection had: sends the context with what may write.

    ``nextset()``, ``results()`` and the ``fetch`` methods see the statement's own results alone; psycopg's
    ``set_result()`` counts from ours, which is number 0.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """As :meth:`psycopg.Cursor.execute`."""
        if (told := self._told(query)) is None:
            return super().execute(query, params, **options)
        connection = self.connection
        if not _takes_several(self, query):
            with _announced(connection, told):
                return super().execute(query, params, **options)
        setattr(connection, _TOLD, True)
        try:
            if isinstance(params, list | tuple):
                super().execute(_SET + query, (*told, *params), **options)
            else:
                start = _SET_LITERAL.format(*told).as_string(self)
                super().execute((start if params is None else start.replace("%", "%%")) + query, params, **options)
        finally:
            # Django logs from here what was executed. JSON has no line breaks: the first one is ours.
            if self._query is not None:
                self._query.query = self._query.query.partition(b"\n")[2]
        self.nextset()
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """As :meth:`psycopg.Cursor.executemany`; in autocommit, in a transaction of its own."""
        with _announced(self.connection, self._told(query)):
            super().executemany(query, params_seq, returning=returning)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[psycopg.Copy]:
        """As :meth:`psycopg.Cursor.copy`; in autocommit, in a transaction of its own."""
        with _announced(self.connection, self._told(statement)), super().copy(statement, params, **options) as copy:
            yield copy

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """As :meth:`psycopg.Cursor.stream`; in autocommit, in a transaction of its own."""
        with _announced(self.connection, self._told(query)):
            yield from super().stream(query, params, **options)

    def _told(self, query: Any) -> tuple[str | None] | None:
        """What the server is to know before ``query``: (JSON,), or (None,) to reset it, or nothing."""
        state, connection = current.get(), self.connection
        if state is None and not getattr(connection, _TOLD, False):
            return None
        if state is None and connection.pgconn.transaction_status == TransactionStatus.IDLE:
            setattr(connection, _TOLD, False)
            return None
        match kind(_text(query, self)):
            case Kind.NOTHING:
                return None
            case Kind.PROCEDURE if _alone(connection):
                return None
            case Kind.CALL if state is not None:
                return (state.known(),)
        if state is None:
            return (None,)
        if _resolving.get():
            return (state.known(),)
        token = _resolving.set(True)
        try:
            return (state.full(),)
        finally:
            _resolving.reset(token)


def _text(query: Any, cursor: Cursor) -> str:
    match query:
        case str():
            return query
        case bytes():
            return query.decode(errors="replace")
        case sql.Composable():
            return query.as_string(cursor)
    return "".join(query.strings)  # a template string of Python 3.14


def _takes_several(cursor: Any, query: Any) -> bool:
    """Whether another statement can go before ``query``, which is bound by the client and sent as text."""
    several = isinstance(cursor, psycopg.ClientCursor) and isinstance(query, str)
    return several and cursor.connection.pgconn.pipeline_status == PipelineStatus.OFF


def _alone(connection: "Connection") -> bool:
    """Whether the next statement is a transaction of its own."""
    return connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE


@contextmanager
def _announced(connection: "Connection", told: tuple[str | None] | None) -> Iterator[None]:
    """Tell the server in a statement of its own, in the transaction of what the body sends."""
    if told is None:
        yield
    elif _alone(connection):
        with connection.transaction():
            _tell(connection, told)
            yield
    else:
        _tell(connection, told)
        yield


def _tell(connection: "Connection", told: tuple[str | None]) -> None:
    setattr(connection, _TOLD, True)
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_SET, told)
