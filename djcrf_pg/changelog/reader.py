"""Read windows of the change log over an asyncpg connection, and keep the cursor."""

import dataclasses
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from djcrf_pg import sql
from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.cursor import BEGINNING, Position, Snapshot, Span
from djcrf_pg.changelog.window import Window, crowds
from djcrf_pg.diagnosis import LOG, WHEREABOUTS, Whereabouts, without_log
from djcrf_pg.exceptions import ConfigurationError, CursorExpired, LeadershipLost, NotMigrated

#: A piece of a window holds at most so many bytes of images, and one row more.
PIECE_BYTES = 8 * 1024 * 1024

#: Keys of a window that are fetched at a time, ahead of their images.
_KEYS = 50_000

_CURSOR = "leader"

#: Between the names of columns, which may have any other character.
_SEPARATOR = "\x1f"

#: No number of rows.
_MOST = 2**62

#: What ends a connection, or keeps one from being made.
CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a session that was terminated in the middle of a query may end in
)

#: What comes back with each try for the same rows: text that has no equivalent in UTF-8 and other data exceptions, a
#: temp_file_limit or memory that does not suffice, a value over a limit, and damage (PostgreSQL manual, appendix A).
FAILS_AGAIN = (
    asyncpg.DataError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.DataCorruptedError,
    asyncpg.InternalServerError,
)

_WEIGHT = sql.load("djcrf_pg.changelog", "weight.sql")

_IS_OPEN = "SELECT true FROM pg_cursors WHERE name = 'djcrf_pg_window'"

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
else:
    Connection = asyncpg.Connection


