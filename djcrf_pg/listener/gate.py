"""What a process says to the database on behalf of its subscribers, and asks it: once for all that wait.

It publishes which groups they have (:mod:`djcrf_pg.delivery.interest`), and a subscription learns what had been
committed when it began.
"""

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import asyncpg
from django.db import connections

from djcrf_pg import sql
from djcrf_pg.capture.plan import TRIGGERS
from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.inbox import Moment
from djcrf_pg.delivery.interest import CHUNK, Published
from djcrf_pg.delivery.protocol import History
from djcrf_pg.diagnosis import LOG, SUBSCRIBER, WHEREABOUTS, Whereabouts, denied
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener.doorbell import BEAT, CHANNEL
from djcrf_pg.listener.election import HISTORY, HOLDER, PROJECT_CLASS_ID, key_of_project
from djcrf_pg.listener.failures import record
from djcrf_pg.listener.session import Session
from djcrf_pg.routing.failed import Failure


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """How the database stood when it was asked.

    Attributes:
        moment: What had been committed, and when.
        history: Which database it is, and which course of its events.
        term: Of the leadership that began last; 0 where there was none.
        migrated: Whether the tables are there that this version has.
        leader: Who leads, or None.
        absent: Tables that do not exist.
        bare: Tables without our triggers, or with disabled ones.
        project: The other project that the leader belongs to, ``unknown`` where no triggers name it; None where it is
            ours, or of a version that does not say.
        whereabouts: Of the log and the absent tables, where something is absent; else None.
    """

    moment: Moment
    history: History
    term: int
    migrated: bool
    leader: str | None
    absent: frozenset[str]
    bare: frozenset[str]
    project: str | None = None
    whereabouts: Whereabouts | None = None


#: The first half of the key of a lock that the session of a gate holds; the second is its holder.
HOLDER_CLASS_ID = 0x646A6377

#: Seconds after which :meth:`Gate.renew` looks again.
_CONFIRM = 5.0

#: Seconds that :meth:`Gate.close` may take to withdraw.
_FAREWELL = 1.0


class _Round:
    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.bits: set[int] = set()
        self.answer: asyncio.Future[Probe] = asyncio.get_running_loop().create_future()


