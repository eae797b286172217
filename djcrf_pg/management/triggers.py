"""``manage.py djcrf_pg install`` and ``uninstall``."""

from argparse import ArgumentParser
from collections.abc import Iterable

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.migration import Migration

from djcrf_pg.capture.install import (
    VERBS,
    absent,
    install,
    install_plan,
    log_schema,
    others,
    refuse_others,
    refuse_unfit,
    uninstall,
    uninstall_plan,
)
from djcrf_pg.capture.objects import look
from djcrf_pg.capture.plan import Step
from djcrf_pg.conf import get_settings
from djcrf_pg.diagnosis import without_log, without_tables
from djcrf_pg.management.databases import add_database, choose
from djcrf_pg.registry import registry

INSTALL_HELP = "Create, replace, enable and drop triggers until each observed table has what it wants."
UNINSTALL_HELP = "Drop the triggers of djcrf_pg, or everything that it has made."


def add_install_arguments(parser: ArgumentParser) -> None:
    """Declare the options of ``install``."""
    add_database(parser)
    parser.add_argument(
        "--prune",
        action="store_true",
        help="Drop triggers of other projects too, and those on tables that no installed app has a model of; replace "
        "those of other projects on observed tables.",
    )
    parser.add_argument("--dry-run", action="store_true", help="Print the SQL and touch nothing.")


def run_install(command: BaseCommand, *, database: list[str] | None, prune: bool, dry_run: bool) -> None:
    """Bring the triggers to the wanted state.

    Raises:
        CommandError: There is no change log.
        InstallError: Something observed takes no triggers; the rest is done.
    """
    for alias in choose(database):
        if registry.tables(alias) and log_schema(alias) is None:
            raise CommandError(f"{without_log(alias)} Triggers write to it.")
        if dry_run:
            _print(command, alias, install_plan(alias, prune=prune))
        else:
            _tell(command, alias, install(alias, prune=prune))
            look(alias)
        if names := absent(alias):
            command.stderr.write(without_tables(alias, names))
        refuse_unfit(alias)
        if not dry_run:
            refuse_others(alias)


def add_uninstall_arguments(parser: ArgumentParser) -> None:
    """Declare the options of ``uninstall``."""
    add_database(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tables", nargs="+", metavar="TABLE", help="Only the triggers on these tables.")
    which.add_argument(
        "--everything",
        action="store_true",
        help="Also the change log, the functions and the rows in django_migrations, so that the app can be removed.",
    )
    parser.add_argument("--prune", action="store_true", help="Drop the triggers of other projects too.")
    parser.add_argument("--dry-run", action="store_true", help="Print the SQL and touch nothing.")


def run_uninstall(
    command: BaseCommand,
    *,
    database: list[str] | None,
    tables: list[str] | None,
    everything: bool,
    prune: bool,
    dry_run: bool,
) -> None:
    """Drop triggers, and everything else if asked.

    Raises:
        CommandError: Other apps' migrations depend on ours, or several databases could be meant by ``--tables``.
    """
    chosen = choose(database)
    if tables and len(chosen) > 1:
        raise CommandError(f"Which database has these tables? Name it: --database {' or '.join(chosen)}.")
    if everything:
        for alias in chosen:
            _refuse_dependents(alias)
            if not prune:
                _refuse_others(alias)
    for alias in chosen:
        if dry_run:
            _print(command, alias, uninstall_plan(alias, tables, prune=prune))
            if everything:
                _print_backwards(command, alias)
            continue
        # One table after the other, and each with LOCK_TIMEOUT; the migration would lock them all at a time.
        _tell(command, alias, uninstall(alias, tables, prune=prune))
        if everything:
            call_command(
                "migrate", "djcrf_pg", "zero", database=alias, verbosity=0, interactive=False, skip_checks=True
            )
            command.stdout.write(f"{alias}: change log and functions dropped")
    if not everything and not dry_run and get_settings().AUTO_INSTALL:
        command.stderr.write(
            "The next `migrate` installs the triggers of what is observed again, unless "
            "DJCRF_PG['AUTO_INSTALL'] is False."
        )


def _backwards(alias: str) -> list[tuple[Migration, bool]]:
    plan: list[tuple[Migration, bool]] = MigrationExecutor(connections[alias]).migration_plan([("djcrf_pg", None)])
    return plan


def _refuse_dependents(alias: str) -> None:
    """Migrating our app to zero would unapply the migrations that depend on it, and all that follow those."""
    theirs = [f"{one.app_label}.{one.name}" for one, _ in _backwards(alias) if one.app_label != "djcrf_pg"]
    if theirs:
        raise CommandError(
            f"The migrations {', '.join(theirs)} of database {alias!r} depend on djcrf_pg and would be unapplied with "
            f"it. Take ('djcrf_pg', …) out of their `dependencies` and AlterTriggers out of their `operations` first: "
            f"this command drops the triggers that they have made."
        )


def _refuse_others(alias: str) -> None:
    """Dropping the change log would take the triggers of other projects along."""
    for project, tables in others(alias).items():
        raise CommandError(
            f"The change log of database {alias!r} is also that of project {project!r}, which has triggers on "
            f"{', '.join(tables)}. Add --prune to drop these as well."
        )


def _print(command: BaseCommand, alias: str, steps: Iterable[Step]) -> None:
    for step in steps:
        command.stdout.write(f"-- {alias}: {step.table.name} is {step.state}")
        command.stdout.write("\n".join(f"{statement};" for statement in step.statements))


def _print_backwards(command: BaseCommand, alias: str) -> None:
    executor = MigrationExecutor(connections[alias])
    command.stdout.write(f"-- {alias}: the app's migrations, backwards, and their rows in django_migrations")
    command.stdout.write("\n".join(executor.loader.collect_sql(_backwards(alias))))


def _tell(command: BaseCommand, alias: str, steps: Iterable[Step]) -> None:
    steps = list(steps)
    for step in steps:
        command.stdout.write(f"{alias}: triggers {VERBS[step.state]} on {step.table.name}")
    if not steps:
        command.stdout.write(f"{alias}: nothing to do")
