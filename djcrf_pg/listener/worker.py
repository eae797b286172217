"""A thread for synchronous work, user code above all, with database connections of its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import psycopg
from django.db import connections

from djcrf_pg.observations import text_of

T = TypeVar("T")

_here = threading.local()

#: Seconds in which work may end that goes on when the worker is closed.
_LAST_WORK = 0.5


def is_here() -> bool:
    """Whether this is the thread of a worker."""
    return getattr(_here, "works", False)


class Worker:
    """Does one thing after the other in a thread.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = _Thread(name)

    async def run(self, work: Callable[[], T]) -> T:
        """Have something done.

        The thread's database connections are kept, whatever CONN_MAX_AGE says: a new one for each batch would cost more
        than all the rest (10 ms against 3 ms from commit to frame). Those in doubt are closed, and those that a pool
        lends go back to it.
        """

        def tidy_work() -> T:
            try:
                return work()
            except Exception:
                raise
            except BaseException as error:
                # A SystemExit or a CancelledError of user code's would end the task that waits for the thread.
                raise RuntimeError(f"code in the listener's thread raised {text_of(error)}") from error
            finally:
                for connection in connections.all(initialized_only=True):
                    if connection.connection is not None and not _is_to_be_kept(connection):
                        connection.close()

        return await asyncio.wrap_future(self._thread.submit(tidy_work))

    async def close(self) -> None:
        """End. The connections that user code opened belong to the thread, and must not outlive it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORK):
                await asyncio.wrap_future(self._thread.submit(connections.close_all))
        self._thread.end()


class _Thread:
    """A thread that works on one thing after the other.

    Python waits for the threads of an executor when it ends, and user code may wait for ever for a database that does
    not answer: this one is left behind.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Have something done."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._work.put(run)
        return future

    def end(self) -> None:
        """End when all is done; nobody waits for it."""
        self._work.put(None)

    def _run(self) -> None:
        _here.works = True
        while (work := self._work.get()) is not None:
            work()


def _is_to_be_kept(connection: Any) -> bool:
    """Whether a connection of Django's is in good order and nobody else's."""
    # A pool is Django's, or one of a backend in place of it, which may have an object of its own for a connection.
    lent = getattr(connection, "pool", None) is not None or (
        connection.vendor == "postgresql" and not isinstance(connection.connection, psycopg.Connection)
    )
    return not (lent or connection.errors_occurred or not connection.autocommit)
