"""From what is wanted and what is there to what must be done: values in, values out, no database."""

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

#: Statement and the transition tables its function reads. The names must be ones that no column has: with
#: ``NEW TABLE AS n``, a table with a column ``n`` breaks, and the write fails.
_EVENTS = {
    "insert": "REFERENCING NEW TABLE AS djcrf_pg_new",
    "update": "REFERENCING OLD TABLE AS djcrf_pg_old NEW TABLE AS djcrf_pg_new",
    "delete": "REFERENCING OLD TABLE AS djcrf_pg_old",
    "truncate": "",
}

#: Version of the capture functions in the SQL files, and the former ones.
FUNCTIONS = "v2"
FORMER = ("v1",)

TRIGGERS = tuple(f"djcrf_pg_{event}" for event in _EVENTS)

State = Literal["installed", "missing", "outdated", "disabled", "unwanted", "unfit", "other", "taken"]


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table that wants triggers.

    Attributes:
        oid: Its identity in ``pg_class``.
        name: Its qualified and quoted name.
        excluded: The columns that its images leave out.
        observed: The ``db_table`` that wants the triggers, the parent's for a partition; of a table that has some, its
            own name.
    """

    oid: int
    name: str
    excluded: tuple[str, ...] = ()
    observed: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of ours as the catalog shows it."""

    name: str
    comment: str | None
    enabled: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """The work on one table: its state, and the statements that fix it, if there are any.

    Attributes:
        table: The table.
        state: What is wrong with its triggers.
        statements: What fixes it.
        project: The other project that they belong to; None where they are ours, or no version has noted whose.
    """

    table: Table
    state: State
    statements: tuple[str, ...]
    project: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Project:
    """Whose triggers an install may drop or replace.

    A database may have triggers of several projects in one change log, and a process may have fewer apps than the one
    that has installed them.

    Attributes:
        name: As ``DJCRF_PG["PROJECT"]`` says.
        tables: The ``db_table`` of each model that is installed here.
        prune: Whether all triggers may be dropped or replaced, whosever they are.
    """

    name: str
    tables: Collection[str]
    prune: bool = False

    def may_drop(self, table: Table, triggers: Iterable[Trigger]) -> bool:
        """Whether triggers that nobody here wants are ours: of this project, and of a table that a model here has."""
        project, observed = owner_of(triggers) or (self.name, table.observed)
        return self.prune or (project == self.name and observed in self.tables)

    def other(self, triggers: Iterable[Trigger]) -> str | None:
        """The other project that triggers belong to; None where there is none, or that is no matter."""
        owner = owner_of(triggers)
        return owner[0] if owner and owner[0] != self.name and not self.prune else None


def quote_literal(text: str) -> str:
    """Quote a SQL string constant (PostgreSQL manual, 4.1.2.1; standard_conforming_strings is on)."""
    return "'" + text.replace("'", "''") + "'"


def definition(table: Table, event: str, schema: str, version: str | None = None) -> str:
    """The ``CREATE TRIGGER`` statement of one event; ``schema`` holds our functions, quoted, with its dot."""
    arguments = ", ".join(map(quote_literal, table.excluded)) if event != "truncate" else ""
    referencing = f"{_EVENTS[event]} " if _EVENTS[event] else ""
    return (
        f"CREATE OR REPLACE TRIGGER djcrf_pg_{event} AFTER {event.upper()} ON {table.name} "
        f"{referencing}FOR EACH STATEMENT "
        f"EXECUTE FUNCTION {schema}djcrf_pg_capture_{event}_{version or FUNCTIONS}({arguments})"
    )


def fingerprint(table: Table, event: str, version: str | None = None) -> str:
    """What the trigger's COMMENT says: a hash that changes when its definition does, not with renames."""
    nameless = definition(dataclasses.replace(table, oid=0, name=""), event, "", version)
    return f"djcrf_pg:{hashlib.sha256(nameless.encode()).hexdigest()[:16]}"


