"""A client that folds events into a copy of what it subscribed to, and loads again when it is told to."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.oracle.tables import QUERIES, Rows, subscription
from tests.oracle.tally import Tally

Load = Callable[[str], Rows]


class Mirror:
    """The copy of one subscription.

    Folding is idempotent, because events may come again; and a copy that was loaded while older events were on their
    way is right again when the last of them has come.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: Rows = {}
        self.heard: set[tuple[int, str, int]] = set()

    def fold(self, event: dict[str, Any]) -> bool:
        """Take in an event; returns whether it had come before."""
        body, action = event["body"], event["action"]
        if "labels" in body:
            body["labels"].sort()
        if action == "delete":
            self.rows.pop(body["id"], None)
        else:
            self.rows[body["id"]] = body
        heard = (event["change_id"], action, body["id"])
        again = heard in self.heard
        self.heard.add(heard)
        return again


class Replica:
    """One WebSocket with a subscription to each observer, read by a thread.

    It does as a page in a browser does: where the connection ends, it connects, subscribes and loads again.

    Args:
        url: Of the consumer.
        load: Runs a query of a mirror, for as long as it takes until the server answers.
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
        self._connection.close()
        self._thread.join()

    def rows(self, name: str) -> Rows:
        """A copy of a copy."""
        with self._lock:
            return dict(self.mirrors[name].rows)

    def _connect(self) -> ClientConnection:
        return connect(self._url, max_size=None, open_timeout=20, close_timeout=2)

    def _subscribe(self) -> None:
        self._loaded.clear()
        for name in self.mirrors:
            self._connection.send(json.dumps({**subscription(name), "request_id": name}))

    def _reload(self, name: str) -> None:
        rows = self._load(QUERIES[name])  # which may have to wait for a transaction that has TRUNCATEd
        with self._lock:
            self.mirrors[name].rows = rows

    def _read(self) -> None:
        while True:
            try:
                for text in self._connection:
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
            with self._lock:
                again = self.mirrors[name].fold(message)
            self._tally.add("events", message["action"])
            if again:
                self._tally.add("events that came again", message["action"])
        elif message["action"] == "resync":
            self._tally.add("resyncs", message["data"]["reason"])
            self._reload(message["request_id"])
        elif message["action"] == "subscribe":
            if message["response_status"] != 201:
                raise AssertionError(f"a subscription was refused: {message}")
            self._reload(message["request_id"])  # what commits between the two comes as well
            self._loaded.add(message["request_id"])
            if self._loaded == self.mirrors.keys():
                self._complete.set()
        else:
            raise AssertionError(f"no message that anybody asked for: {message}")
