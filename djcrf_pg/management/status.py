"""``manage.py djcrf_pg status``: which tables have their triggers."""

import dataclasses
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from json import dumps

from django.core.management.base import BaseCommand
from django.db import connections

from djcrf_pg.capture import catalog
from djcrf_pg.capture.install import absent, log_schema, plan, unfit
from djcrf_pg.diagnosis import without_log, without_tables
from djcrf_pg.instances import sql_fields
from djcrf_pg.management.databases import add_database, choose
from djcrf_pg.observer import shadowed
from djcrf_pg.registry import registry

HELP = "Show for each observed table whether its triggers are installed."

#: What fixes a state, for the last line of the table.
_FIXES = {
    **dict.fromkeys(("missing", "outdated", "disabled"), "`manage.py djcrf_pg install` fixes the triggers"),
    "unfit": "A view takes no triggers, nor does a table with a foreign one among its children; `manage.py djcrf_pg "
    "install` drops those it has. Observe the tables behind it, or take it out of DJCRF_PG['OBSERVE']",
    "unwanted": "`manage.py djcrf_pg install` drops what nobody observes",
    "other": "What belongs to another project, or to an app that is not installed here, stays; `manage.py djcrf_pg "
    "install --prune` drops it",
    "taken": "A table has the triggers of one change log and project; `manage.py djcrf_pg install` says more",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """What there is to say of one table.

    Attributes:
        database: Its alias.
        table: Its qualified name; for one that does not exist, what the model says.
        state: ``installed``, ``missing``, ``outdated``, ``disabled``, ``unwanted`` (nobody observes it), ``other``
            (nobody observes it here, but perhaps another project or an app that is not installed), ``taken`` (it is
            observed, and has the triggers of another project that wants others), ``absent``
            (there is no such table), ``unfit`` (a view, say, which takes no triggers, or a table with a foreign one
            among its children), or ``not migrated`` (there is no change log).
        excluded: The columns that never leave it.
        deferred: The fields that a query selects as SQL and that instances lack therefore, with the class of each.
    """

    database: str
    table: str
    state: str
    excluded: tuple[str, ...] = ()
    deferred: Mapping[str, str] = dataclasses.field(default_factory=dict)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="Print a JSON document instead of a table.")
    parser.add_argument(
        "--check", action="store_true", help="End with status 1 unless every table is in the state `installed`."
    )


def run(command: BaseCommand, *, database: list[str] | None, json: bool, check: bool) -> None:
    """Print the state of each table."""
    lines = [line for alias in choose(database) for line in look(alias)]
    command.stdout.write(as_json(lines) if json else as_table(lines))
    if check and any(line.state not in ("installed", "other") for line in lines):
        sys.exit(1)


def look(alias: str) -> list[Line]:
    """The state of each table of a database that wants triggers or has them."""
    if log_schema(alias) is None:
        return [Line(alias, name, "not migrated", excluded) for name, excluded in registry.tables(alias).items()]
    steps = plan(alias)
    deferred = _deferred(alias)
    lines = [
        Line(
            alias,
            step.table.name,
            step.state,
            step.table.excluded,
            deferred.get(step.table.oid, {}),
        )
        for step in steps
    ]
    lines += [Line(alias, name, "unfit") for name in unfit(alias)]
    return lines + [Line(alias, name, "absent") for name in absent(alias)]


def _deferred(alias: str) -> dict[int, dict[str, str]]:
    """The fields whose SELECT is SQL and the class of each, by the oid of their table."""
    found: dict[int, dict[str, str]] = {}
    excluded = registry.tables(alias)
    for model in registry.models(alias):
        name = model._meta.db_table
        fields = {
            field.name: type(field).__name__
            for column, field in sql_fields(model, alias).items()
            if column not in excluded[name]
        }
        if fields:
            for table in catalog.tables(connections[alias], {name: ()}):
                found.setdefault(table.oid, {}).update(fields)
    return found


def as_json(lines: Iterable[Line]) -> str:
    """A JSON document: a list of objects, one for each table."""
    return dumps([dataclasses.asdict(line) for line in lines], indent=2)


def as_table(lines: Sequence[Line]) -> str:
    """An aligned table, and what fixes what is wrong."""
    if not lines:
        return "Nothing is observed in any PostgreSQL database, and there are no triggers of djcrf_pg."
    rows = [("DATABASE", "TABLE", "STATE", "EXCLUDED")]
    rows += [(line.database, line.table, line.state, ", ".join(line.excluded)) for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    fixes = dict.fromkeys(f"{_FIXES[line.state]}." for line in lines if line.state in _FIXES)
    unmigrated = dict.fromkeys(line.database for line in lines if line.state == "not migrated")
    fixes |= dict.fromkeys(map(without_log, unmigrated))
    for alias in dict.fromkeys(line.database for line in lines if line.state == "absent"):
        absent = [line.table for line in lines if line.database == alias and line.state == "absent"]
        fixes[without_tables(alias, absent)] = None
    notes = [
        f"\nNote: {line.database}: {line.table}, field {field}: deferred on instances; a query selects it as SQL of "
        f"{kind}, and the log has what is stored."
        for line in lines
        for field, kind in line.deferred.items()
    ]
    if shadowed.is_on():
        notes.append(
            "\nNote: shadow mode is on: Django's signals deliver, and `manage.py djcrf_pg shadow` shows where triggers "
            "would send something else."
        )
    return "\n".join([*text, *(f"\n{fix}" for fix in fixes), *notes])
