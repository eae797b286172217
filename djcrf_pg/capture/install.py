"""Bring the triggers of a database to the wanted state, table by table, and touch nothing else."""

from django.db import DatabaseError, connections, transaction

from djcrf_pg.capture import catalog
from djcrf_pg.capture.plan import Step, steps
from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import InstallError
from djcrf_pg.observations import Installed, emit
from djcrf_pg.registry import registry

#: Two migrates at once work on one table after the other: the key of a transaction-level advisory lock.
_LOCK = 0x646A6372665F7067


_VERBS = {"missing": "created", "outdated": "replaced", "disabled": "enabled", "unwanted": "dropped"}


def plan(alias: str) -> list[Step]:
    """What there is to do in database ``alias``; reads the catalog alone.

    Returns:
        One step for each table that wants triggers or has them; empty where the change log is not migrated.

    Raises:
        InstallError: An observed name is no table.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql" or (schema := catalog.schema_of_log(connection)) is None:
        return []
    wanted = catalog.tables(connection, registry.tables(alias))
    return steps(wanted, catalog.triggers(connection, schema), schema)


def install(alias: str) -> list[Step]:
    """Create, replace, enable and drop triggers until database ``alias`` has what its observers want.

    Each table has its own transaction, so that no two tables are locked at a time. ``CREATE TRIGGER`` takes
    SHARE ROW EXCLUSIVE, which waits for running writers; ``LOCK_TIMEOUT`` bounds how long new ones queue
    behind it (PostgreSQL manual, 13.3.1). A second run touches no table.

    Returns:
        The steps that were taken.

    Raises:
        InstallError: A lock was not had in time, or a right is missing.
    """
    taken = [step for step in plan(alias) if step.statements]
    for step in taken:
        _take(alias, step)
        emit(Installed(verb=_VERBS[step.state], table=step.table.name, alias=alias))
    return taken


def _take(alias: str, step: Step) -> None:
    table, timeout = step.table.name, get_settings().LOCK_TIMEOUT
    try:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{int(timeout * 1000)}ms"])
            for statement in step.statements:
                cursor.execute(statement)
    except DatabaseError as error:
        raise InstallError(_explain(table, alias, timeout, error)) from error


def _explain(table: str, alias: str, timeout: float, error: DatabaseError) -> str:
    start = f"Triggers on {table} (database {alias!r}) are not installed: "
    match getattr(error.__cause__, "sqlstate", None):
        case "55P03":
            return (
                f"{start}no lock on the table within {timeout:g} s (DJCRF_PG['LOCK_TIMEOUT']), for a transaction "
                f"that writes to it is open. Run `manage.py migrate` again when it has ended."
            )
        case "42501":
            user = connections[alias].settings_dict.get("USER") or "the database user"
            return (
                f"{start}{user!r} may not create triggers there ({str(error).strip()}). Run `manage.py migrate` "
                f"as the owner of the table and of the djcrf_pg functions."
            )
    return f"{start}{str(error).strip()}"
