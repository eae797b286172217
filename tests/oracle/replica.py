"""A client that folds events into a copy of what it subscribed to; it resumes, and loads again when it has to."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.oracle.tables import QUERIES, Rows, in_order, subscription
from tests.oracle.tally import Tally

#: Runs a query, and gives the cursor that continues it too.
Load = Callable[[str], tuple[str, Rows]]

#: What a client may be told to load again for, since a change that was delivered or lost is told otherwise.
REASONS = frozenset({"truncate", "unreadable"})

#: Bytes that the kernel holds for a client that sleeps, so that its inbox is full before long.
_BUFFER = 16_384


def unexplained(reason: str) -> str | None:
    """What is wrong with a resync; None where nothing is."""
    return None if reason in REASONS else f"a resync that nothing explains: {reason}"


class Mirror:
    """The copy of one subscription.

    Folding is idempotent, because events come again where a leader was killed.

    Attributes:
        rows: The copy.
        cursor: That of the last event; None where it has to be loaded.
        is_current: Whether the subscription that continues it was made; until then, events are those of another one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: Rows = {}
        self.cursor: str | None = None
        self.is_current = False
        self.heard: set[tuple[int, str, int]] = set()

    def fold(self, event: dict[str, Any]) -> bool:
        """Take in an event; returns whether it had come before."""
        body, action = event["body"], event["action"]
        if action == "delete":
            self.rows.pop(body["id"], None)
        else:
            self.rows[body["id"]] = in_order(body)
        self.cursor = event["cursor"]
        heard = (event["change_id"], action, body["id"])
        again = heard in self.heard
        self.heard.add(heard)
        return again


class Replica:
    """One WebSocket with a subscription to each observer, read by a thread.

    It does as a page in a browser does: where the connection ends, it connects, and subscribes behind the last event
    that it has. Now and then it sleeps.

    Args:
        url: Of the consumer.
        load: Runs a query of a mirror, for as long as it takes until the server answers, and gives its cursor too.
        tally: Counts events.
    """

    def __init__(self, url: str, load: Load, tally: Tally) -> None:
        self.mirrors = {name: Mirror(name) for name in QUERIES}
        self.error: str | None = None
        self._url = url
        self._load = load
        self._tally = tally
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._awake = threading.Event()
        self._awake.set()
        self._connection = self._connect()
        self._loaded: set[str] = set()
        self._complete = threading.Event()
        self._thread = threading.Thread(target=self._read, name="replica", daemon=True)

    def open(self) -> None:
        """Subscribe and load; returns when there is a copy of everything."""
        self._subscribe()
        self._thread.start()
        if not self._complete.wait(timeout=60) or self.error:
            raise AssertionError(f"subscriptions to {sorted(self._loaded)} alone: {self.error}")

    def close(self) -> None:
        """Close the connection."""
        self._closing.set()
        self._awake.set()
        self._connection.close()
        self._thread.join()

    def sleep(self) -> None:
        """Read nothing, until it is woken."""
        self._awake.clear()

    def wake(self) -> None:
        """Go on reading."""
        self._awake.set()

    def cut(self) -> None:
        """End the connection, as a phone does in a tunnel."""
        with suppress(OSError):  # it has ended already
            self._connection.socket.shutdown(socket.SHUT_RDWR)

    def rows(self, name: str) -> Rows:
        """A copy of a copy."""
        with self._lock:
            return dict(self.mirrors[name].rows)

    def _connect(self) -> ClientConnection:
        place = urlsplit(self._url)
        plain = socket.socket()
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            plain.connect((place.hostname, place.port))
            return connect(self._url, sock=plain, max_size=None, open_timeout=20, close_timeout=2)
        except BaseException:
            plain.close()
            raise

    def _subscribe(self) -> None:
        self._loaded.clear()
        for name in self.mirrors:
            self._ask(name)

    def _ask(self, name: str) -> None:
        """Subscribe behind what the copy has; where it has nothing that can be continued, load it before."""
        mirror = self.mirrors[name]
        mirror.is_current = False
        self._tally.add("subscriptions", "behind a list" if mirror.cursor is None else "behind an event")
        if mirror.cursor is None:
            cursor, rows = self._load(QUERIES[name])  # which may have to wait for a transaction that has TRUNCATEd
            with self._lock:
                mirror.cursor, mirror.rows = cursor, rows
        self._connection.send(json.dumps({**subscription(name), "since": mirror.cursor, "request_id": name}))

    def _read(self) -> None:
        while True:
            try:
                for text in self._connection:
                    self._awake.wait()
                    self._take(json.loads(text))
            except ConnectionClosed:
                pass
            except Exception as error:
                self.error = repr(error)
                raise
            if self._closing.is_set():
                return
            self._reconnect()

    def _reconnect(self) -> None:
        """While Redis is away each connection ends at once."""
        self._tally.add("connections that ended", "of the client")
        self._closing.wait(0.2)
        self._connection = self._connect()
        if self._closing.is_set():
            self._connection.close()
            return
        with suppress(ConnectionClosed):
            self._subscribe()

    def _take(self, message: dict[str, Any]) -> None:
        if (name := message.get("mirror")) is not None:
            if not self.mirrors[name].is_current:
                return
            with self._lock:
                again = self.mirrors[name].fold(message)
            self._tally.add("events", message["action"])
            if again:
                self._tally.add("events that came again", message["action"])
            return
        name, status = message["request_id"], message["response_status"]
        if message["action"] == "resync":
            self._tally.add("resyncs", message["data"]["reason"])
            if (wrong := unexplained(message["data"]["reason"])) is not None:
                raise AssertionError(f"{wrong}, of {name}")
            self._load_again(name)
        elif message["action"] == "subscribe":
            if status == 410:
                self._tally.add("subscriptions", "behind what had expired")
                self._load_again(name)
                return
            if status == 503:
                self._tally.add("subscriptions", "refused while the database was away")
                self._ask(name)
                return
            if status != 201:
                raise AssertionError(f"a subscription was refused: {message}")
            self.mirrors[name].is_current = True
            self._loaded.add(name)
            if self._loaded == self.mirrors.keys():
                self._complete.set()
        else:
            raise AssertionError(f"no message that anybody asked for: {message}")

    def _load_again(self, name: str) -> None:
        self.mirrors[name].cursor = None
        self._ask(name)
