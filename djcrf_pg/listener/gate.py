"""What a subscription must know of the database before it may answer: asked once for all that wait."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import connections

from djcrf_pg import sql
from djcrf_pg.capture.plan import TRIGGERS
from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.inbox import Moment
from djcrf_pg.delivery.protocol import History
from djcrf_pg.listener import interest
from djcrf_pg.listener.connection import CONNECTION_ERRORS
from djcrf_pg.listener.failures import Failure, record
from djcrf_pg.listener.leader import HISTORY, HOLDER, PROJECT_CLASS_ID, key_of_project
from djcrf_pg.listener.session import Session


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """How the database stood when it was asked.

    Attributes:
        moment: What had been committed, and when.
        history: Which database it is, and which course of its events.
        term: Of the leadership that began last; 0 where there was none.
        migrated: Whether the change log is there.
        leader: Who leads, or None.
        absent: Tables that do not exist.
        bare: Tables without our triggers, or with disabled ones.
        session: The number of the gate's session that asked.
        project: The other project that the leader belongs to, ``unknown`` where no triggers name it; None where it is
            ours, or of a version that does not say.
    """

    moment: Moment
    history: History
    term: int
    migrated: bool
    leader: str | None
    absent: frozenset[str]
    bare: frozenset[str]
    session: int
    project: str | None = None


#: Seconds after which a session that asked nothing is asked for a sign of life.
_CONFIRM = 5.0


class _Round:
    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.keys: set[int] = set()
        self.answer: asyncio.Future[Probe] = asyncio.get_running_loop().create_future()


class Gate:
    """Asks the database on behalf of subscribers, over one connection that belongs to this event loop.

    Those that come while a question is under way share the next one: it must be asked after they came, and a
    thousand clients that reconnect at once are a few questions.

    Args:
        alias: The Django database alias.

    Attributes:
        number: Of its session; it rises with each, and is 0 before the first.
    """

    def __init__(self, alias: str) -> None:
        self.number = 0
        self._held: set[int] = set()
        self._opened: datetime | None = None
        self._alias = alias
        self._sql = sql.queries("djcrf_pg.listener", "gate.sql", holder=HOLDER, history=HISTORY, oid=sql.oid_of("name"))
        self._session: Session | None = None
        self._asking = asyncio.Lock()
        self._next: _Round | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def probe(self, tables: Iterable[str], keys: Iterable[int] = ()) -> Probe:
        """Ask about tables, and be heard of first.

        Args:
            tables: By ``db_table``.
            keys: Of observers, see :mod:`djcrf_pg.listener.interest`.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        quote = connections[self._alias].ops.quote_name
        if self._next is None:
            self._next = _Round()
            task = asyncio.create_task(self._ask(self._next), name=f"djcrf_pg gate {self._alias}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._next.tables.update(map(quote, tables))
        self._next.keys.update(keys)
        return await asyncio.shield(self._next.answer)

    async def _ask(self, turn: _Round) -> None:
        try:
            async with self._asking:
                self._next = None
                answer = await self._query(sorted(turn.tables), turn.keys)
        except BaseException as error:
            if self._next is turn:
                self._next = None
            if not turn.answer.done():
                turn.answer.set_exception(error if isinstance(error, Exception) else ConnectionError("stopped"))
                turn.answer.exception()  # Whoever waits hears of it; nobody need.
            if not isinstance(error, Exception):
                raise
        else:
            turn.answer.set_result(answer)

    async def _query(self, tables: list[str], keys: set[int]) -> Probe:
        session = await self._connected()
        if wanted := keys - self._held:
            # In a statement of its own, before the one that takes the snapshot.
            await session.execute(self._sql["hold"], interest.CLASS_ID, sorted(wanted))
            self._held |= wanted
        row = await session.fetchrow(self._sql["probe"], tables, TRIGGERS, PROJECT_CLASS_ID)
        assert row is not None
        project: str | None = None
        if row["project"] not in (None, key_of_project(get_settings().project)):
            names = [found["name"] or "" for found in await session.fetch(self._sql["projects"], TRIGGERS)]
            project = next((name for name in names if key_of_project(name) == row["project"]), "unknown")
        self._opened = self._opened or row["at"]
        return Probe(
            Moment(Snapshot.parse(row["snapshot"]), row["at"]),
            History(*(row[name] for name in History._fields)),
            # After the snapshot: a leader of an earlier term has sent nothing that the snapshot does not see.
            await session.fetchval(self._sql["term"]) if row["migrated"] else 0,
            row["migrated"],
            row["leader"],
            frozenset(row["absent"]),
            frozenset(row["bare"]),
            self.number,
            project,
        )

    async def _connected(self) -> Session:
        if self._closed:
            raise ConnectionError("stopped")
        if self._session is None or self._session.is_closed():
            self._session = await Session.open(self._alias, "gate")
            self._held, self._opened = set(), None
            self.number += 1
        return self._session

    async def is_held(self, number: int) -> bool:
        """Whether a session still is the one that there is, so that its locks are held.

        Args:
            number: Of the session.
        """
        session = self._session
        if number != self.number or session is None:
            return False
        if not session.is_closed() and time.monotonic() - session.confirmed > _CONFIRM:
            with contextlib.suppress(*CONNECTION_ERRORS):
                await session.fetchval("SELECT 1")
        return not session.is_closed()

    async def regain(self, keys: Iterable[int]) -> tuple[int, bool]:
        """Be heard of again, after the session ended.

        Args:
            keys: Of observers.

        Returns:
            The number of the session, and whether a leader may have left something unsaid meanwhile. It has not where
            the server was restarted a short time ago: leaders wait for everybody to come back.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        former = self._opened
        probe = await self.probe((), keys)
        async with self._asking:
            session = await self._connected()
        patient = await session.fetchval(self._sql["patient"], former, interest.GRACE / 2)
        return probe.session, not patient

    async def renew(self) -> bool:
        held, self._renewing = self._held, 1
        if not self.number or await self.is_held(self.number):
            return True
        _, unsaid = await self.regain(held)
        return not unsaid

    async def retain(self, bits: Iterable[int]) -> None:
        pass

    async def record(self, failures: Sequence[Failure]) -> None:
        """Keep what handlers failed on, whose subscribers know of it.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        async with self._asking:
            await record(await self._connected(), failures, told=True)

    async def end_sessions(self, pids: list[int]) -> None:
        """End listener sessions of this process that nobody will close any more."""
        async with self._asking:
            session = await self._connected()
            await session.execute(self._sql["end_sessions"], pids)

    async def close(self) -> None:
        """Close the connection."""
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
            await session.close()