def owner_of(triggers: Iterable[Trigger]) -> tuple[str, str] | None:
    """The project that has installed triggers and the ``db_table`` that it observes, as their comments say.

    Version 0.1.0 noted neither, and migrations (:func:`definitions`) do not.
    """
    for trigger in triggers:
        _, _, project, table, *_ = [*(trigger.comment or "").split(":", 3), "", "", "", ""]
        if project:
            return project, table
    return None


def create(
    table: Table, event: str, schema: str, project: str | None = None, version: str | None = None
) -> tuple[str, str]:
    """The statements that make the trigger of one event, whether or not it is there: itself and its comment.

    The comment is the fingerprint, and with a project also its name and the table that it observes.
    """
    owner = "" if project is None else f":{project}:{table.observed}"
    comment = quote_literal(fingerprint(table, event, version) + owner)
    return (
        definition(table, event, schema, version),
        f"COMMENT ON TRIGGER djcrf_pg_{event} ON {table.name} IS {comment}",
    )


def definitions(excluded: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """The triggers of a table by name, as SQL with the places ``table`` and ``schema``, for a migration to keep."""
    table = Table(0, "/* :table */", excluded)
    return {f"djcrf_pg_{event}": create(table, event, "/* :schema */") for event in _EVENTS}


def steps(
    wanted: Iterable[Table],
    installed: Mapping[Table, Mapping[str, Trigger]],
    schema: str,
    project: Project,
    version: str | None = None,
) -> list[Step]:
    """Plan the work on every table that wants triggers or has them.

    Args:
        wanted: The tables that want triggers.
        installed: The tables that have some of ours, by table (compared by oid alone), trigger by name.
        schema: The schema of our functions, quoted and with its dot.
        project: Who asks.
        version: Of the functions that the triggers are to call: the newest ones that are migrated; by
            default the newest there are.

    Returns:
        One step for each table, wanted ones first.
    """
    wanted = list(wanted)
    found = {table.oid: triggers for table, triggers in installed.items()}
    plan = [_wanted_step(table, found.get(table.oid, {}), schema, project, version) for table in wanted]
    oids = {table.oid for table in wanted}
    for table, triggers in installed.items():
        if table.oid in oids:
            continue
        if project.may_drop(table, triggers.values()):
            plan.append(Step(table, "unwanted", drops(table, triggers)))
        else:
            plan.append(Step(table, "other", (), project.other(triggers.values())))
    return plan


def drops(table: Table, triggers: Iterable[str]) -> tuple[str, ...]:
    """The statements that free a table of triggers."""
    return tuple(f'DROP TRIGGER IF EXISTS "{name}" ON {table.name}' for name in sorted(triggers))


def _wanted_step(
    table: Table, triggers: Mapping[str, Trigger], schema: str, project: Project, version: str | None
) -> Step:
    fingerprints = {f"djcrf_pg_{event}": fingerprint(table, event, version) for event in _EVENTS}
    outdated = {
        name
        for name, expected in fingerprints.items()
        if (there := triggers.get(name)) and ":".join((there.comment or "").split(":")[:2]) != expected
    }
    if (other := project.other(triggers.values())) and outdated:
        # It may leave out other columns, and what is missing is its to create.
        return Step(table, "taken", (), other)
    statements: list[str] = []
    states: set[State] = set()
    if strangers := triggers.keys() - set(TRIGGERS):
        # Ours under another name would capture everything twice.
        states.add("outdated")
        statements += drops(table, strangers)
    for event in _EVENTS:
        name = f"djcrf_pg_{event}"
        there = triggers.get(name)
        if there is None or name in outdated:
            states.add("outdated" if there else "missing")
            statements += create(table, event, schema, other or project.name, version)
        if there is not None and not there.enabled:
            states.add("disabled")
            statements.append(f"ALTER TABLE {table.name} ENABLE TRIGGER {name}")
    ranked: tuple[State, ...] = ("missing", "outdated", "disabled")
    state: State = next((state for state in ranked if state in states), "installed")
    return Step(table, state, tuple(statements), other)
