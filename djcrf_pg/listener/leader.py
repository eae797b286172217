"""Leader election: one listener per change log, by a session-level advisory lock.

PostgreSQL gives the lock to one session at a time and takes it back when that session ends, however it ends
(PostgreSQL manual, 13.3.5). There is nothing to expire and no clock to trust: a killed leader's lock is free as
soon as the server has noticed, and a standby that tries every second takes over. A leader whose session is gone
must not send any more, so it asks before each message. Each leadership has a term, a number that rises; the
cursor belongs to the latest term, and an earlier leader that comes back finds its saves refused.
"""

from djcrf_pg.changelog.reader import Connection

#: The first half of the lock's key; the second is the oid of the change log, so that two logs in one database
#: (two schemas) have a leader each.
CLASS_ID = 0x646A6372


async def try_lead(connection: Connection) -> bool:
    """Try to take the lock of the log that the connection's search_path finds; do not wait."""
    return bool(
        await connection.fetchval(
            "SELECT pg_try_advisory_lock($1::int, 'djcrf_pg_change'::regclass::oid::int8::bit(32)::int)",
            CLASS_ID,
        )
    )
