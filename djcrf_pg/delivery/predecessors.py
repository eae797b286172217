"""Processes of version 0.1.0 beside a new leader, during a deploy: their subscribers receive a resync now and then.

Such a process cannot read what goes through the streams, and is in none of them: its consumers are in DCRF's groups,
and in one more for each observer, its ``resync_group()``. Its session holds a shared advisory lock for each observer
that it has subscribers of, taken before a subscription's snapshot. So when changes of a table were sent, the leader
looks *afterwards* who holds such locks, and sends those observers one resync in the envelope that they read.

It looks and sends once in :data:`PAUSE` seconds at most, and after the last change once more, so that nobody is left
with an old row. Where no process of that version runs, it is a look at ``pg_locks`` in that time and nothing else.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Any

from djcrf_pg.delivery.envelope import NEVER_SEEN, RESYNC, Event
from djcrf_pg.delivery.layer import PATIENCE, channel_layer, report_failure
from djcrf_pg.delivery.protocol import KEY
from djcrf_pg.registry import Observed

#: The first half of the keys of the locks; the second is :func:`key_of` an observer.
CLASS_ID = 0x646A6373

#: Seconds between two resyncs of an observer.
PAUSE = 5.0

#: The version of the envelopes, and the reason of the resyncs.
VERSION, REASON = 1, "unreadable"


def key_of(observer: Observed) -> int:
    """The second half of an observer's key, an ``int4``. Two with the same receive together, which is no harm."""
    number = zlib.crc32(observer.resync_group().encode())
    return number - 2**32 if number >= 2**31 else number


def message_of(observer: Observed, term: int) -> dict[str, Any]:
    """A resync in the envelope of 0.1.0.

    Args:
        observer: Whose subscribers receive a resync.
        term: Of the leadership.
    """
    body = {"reason": REASON, "model": observer.model_cls._meta.label}
    event = Event(RESYNC, body, 0, NEVER_SEEN, datetime.now(UTC).isoformat()).encode()
    envelope = {"v": VERSION, "term": term, "events": f"[{event}]"}
    return {"type": observer.message_type, "group": observer.resync_group(), KEY: envelope}


class Predecessors:
    """Sends resyncs to the subscribers of old processes, for one term.

    Args:
        term: Of the leadership.
        locks: Asks for the second halves of the keys of a class of locks that somebody holds.
        observers: Finds those that receive changes of some tables, by oid.
    """

    def __init__(
        self,
        term: int,
        locks: Callable[[int], Awaitable[Collection[int]]],
        observers: Callable[[Collection[int]], Iterable[Observed]],
    ) -> None:
        self._term = term
        self._locks = locks
        self._observers = observers
        self._changed: set[int] = set()
        self._wanted = asyncio.Event()

    def note(self, relations: Iterable[int]) -> None:
        """Note that changes of tables were read.

        Args:
            relations: Their oids.
        """
        self._changed.update(relations)
        self._wanted.set()

    async def run(self) -> None:
        """Send resyncs until cancelled. What fails is tried again with the next turn, and holds up nobody else."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            changed, self._changed = self._changed, set()
            try:
                held = await self._locks(CLASS_ID)
            except Exception:  # of the leader's session, which reports it
                self.note(changed)
            else:
                await self._send(changed, held)
            await asyncio.sleep(PAUSE)

    async def _send(self, changed: Collection[int], held: Collection[int]) -> None:
        if not held:
            return
        try:
            to = {one.resync_group(): one for one in self._observers(changed) if key_of(one) in held}
            for group, observer in to.items():
                async with asyncio.timeout(PATIENCE):
                    await channel_layer().group_send(group, message_of(observer, self._term))
        except Exception as error:
            report_failure(error, PAUSE)
            self.note(changed)
