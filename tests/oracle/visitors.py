"""Clients that come and vanish beside the one that is compared; some are slow, and some read nothing.

Whatever they do, and leave behind, is no business of that one: it shares a process, its hub and its channel with them.
"""

import asyncio
import itertools
import json
import socket
import struct
import threading
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.oracle.replica import unexplained
from tests.oracle.tables import OWN, QUERIES, subscription
from tests.oracle.tally import Tally

#: What a visitor may subscribe to: to all, or to one group.
EVERYTHING = "everything"
WANTS = (EVERYTHING, *(name for name in QUERIES if name.startswith("lane ")), *(f"own {group}" for group in OWN))

#: How it reads, and how it is called in the report.
READS, READS_SLOWLY, DEAF = "that reads", "that reads slowly", "that reads nothing"

#: How it goes: with a reset, or as a phone does that sends no more than the end of the connection; never a close frame.
RESET, END = "resets its connection", "ends its connection"

#: Visitors at the same time at most: who comes beyond that is not let in.
MOST = 20

#: Seconds between two messages for one that reads slowly.
_PAUSE = 0.05

#: Subscriptions of one that does not keep up. Each event comes once for each, and its sockets are full within a run.
_ECHOES = 10

#: Bytes that its socket takes, and bytes of a segment: by both the kernel measures what it keeps for a connection.
_BUFFER, _SEGMENT = 4096, 536

_NUMBERS = itertools.count(1)


class Visit(NamedTuple):
    """What a visitor does.

    Attributes:
        wants: One of `WANTS`.
        manner: How it reads.
        end: How it goes.
        stays: Until it is told to go; else it goes in the middle of subscribing.
    """

    wants: str
    manner: str
    end: str
    stays: bool

    def __str__(self) -> str:
        return f"one {self.manner}, wants {self.wants}, {self.end}{'' if self.stays else ' at once'}"


class Visitors:
    """The visitors of one run, in a thread of their own.

    Args:
        url: Of the consumer.
        tally: Counts them.
    """

    def __init__(self, url: str, tally: Tally) -> None:
        self.error: str | None = None
        self._url = url
        self._tally = tally
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="visitors", daemon=True)
        self._thread.start()

    def come(self, visits: list[Visit]) -> None:
        """Let visitors come; returns at once."""
        self._loop.call_soon_threadsafe(self._come, visits)

    def vanish(self, number: int) -> None:
        """Have those vanish that came first; returns at once."""
        self._loop.call_soon_threadsafe(self._vanish, number)

    def close(self) -> None:
        """Have all vanish."""
        asyncio.run_coroutine_threadsafe(self._empty(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _come(self, visits: list[Visit]) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        for visit in visits[: MOST - len(self._tasks)]:
            self._tasks.append(self._loop.create_task(self._visit(visit)))

    def _vanish(self, number: int) -> None:
        for task in self._tasks[:number]:
            task.cancel()
        del self._tasks[:number]

    async def _empty(self) -> None:
        for task in self._tasks:
            task.cancel()
        # Those that had been told to go before are waited for too.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _visit(self, visit: Visit) -> None:
        try:
            await self._stay(visit)
        except (OSError, ConnectionClosed, InvalidHandshake, EOFError):
            # The server is stopped, or has closed it because Redis is away.
            self._tally.add("connections that ended", "of others")
        except Exception as error:
            self.error = repr(error)

    async def _stay(self, visit: Visit) -> None:
        place = urlsplit(self._url)
        with socket.socket() as plain:
            plain.setblocking(False)
            if visit.manner != READS:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
            await self._loop.sock_connect(plain, (place.hostname, place.port))
            # A pong that is not read would end a visit in an orderly way.
            connection = await connect(
                self._url, sock=plain, open_timeout=20, ping_interval=None, compression=None, max_queue=1
            )
            try:
                await self._subscribe(connection, visit)
                if visit.stays:
                    await self._read(connection, visit.manner)
            finally:
                self._tally.add("visits", f"client {visit.manner} came and vanished")
                if visit.end == RESET:
                    with suppress(OSError):
                        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.transport.abort()

    async def _subscribe(self, connection: ClientConnection, visit: Visit) -> None:
        names = list(QUERIES) if visit.wants == EVERYTHING else [visit.wants]
        if visit.manner != READS:
            names += ["all_tasks"] * _ECHOES
        for name in names:
            # Of many bytes, which each event brings back.
            request_id = f"{name} {next(_NUMBERS):0200}"
            await connection.send(json.dumps({**subscription(name), "request_id": request_id}))

    async def _read(self, connection: ClientConnection, manner: str) -> None:
        if manner == DEAF:
            await asyncio.Future()
        async for text in connection:
            self._take(json.loads(text))
            if manner == READS_SLOWLY:
                await asyncio.sleep(_PAUSE)

    def _take(self, message: dict[str, Any]) -> None:
        if "mirror" in message:
            self._tally.add("events of others", message["action"])
        elif message["action"] == "resync":
            self._tally.add("resyncs of others", message["data"]["reason"])
            if (wrong := unexplained(message["data"]["reason"])) is not None:
                raise AssertionError(wrong)
        elif message["action"] != "subscribe" or message["response_status"] != 201:
            raise AssertionError(f"no message that a visitor asked for: {message}")
