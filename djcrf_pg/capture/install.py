"""Bring the triggers of a database to the wanted state, table by table, and touch nothing else."""

import dataclasses
from collections.abc import Callable, Iterable

from django.apps import apps
from django.db import DatabaseError, connections, transaction

from djcrf_pg.capture import catalog
from djcrf_pg.capture.plan import Project, Step, Table, Trigger, drops, owner_of, steps
from djcrf_pg.capture.siblings import siblings
from djcrf_pg.capture.tenancy import refuse_tenants
from djcrf_pg.conf import get_settings
from djcrf_pg.diagnosis import denied, without_tables
from djcrf_pg.exceptions import InstallError, NotMigrated
from djcrf_pg.observations import Installed, emit
from djcrf_pg.pages import see
from djcrf_pg.registry import registry

#: Two migrates at once work on one table after the other: the key of a transaction-level advisory lock. Frozen SQL
#: files have it too.
INSTALL_LOCK = 0x646A6372665F7067

#: What an install does to a table in a state.
VERBS = {"missing": "created", "outdated": "replaced", "disabled": "enabled", "unwanted": "dropped", "unfit": "dropped"}


def plan(alias: str, *, prune: bool = False) -> list[Step]:
    """What there is to do in database ``alias``; reads the catalog alone.

    Args:
        alias: The database.
        prune: Take the triggers of other projects, and those on tables that no model here has, for ours.

    Returns:
        One step for each table that wants triggers or has them; empty where the change log is not migrated. What
        only another alias of the same database wants is not among them, nor a table of another schema that has the name
        of an observed one: it may be observed by way of another ``search_path``.

    Raises:
        ConfigurationError: The observed tables are in the schemas of tenants.
        InstallError: The catalog cannot be read.
    """
    connection = connections[alias]
    try:
        if (schema := log_schema(alias)) is None:
            return []
        refuse_tenants(alias)
        names = registry.tables(alias)
        wanted, unfit = catalog.sort(connection, names)
        version = catalog.version(connection, schema)
        found = steps(wanted, catalog.triggers(connection, schema), schema, _project(names, prune), version)
        taken = catalog.taken(connection, schema, wanted)
        found = [_taken(step, taken[step.table.oid]) if step.table.oid in taken else step for step in found]
        found = [_unfit(step) if step.state == "unwanted" and step.table.oid in unfit else step for step in found]
        if unwanted := {step.table.oid for step in found} - {table.oid for table in wanted}:
            observed = {model._meta.db_table for _, models in registry.observed() for model in models}
            theirs = _wanted_by_siblings(alias) | catalog.elsewhere(connection, unwanted, observed)
            found = [step for step in found if step.table.oid not in theirs & unwanted]
        return found
    except DatabaseError as error:
        raise InstallError(
            denied(error, alias) or f"djcrf_pg cannot look at the triggers of database {alias!r}: {str(error).strip()}."
        ) from error


def _project(observed: Iterable[str], prune: bool) -> Project:
    tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    return Project(get_settings().project, tables.union(observed), prune)


def _taken(step: Step, comment: str | None) -> Step:
    """The step on a table that is observed by way of another change log: it is not to lose its triggers there."""
    project, _ = owner_of([Trigger("", comment, True)]) or ("unknown", "")
    return Step(step.table, "taken", (), project)


def _unfit(step: Step) -> Step:
    """The step on a table that is observed and whose triggers fail writes: a child of it is a foreign table."""
    return dataclasses.replace(step, state="unfit")


def _wanted_by_siblings(alias: str) -> set[int]:
    """The tables that other aliases of the same database want: routers may have placed their models there alone."""
    return {
        table.oid
        for other in siblings(alias)[1:]
        for table in catalog.tables(connections[other], registry.tables(other))
    }


