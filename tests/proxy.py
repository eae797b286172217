"""A TCP proxy in front of a PostgreSQL server that can go silent: it keeps its sockets and forwards nothing."""

import contextlib
import socket
import threading
from dataclasses import replace
from typing import Any, Self

from tests.servers import PgParams


class Proxy:
    """Forwards connections to a server; a context manager.

    Args:
        target: The server.
    """

    def __init__(self, target: PgParams) -> None:
        self.target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._flowing = threading.Event()
        self._flowing.set()
        self._frozen: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        self._words, self._times = b"", 0

    @property
    def params(self) -> PgParams:
        """The address of the server by way of the proxy."""
        return replace(self.target, host="127.0.0.1", port=self._listening.getsockname()[1])

    def freeze(self) -> None:
        """Forward nothing from now on; new connections are taken, and get no answer."""
        self._flowing.clear()

    def freeze_at(self, words: bytes, times: int = 1) -> None:
        """Freeze when clients have sent some words so many times; the last of these does not get through."""
        self._words, self._times = words, times

    @property
    def is_frozen(self) -> bool:
        """Whether nothing is forwarded."""
        return not self._flowing.is_set()

    @property
    def taken(self) -> int:
        """How many connections were made."""
        return len(self._sockets) // 2

    def freeze_present(self) -> None:
        """Forward nothing on the connections that there are; new ones work."""
        self._frozen = set(self._sockets)

    def thaw(self) -> None:
        """Forward again, also what came meanwhile."""
        self._frozen = set()
        self._flowing.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.thaw()
        for each in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                try:
                    server = self._connect()
                except OSError:  # the server is down, and says so
                    client.close()
                    continue
                self._sockets += [client, server]
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _connect(self) -> socket.socket:
        if not self.target.host.startswith("/"):
            return socket.create_connection((self.target.host, self.target.port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self.target.host}/.s.PGSQL.{self.target.port}")
        return server

    def _pump(self, source: socket.socket, sink: socket.socket, of_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if of_client and self._times and self._words in data:
                    self._times -= 1
                    if not self._times:
                        self.freeze()
                self._flowing.wait()
                if source in self._frozen:
                    return
                sink.sendall(data)
        if source not in self._frozen:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
