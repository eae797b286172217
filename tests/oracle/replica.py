"""A client that folds events into a copy of what it subscribed to, and loads again when it is told to."""

import json
import threading
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.oracle.tables import QUERIES, Rows
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

    Args:
        url: Of the consumer.
        load: Runs a query of a mirror, for as long as it takes until the server answers.
        tally: Counts events.
    """

    def __init__(self, url: str, load: Load, tally: Tally) -> None:
        self.mirrors = {name: Mirror(name) for name in QUERIES}
        self.error: str | None = None
        self._load = load
        self._tally = tally
        self._lock = threading.Lock()
        self._connection = connect(url, max_size=None, open_timeout=20, close_timeout=2)
        self._subscribed = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._read, name="replica", daemon=True)

    def open(self) -> None:
        """Subscribe, then load: what commits between the two comes as well."""
        self._thread.start()
        for name in self.mirrors:
            observer, _, lane = name.partition(" ")
            arguments = {"status": lane} if lane else {}
            message = {"action": "subscribe", "request_id": name, "observer": observer, **arguments}
            self._connection.send(json.dumps(message))
            if not self._subscribed.acquire(timeout=60) or self.error:
                raise AssertionError(f"no subscription to {name}: {self.error}")
        for name in self.mirrors:
            self._reload(name)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._thread.join()

    def rows(self, name: str) -> Rows:
        """A copy of a copy."""
        with self._lock:
            return dict(self.mirrors[name].rows)

    def has_heard(self, name: str, key: int) -> bool:
        """Whether the creation of a row was told."""
        with self._lock:
            return any(action == "create" and pk == key for _, action, pk in self.mirrors[name].heard)

    def _reload(self, name: str) -> None:
        rows = self._load(QUERIES[name])  # which may have to wait for a transaction that has TRUNCATEd
        with self._lock:
            self.mirrors[name].rows = rows

    def _read(self) -> None:
        try:
            for text in self._connection:
                self._take(json.loads(text))
        except ConnectionClosed as error:
            self.error = repr(error)
        except Exception as error:
            self.error = repr(error)
            raise

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
                self.error = str(message)
            self._subscribed.release()
        else:
            raise AssertionError(f"no message that anybody asked for: {message}")
