"""Leader election: one listener per change log, by a session-level advisory lock.

PostgreSQL gives the lock to one session at a time and takes it back when that session ends, however it ends
(PostgreSQL manual, 13.3.5). Standbys wait for it in the server, so the first of them has it as soon as the server
notices that the leader is gone. A leader whose process is stopped keeps its session; standbys see that work is left
unread and the cursor untouched, and end that session. What it still sends when it continues carries an older term,
and consumers drop it; before it sends, it asks whether its session still lives, unless it had an answer just now.
"""

import random
import zlib

from djcrf_pg import sql
from djcrf_pg.delivery.protocol import History
from djcrf_pg.listener.session import Session

#: The first half of the lock's key; the second is the oid of the change log, so that two logs in one database
#: (two schemas) have a leader each.
CLASS_ID = 0x646A6372

#: The first half of the key of a lock that each listener shares with those of its project; the second is
#: :func:`key_of_project`. It says, to whoever may look into ``pg_locks``, whose observers the leader knows.
PROJECT_CLASS_ID = 0x646A6374

#: Seconds that a standby waits for the lock before it looks after the leader; with two looks a frozen one is found
#: within 10 s, and nine standbys are less than two commands a second.
WAIT = 4.8

#: Seconds for which an answer of the server says that the session, and with it the lead, lives. Shorter than the wait:
#: a standby that ends our session has been waiting for longer.
LEASE = 3.0

_SQL = sql.texts("djcrf_pg.listener", "election.sql")

#: The query of the session that leads, for the log that the search_path finds.
HOLDER = sql.render(_SQL["holder"], **{"class": str(CLASS_ID)})


#: The query of a database's history.
HISTORY = _SQL["history"]


def key_of_project(name: str) -> int:
    """The second half of a project's key, unsigned as ``pg_locks`` has it."""
    return zlib.crc32(name.encode())


async def claim(session: Session, project: str) -> None:
    """Say of which project a listener is, before it leads.

    Args:
        session: The listener's.
        project: ``DJCRF_PG["PROJECT"]``.
    """
    await session.execute(_SQL["claim"], PROJECT_CLASS_ID, key_of_project(project))


async def begin_term(session: Session, term: int) -> History:
    """Say to subscribers which term we lead; the cursor says it too, but somebody may empty all tables.

    Args:
        session: The leader's.
        term: The term.

    Returns:
        Which database it is.
    """
    await session.execute(_SQL["own_term"], term)
    row = await session.fetchrow(HISTORY)
    assert row is not None
    return History(*row)


async def try_lead(session: Session, schema: str) -> bool:
    """Try to take the lock; do not wait.

    Args:
        session: Whose lock it will be.
        schema: The schema of the log, quoted and with its dot.
    """
    await session.execute(sql.render(_SQL["try_lead"], schema=schema), CLASS_ID)
    return session.leads


async def stand_by(session: Session, schema: str) -> bool:
    """Wait for the lock, and end a leader that is frozen.

    Args:
        session: Whose lock it will be.
        schema: The schema of the log, quoted and with its dot.

    Returns:
        Whether we lead. After :data:`WAIT` seconds without the lock we do not.
    """
    # A little less each time, so that standbys that were started together do not look at the same moment.
    wait = int(1000 * WAIT * random.uniform(0.97, 1.0))
    values = {"schema": schema, "class": str(CLASS_ID), "wait": str(wait), "holder": HOLDER}
    command = sql.render(_SQL["stand_by"], **values)
    await session.run(lambda connection: connection.execute(command), expected=WAIT)
    return session.leads
