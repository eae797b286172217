"""Thousands of WebSocket clients in one process, as cheap as they can be: they share the machine with what is measured.

A client speaks just enough of RFC 6455 for the servers here. Of what comes unasked it keeps the text and when it
arrived, and reads it when the measurement is over.
Runs in a process of `benchmarks.worker`.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import uvloop

T = TypeVar("T")

#: Clients that connect at the same time.
_OPENING = 100

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


def _frame(data: bytes, place: int) -> tuple[int, int, int] | None:
    """The opcode of the frame there, and where its payload begins and ends; None if it is not complete."""
    if len(data) < place + 2:
        return None
    size, start = data[place + 1] & 127, place + 2
    if size > 125:
        width = 2 if size == 126 else 8
        size, start = int.from_bytes(data[start : start + width], "big"), start + width
    return (data[place] & 15, start, start + size) if len(data) >= start + size and len(data) >= start else None


class Client(asyncio.Protocol):
    """A connection.

    Args:
        url: Where to.
        receive: Called with the text of each message that is no reply, and when it arrived.
    """

    def __init__(self, url: str, receive: Callable[[float, bytes], None]) -> None:
        self._url = url
        self._receive = receive
        self._rest = b""
        self._transport: Any = None
        loop = asyncio.get_running_loop()
        self.opened, self._reply = loop.create_future(), loop.create_future()

    async def open(self) -> None:
        """Connect, and wait until the server has accepted."""
        parts = urlsplit(self._url)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, parts.hostname, parts.port)
        self._transport.write(_HANDSHAKE.format(path=parts.path, host=parts.netloc).encode())
        await self.opened

    async def call(self, action: str, **arguments: Any) -> Any:
        """Call an action, wait for its reply, and return its data."""
        self._reply = asyncio.get_running_loop().create_future()
        self._send(_TEXT, json.dumps({"action": action, "request_id": 1, **arguments}).encode())
        reply = await self._reply
        if reply["response_status"] >= 300:
            raise RuntimeError(f"{action}: {reply}")
        return reply["data"]

    def vanish(self) -> None:
        """Abort the connection without a close frame."""
        self._transport.abort()

    def close(self) -> None:
        """Begin the closing handshake."""
        self._send(_CLOSE, b"\x03\xe8")

    def _send(self, opcode: int, payload: bytes) -> None:
        # A client has to mask what it sends; with zeros that changes nothing.
        size = bytes([128 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        self._transport.write(bytes([128 | opcode]) + size + b"\0\0\0\0" + payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is waited for."""
        for future in (self.opened, self._reply):
            if not future.done():
                future.set_exception(exc or ConnectionError("the server closed the connection"))
                future.exception()  # nobody may be waiting

    def data_received(self, data: bytes) -> None:
        """Take what arrives."""
        at, data, place = time.monotonic(), self._rest + data, 0
        if not self.opened.done():
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = data
                return
            if b" 101 " not in head:
                self.opened.set_exception(ConnectionError(head.decode()))
                return
            self.opened.set_result(None)
            data = rest
        while frame := _frame(data, place):
            opcode, start, place = frame
            if opcode == _TEXT:
                self._take(at, data[start:place])
            elif opcode == _PING:
                self._send(_PONG, data[start:place])
            elif opcode == _CLOSE:
                self._transport.close()
        self._rest = data[place:]

    def _take(self, at: float, text: bytes) -> None:
        if not self._reply.done():
            message = json.loads(text)
            if "response_status" in message and message["action"] != "resync":
                self._reply.set_result(message)
                return
        self._receive(at, text)


