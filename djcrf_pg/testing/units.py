"""Where one transaction would end and the next begin, were a test not in one itself.

Django's ``TestCase`` and pytest-django's ``db`` fixture put each test into an atomic block. What is an outermost block
in production is a savepoint in there, or nothing at all where it is ``savepoint=False``, as those of ``bulk_create()``
and ``delete()`` are; and a statement outside of one, which would be committed at once, is just a statement. So what
tells is how deep Django is in blocks: ``Atomic`` of ``django.db.transaction`` puts an entry on ``savepoint_ids`` of the
connection for each block inside of another one, and takes it off when that ends (Django 5.2 to 6.1).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError
from psycopg.pq import TransactionStatus

T = TypeVar("T")

#: Statements of Django's that begin or end a savepoint, and change no row.
_SAVEPOINTS = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")


def refuse_broken(connection: Any) -> None:
    """Refuse a transaction that can only be rolled back, by what Django says or by what the server does.

    Args:
        connection: Django's.

    Raises:
        TransactionManagementError: It is one.
    """
    is_failed = connection.connection.info.transaction_status == TransactionStatus.INERROR
    if connection.needs_rollback or is_failed:
        raise TransactionManagementError(
            f"capture_changes(): in the body a statement or a block without a savepoint has failed, or the connection "
            f"was closed, and with it went the test's own transaction (database {connection.alias!r}). Put `with "
            f"transaction.atomic():` around what is to fail, inside of the `try` or the `pytest.raises()`; or use "
            f"TransactionTestCase, or django_db(transaction=True)."
        ) from connection.rollback_exc


class _Blocks(list[Any]):
    """Stands for the stack of savepoints of a connection, and notices when the last block of somebody ends."""

    def __init__(self, blocks: Iterable[Any]) -> None:
        super().__init__(blocks)
        #: How deep who is notified is in blocks, and what is called.
        self.notified: list[tuple[int, Callable[[], None]]] = []

    def pop(self, *args: Any) -> Any:
        found = super().pop(*args)
        for depth, ended in self.notified:
            if len(self) == depth:
                ended()
        return found


class Units:
    """Marks, in the log of one transaction, the ends of what would be transactions.

    Args:
        connection: Django's, in an atomic block.
        last: Asks for the id of the last change of the transaction.
    """

    def __init__(self, connection: BaseDatabaseWrapper, last: Callable[[], int]) -> None:
        self._connection: Any = connection
        self._last = last
        self._outer = len(connection.savepoint_ids)
        self._is_new = True
        self.marks: list[int] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note where units end as long as this is entered."""
        connection = self._connection
        self._mark()
        former = connection.savepoint_ids
        if is_outermost := not isinstance(former, _Blocks):
            connection.savepoint_ids = _Blocks(former)
        blocks = connection.savepoint_ids
        blocks.notified.append((self._outer, self._end))
        try:
            with connection.execute_wrapper(self._execute):
                yield
        finally:
            blocks.notified.pop()
            if is_outermost and connection.savepoint_ids is blocks:  # else the connection is another one
                former[:] = blocks
                connection.savepoint_ids = former
        self._mark()

    def split(self, changes: Iterable[T], id_of: Callable[[T], int]) -> list[list[T]]:
        """Divide changes, in the order of their ids, into those of each unit; units without any are left out."""
        waiting = list(changes)
        units = []
        for start, end in pairwise(self.marks):
            if unit := [change for change in waiting if start < id_of(change) <= end]:
                units.append(unit)
        return units

    def _end(self) -> None:
        self._is_new = True

    def _mark(self) -> None:
        # A statement has failed, and the rollback to a savepoint is still to come.
        if self._connection.connection.info.transaction_status != TransactionStatus.INERROR:
            self.marks.append(self._last())
            self._is_new = False

    def _execute(self, execute: Callable[..., Any], query: Any, params: Any, many: bool, context: Any) -> Any:
        if str(query).startswith(_SAVEPOINTS):
            return execute(query, params, many, context)
        is_outside = len(self._connection.savepoint_ids) == self._outer
        if is_outside or self._is_new:
            self._mark()
        result = execute(query, params, many, context)
        if is_outside:
            self._mark()
        return result
