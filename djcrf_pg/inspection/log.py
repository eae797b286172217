"""Read the change log as people do: page by page, row by row, with the names that models have for things.

Everything runs in a read-only transaction of Django's connection, so a role that may SELECT will do, and so will a hot
standby. Nothing counts the log and nothing skips in it: pages are found by their keys. The only index is the one on
transaction and id, so a filter by anything but the transaction reads what it passes over; how much of that a page may
read has a limit, and a page says where the next one goes on.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import DatabaseError, ProgrammingError, connections, transaction
from django.db.models import Model
from psycopg.errors import InsufficientPrivilege

from djcrf_pg.capture.install import log_schema
from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.changelog.image import parse
from djcrf_pg.exceptions import InspectionError, NotMigrated
from djcrf_pg.inspection.entries import Entry, Key
from djcrf_pg.inspection.tables import Tables, key_columns, query
from djcrf_pg.registry import family_of

#: Changes that one page looks at, at most.
SCAN = 100_000

#: What a role needs in order to look, but to delete nothing.
RIGHTS = (
    "GRANT SELECT ON djcrf_pg_change, djcrf_pg_cursor, djcrf_pg_interest, djcrf_pg_failure TO {role}; "
    "GRANT SELECT ON SEQUENCE djcrf_pg_reach_xid, djcrf_pg_interest_version TO {role};"
)

# Ids begin with 1.
_FIRST, _LAST = Key(0, 0), Key(2**64 - 1, 2**63 - 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Filters:
    """Which changes are wanted.

    Attributes:
        model: Of whose rows; with multi-table inheritance also what of them is in the tables of parents.
        pk: Of which row of the model, as in :attr:`Entry.pk`; before or after the change.
        transaction: Of which transaction. The one filter that the index serves.
        context: A text that occurs in what the writer said of itself, in whatever case.
        since: Written at this time or later.
        until: Written before this time.
    """

    model: type[Model] | None = None
    pk: str | None = None
    transaction: int | None = None
    context: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Some changes, and where to go on.

    Attributes:
        entries: In the order that was asked for. They may be fewer than the limit, even none, where there is more.
        more: Goes on where this page ends, as ``before`` or ``after``; None at the end of the log.
    """

    entries: list[Entry]
    more: Key | None


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """How far back the log goes.

    Attributes:
        oldest: The oldest change; None where the log is empty.
        at: When that was written.
        pruned: Up to which transaction delivered changes were deleted because they were older than ``RETENTION``.
        trimmed: Up to which transaction changes were deleted because the log was over a cap, delivered or not.
    """

    oldest: Key | None
    at: datetime | None
    pruned: int | None
    trimmed: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, and how far the cursor is.

    Attributes:
        name: What the leader's session calls itself, with its host and process; None where nobody leads.
        pid: Its server process.
        snapshot: What was delivered, as of the last save; None where nothing ever was.
        term: Of the leadership that began last.
        saved_at: When the cursor was saved, or the leader gave a sign of life.
        waiting: When the oldest change was written that the cursor has not passed; None where it has passed all.
        now: The server's clock.
        is_strange: Whether the cursor is of another cluster: a leader will begin at the start of the log.
    """

    name: str | None
    pid: int | None
    snapshot: Snapshot | None
    term: int | None
    saved_at: datetime | None
    waiting: datetime | None
    now: datetime
    is_strange: bool = False

    @property
    def lag(self) -> float:
        """Seconds that the oldest undelivered change has been waiting."""
        return 0.0 if self.waiting is None else max((self.now - self.waiting).total_seconds(), 0.0)

    def has_delivered(self, xid: int) -> bool:
        """Whether what a transaction wrote was delivered, as far as the saved cursor says."""
        return self.snapshot is not None and not self.is_strange and self.snapshot.sees(xid)


@dataclasses.dataclass(frozen=True, slots=True)
class Activity:
    """How much is written.

    Attributes:
        written: Changes that were ever logged, by the server's statistics, which lag behind by a second; the difference
            of two of these is a rate.
        size: Bytes of the log with its index.
        now: The server's clock.
    """

    written: int
    size: int
    now: datetime


@contextmanager
def reading(alias: str, rights: str = RIGHTS) -> Iterator[Any]:
    """A cursor of Django's connection in a read-only transaction, a savepoint inside of another one.

    Args:
        alias: The Django database alias.
        rights: The GRANT that the message has, with a place for the role.

    Raises:
        InspectionError: The role lacks a right; the message has the GRANT.
    """
    connection = connections[alias]
    try:
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            yield cursor
    except ProgrammingError as error:
        if not isinstance(error.__cause__, InsufficientPrivilege):
            raise
        raise InspectionError(lacking(alias, str(error).strip(), rights)) from error


def lacking(alias: str, error: str, rights: str = RIGHTS) -> str:
    """What to say where a role lacks a right.

    Args:
        alias: The Django database alias.
        error: What the server has said.
        rights: The GRANT, with a place for the role.
    """
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_user)")
        (role,) = cursor.fetchone()
    return f"Database {alias!r}: {error}. The role needs: {rights.format(role=role)}"


class Log:
    """The change log of one database, for people.

    Args:
        alias: The Django database alias.

    Raises:
        NotMigrated: It has no change log.
    """

    def __init__(self, alias: str) -> None:
        schema = log_schema(alias)
        if schema is None:
            raise NotMigrated(
                f"Database {alias!r} has no change log djcrf_pg_change: run `manage.py migrate --database {alias}`."
            )
        self.alias = alias
        self.schema = schema
        self.tables = Tables(alias, schema)

    def page(
        self,
        filters: Filters = Filters(),
        *,
        before: Key | None = None,
        after: Key | None = None,
        limit: int = 100,
        scan: int = SCAN,
    ) -> Page:
        """Read some changes: the newest first, or from ``after`` on the oldest first.

        Costs a look at ``scan`` changes by the index at most, whatever the length of the log: they are read to see
        whether they pass the filters. Without filters it is ``limit`` changes, and with a transaction those of that
        transaction. The order is that of transactions as they began, and a long one commits late: what commits after
        a page was read may belong to it.

        Args:
            filters: Which changes.
            before: Only what comes before this key.
            after: Only what comes after this key; :data:`START` for the beginning of the log.
            limit: Changes in the page, at most.
            scan: Changes that are looked at, at most.

        Raises:
            InspectionError: A right is missing, or ``pk`` is no key of the model.
        """
        with reading(self.alias) as cursor:
            given = self._given(filters, cursor)
            if given is None:
                return Page([], None)
            name, order, back = ("older", "xid DESC, id DESC", "xid, id")
            if after is not None:
                name, order, back = ("newer", "xid, id", "xid DESC, id DESC")
            begin = after or before or _LAST
            values = {**given.values, "xid": str(begin.xid), "id": begin.id, "limit": limit, "scan": scan}
            part = query(name, self.schema)
            cursor.execute(query("page", self.schema, part=part, order=order), values)
            changes = [_change(row) for row in cursor.fetchall()]
            more: Key | None = None
            if len(changes) == limit:
                more = Key(changes[-1].xid, changes[-1].id)
            else:
                cursor.execute(query("edge", self.schema, part=part, order=back), values)
                if (row := cursor.fetchone()) is not None and row[2]:
                    more = Key(int(row[0]), row[1])
            entries = self._entries(changes, cursor)
            return Page([entry for entry in entries if given.wants(entry)], more)

    def history(self, model: type[Model], pk: str, *, scan: int = SCAN) -> Iterator[Entry]:
        """Read every change of a row that is in the log, the oldest first.

        Goes once through the log, ``scan`` changes at a time, each in a transaction of its own: some seconds for a
        million changes of other rows.

        Args:
            model: The model.
            pk: The key, as in :attr:`Entry.pk`.
            scan: Changes that are looked at in one transaction.

        Raises:
            InspectionError: A right is missing, or ``pk`` is no key of the model.
        """
        filters = Filters(model=model, pk=pk)
        after: Key | None = START
        while after is not None:
            page = self.page(filters, after=after, scan=scan)
            yield from page.entries
            after = page.more

    def find(self, id: int, xid: int | None = None) -> list[Change]:
        """Find changes by their id; two transactions may have one in common.

        Goes through the whole index, some tenths of a second for a million changes; with the transaction, it is one
        look.

        Args:
            id: The change's.
            xid: The transaction's, if it is known.
        """
        with reading(self.alias) as cursor:
            first, last = (_FIRST.xid, _LAST.xid) if xid is None else (xid, xid)
            cursor.execute(query("with_id", self.schema), {"id": id, "first": str(first), "last": str(last)})
            return [_change(row) for row in cursor.fetchall()]

    def entries(self, changes: Iterable[Change]) -> list[Entry]:
        """Describe changes that somebody has read. Costs a look at the catalog for tables that are new to it."""
        with reading(self.alias) as cursor:
            return self._entries(list(changes), cursor)

    def predicate(self, filters: Filters) -> Callable[[Entry], bool]:
        """What says of an entry whether it passes filters, for those that somebody follows.

        Raises:
            InspectionError: The model has no table here, or ``pk`` is no key of it.
        """
        model = filters.model
        with reading(self.alias) as cursor:
            given = self._given(filters, cursor)
        if given is None:
            assert model is not None
            raise InspectionError(
                f"{model._meta.label} has no table {model._meta.db_table!r} in database {self.alias!r}: run "
                f"`manage.py migrate --database {self.alias}`."
            )
        tables = None if model is None else {part._meta.db_table for part in family_of(model)}

        def passes(entry: Entry) -> bool:
            if tables is not None and (entry.model is None or apps.get_model(entry.model)._meta.db_table not in tables):
                return False
            if filters.transaction not in (None, entry.xid) or (filters.since is not None and entry.at < filters.since):
                return False
            return given.wants(entry)

        return passes

    def is_captured(self, model: type[Model]) -> bool:
        """Whether triggers capture what is written to a model's own table."""
        with reading(self.alias) as cursor:
            oids = [oid for oid, part in self.tables.parts(model, cursor).items() if part is model]
            found = self.tables.named(oids, cursor)
            return any(found[oid].has_triggers for oid in oids)

    def reach(self) -> Reach:
        """How far back the log goes. Costs a look at the beginning of the index."""
        with reading(self.alias) as cursor:
            cursor.execute(query("reach", self.schema))
            xid, id, at, pruned, trimmed = cursor.fetchone()
            return Reach(None if xid is None else Key(int(xid), id), at, pruned, trimmed or None)

    def newest(self) -> Key | None:
        """The newest change; None where the log is empty. Costs a look at the end of the index."""
        with reading(self.alias) as cursor:
            cursor.execute(query("newest", self.schema))
            row = cursor.fetchone()
            return None if row is None else Key(int(row[0]), row[1])

    def first_since(self, since: datetime) -> int | None:
        """The first transaction with a change from a time on. Goes through the whole log, without its images."""
        with reading(self.alias) as cursor:
            cursor.execute(query("since", self.schema), {"since": since})
            found: int | None = cursor.fetchone()[0]
            return found

    def leader(self) -> Leader:
        """Who leads, and how far the cursor is. Costs a look at the locks, and at the first undelivered change."""
        with reading(self.alias) as cursor:
            cursor.execute(query("leader", self.schema))
            pid, name, snapshot, _, term, saved_at, is_strange, waiting, now = cursor.fetchone()
            return Leader(
                name or (None if pid is None else "a session without a name"),
                pid,
                None if snapshot is None else Snapshot.parse(snapshot),
                term,
                saved_at,
                waiting,
                now,
                bool(is_strange),
            )

    def activity(self) -> Activity:
        """How much is written. Costs a look at the server's statistics."""
        with reading(self.alias) as cursor:
            cursor.execute(query("activity", self.schema))
            return Activity(*cursor.fetchone())

    def deletable(self, snapshot: Snapshot, keep: float) -> tuple[int, datetime | None, datetime | None]:
        """Count what was delivered and is older than ``keep`` seconds; and when the first and the last was written.

        Reads all that was delivered, without its images.
        """
        with reading(self.alias) as cursor:
            cursor.execute(query("deletable", self.schema), {"snapshot": str(snapshot), "keep": keep})
            count, first, last = cursor.fetchone()
            return count, first, last

    def _entries(self, changes: list[Change], cursor: Any) -> list[Entry]:
        tables = self.tables.named((change.relation for change in changes), cursor)
        return [Entry.of(change, tables[change.relation]) for change in changes]

    def _given(self, filters: Filters, cursor: Any) -> "_Given | None":
        """What the queries are given; None where nothing can pass."""
        first, last = _FIRST.xid, _LAST.xid
        if filters.transaction is not None:
            first = last = filters.transaction
        values: dict[str, Any] = {
            "first": str(first),
            "last": str(last),
            "relations": None,
            "needles": None,
            "since": filters.since,
            "until": filters.until,
            "context": filters.context,
        }
        if filters.model is None:
            return _Given(values)
        parts = self.tables.parts(filters.model, cursor)
        if not parts:
            return None
        values["relations"] = list(parts)
        if filters.pk is None:
            return _Given(values)
        texts = self._key_texts(filters.model, filters.pk, parts, cursor)
        keys = {key for _, key in texts}
        # Of a composite key any part will do here: what is found is compared as a whole.
        values["needles"] = [needle for needles, _ in texts for needle in needles]
        return _Given(values, keys)

    def _key_texts(
        self, model: type[Model], pk: str, parts: Mapping[int, type[Model]], cursor: Any
    ) -> list[tuple[list[str], str]]:
        """For each table of a row: its key as images have it, part by part, and as entries have it."""
        found = []
        for part in dict.fromkeys(parts.values()):
            oid = next(oid for oid, each in parts.items() if each is part)
            columns = key_columns(part)
            values = pk.split(",") if len(columns) > 1 else [pk]
            if len(values) != len(columns):
                raise InspectionError(
                    f"The key of {model._meta.label} has {len(columns)} parts ({', '.join(columns)}): write them with "
                    f"commas between, without spaces, not {pk!r}."
                )
            needles, key = [], []
            for column, value in zip(columns, values, strict=True):
                text = self._as_logged(model, oid, column, value, cursor)
                needles.append(text.removeprefix("{").removesuffix("}"))
                key.append(str(parse(text)[column]))
            found.append((needles, ",".join(key)))
        return found

    def _as_logged(self, model: type[Model], oid: int, column: str, value: str, cursor: Any) -> str:
        """A value of a column as a trigger would log it, ``{"id":7}``."""
        cursor.execute(query("type_of", self.schema), {"oid": oid, "column": column})
        row = cursor.fetchone()
        if row is None:
            raise InspectionError(
                f"The table of {model._meta.label} has no column {column!r}: run `manage.py migrate`."
            )
        quoted = connections[self.alias].ops.quote_name(column).replace("%", "%%")
        kind = row[0].replace("%", "%%")
        try:
            with transaction.atomic(using=self.alias):
                cursor.execute(query("pins", self.schema))
                cursor.execute(
                    f"SELECT row_to_json(r)::text FROM (SELECT CAST(%s AS {kind}) AS {quoted}) AS r", [value]
                )
                text: str = cursor.fetchone()[0]
                transaction.set_rollback(True, using=self.alias)  # of the pins, for whoever has a transaction open
        except (DatabaseError, ValidationError, ValueError) as error:
            why = str(error).strip().splitlines()[0]
            raise InspectionError(
                f"{value!r} is no key of {model._meta.label}, whose {column} is {row[0]}: {why}."
            ) from error
        return text


#: Before every change, for ``after``.
START = _FIRST


@dataclasses.dataclass(frozen=True, slots=True)
class _Given:
    values: Mapping[str, Any]
    keys: set[str] | None = None

    def wants(self, entry: Entry) -> bool:
        """Whether an entry that has the text of a key somewhere is of a row with that key."""
        return (
            self.keys is None or entry.pk is None or not self.keys.isdisjoint((entry.pk, entry.former_pk or entry.pk))
        )


def _change(row: Iterable[Any]) -> Change:
    id, xid, *others = row
    return Change(id, int(xid), *others)