class Load:
    """The clients, and the event loop in a thread of its own that they live in."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._clients: list[Client] = []
        #: When each message arrived, the number of its client, and its text.
        self._heard: list[tuple[float, int, bytes]] = []
        self._visits = 0
        self._visitors: list[asyncio.Task[None]] = []

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(600)

    def _client(self, url: str, number: int) -> Client:
        def receive(at: float, text: bytes) -> None:
            if number >= 0:  # no visitor
                self._heard.append((at, number, text))

        return Client(url, receive)

    def _read(self) -> tuple[list[tuple[float, int, int]], int]:
        """When each event arrived, the number of its client, and its key; and how many resyncs came."""
        read = [(at, number, json.loads(text)) for at, number, text in self._heard]
        events = [(at, number, message["pk"]) for at, number, message in read if message.get("action") != "resync"]
        return events, len(read) - len(events)

    def open(self, url: str, count: int) -> None:
        """Connect so many clients."""

        async def open_all() -> None:
            for start in range(0, count, _OPENING):
                numbers = range(len(self._clients), len(self._clients) + min(_OPENING, count - start))
                some = [self._client(url, number) for number in numbers]
                await asyncio.gather(*(client.open() for client in some))
                self._clients += some

        self._run(open_all())

    def subscribe(self, name: str, groups: Sequence[int | None] = (None,)) -> None:
        """Subscribe each client to an observer, the first to the first of these groups, and so on in turns."""

        async def subscribe_all() -> None:
            for start in range(0, len(self._clients), _OPENING):
                some = enumerate(self._clients[start : start + _OPENING], start)
                calls = (
                    client.call("subscribe", name=name, group=groups[number % len(groups)]) for number, client in some
                )
                await asyncio.gather(*calls)

        self._run(subscribe_all())

    def expect(self) -> None:
        """Count from now on."""
        self._heard = []

    def done(self, count: int, timeout: float) -> dict[str, float]:
        """Wait for so many events, and return how many came.

        Returns:
            How many ``different`` events, one for a client and a row; how many came ``twice``; ``resyncs``; when the
            ``last`` event arrived.
        """
        deadline = time.monotonic() + timeout
        while (len(self._heard) < count or len(self._read()[0]) < count) and time.monotonic() < deadline:
            time.sleep(0.005)
        events, resyncs = self._read()
        different = len({event[1:] for event in events})
        last = events[-1][0] if events else 0.0
        return {
            "different": different,
            "twice": len(events) - different,
            "resyncs": resyncs,
            "last": last,
        }

    def latencies(self, begins: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
        """When each event arrived that has one of these keys, and how many seconds after its beginning that was."""
        begin = dict(begins)
        return [(at, at - begin[key]) for at, _, key in self._read()[0] if key in begin]

    def cursor(self, url: str, name: str) -> str:
        """A cursor of an observer that has seen all that is committed."""

        async def ask() -> Any:
            client = self._client(url, -1)
            await client.open()
            try:
                return await client.call("cursor", name=name)
            finally:
                client.vanish()

        return str(self._run(ask()))

    def cursors(self) -> list[str]:
        """The cursor of the last event of each client."""
        found = {number: text for _, number, text in self._heard}
        return [json.loads(found[number])["cursor"] for number in range(len(self._clients))]

    def vanish(self) -> None:
        """Have all clients abort their connections."""

        async def abort() -> None:
            for client in self._clients:
                client.vanish()

        self._run(abort())
        self._clients = []

    def come_back(
        self,
        urls: Sequence[str],
        name: str,
        groups: Sequence[int | None],
        cursors: Sequence[str],
        count: int,
        timeout: float = 120,
    ) -> list[tuple[float, float, float] | None]:
        """Have a client for each cursor connect and resume, all at once, and wait for so many events at each.

        Args:
            urls: The servers; clients connect to them in turns.
            name: The observer.
            groups: Their groups, in turns.
            cursors: Theirs.
            count: Events of each.
            timeout: Seconds that all have.

        Returns:
            For each client, when it was connected, when it had its first frame, and when its last one; None where it
            had not all in time.
        """
        self._heard = []
        complete = [asyncio.Event() for _ in cursors]
        frames: list[list[float]] = [[] for _ in cursors]

        async def come(number: int, cursor: str) -> tuple[float, float, float]:
            def receive(at: float, text: bytes) -> None:
                self._heard.append((at, number, text))
                frames[number].append(at)
                if len(frames[number]) == count:
                    complete[number].set()

            client = Client(urls[number % len(urls)], receive)
            await client.open()
            self._clients[number] = client
            connected = time.monotonic()
            await client.call("subscribe", name=name, group=groups[number % len(groups)], since=cursor)
            await complete[number].wait()
            return connected, frames[number][0], frames[number][-1]

        async def come_all() -> list[tuple[float, float, float] | None]:
            tasks = [asyncio.create_task(come(number, cursor)) for number, cursor in enumerate(cursors)]
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            return [None if task in late else task.result() for task in tasks]

        self._clients = [None] * len(cursors)  # type: ignore[list-item]
        found = self._run(come_all())
        self._clients = [client for client in self._clients if client is not None]
        events, resyncs = self._read()
        if resyncs or len(events) != len({event[1:] for event in events}):
            raise RuntimeError(f"{len(events)} events for {count} at {len(cursors)} clients, and {resyncs} resyncs")
        return found

    def churn(self, url: str, count: int, name: str, groups: Sequence[int | None], stay: float) -> None:
        """From now on, have so many visitors come, subscribe, stay so many seconds at most, vanish and come again."""

        async def visit(number: int) -> None:
            group = groups[number % len(groups)]
            while True:
                client = self._client(url, -1)
                await client.open()
                await client.call("subscribe", name=name, group=group)
                self._visits += 1
                await asyncio.sleep(random.uniform(0, stay))
                client.vanish() if self._visits % 2 else client.close()

        async def begin() -> None:
            self._visitors = [asyncio.create_task(visit(number)) for number in range(count)]

        self._visits = 0
        self._run(begin())

    def visits(self) -> int:
        """End `churn`, and return how many visits there were."""

        async def end() -> None:
            for visitor in self._visitors:
                visitor.cancel()
            ends = await asyncio.gather(*self._visitors, return_exceptions=True)
            for found in ends:
                if not isinstance(found, asyncio.CancelledError):
                    raise found

        self._run(end())
        return self._visits
