"""The change log as the tests read it, and triggers on tables that no model knows."""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from django.db import connection

from djcrf_pg.capture import catalog
from djcrf_pg.capture.plan import Project, steps


def _integer(text: str) -> int | Decimal:
    """An integer; a Decimal where ``int`` refuses so many digits."""
    return int(text) if len(text) < 4_000 else Decimal(text)


def _parse(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    image: dict[str, Any] = json.loads(text, parse_float=Decimal, parse_int=_integer)
    return image


class Entry(NamedTuple):
    """A row of the log; ``table`` by its name, the images parsed."""

    id: int
    xid: int
    table: str
    op: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    context: str | None
    text: str


class Log:
    """What was logged since it was made."""

    def __init__(self) -> None:
        self.start = self._last()

    def _last(self) -> int:
        return int(sql("SELECT coalesce(max(id), 0) FROM djcrf_pg_change")[0][0])

    def entries(self) -> list[Entry]:
        """Every row since, in order; the next call begins after them."""
        rows = sql(
            "SELECT id, xid::text::bigint, relation::regclass::text, op::text, old::text, new::text, context "
            "FROM djcrf_pg_change WHERE id > %s ORDER BY id",
            self.start,
        )
        if rows:
            self.start = rows[-1][0]
        return [
            Entry(
                id=number,
                xid=xid,
                table=table.strip('"'),
                op=op,
                old=_parse(old),
                new=_parse(new),
                context=context,
                text=f"{old} {new}",
            )
            for number, xid, table, op, old, new, context in rows
        ]

    def images(self) -> list[tuple[str, dict[str, Any] | None, dict[str, Any] | None]]:
        """Operation, old and new of `entries`."""
        return [(entry.op, entry.old, entry.new) for entry in self.entries()]


def sql(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run a statement on Django's connection and return its rows, if it has any; skip where the server is too old."""
    if statement.startswith("MERGE") and connection.pg_version < 150_000:
        pytest.skip("MERGE came with PostgreSQL 15")
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def script(statements: Iterable[str]) -> None:
    """Run statements, one after the other."""
    for statement in statements:
        sql(statement)


def observe(name: str, excluded: tuple[str, ...] = ()) -> None:
    """Give a table the triggers that an observer of it would have."""
    schema = catalog.schema_of_log(connection)
    assert schema is not None
    for step in steps(catalog.tables(connection, {name: excluded}), {}, schema, Project("tests", ())):
        script(step.statements)
