"""A process's part of shadow mode: it notes what its signals have sent.

A thread writes, over a connection of its own, for the one that saves is to wait for nothing and to make no query of
ours. It ends with its connection when nothing comes for a moment, so that neither is found in a process that is idle,
nor in the way of a test database that has to go.
"""

import atexit
import math
import multiprocessing.util
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.db import InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from djcrf_pg import sql
from djcrf_pg.observations import SignalsUnrecorded, cause_of, emit
from djcrf_pg.shadow.excluded import Hidden
from djcrf_pg.shadow.messages import Message, message

#: Messages that wait at most, and that are written at a time.
_MOST, _BATCH = 10_000, 500

#: Seconds without a message after which a thread ends, between tries, and that a process waits for it when it ends.
_LINGER, _PAUSE, _FAREWELL = 1.0, 0.5, 5.0

#: Seconds for which it is tried to write a batch, for a server may restart, and between two reports that it failed.
_TRIED, _QUIET = 30.0, 60.0

#: Seconds between two looks for what nobody has compared; and bytes of the table from which on nothing is added. With a
#: leader that compares there are far less, for it keeps five minutes.
_FORGET, _FULL = 600.0, 2 * 1024**3

_SQL = sql.queries(
    "djcrf_pg.shadow", "shadow.sql", by_signals="true", **{f"given_{name}": "%s" for name in Message._fields}
)


class Losses:
    """Counts the messages that could not be noted, and says so now and then."""

    def __init__(self) -> None:
        self._count = 0
        self._said_at = -math.inf

    def add(self, count: int, alias: str, why: str, error: Exception | None = None) -> None:
        """Count some.

        Args:
            count: How many.
            alias: The database that they are of.
            why: What kept them from being noted.
            error: What was raised, if its traceback is of use.
        """
        self._count += count
        if time.monotonic() - self._said_at >= _QUIET:
            self._said_at = time.monotonic()
            emit(SignalsUnrecorded(alias=alias, count=self._count, error=why), error)
            self._count = 0


class Recorder:
    """Writes the messages for one database.

    Args:
        alias: The Django database alias.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._farewell = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._losses = Losses()
        self._forgot_at = -math.inf

    def put(self, given: Message) -> None:
        """Have a message written soon."""
        with self._changed:
            if len(self._waiting) >= _MOST:
                why = "more of them came than could be written; a server without threads writes none"
                self._losses.add(1, self._alias, why)
                return
            self._waiting.append(given)
            if self._thread is None or not self._thread.is_alive():  # it may have been refused, or have met an error
                self._thread = threading.Thread(target=self._run, name=f"djcrf_pg shadow {self._alias}", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._changed:
            self._closing, thread = True, self._thread
            self._changed.notify()
            self._farewell.set()
        if thread is not None:
            thread.join(_FAREWELL)
        self._closing = False
        self._farewell.clear()

    def _run(self) -> None:
        connection = _connect(self._alias)
        try:
            while batch := self._next():
                if time.monotonic() - self._forgot_at >= _FORGET:
                    self._forgot_at = time.monotonic()
                    _execute(connection, "forget")
                if self._has_room(connection):
                    self._write(connection, batch)
                else:
                    self._lose(batch, "its table has 2 GB, for no leader compares: start `manage.py djcrf_pg listen`")
        finally:
            connection.close()

    def _next(self) -> list[Message]:
        with self._changed:
            if not self._waiting and not self._closing:
                self._changed.wait(_LINGER)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
            if not batch:
                self._thread = None  # the next message starts another one
            return batch

    def _write(self, connection: BaseDatabaseWrapper, batch: Iterable[Message]) -> None:
        columns = [list(column) for column in zip(*batch, strict=True)]
        end = time.monotonic() + _TRIED
        while (error := _execute(connection, "note", columns)) is not None:
            if not isinstance(error, OperationalError | InterfaceError) or self._closing or time.monotonic() > end:
                break
            self._farewell.wait(_PAUSE)
        if error is not None:
            self._lose(columns[0], cause_of(error))

    def _has_room(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether the table is not full; also where it cannot be asked, which comes up when it is written to."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(_SQL["size"])
                return bool(cursor.fetchone()[0] < _FULL)
        except Exception:
            connection.close()
            return True

    def _lose(self, batch: Collection[Any], error: str) -> None:
        with self._changed:
            self._losses.add(len(batch), self._alias, error)


def _connect(alias: str) -> BaseDatabaseWrapper:
    """A connection of one's own: of a pool, which may have just enough for the project, it takes none."""
    connection = connections.create_connection(alias)
    settings = connection.settings_dict
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    connection.settings_dict = {**settings, "OPTIONS": options, "AUTOCOMMIT": True}
    return connection


def _execute(connection: BaseDatabaseWrapper, query: str, parameters: Any = None) -> Exception | None:
    """Run a query; what it raised where it failed, whatever it was."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_SQL[query], parameters)
    except Exception as error:
        connection.close()
        return error
    return None


_recorders: dict[str, Recorder] = {}
_numbers = count(1)
_process = ""
_origin: dict[str, str] = {}


def note(
    alias: str,
    address: str,
    pk: str,
    parts: Mapping[str, tuple[Iterable[str], Any]],
    hidden: Hidden,
) -> None:
    """Note what signals have sent of a change.

    Args:
        alias: The database of the model.
        address: Of the observer.
        pk: The key of the row, as text.
        parts: By action, the groups and the body.
        hidden: What is not to be kept.

    Raises:
        ConfigurationError: ``EXCLUDE`` names what does not exist.
        RuntimeError: The process ends, and starts no thread any more.
    """
    global _process
    if not _process:
        _process = uuid4().hex
        program = Path(sys.argv[0])
        name = program.parent.name if program.name == "__main__.py" else program.name  # `python -m uvicorn`
        _origin["process"] = f"{name} (process {os.getpid()} on {socket.gethostname()})"
        atexit.register(close_all)
        multiprocessing.util.Finalize(None, close_all, exitpriority=0)  # its processes run nothing of atexit
    made = message(f"{_process}:{next(_numbers)}", address, pk, parts, _origin, hidden)
    if (recorder := _recorders.get(alias)) is None:
        recorder = _recorders.setdefault(alias, Recorder(alias))
    recorder.put(made)


def close_all() -> None:
    """Write what waits in this process, and end the threads; the next message starts them again."""
    for recorder in list(_recorders.values()):
        recorder.close()


def _forget() -> None:
    """A fork has neither the threads nor the name of its parent, and what waits there is the parent's."""
    global _process
    _recorders.clear()
    _process = ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
