"""Writers: each has a thread, a database connection, and perhaps a transaction that it leaves open."""

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

from django.db import Error, connections, transaction
from django.db.backends.signals import connection_created

from tests.oracle.tally import Tally

#: Seconds that a writer waits for another one's lock before it gives up.
LOCK_TIMEOUT = 0.3

#: Seconds that others wait for a writer before they go on beside it.
PATIENCE = 0.03


class _Undo(Exception):
    """Leaves an atomic block."""


def _prepare(connection: Any, **kwargs: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {int(LOCK_TIMEOUT * 1000)}")


connection_created.connect(_prepare, dispatch_uid="tests.oracle", weak=False)


class Step:
    """One line of the story that is told when something is wrong.

    Attributes:
        text: What was done.
        outcome: What came of it; ``"…"`` while nothing did.
    """

    def __init__(self, text: str, outcome: str = "…") -> None:
        self.text = text
        self.outcome = outcome

    def __str__(self) -> str:
        return f"{self.text}: {self.outcome}" if self.outcome else self.text


class Writer(threading.Thread):
    """Does in its thread what it is told, in order. What fails undoes the innermost block, as in a program.

    Args:
        name: For the story.
        tally: Counts transactions and failures.
    """

    def __init__(self, name: str, tally: Tally) -> None:
        super().__init__(name=name, daemon=True)
        self._tally = tally
        self._orders: queue.Queue[tuple[Step, Callable[[], Any]] | None] = queue.Queue()
        self._idle = threading.Condition()
        self._ordered = self._done = 0
        self._blocks: list[transaction.Atomic] = []

    def order(self, step: Step, work: Callable[[], Any]) -> None:
        """Have work done, and wait a moment for it: it may have to wait for another writer."""
        with self._idle:
            self._ordered += 1
        self._orders.put((step, work))
        # Whoever waits for a lock gets it or gives up in the end; no long queue builds up behind.
        self.wait(PATIENCE if self._ordered - self._done <= 3 else None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all is done that was ordered."""
        with self._idle:
            return self._idle.wait_for(lambda: self._ordered == self._done, timeout)

    def end(self) -> None:
        """End the thread."""
        self._orders.put(None)
        self.join()

    def run(self) -> None:
        """Do what is ordered."""
        while (order := self._orders.get()) is not None:
            step, work = order
            try:
                step.outcome = work() or "done"
            except Exception as error:
                step.outcome = self._failed(error)
            finally:
                with self._idle:
                    self._done += 1
                    self._idle.notify_all()
        connections.close_all()

    def _failed(self, error: Exception) -> str:
        self._tally.add("failures of operations", type(error.__cause__ or error).__name__)
        try:
            if self._blocks:
                self._leave(undo=True)
            if not connections["default"].is_usable():
                raise error
        except Exception:
            # The server is gone, and the transaction with it.
            self._blocks.clear()
            with contextlib.suppress(Error):
                connections["default"].close()
            del connections["default"]
        return f"{type(error).__name__}: {error}".splitlines()[0]

    # What it can be told, besides writing.

    def begin(self, isolation: str = "") -> str:
        """Begin a transaction, unless one is open."""
        if self._blocks:
            return "has one"
        self._enter()
        if isolation:
            with connections["default"].cursor() as cursor:
                cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        return "done"

    def savepoint(self) -> str:
        """Begin a block inside the present one."""
        if not self._blocks:
            return "has no transaction"
        self._enter()
        self._tally.add("transactions", "savepoints")
        return "done"

    def release(self, undo: bool) -> str:
        """End the innermost block that is inside another one."""
        if len(self._blocks) < 2:
            return "has none"
        self._leave(undo)
        self._tally.add("transactions", "savepoints rolled back" if undo else "savepoints released")
        return "done"

    def finish(self, undo: bool) -> str:
        """End the transaction."""
        if not self._blocks:
            return "has none"
        while self._blocks:
            self._leave(undo)
        self._tally.add("transactions", "rolled back" if undo else "committed")
        return "done"

    def _enter(self) -> None:
        block = transaction.atomic()
        block.__enter__()
        self._blocks.append(block)

    def _leave(self, undo: bool) -> None:
        block = self._blocks.pop()
        if undo:
            block.__exit__(_Undo, _Undo(), None)
        else:
            block.__exit__(None, None, None)