def install_plan(alias: str, *, prune: bool = False) -> list[Step]:
    """What :func:`install` does in database ``alias``: the steps of :func:`plan` that have work.

    A table that nobody observes keeps its triggers while an observed one does not exist: it may be that one under
    its former name, and the migration that renames it is still to come.

    Raises:
        InstallError: The catalog cannot be read.
    """
    work = [step for step in plan(alias, prune=prune) if step.statements]
    if any(step.state == "unwanted" for step in work) and any(absent(other) for other in siblings(alias)):
        work = [step for step in work if step.state != "unwanted"]
    return work


def uninstall_plan(alias: str, names: Iterable[str] | None = None, *, prune: bool = False) -> list[Step]:
    """What :func:`uninstall` does in database ``alias``; reads the catalog alone.

    Args:
        alias: The database.
        names: Tables, as ``db_table`` says or as ``status`` shows them, with their partitions; None for all.
        prune: Take the triggers of other projects too.

    Raises:
        InstallError: A name is that of no table with triggers of ours.
    """
    connection = connections[alias]
    schema = log_schema(alias)
    project = _project((), prune)
    found = {
        table: triggers
        for table, triggers in (catalog.triggers(connection, schema) if schema else {}).items()
        if project.other(triggers.values()) is None
    }
    chosen = {table.oid for table in found} if names is None else _oids(alias, names, found)
    return [Step(table, "unwanted", drops(table, found[table])) for table in found if table.oid in chosen]


def _oids(alias: str, names: Iterable[str], found: Iterable[Table]) -> set[int]:
    shown = {shown: table.oid for table in found for shown in (table.name, table.name.replace('"', ""))}
    chosen: set[int] = set()
    for name in names:
        oids = {table.oid for table in catalog.tables(connections[alias], {name: ()})} & set(shown.values())
        if name in shown:
            oids.add(shown[name])
        if not oids:
            raise InstallError(
                f"There are no triggers of djcrf_pg on {name!r} in database {alias!r}. "
                f"`manage.py djcrf_pg status --database {alias}` lists the tables that have some; those of another "
                f"project take --prune."
            )
        chosen |= oids
    return chosen


def absent(alias: str) -> list[str]:
    """The observed tables that do not exist in database ``alias``, because they are not migrated."""
    return catalog.absent(connections[alias], registry.tables(alias))


def unfit(alias: str) -> dict[str, str]:
    """What is observed in database ``alias`` and takes no triggers: its qualified name to what it is, a view say."""
    return catalog.unfit(connections[alias], registry.tables(alias))


def refuse_unfit(alias: str) -> None:
    """See that everything observed takes triggers. For after an install: the others must not go without theirs.

    Raises:
        InstallError: Something takes none; all are named.
    """
    if found := unfit(alias) if log_schema(alias) else {}:
        names = ", ".join(f"{name} ({what})" for name, what in found.items())
        raise InstallError(
            f"No triggers can see the changed rows of {names} in database {alias!r}, so its changes are not captured, "
            f"nor those of a table that it is a partition or a child of: observe the tables behind it, or take it out "
            f"of DJCRF_PG['OBSERVE']. Whatever else is observed has its triggers."
        )


def others(alias: str) -> dict[str, list[str]]:
    """The other projects that have triggers in the change log of database ``alias``, with their tables."""
    found: dict[str, list[str]] = {}
    for step in plan(alias):
        if step.project is not None:
            found.setdefault(step.project, []).append(step.table.name)
    return found


def refuse_others(alias: str) -> None:
    """See that observed tables have no triggers that another project wants otherwise. For after an install.

    Raises:
        InstallError: One has; all are named.
    """
    if steps := [step for step in plan(alias) if step.state == "taken"]:
        names = ", ".join(f"{step.table.name} (project {step.project!r})" for step in steps)
        raise InstallError(
            f"The triggers on {names} in database {alias!r} belong to another project, and are not those that this "
            f"one, {get_settings().project!r}, wants: it leaves out other columns, has another version of djcrf_pg, or "
            f"a change log in another schema. A table has the triggers of one log, so observe it in one project alone. "
            f"If they are one project, set the same DJCRF_PG['PROJECT'] in both, or run `manage.py djcrf_pg install "
            f"--prune` to take over the triggers of this log."
        )


