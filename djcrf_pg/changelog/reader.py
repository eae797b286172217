"""Read windows of the change log over an asyncpg connection, and keep the cursor."""

import dataclasses
from typing import TYPE_CHECKING, Any

import asyncpg

from djcrf_pg import sql
from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.cursor import BEGINNING, Position, Snapshot
from djcrf_pg.exceptions import LeadershipLost, NotMigrated

#: A piece of a window holds at most so many bytes of images, and one row more.
PIECE_BYTES = 16 * 1024 * 1024

#: More rows than any batch has.
_MANY = 1_000_000

_CURSOR = "leader"

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
else:
    Connection = asyncpg.Connection


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """What one read brought.

    Attributes:
        changes: In the order of their ids.
        position: Where the next read goes on.
        snapshot: What was visible to this read.
    """

    changes: list[Change]
    position: Position
    snapshot: Snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """The cursor as a new leader finds it.

    Attributes:
        position: Where to go on.
        term: The number of this leadership; it rises with every one.
        reset: The saved snapshot, when it could not be used because it lies in this server's future.
    """

    position: Position
    term: int
    reset: str | None = None


class ChangeLog:
    """The change log of one database, by way of one connection.

    Args:
        connection: An asyncpg connection in READ COMMITTED and outside of any transaction.
        schema: The schema of the log, quoted and with its dot.
    """

    def __init__(self, connection: Connection, schema: str) -> None:
        self.connection = connection
        self.schema = schema
        self._sql = sql.queries("djcrf_pg.changelog", "reader.sql", schema=schema)
        self._rows = _MANY

    @classmethod
    async def open(cls, connection: Connection) -> "ChangeLog":
        """Find the log by the connection's search_path.

        Raises:
            NotMigrated: There is none.
        """
        name = await connection.fetchval(
            "SELECT quote_ident(n.nspname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE c.oid = to_regclass('djcrf_pg_change')"
        )
        if name is None:
            raise NotMigrated("The change log djcrf_pg_change does not exist: run `manage.py migrate`.")
        return cls(connection, f"{name}.")

    async def read(self, position: Position, limit: int) -> Piece:
        """Read what was committed since ``position``, up to ``limit`` changes.

        Costs two index scans, whatever the length of the log: the transactions from the old snapshot's xmax
        on, and those that were in progress then.
        """
        target = position.target
        # Wide rows are weighed before they are read, so a piece that was cut by bytes makes the next one short.
        limit = min(limit, self._rows)
        rows = await self.connection.fetch(
            self._sql["read"],
            str(position.last),
            target and str(target),
            position.after_id or 0,
            limit,
            PIECE_BYTES,
        )
        snapshot = Snapshot.parse(rows[0]["snapshot"])
        found = rows[0]["found"] or 0
        changes = [
            Change(id, int(xid), relation, op, old, new, context, at)
            for _, id, xid, relation, op, old, new, context, at, _ in rows[:limit]
            if id is not None
        ]
        cut_by_bytes = len(changes) < min(found, limit)
        self._rows = 2 * (len(changes) if cut_by_bytes else min(self._rows, _MANY))
        if found > len(changes):
            return Piece(changes, Position(position.last, target or snapshot, changes[-1].id), snapshot)
        return Piece(changes, Position(target or snapshot), snapshot)

    async def take(self) -> Taken:
        """Begin a new term, and load the cursor that the former one left.

        After a crash it is at most as old as the last save: what was sent since is sent again.
        """
        await self.connection.execute(self._sql["adopt"])
        row = await self.connection.fetchrow(self._sql["take"], _CURSOR)
        assert row is not None
        if row["future"]:
            return Taken(Position(BEGINNING), row["term"], reset=row["snapshot"])
        target = row["target"] and Snapshot.parse(row["target"])
        return Taken(Position(Snapshot.parse(row["snapshot"]), target, row["after_id"]), row["term"])

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
            raise LeadershipLost(f"term {term} is over: another listener leads")

    async def set_flag(self, value: int) -> None:
        """Set the doorbell flag: 0 ring, 1 awake, 2 never ring."""
        await self.connection.execute(self._sql["flag"].replace("$1", str(int(value))))

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

    async def prune(self, position: Position, keep: float, limit: int) -> int:
        """Delete up to ``limit`` of the oldest changes, delivered ones older than ``keep`` seconds.

        Returns:
            How many were deleted.
        """
        status = await self.connection.execute(self._sql["prune"], str(position.last), keep, limit)
        return int(status.rpartition(" ")[2])

    async def relations(self, oids: list[int]) -> list[asyncpg.Record]:
        """The columns and types of tables, from the catalog."""
        return await self.connection.fetch(self._sql["relations"], oids)

    async def oids(self, names: list[str]) -> dict[str, int]:
        """The oids of tables by quoted name; those that do not exist are left out."""
        rows = await self.connection.fetch(self._sql["oids"], names)
        return {row["name"]: row["oid"] for row in rows if row["oid"] is not None}