class Asks(Protocol):
    """What asks the server: an asyncpg connection, or what stands before one."""

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Return the rows."""
        ...

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Return the first row."""
        ...

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return the first value of the first row."""
        ...

    async def execute(self, query: str, *args: Any) -> str:
        """Return the command's status."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """What one read brought.

    Attributes:
        changes: In the order of their ids.
        position: Where the next read goes on.
        snapshot: What was visible to this read.
        interest: The version of :meth:`ChangeLog.interest` that goes with it; None where there is none.
    """

    changes: list[Change]
    position: Position
    snapshot: Snapshot
    interest: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """The cursor as a new leader finds it.

    Attributes:
        position: Where to go on.
        term: The number of this leadership; it rises with every one.
        reset: The saved snapshot and what is wrong with it, when it could not be used.
    """

    position: Position
    term: int
    reset: str | None = None


class ChangeLog:
    """The change log of one database, by way of one connection.

    Args:
        connection: Asks the server, in READ COMMITTED and outside of any transaction.
        schema: The schema of the log, quoted and with its dot.
    """

    def __init__(self, connection: Asks, schema: str) -> None:
        self.connection = connection
        self.schema = schema
        window = self._window("$1::text::pg_snapshot", "pg_current_snapshot()")
        version = sql.render(sql.texts("djcrf_pg.changelog", "reader.sql")["version"], schema=schema)
        places = {"schema": schema, "window": window, "weight": _WEIGHT, "oid": sql.oid_of("name"), "version": version}
        self._sql = sql.queries("djcrf_pg.changelog", "reader.sql", **places)
        self._pieces: _Pieces | None = None
        self._process: int | None = None
        self._interest: int | None = None

    def _window(self, last: str, target: str) -> str:
        return sql.render(sql.load("djcrf_pg.changelog", "window.sql"), schema=self.schema, last=last, target=target)

    def _part(self, position: Position, target: Snapshot) -> str:
        return self._window(f"'{position.last}'::pg_snapshot", f"'{target}'::pg_snapshot")

    @classmethod
    async def open(cls, connection: Asks, alias: str = "default") -> "ChangeLog":
        """Find the log by the connection's search_path.

        Args:
            connection: Asks the server.
            alias: The database, for the message.

        Raises:
            NotMigrated: There is none.
        """
        name = await connection.fetchval(sql.LOG_SCHEMA)
        if name is None:
            raise NotMigrated(without_log(alias, Whereabouts.of(await connection.fetch(WHEREABOUTS, [LOG]))))
        return cls(connection, f"{name}.")

    async def read(self, position: Position, limit: int, mass: int | None = None) -> Piece:
        """Read what was committed since ``position``, up to ``limit`` changes.

        Costs two index scans, whatever the length of the log: the transactions from the old snapshot's xmax
        on, and those that were in progress then. A window that is larger than a piece is sorted once.

        Args:
            position: Where to go on.
            limit: Rows.
            mass: Put one change in place of more than so many rows of a table in a transaction.

        Raises:
            ConnectionError: The connection has another server process than at the first read.
        """
        if position.target is not None:
            if self._pieces is None or self._pieces.position != position:
                self._pieces = await self._cut(position, mass, resumed=True)
                # Any time after the window's snapshot will do: who subscribes later is not to receive what is in it.
                self._interest = await self.connection.fetchval(self._sql["version"])
            piece = await self._pieces.read(limit)
            if piece.position.target is None:
                self._pieces = None
            return dataclasses.replace(piece, interest=self._interest)
        try:
            rows = await self.connection.fetch(self._sql["read"], str(position.last), limit, PIECE_BYTES)
        except FAILS_AGAIN:
            # In pieces, what can be read of the window is; the rest is unreadable.
            return await self.read(Position(position.last, await self.now()), limit, mass)
        snapshot, found = Snapshot.parse(rows[0]["snapshot"]), rows[0]["found"] or 0
        self._process, self._interest = self._process or rows[0]["process"], rows[0]["interest"]
        if rows[0]["process"] != self._process:
            # Not noticed when it connected; the lock and LISTEN are somewhere else now.
            raise ConnectionError(
                f"server process {rows[0]['process']} answers in place of {self._process}: a connection pooler lends "
                f"the session to others, see DJCRF_PG['LISTENER_DATABASE']"
            )
        changes = [_change(row[4:]) for row in rows if row["id"] is not None]
        if len(changes) > limit and changes[0].id == changes[-1].id:
            # There may be more with this id.
            return await self.read(Position(position.last, snapshot), limit, mass)
        if found <= len(changes):
            if mass is not None:
                changes = Window(mass=crowds(changes, mass)).fold(changes)
            return Piece(changes, Position(snapshot), snapshot, self._interest)
        after = Position(position.last, snapshot, changes[-1].id)
        self._pieces = await self._cut(after, mass)
        return Piece(self._pieces.window.fold(changes), after, snapshot, self._interest)

    async def _cut(self, position: Position, mass: int | None, *, resumed: bool = False) -> "_Pieces":
        """Sort the rest of a window, for it to be read piece by piece."""
        assert position.target is not None
        part, after = self._part(position, position.target), str(position.after_id or 0)
        texts = sql.texts("djcrf_pg.changelog", "pieces.sql")
        window = Window()
        firsts: list[int] = []
        if mass is not None:
            with suppress(*FAILS_AGAIN):  # row by row, then
                rows = await self.connection.fetch(sql.render(texts["crowds"], window=part, most=str(mass)))
                window.mass = {(int(row["xid"]), row["relation"]): row["count"] for row in rows}
                firsts = [row["first"] for row in rows]
        if resumed and position.after_id is not None:
            try:
                rows = await self.connection.fetch(sql.render(texts["nested"], window=part, after=after))
                window.nested = {(int(row["xid"]), row["relation"]): row["depth"] for row in rows}
            except FAILS_AGAIN as error:
                if _may_pass(error):
                    raise
                window.forget(position.target.xmax - 1)
        xids = ",".join(str(xid) for xid, _ in window.mass)
        relations = ",".join(str(relation) for _, relation in window.mass)
        if await self.connection.fetchval(_IS_OPEN):
            await self.connection.execute(texts["close"])
        places = {"window": part, "xids": xids, "relations": relations, "firsts": ",".join(map(str, firsts))}
        kept = True
        rest = sql.render(texts["rest"], **places, after=after)
        try:
            await self.connection.execute(sql.render(texts["declare"], rest=rest, weight=_WEIGHT))
        except FAILS_AGAIN:
            kept = False
        return _Pieces(self.connection, self._sql, position, window, places, kept=kept)

    async def now(self) -> Snapshot:
        """What is committed now."""
        return Snapshot.parse(await self.connection.fetchval(self._sql["now"]))

    async def moment(self) -> tuple[Snapshot, datetime]:
        """What is committed now, and then what the server's clock says."""
        row = await self.connection.fetchrow(self._sql["moment"])
        assert row is not None
        return Snapshot.parse(row["snapshot"]), row["at"]

    async def written(self, position: Position, target: Snapshot) -> dict[int, int]:
        """The tables, by oid, that have changes between a position and a snapshot, each with the id of the last one."""
        query = sql.texts("djcrf_pg.changelog", "pieces.sql")["written"]
        places = {"window": self._part(position, target), "after": str(position.after_id or 0)}
        return {row["relation"]: row["id"] for row in await self.connection.fetch(sql.render(query, **places))}

    async def unseen(
        self, span: Span, tables: Mapping[int, Sequence[str]], limit: int, mass: int | None
    ) -> list[Change]:
        """What is in a span of some tables, for those who resume.

        Args:
            span: The span. Where it is netted, changes between the first and the last one of a row are left out.
            tables: The columns of the key of each, by oid.
            limit: Rows.
            mass: More changes than this of a table in a transaction are not told one by one.

        Raises:
            CursorExpired: There are more, or they cannot be sent one by one.
        """
        if span.target is None:
            return []
        texts = sql.texts("djcrf_pg.changelog", "replay.sql")
        places = {
            "schema": self.schema,
            "window": self._part(Position(span.last), span.target),
            "range": f"change.id > {span.start}" + ("" if span.end is None else f" AND change.id <= {span.end}"),
            "tables": texts["tables"],
            "cut": "false" if span.start == 0 and span.end is None else "true",
        }
        arguments = list(tables), [_SEPARATOR.join(columns) for columns in tables.values()]
        if not span.netted:
            query = sql.render(texts["crowded"], **places)
            if await self.connection.fetchval(query, *arguments, _MOST if mass is None else mass):
                raise CursorExpired("Changes that come after the cursor are not sent one by one: reload.")
        # Of a row there are two changes at most, but for those of keys.
        query = sql.render(texts["netted" if span.netted else "plain"], **places)
        rows = await self.connection.fetch(query, *arguments, 2 * limit + 1)
        if len(rows) > 2 * limit:
            raise CursorExpired(f"More than {limit} rows were changed since (DJCRF_PG['REPLAY_LIMIT']): reload.")
        return changes_of(rows)

    async def horizon(self) -> int:
        """Up to which transaction changes may have been deleted that a read before this one has missed."""
        query = sql.texts("djcrf_pg.changelog", "replay.sql")["horizon"]
        return int(await self.connection.fetchval(sql.render(query, schema=self.schema)))

    async def take(self) -> Taken:
        """Begin a new term, and load the cursor that the former one left.

        After a crash it is at most as old as the last save: what was sent since is sent again.

        Raises:
            ConfigurationError: A trigger keeps the cursor from being written.
        """
        row = await self.connection.fetchrow(self._sql["take"], _CURSOR)
        if row is None:
            raise ConfigurationError(
                "The cursor cannot be written: a trigger on djcrf_pg_cursor leaves the row out. Drop it, if it is none "
                "of ours; else the listener's role has session_replication_role = replica: take that from it, or leave "
                "application_name out of the OPTIONS of its database."
            )
        if row["fault"] is not None:
            return Taken(Position(BEGINNING), row["term"], reset=f"{row['snapshot']} {row['fault']}")
        target = row["target"] and Snapshot.parse(row["target"])
        return Taken(Position(Snapshot.parse(row["snapshot"]), target, row["after_id"]), row["term"])

    async def adopt(self) -> None:
        """Have the rows of a log read that was restored from another cluster."""
        await self.connection.execute(self._sql["adopt"])

    async def save(self, position: Position, term: int) -> None:
        """Save the cursor.

        Raises:
            LeadershipLost: A later term owns it.
        """
        target = position.target and str(position.target)
        status = await self.connection.execute(
            self._sql["save"], _CURSOR, str(position.last), target, position.after_id, term
        )
        if status.endswith(" 0"):
            raise _lost(term)

    async def set_flag(self, value: int) -> None:
        """Set the doorbell flag: 0 ring, 1 awake, 2 never ring."""
        await self.connection.execute(self._sql["flag"].replace("$1", str(int(value))))

    async def set_rings(self, rings: bool) -> None:
        """Tell the writers whether to ring although transactions can be prepared here."""
        await self.connection.execute(sql.set_rings(self.schema, rings))

    async def prepares(self) -> bool:
        """Whether transactions can be prepared here: PREPARE TRANSACTION fails after NOTIFY."""
        return bool(await self.connection.fetchval(sql.texts("djcrf_pg", "log.sql")["prepares"]))

    async def is_queue_full(self) -> bool:
        """Whether writers do not ring, because the queue of NOTIFY is half full."""
        return bool(await self.connection.fetchval(self._sql["queue"]))

    async def beat(self, term: int) -> None:
        """Say that the leader lives, though it has nothing to save yet.

        Raises:
            LeadershipLost: A later term owns the cursor.
        """
        owner = await self.connection.fetchval(self._sql["beat"], _CURSOR, term)
        if owner is not None and owner != term:
            raise _lost(term)

    async def fall_asleep(self, position: Position, term: int) -> None:
        """Ask to be rung for, and save the cursor in a later transaction.

        Saving takes an xid, later than that of any transaction that may have read "awake", so those appear as in
        progress in later snapshots: ``xmax`` of a snapshot is the latest *completed* xid + 1, and older ones that run
        are in its ``xip``. In one transaction the order would be wrong: ``setval`` itself takes an xid, and only then
        sets the value.

        Raises:
            LeadershipLost: A later term owns the cursor.
        """
        await self.set_flag(0)
        await self.save(position, term)

    async def set_caps(self, age: float, rows: int, size: int) -> None:
        """Tell the writers how large the log may grow: seconds, rows, bytes."""
        await self.connection.execute(sql.set_caps(self.schema, age, rows, size))

    async def trim(self, limit: int) -> bool:
        """Delete up to ``limit`` of the oldest changes, delivered or not, if the log is over a cap.

        Returns:
            Whether there is more to delete.
        """
        return bool(await self.connection.fetchval(self._sql["trim"], limit))

    async def may_look(self) -> bool:
        """Whether there is the function that finds changes without a trigger, and our role may call it."""
        return bool(await self.connection.fetchval(self._sql["may_look"]))

    async def look(self) -> int:
        """Log a resync of each table whose rows may have changed without a trigger.

        Returns:
            How many were logged.
        """
        return int(await self.connection.fetchval(self._sql["look"]) or 0)

    async def prune(self, position: Position, keep: float, limit: int) -> int:
        """Delete up to ``limit`` of the oldest changes, delivered ones older than ``keep`` seconds.

        Returns:
            How many were deleted.
        """
        return int(await self.connection.fetchval(self._sql["prune"], str(position.last), keep, limit))

    async def relations(self, oids: list[int]) -> list[asyncpg.Record]:
        """The columns and types of tables, from the catalog."""
        return await self.connection.fetch(self._sql["relations"], oids)

    async def interest(self) -> dict[int, bytes]:
        """Which groups somebody has, by chunk; see :mod:`djcrf_pg.delivery.interest`.

        Known for a version when it is asked after that version was read.
        """
        return {row["chunk"]: row["bits"].bytes for row in await self.connection.fetch(self._sql["interest"])}

    async def left(self, class_id: int) -> set[int]:
        """The holders of groups that do not hold the lock of a class."""
        return {row["holder"] for row in await self.connection.fetch(self._sql["left"], class_id)}

    async def forget(self, holders: Collection[int]) -> None:
        """Delete what holders have published."""
        await self.connection.execute(self._sql["forget"], list(holders))

    async def heard(self, class_id: int) -> set[int]:
        """The second halves of the keys of advisory locks that somebody holds, as ``int4``."""
        rows = await self.connection.fetch(self._sql["heard"], class_id)
        return {row["key"] - 2**32 if row["key"] >= 2**31 else row["key"] for row in rows}

    async def oids(self, names: list[str]) -> dict[str, int]:
        """The oids of tables by quoted name; those that do not exist are left out."""
        rows = await self.connection.fetch(self._sql["oids"], names)
        return {row["name"]: row["oid"] for row in rows if row["oid"] is not None}