def log_schema(alias: str) -> str | None:
    """The schema of the change log in database ``alias``, quoted and with its dot; None where there is no log."""
    connection = connections[alias]
    return catalog.schema_of_log(connection) if connection.vendor == "postgresql" else None


def has_table(alias: str, name: str) -> bool:
    """Whether a database has a change log, and beside it a table that came later.

    Args:
        alias: The database.
        name: Of the table.

    Raises:
        NotMigrated: There is a change log, but it is of an older version.
    """
    if log_schema(alias) is None:
        return False
    if name not in connections[alias].introspection.table_names():
        raise NotMigrated(without_tables(alias, [name]))
    return True


def install(alias: str, *, prune: bool = False) -> list[Step]:
    """Create, replace, enable and drop triggers until database ``alias`` has what its observers want.

    Each table has its own transaction, so that no two tables are locked at a time. ``CREATE TRIGGER`` takes
    SHARE ROW EXCLUSIVE, which waits for running writers; ``LOCK_TIMEOUT`` bounds how long new ones queue
    behind it (PostgreSQL manual, 13.3.1). A second run touches no table.

    Returns:
        The steps that were taken.

    Raises:
        InstallError: A lock was not had in time, or a right is missing.
    """
    return _work(alias, lambda: install_plan(alias, prune=prune))


def uninstall(alias: str, names: Iterable[str] | None = None, *, prune: bool = False) -> list[Step]:
    """Drop our triggers, with the care of :func:`install`; the change log stays.

    Args:
        alias: The database.
        names: Tables, as for :func:`uninstall_plan`; None for all.
        prune: As for :func:`uninstall_plan`.

    Returns:
        The steps that were taken.

    Raises:
        InstallError: A name has no triggers of ours, a lock was not had in time, or a right is missing.
    """
    chosen = {step.table.oid for step in uninstall_plan(alias, names, prune=prune)}
    return _work(alias, lambda: [step for step in uninstall_plan(alias, prune=prune) if step.table.oid in chosen])


def _work(alias: str, find: Callable[[], list[Step]]) -> list[Step]:
    done = []
    for step in find():
        if (taken := _take(alias, step, find)) is not None:
            done.append(taken)
            emit(Installed(verb=VERBS[taken.state], table=taken.table.name, alias=alias))
    return done


def _take(alias: str, step: Step, find: Callable[[], list[Step]]) -> Step | None:
    """Take a step, as it looks once nobody else is at work: another process may have taken it meanwhile."""
    timeout = get_settings().LOCK_TIMEOUT
    try:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [INSTALL_LOCK])
            fresh = next((again for again in find() if again.table.oid == step.table.oid), None)
            if fresh is not None:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{int(timeout * 1000)}ms"])
                for statement in fresh.statements:
                    cursor.execute(statement)
    except DatabaseError as error:
        raise InstallError(_explain(step, alias, timeout, error)) from error
    return fresh


def _explain(step: Step, alias: str, timeout: float, error: DatabaseError) -> str:
    done = "dropped" if VERBS[step.state] == "dropped" else "installed"
    start = f"Triggers on {step.table.name} (database {alias!r}) are not {done}: "
    match getattr(error.__cause__, "sqlstate", None):
        case "55P03":
            return (
                f"{start}no lock on the table within {timeout:g} s (DJCRF_PG['LOCK_TIMEOUT']), for a transaction "
                f"that uses it is open. When it has ended, run `manage.py migrate` or the same command again."
            )
        case "42501":
            user = connections[alias].settings_dict.get("USER") or "the database user"
            return (
                f"{start}{user!r} may not create or drop triggers there ({str(error).strip()}). Run the same command "
                f"as the owner of the table, who also needs EXECUTE on the functions of djcrf_pg. "
                f"{see('reference/database-objects.md#rights')}"
            )
    return f"{start}{str(error).strip()}"
