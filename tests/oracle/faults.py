"""What breaks. Some faults are over at once, others last until they are mended."""

import itertools
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.oracle.world import BACK, SETTINGS, World
from tests.processes import wait_until

_UNREAD, _FLOODS = itertools.count(2_000_001), itertools.count(3_000_001, 1_000)


class Faults:
    """Breaks things, and mends them.

    Args:
        world: The processes.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._mend: list[Callable[[], None]] = []

    @property
    def last(self) -> bool:
        """Whether there is anything to mend."""
        return bool(self._mend)

    def mend(self) -> None:
        """Let everything go on."""
        while self._mend:
            self._mend.pop()()

    def do(self, kind: str) -> str:
        """Break something; returns what became of it."""
        return {**KINDS, **SLOW}[kind](self)

    def _leader(self) -> tuple[int, int]:
        leader = self._world.leader()
        if leader is None:
            raise LookupError("nobody leads")
        return leader

    def _terminate(self) -> str:
        pid, _ = self._leader()
        self._world.ask("SELECT pg_terminate_backend(%s)", pid)
        return "done"

    def _kill(self) -> str:
        _, place = self._leader()
        self._world.listeners[place].kill()
        self._world.listeners[place].start()
        return f"listener {place}"

    def _stop(self) -> str:
        _, place = self._leader()
        listener = self._world.listeners[place]
        listener.send_signal(signal.SIGSTOP)
        self._mend.append(lambda: listener.send_signal(signal.SIGCONT))
        return f"listener {place}"

    def _freeze(self) -> str:
        _, place = self._leader()
        self._world.proxies[place].freeze()
        self._mend.append(self._world.proxies[place].thaw)
        return f"listener {place}"

    def _replace(self, fault: "Callable[[Faults], str]") -> str:
        """Wait until the standby has taken over: it must find unread changes twice."""
        _, former = self._leader()
        text = fault(self)
        self._world.ask("INSERT INTO testapp_project (id, name) VALUES (%s, 'unread')", next(_UNREAD))
        deadline = time.monotonic() + BACK
        while (leader := self._world.leader()) is None or leader[1] == former:
            if time.monotonic() > deadline:
                raise AssertionError(f"{text} stays the leader")
        return text

    def _crash(self) -> str:
        pid, _ = self._leader()
        os.kill(pid, signal.SIGKILL)  # the postmaster ends all others, recovers, and goes on
        return "done"

    def _restart(self, number: int) -> str:
        server = self._world.server
        server.send_signal(number)
        server.wait(BACK)
        deadline = time.monotonic() + BACK
        while not server.running:
            # The processes of a killed postmaster end a moment later, and until then no other one starts.
            with suppress(AssertionError):
                server.start()
            if not server.running and time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not come back\n{server.tail()}")
        return "done"

    def _empty_redis(self) -> str:
        self._world.redis.kill()
        self._world.redis.start()
        return "done"

    def _lose_redis(self) -> str:
        self._world.redis.kill()
        self._mend.append(self._world.redis.start)
        return "done"

    def _stop_server(self) -> str:
        """Stop the clients' process, while more is sent to it than a layer with a capacity holds."""
        asgi, before = self._world.asgi, self._world.drops()
        asgi.send_signal(signal.SIGSTOP)
        self._mend.append(lambda: asgi.send_signal(signal.SIGCONT))
        rows = (self._world.capacity + 5) * SETTINGS["ENVELOPE_EVENTS"]
        first = next(_FLOODS)
        self._world.ask(
            "INSERT INTO testapp_project (id, name) SELECT id, 'flood' FROM generate_series(%s::int, %s::int) AS id",
            first,
            first + rows - 1,
        )
        with suppress(AssertionError):
            # It is not for long where nothing is dropped: the layer has no capacity, or nobody leads.
            wait_until(lambda: self._world.drops() != before, 1.0)
        return f"{(self._world.drops() - before).total()} messages dropped"


#: What can break, by name.
KINDS: dict[str, Callable[[Faults], str]] = {
    "leader's session terminated": Faults._terminate,
    "leader killed": Faults._kill,
    "leader stopped for a while": Faults._stop,
    "leader's connections frozen for a while": Faults._freeze,
    "server process of the leader killed": Faults._crash,
    "PostgreSQL restarted (fast)": lambda faults: faults._restart(signal.SIGINT),
    "PostgreSQL restarted (immediate)": lambda faults: faults._restart(signal.SIGQUIT),
    "postmaster killed": lambda faults: faults._restart(signal.SIGKILL),
    "the clients' ASGI process stopped for a while": Faults._stop_server,
    "Redis killed, and back at once, empty": Faults._empty_redis,
    "Redis gone for a while, then back, empty": Faults._lose_redis,
}
#: What takes more than ten seconds: only for a long run.
SLOW: dict[str, Callable[[Faults], str]] = {
    "leader stopped until another leads": lambda faults: faults._replace(Faults._stop),
    "leader's connections frozen until another leads": lambda faults: faults._replace(Faults._freeze),
}
