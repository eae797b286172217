"""``djcrf_pg.consistent_read``: a list, and the cursor that continues it."""

from contextlib import ExitStack
from types import TracebackType

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.delivery.protocol import History
from djcrf_pg.delivery.resume import Cursor
from djcrf_pg.diagnosis import without_log
from djcrf_pg.exceptions import NotMigrated, ReadError
from djcrf_pg.listener.election import HISTORY

#: An attribute of a Django connection: the cursor of the read that is open on it.
_CURSOR = "_djcrf_pg_cursor"


class consistent_read:
    """Read with one snapshot, and get the cursor that has seen exactly what is read.

    ::

        with djcrf_pg.consistent_read() as cursor:
            tasks = list(Task.objects.filter(project=7))

        async with djcrf_pg.consistent_read() as cursor:
            tasks = [task async for task in Task.objects.filter(project=7)]

    Whoever shows the list and subscribes ``since`` the cursor misses nothing and receives nothing twice, however much
    is written meanwhile, and however long it takes. The block is one transaction, ``REPEATABLE READ`` and ``READ ONLY``
    (PostgreSQL manual, 13.2.2). The cursor is good for each observer of the database.

    The asynchronous form has a thread and a database connection of its own: all coroutines of a process share those of
    ``sync_to_async``, and what others write must not get into this transaction.

    Args:
        using: The alias of the database.

    Raises:
        ReadError: The block stands inside a transaction, whose snapshot may be an older one; or the database is not
            PostgreSQL.
        NotMigrated: The database has no change log.
    """

    def __init__(self, *, using: str = DEFAULT_DB_ALIAS) -> None:
        self._using = using
        self._stack: ExitStack | None = None
        self._thread: ThreadSensitiveContext | None = None

    def __enter__(self) -> str:
        connection = connections[self._using]
        if connection.vendor != "postgresql":
            raise ReadError(
                f"djcrf_pg.consistent_read: database {self._using!r} is {connection.display_name}, and has no cursors."
            )
        if connection.in_atomic_block or not connection.get_autocommit():
            raise ReadError(
                f"djcrf_pg.consistent_read stands inside a transaction on database {self._using!r}, and a transaction "
                f"has its isolation level from its beginning. Have it outside of atomic(), and of ATOMIC_REQUESTS "
                f"(@transaction.non_atomic_requests on the view)."
            )
        with ExitStack() as stack:
            stack.enter_context(transaction.atomic(using=self._using))
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                cursor.execute(f"SELECT pg_current_snapshot()::text, history.* FROM ({HISTORY}) AS history")
                snapshot, *history = cursor.fetchone()
            if not history[History._fields.index("log")]:
                raise NotMigrated(without_log(self._using))
            text = Cursor.at(History(*map(int, history)), Snapshot.parse(snapshot)).encode()
            stack.callback(setattr, connection, _CURSOR, None)
            setattr(connection, _CURSOR, text)
            self._stack = stack.pop_all()
        return text

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(kind, error, traceback)

    async def __aenter__(self) -> str:
        self._thread = ThreadSensitiveContext()
        await self._thread.__aenter__()  # type: ignore[no-untyped-call]
        try:
            return await sync_to_async(self.__enter__)()
        except BaseException:
            await self._leave_thread()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await sync_to_async(self.__exit__)(kind, error, traceback)
        finally:
            await self._leave_thread()

    async def _leave_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await sync_to_async(connections.close_all)()
            await thread.__aexit__(None, None, None)  # type: ignore[no-untyped-call]


def cursor_of_read(using: str) -> str:
    """The cursor of the read that is open on the connection which queries made here would use.

    Args:
        using: The alias of the database.

    Raises:
        ReadError: None is open on it.
    """
    text: str | None = getattr(connections[using], _CURSOR, None)
    if text is not None:
        return text
    opened = [each.alias for each in connections.all(initialized_only=True) if getattr(each, _CURSOR, None)]
    if opened:
        raise ReadError(
            f"{{% cursor %}}: no consistent_read of database {using!r} is open here, but one of {opened[0]!r}: write "
            f'{{% cursor using="{opened[0]}" %}}, or read what the page shows in '
            f"djcrf_pg.consistent_read(using={using!r})."
        )
    raise ReadError(
        f"{{% cursor %}}: no consistent_read of database {using!r} is open where the template is rendered, so it may "
        f"have read later than any cursor. Have the view read and render in a block: `with "
        f"djcrf_pg.consistent_read(): return render(…)`. A TemplateResponse is rendered when the view has returned: "
        f"return response.render(). An asynchronous view renders in the block's thread: await sync_to_async(render)(…)."
    )
