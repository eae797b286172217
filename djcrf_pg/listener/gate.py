"""What a subscription must know of the database before it may answer: asked once for all that wait."""

import asyncio
import dataclasses
from collections.abc import Iterable
from datetime import datetime

from django.db import connections

from djcrf_pg import sql
from djcrf_pg.capture.plan import TRIGGERS
from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.listener.leader import CLASS_ID
from djcrf_pg.listener.session import Session


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """When a subscription began.

    Attributes:
        snapshot: What had been committed.
        at: What the server's clock said.
    """

    snapshot: Snapshot
    at: datetime

    def sees(self, xid: int, written: str) -> bool:
        """Whether a change had been committed by then, so that it is not for the subscription.

        A change that was written later cannot have been, whatever its transaction id says: after a restore, another
        server counts them from elsewhere.

        Args:
            xid: The transaction.
            written: When the row was written, ISO 8601.
        """
        return self.snapshot.sees(xid) and datetime.fromisoformat(written) <= self.at


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """How the database stood when it was asked.

    Attributes:
        moment: What had been committed, and when.
        migrated: Whether the change log is there.
        leader: Who leads, or None.
        absent: Tables that do not exist.
        bare: Tables without our triggers, or with disabled ones.
    """

    moment: Moment
    migrated: bool
    leader: str | None
    absent: frozenset[str]
    bare: frozenset[str]


class _Round:
    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.answer: asyncio.Future[Probe] = asyncio.get_running_loop().create_future()


class Gate:
    """Asks the database on behalf of subscribers, over one connection that belongs to this event loop.

    Those that come while a question is under way share the next one: it must be asked after they came, and a
    thousand clients that reconnect at once are a few questions.

    Args:
        alias: The Django database alias.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._sql = sql.queries("djcrf_pg.listener", "gate.sql")
        self._session: Session | None = None
        self._asking = asyncio.Lock()
        self._next: _Round | None = None
        self._task: asyncio.Task[None] | None = None

    async def probe(self, tables: Iterable[str]) -> Probe:
        """Ask about tables, by ``db_table``.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The database cannot be asked.
        """
        quote = connections[self._alias].ops.quote_name
        if self._next is None:
            self._next = _Round()
            self._task = asyncio.create_task(self._ask(self._next), name=f"djcrf_pg gate {self._alias}")
        self._next.tables.update(map(quote, tables))
        return await asyncio.shield(self._next.answer)

    async def _ask(self, turn: _Round) -> None:
        try:
            async with self._asking:
                self._next = None
                answer = await self._query(sorted(turn.tables))
        except BaseException as error:
            if not turn.answer.done():
                turn.answer.set_exception(error if isinstance(error, Exception) else ConnectionError("stopped"))
                turn.answer.exception()  # Whoever waits hears of it; nobody need.
            if not isinstance(error, Exception):
                raise
        else:
            turn.answer.set_result(answer)

    async def _query(self, tables: list[str]) -> Probe:
        session = await self._connected()
        row = await session.fetchrow(self._sql["probe"], CLASS_ID, tables, TRIGGERS)
        assert row is not None
        return Probe(
            Moment(Snapshot.parse(row["snapshot"]), row["at"]),
            row["migrated"],
            row["leader"],
            frozenset(row["absent"]),
            frozenset(row["bare"]),
        )

    async def _connected(self) -> Session:
        if self._session is None or self._session.is_closed():
            self._session = await Session.open(self._alias, "gate")
        return self._session

    async def end_sessions(self, pids: list[int]) -> None:
        """End listener sessions of this process that nobody will close any more."""
        async with self._asking:
            session = await self._connected()
            await session.execute(self._sql["end_sessions"], pids)

    async def close(self) -> None:
        """Close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
