"""Read from PostgreSQL's catalog which tables there are and which triggers of ours they have."""

from collections.abc import Iterable, Mapping
from typing import Any

from djcrf_pg import sql
from djcrf_pg.capture.plan import FORMER, FUNCTIONS, TRIGGERS, Table, Trigger


def _query(name: str) -> str:
    return sql.queries("djcrf_pg.capture", "catalog.sql")[name]


#: ``pg_class.relkind`` of what takes triggers with transition tables, and of what else has a name.
_TABLES = ("r", "p")
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence"}

#: What the change log that a connection reaches has to itself: its server, its database, its table.
IDENTITY = _query("identity")


def schema_of_log(connection: Any) -> str | None:
    """The schema of the change log as an identifier with its dot; None before it is migrated."""
    with connection.cursor() as cursor:
        cursor.execute(sql.LOG_SCHEMA)
        row = cursor.fetchone()
    return None if row is None else f"{row[0]}."


def identity(connection: Any) -> tuple[Any, ...]:
    """The row of :data:`IDENTITY`."""
    with connection.cursor() as cursor:
        cursor.execute(IDENTITY)
        return tuple(cursor.fetchone())


def tables(connection: Any, wanted: Mapping[str, tuple[str, ...]]) -> list[Table]:
    """Find tables, their partitions, and the tables that inherit from them.

    Tables that do not exist are left out, and so is the whole of one that :func:`unfit` names. A table that two names
    bring leaves out the columns of both.

    Args:
        connection: A Django database connection.
        wanted: ``db_table`` to excluded columns.
    """
    return sort(connection, wanted)[0]


def sort(connection: Any, wanted: Mapping[str, tuple[str, ...]]) -> tuple[list[Table], set[int]]:
    """As :func:`tables`, and beside them the oids of those that are left out: they must have no triggers."""
    names = {connection.ops.quote_name(name): name for name in wanted}
    rows = _members(connection, names)
    bad = {name for name, _, _, kind in rows if kind not in _TABLES}
    found: dict[int, Table] = {}
    for name, oid, qualified, _ in rows:
        if name not in bad:
            excluded = {*wanted[names[name]], *(found[oid].excluded if oid in found else ())}
            found[oid] = Table(oid, qualified, tuple(sorted(excluded)), names[name])
    return list(found.values()), {oid for name, oid, _, _ in rows if name in bad}


def unfit(connection: Any, names: Iterable[str]) -> dict[str, str]:
    """What takes no triggers that see the changed rows, out of some ``db_table``: its qualified name to what it is.

    A foreign table among the partitions, or among the tables that inherit, spoils the whole. PostgreSQL collects no
    transition tuples of it: while its parent has triggers that ask for them, each statement on the parent that changes
    one of its rows fails (PostgreSQL manual, ``CREATE TRIGGER``).
    """
    rows = _members(connection, map(connection.ops.quote_name, names))
    return {qualified: _KINDS.get(kind, kind) for _, _, qualified, kind in rows if kind not in _TABLES}


def _members(connection: Any, quoted: Iterable[str]) -> list[tuple[str, int, str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(_query("tables"), [list(quoted)])
        rows: list[tuple[str, int, str, str]] = cursor.fetchall()
    return rows


def absent(connection: Any, names: Iterable[str]) -> list[str]:
    """The names, out of some ``db_table``, that no table has."""
    quoted = {connection.ops.quote_name(name): name for name in names}
    with connection.cursor() as cursor:
        cursor.execute(_query("absent"), [list(quoted)])
        return [quoted[name] for (name,) in cursor.fetchall()]


def elsewhere(connection: Any, oids: Iterable[int], names: Iterable[str]) -> set[int]:
    """The tables, out of some, that are another schema's of a name that some ``db_table`` says.

    Those whose schema is not in ``search_path``, or comes after another one that has a table of the name; and their
    partitions.
    """
    with connection.cursor() as cursor:
        cursor.execute(_query("elsewhere"), [list(oids), list(names)])
        return {oid for (oid,) in cursor.fetchall()}


def triggers(connection: Any, schema: str) -> dict[Table, dict[str, Trigger]]:
    """Find the triggers that call our functions in ``schema``, by table and name."""
    with connection.cursor() as cursor:
        cursor.execute(_query("triggers"), [schema.removesuffix(".")])
        rows = cursor.fetchall()
    return _by_table(rows)


def taken(connection: Any, schema: str, tables: Iterable[Table]) -> dict[int, str | None]:
    """Find tables, out of some, with triggers of another change log; by oid, with the comment of one.

    They have the names of ours, and a table has one trigger of a name.
    """
    with connection.cursor() as cursor:
        cursor.execute(_query("taken"), [[table.oid for table in tables], list(TRIGGERS), schema.removesuffix(".")])
        return dict(cursor.fetchall())


def version(connection: Any, schema: str) -> str:
    """The newest version of the capture functions in ``schema``: an older one where migrations were taken back."""
    with connection.cursor() as cursor:
        cursor.execute(_query("versions"), [schema.removesuffix(".")])
        found = {name for (name,) in cursor.fetchall()}
    return next((version for version in (FUNCTIONS, *FORMER) if version in found), FUNCTIONS)


def _by_table(rows: Iterable[tuple[Any, ...]]) -> dict[Table, dict[str, Trigger]]:
    found: dict[Table, dict[str, Trigger]] = {}
    for oid, qualified, observed, name, comment, enabled in rows:
        found.setdefault(Table(oid, qualified, observed=observed), {})[name] = Trigger(name, comment, enabled)
    return found