class _Pieces:
    """The rest of a window, sorted and kept by the server.

    Attributes:
        position: What the next read goes on from.
        window: What its pieces have in common.
    """

    def __init__(
        self,
        connection: Asks,
        queries: Mapping[str, str],
        position: Position,
        window: Window,
        places: Mapping[str, str],
        *,
        kept: bool,
    ) -> None:
        self.position = position
        self.window = window
        self._connection = connection
        self._sql = queries
        # Of the query for keys, where the server keeps none.
        self._places = places
        self._kept = kept
        self._keys: deque[asyncpg.Record] = deque()
        self._count = _KEYS
        self._more = True

    async def read(self, limit: int) -> Piece:
        """Read the next piece."""
        target = self.position.target
        assert target is not None
        texts = sql.texts("djcrf_pg.changelog", "pieces.sql")
        # As many as it takes to know that the next key has another id: transactions may have one in common.
        while self._more and (len(self._keys) <= limit or self._keys[-1]["id"] == self._keys[limit - 1]["id"]):
            try:
                keys = await self._connection.fetch(self._next_keys(texts))
            except FAILS_AGAIN:
                if self._kept:
                    self._kept = False
                    # The next ones are behind an id, and the last one may be that of more transactions.
                    last = self._keys[-1]["id"] if self._keys else None
                    while self._keys and self._keys[-1]["id"] == last:
                        self._keys.pop()
                elif self._count == 1:
                    raise
                else:
                    self._count //= 2
                continue
            self._more = len(keys) >= self._count
            self._keys.extend(keys)
        chosen: list[asyncpg.Record] = []
        size = 0
        while self._keys and (
            not chosen
            or (len(chosen) < limit and size < PIECE_BYTES)
            or self._keys[0]["id"] == chosen[-1]["id"]  # the next read goes on behind it
        ):
            chosen.append(self._keys.popleft())
            size += chosen[-1]["bytes"]
        rows = await self._images(chosen)
        if self._keys:
            self.position = Position(self.position.last, target, chosen[-1]["id"])
        else:
            if self._kept:
                await self._connection.execute(texts["close"])
            self.position = Position(target)
        return Piece(self.window.fold(changes_of(rows)), self.position, target)

    def _next_keys(self, texts: Mapping[str, str]) -> str:
        if self._kept:
            return sql.render(texts["fetch"], count=str(self._count))
        after = self._keys[-1]["id"] if self._keys else self.position.after_id or 0
        rest = sql.render(texts["rest"], **self._places, after=str(after))
        return sql.render(texts["keys"], rest=rest, count=str(self._count))

    async def _images(self, keys: Sequence[asyncpg.Record]) -> list[asyncpg.Record]:
        """Rows by their keys; one that cannot be read, not even alone, is unreadable.

        Unless it is the server that lacks something now: whoever reads tries again later.
        """
        arguments = [key["xid"] for key in keys], [key["id"] for key in keys]
        try:
            return await self._connection.fetch(self._sql["images"], *arguments)
        except FAILS_AGAIN as error:
            if len(keys) == 1:
                if _may_pass(error):
                    raise
                return await self._connection.fetch(self._sql["unreadable"], *arguments)
        half = len(keys) // 2
        return [*await self._images(keys[:half]), *await self._images(keys[half:])]


def changes_of(rows: Iterable[Iterable[Any]]) -> list[Change]:
    """Rows as the queries of this package select them."""
    return [_change(row) for row in rows]


def _change(fields: Iterable[Any]) -> Change:
    id, xid, *others = fields
    return Change(id, int(xid), *others)


def _may_pass(error: asyncpg.PostgresError) -> bool:
    """Whether it is no matter of what is read: memory, a full disk; but for a limit of the role's."""
    return isinstance(error, asyncpg.InsufficientResourcesError) and not isinstance(
        error, asyncpg.ConfigurationLimitExceededError
    )


def _lost(term: int) -> LeadershipLost:
    return LeadershipLost(f"term {term} is over: another listener leads")
