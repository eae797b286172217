"""Who is heard of: a process with subscribers of an observer holds a shared advisory lock for it.

Groups and serializers are most of what an event costs, and it costs the same where nobody is subscribed. So the leader
asks, for a piece of some length, which observers somebody holds a lock for, and makes nothing for the others.

No event is missed: a subscription takes the lock first and its snapshot then, and the leader asks after it has read. So
whatever commits after that snapshot is read later still, when the lock is to be seen. The lock belongs to the session
of the process's gate. When that ends, so does the lock; the process takes it again and has its consumers load again
(:mod:`djcrf_pg.observer.membership`), unless the whole server was restarted just now: then a leader makes everything
for a while.
"""

import zlib

from djcrf_pg.registry import Observed

#: The first half of the locks' keys; the second is :func:`key_of` an observer.
CLASS_ID = 0x646A6373

#: Shorter pieces are told to all: asking costs about as much as a hundred events.
LEAST = 100

#: Seconds after a restart of the server in which a leader makes everything: the locks went with the sessions, and
#: everybody has to come back first.
GRACE = 30.0


def grace(uptime: float, age: float, reconnected: bool) -> float:
    """Seconds for which a new leader has to expect that a lock is missing although somebody has subscribed.

    A lock ends with its session. One session that ends is noticed by its own process, which takes the lock again and
    has its consumers load again. When the server restarts, all end, and nobody should have to load again.

    Args:
        uptime: Seconds since the server was started (``pg_postmaster_start_time()``, which is before its recovery).
        age: Seconds since the leader's session began: so long the server has not restarted.
        reconnected: Whether the listener had a session before, which failed: the server may have restarted, and have
            spent longer than this on its recovery.
    """
    if age >= GRACE:
        return 0.0
    return GRACE if reconnected else max(GRACE - uptime, 0.0)


def key_of(observer: Observed) -> int:
    """The second half of an observer's key, an ``int4``. Two with the same are heard of together, which is no harm."""
    number = zlib.crc32(observer.resync_group().encode())
    return number - 2**32 if number >= 2**31 else number
