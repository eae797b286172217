"""Read from PostgreSQL's catalog which tables there are and which triggers of ours they have."""

from collections.abc import Iterable, Mapping
from typing import Any

from djcrf_pg import sql
from djcrf_pg.capture.plan import Table, Trigger
from djcrf_pg.exceptions import InstallError


def _query(name: str) -> str:
    return sql.queries("djcrf_pg.capture", "catalog.sql")[name]


def schema_of_log(connection: Any) -> str | None:
    """The schema of the change log as an identifier with its dot; None before it is migrated."""
    with connection.cursor() as cursor:
        cursor.execute(_query("schema"))
        row = cursor.fetchone()
    return None if row is None else f"{connection.ops.quote_name(row[0])}."


def tables(connection: Any, wanted: Mapping[str, tuple[str, ...]]) -> list[Table]:
    """Find tables, and the partitions of those that have some. Tables that do not exist are left out.

    Args:
        connection: A Django database connection.
        wanted: ``db_table`` to excluded columns.

    Raises:
        InstallError: A name belongs to something that takes no statement triggers.
    """
    names = {connection.ops.quote_name(name): excluded for name, excluded in wanted.items()}
    with connection.cursor() as cursor:
        cursor.execute(_query("tables"), [list(names)])
        rows = cursor.fetchall()
    for name, _, _, kind in rows:
        if kind not in ("r", "p"):
            raise InstallError(
                f"{name} is no table (pg_class.relkind is {kind!r}), so it takes no triggers that see the "
                f"changed rows: observe the tables behind it, or take it out of DJCRF_PG['OBSERVE']."
            )
    found = {oid: Table(oid, qualified, names[name]) for name, oid, qualified, _ in rows}
    return list(found.values())


def absent(connection: Any, names: Iterable[str]) -> list[str]:
    """The names, out of some ``db_table``, that no table has."""
    quoted = {connection.ops.quote_name(name): name for name in names}
    with connection.cursor() as cursor:
        cursor.execute(_query("absent"), [list(quoted)])
        return [quoted[name] for (name,) in cursor.fetchall()]


def triggers(connection: Any, schema: str) -> dict[Table, dict[str, Trigger]]:
    """Find the triggers that call our functions in ``schema``, by table and name."""
    with connection.cursor() as cursor:
        cursor.execute(_query("triggers"), [schema.removesuffix(".")])
        rows = cursor.fetchall()
    return _by_table(rows)


def casts(connection: Any, schema: str, oids: list[int]) -> list[tuple[Any, ...]]:
    """Find casts to json that capturing rows of tables calls, and that are neither ours nor a superuser's."""
    with connection.cursor() as cursor:
        cursor.execute(_query("casts"), [oids, schema.removesuffix(".")])
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _by_table(rows: Iterable[tuple[Any, ...]]) -> dict[Table, dict[str, Trigger]]:
    found: dict[Table, dict[str, Trigger]] = {}
    for oid, qualified, name, comment, enabled in rows:
        found.setdefault(Table(oid, qualified), {})[name] = Trigger(name, comment, enabled)
    return found