class Gate:
    """Asks the database on behalf of subscribers, over one connection that belongs to this event loop.

    Those that come while a question is under way share the next one: it must be asked after they came, and a
    thousand clients that reconnect at once are a few questions.

    Args:
        alias: The Django database alias.

    Attributes:
        number: Of its session; it rises with each, and is 0 before the first.
        quote: Quotes a name. Not to be had from ``connections`` by a consumer: each asynchronous task that asks for a
            connection of Django's is given a wrapper of its own, 4 kB and 50 µs.
    """

    def __init__(self, alias: str) -> None:
        self.number = 0
        self._published = Published()
        self._holder = 0  # the last one that has all that is published
        self._is_held = self._missed = False
        self._seen = 0.0
        self._alias = alias
        self._names: dict[str, str] = {}
        self.quote = connections[alias].ops.quote_name
        self._sql = sql.queries("djcrf_pg.listener", "gate.sql", holder=HOLDER, history=HISTORY, oid=sql.oid_of("name"))
        self._session: Session | None = None
        self._asking = asyncio.Lock()
        self._next: _Round | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def probe(self, tables: Iterable[str], bits: Iterable[int] = ()) -> Probe:
        """Ask about tables; before the answer's moment, publish what is new.

        Args:
            tables: By ``db_table``.
            bits: Of lanes, see :mod:`djcrf_pg.delivery.interest`.

        Raises:
            ConfigurationError: The role has no right to publish.
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        if self._next is None:
            self._next = _Round()
            task = asyncio.create_task(self._ask(self._next), name=f"djcrf_pg gate {self._alias}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        names = {self.quote(table): table for table in tables}
        self._names.update(names)
        self._next.tables.update(names)
        self._next.bits.update(bits)
        return await asyncio.shield(self._next.answer)

    async def _ask(self, turn: _Round) -> None:
        try:
            async with self._asking:
                self._next = None
                answer = await self._query(sorted(turn.tables), turn.bits)
        except BaseException as error:
            if self._next is turn:
                self._next = None
            if not turn.answer.done():
                turn.answer.set_exception(error if isinstance(error, Exception) else ConnectionError("stopped"))
                turn.answer.exception()  # Whoever waits receives it; nobody need.
            if not isinstance(error, Exception):
                raise
        else:
            turn.answer.set_result(answer)

    async def _query(self, tables: list[str], bits: set[int]) -> Probe:
        session = await self._connected()
        try:
            is_published = await self._publish(session, self._published.add(bits, time.monotonic()))
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigurationError(denied(error, self._alias, session.role, SUBSCRIBER)) from error
        row = await session.fetchrow(self._sql["probe"], tables, TRIGGERS, PROJECT_CLASS_ID)
        assert row is not None
        project: str | None = None
        if row["project"] not in (None, key_of_project(get_settings().project)):
            names = [found["name"] or "" for found in await session.fetch(self._sql["projects"], TRIGGERS)]
            project = next((name for name in names if key_of_project(name) == row["project"]), "unknown")
        whereabouts: Whereabouts | None = None
        if row["absent"] or not (row["migrated"] and is_published):
            names = [LOG, *(self._names[name] for name in row["absent"])]
            whereabouts = Whereabouts.of(await session.fetch(WHEREABOUTS, names))
        return Probe(
            Moment(Snapshot.parse(row["snapshot"]), row["at"]),
            History(*(row[name] for name in History._fields)),
            # After the snapshot: a leader of an earlier term has sent nothing that the snapshot does not see.
            await session.fetchval(self._sql["term"]) if row["migrated"] else 0,
            row["migrated"] and is_published,
            row["leader"],
            frozenset(row["absent"]),
            frozenset(row["bare"]),
            project,
            whereabouts,
        )

    async def _connected(self) -> Session:
        if self._closed:
            raise ConnectionError("stopped")
        if self._session is None or self._session.is_closed():
            self._session = await Session.open(self._alias, "gate")
            self._is_held = False
            self.number += 1
        return self._session

    async def _publish(self, session: Session, rows: Mapping[int, bytes]) -> bool:
        """Write rows, and those of the former session if there was one; False where there is no table for them."""
        try:
            if not self._is_held and (rows or self._published):
                await self._begin(session)
            if rows:
                await self._write(session, self._holder, rows)
        except asyncpg.UndefinedTableError:
            return False
        return True

    async def _begin(self, session: Session) -> None:
        """Be a new holder, of all that is published."""
        holder = random.randrange(1, 2**31)
        while not await session.fetchval(self._sql["hold"], HOLDER_CLASS_ID, holder):
            holder = random.randrange(1, 2**31)
        if self._published:
            await self._write(session, holder, self._published.rows())
            # Not before: a leader may delete the former rows at any time.
            self._missed |= not await self._is_there(session)
        self._holder, self._is_held, self._seen = holder, True, time.monotonic()

    async def _write(self, session: Session, holder: int, rows: Mapping[int, bytes]) -> None:
        # Each is a transaction of its own.
        await session.execute(self._sql["publish"], holder, *_arrays(rows))
        await session.fetchval(self._sql["rise"])
        self._published.written(rows)

    async def _is_there(self, session: Session) -> bool:
        return bool(await session.fetchval(self._sql["is_there"], self._holder, *_arrays(self._published.rows())))

    async def retain(self, bits: Collection[int]) -> None:
        """Publish these bits and no others, but for those of a probe a short time ago.

        Args:
            bits: Of lanes.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._asking:
            if rows := self._published.retain(bits, time.monotonic()):
                await self._publish(await self._connected(), rows)

    async def renew(self) -> bool:
        """See that the session lives and that what was published is there, and publish it again where it is not.

        Returns:
            Whether it was there all the time; else a leader may have left something out.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._asking:
            if self._published and (self._is_lost or time.monotonic() - self._seen >= _CONFIRM):
                session = await self._connected()
                if not self._is_held:
                    await self._begin(session)
                elif not await self._is_there(session):
                    self._missed = True
                    await self._write(session, self._holder, self._published.rows())
                self._seen = time.monotonic()
            missed, self._missed = self._missed, False
            return not missed

    @property
    def _is_lost(self) -> bool:
        return self._session is None or self._session.is_closed() or not self._is_held

    async def record(self, failures: Sequence[Failure]) -> None:
        """Keep what handlers failed on, whose subscribers know of it.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._asking:
            await record(await self._connected(), failures, told=True)

    async def ask_for_heartbeat(self) -> None:
        """Have the leader send a heartbeat after its next read.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._asking:
            await (await self._connected()).execute("SELECT pg_notify($1, $2)", CHANNEL, BEAT)

    async def end_sessions(self, pids: list[int]) -> None:
        """End listener sessions of this process that nobody will close any more."""
        async with self._asking:
            session = await self._connected()
            await session.execute(self._sql["end_sessions"], pids)

    async def close(self) -> None:
        """Withdraw what was published, for nobody has subscribed any more, and close the connection."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._next is not None and not self._next.answer.done():
            # Its task was cancelled before it began.
            self._next.answer.set_exception(ConnectionError("stopped"))
            self._next.answer.exception()
        async with self._asking:
            session, self._session = self._session, None
        if session is not None:
            if self._is_held and not session.is_closed():
                # For leaders to do less at once. What is left is pruned later.
                with contextlib.suppress(*CONNECTION_ERRORS):
                    async with asyncio.timeout(_FAREWELL):
                        await session.execute(self._sql["withdraw"], self._holder)
                        await session.fetchval(self._sql["rise"])
            await session.close()


def _arrays(rows: Mapping[int, bytes]) -> tuple[list[int], list[asyncpg.BitString]]:
    return list(rows), [asyncpg.BitString.frombytes(row, CHUNK) for row in rows.values()]
