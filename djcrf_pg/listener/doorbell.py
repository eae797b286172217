"""The doorbell: who rings, who sleeps, and why no ring is lost.

NOTIFY takes a database-wide lock at commit, so writers ring only while a flag says that the listener sleeps. The
flag is a sequence: shared state outside of transactions for the price of a page read.

- A writer inserts into the log first, so that its transaction has an xid, and *then* reads the flag.
- A listener that falls asleep sets the flag to 0, and then takes an xid in a transaction of its own. A writer that read
  "awake" is older, so any snapshot after that transaction shows it as ended (its changes are visible) or lists it
  among those in progress.
- So the listener reads once more, and as long as a transaction that was in progress in that snapshot still
  runs, it keeps looking with a growing delay. Only then may it sleep until it is rung for.

A listener that is rung for reads at once and stays "asleep": at a low rate each change rings, which costs one NOTIFY
and saves setting the flag twice. When rings come in while it is still delivering, it says that it is awake, and
polls until nothing has come for a moment.
"""

import asyncio
import dataclasses
from typing import Any

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.listener.session import Session

CHANNEL = "djcrf_pg"

#: What ``manage.py djcrf_pg failures --retry`` rings with.
RETRY = '{"failures": "retry"}'

#: What a test rings with that waits for all that is committed.
BEAT = '{"heartbeat": "now"}'

#: Seconds that an awake listener keeps looking after the last change, and the time between looks.
LINGER = 0.01
LOOK = 0.002

#: An awake listener rests after each delivery for so many times as long as it took, and so many seconds at most. A
#: read, a hop to a thread and a message cost the same for one change and for a hundred; one that looks again at once
#: pays them for each change, and takes the CPU from the writers where there is none to spare.
REST, LONGEST_REST = 2.0, 0.006

#: Rings that must come in during deliveries, one after the other, to make a sleeping listener stay awake.
BUSY = 3

_SHORTEST, _LONGEST = 0.002, 1.0


class Bell:
    """Hears NOTIFY on one connection. Whoever else has to wake the listener rings it too.

    Use as an asynchronous context manager: LISTEN has been committed when the block begins.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._connection = session.connection
        self._rung = asyncio.Event()
        self._requested = self._beat_requested = False

    async def __aenter__(self) -> "Bell":
        self._connection.add_termination_listener(self._on_end)
        await self._session.run(lambda connection: connection.add_listener(CHANNEL, self._on_notify))
        return self

    async def __aexit__(self, *exc: Any) -> None:
        if not self._connection.is_closed():
            self._connection.remove_termination_listener(self._on_end)

    def _on_notify(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        self._requested = self._requested or payload == RETRY
        self._beat_requested = self._beat_requested or payload == BEAT
        self.ring()

    def _on_end(self, connection: Any) -> None:
        self.ring()

    def ring(self) -> None:
        """Wake whoever waits, now or the next time it waits."""
        self._rung.set()

    def muffle(self) -> None:
        """Forget the rings until now. What they rang for is visible to any read that begins after this."""
        self._rung.clear()

    def take_request(self) -> bool:
        """Whether somebody has asked since the last call that failed rows be sent again."""
        requested, self._requested = self._requested, False
        return requested

    def take_beat_request(self) -> bool:
        """Whether somebody has asked since the last call for a heartbeat after the next read."""
        requested, self._beat_requested = self._beat_requested, False
        return requested

    @property
    def rung(self) -> bool:
        """Whether it rang since it was muffled."""
        return self._rung.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait for a ring, or so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass


@dataclasses.dataclass(slots=True)
class Doze:
    """What a listener that has fallen asleep still has to look for.

    Attributes:
        pending: Transactions that may have read "awake"; None before the first read tells.
        delay: Seconds to the next look.
    """

    pending: frozenset[int] | None = None
    delay: float = _SHORTEST

    def saw(self, snapshot: Snapshot) -> None:
        """Take in what a read saw: those that were pending and are no longer in progress have been read."""
        self.pending = snapshot.xip if self.pending is None else self.pending & snapshot.xip

    def patience(self, safety_poll: float) -> float:
        """Seconds to sleep unless rung for."""
        if not self.pending:
            return safety_poll
        delay, self.delay = self.delay, min(self.delay * 1.5, _LONGEST)
        return delay
