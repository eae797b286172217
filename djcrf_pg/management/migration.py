"""``manage.py djcrf_pg makemigrations``: triggers as a migration of the app whose tables they are on."""

import os
import re
from argparse import ArgumentParser
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from string import Template

from django.apps import AppConfig, apps
from django.core.management.base import BaseCommand, CommandError
from django.core.management.utils import run_formatters
from django.db import connections
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration
from django.db.migrations.writer import MigrationWriter, OperationWriter

from djcrf_pg import __version__
from djcrf_pg.capture.operations import AlterTriggers
from djcrf_pg.capture.plan import definitions
from djcrf_pg.discovery import discover
from djcrf_pg.management.frozen import Definitions, Place, installed, places
from djcrf_pg.registry import registry

HELP = "Write a migration that brings the triggers on an app's tables to what its observers want."

_TEMPLATE = "triggers.py-tmpl"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("app", metavar="APP", help="Label of the app whose tables are meant.")
    parser.add_argument("--name", help="Name of the migration, without its number. Default: djcrf_pg_triggers.")
    parser.add_argument("--dry-run", action="store_true", help="Print the migration and write nothing.")


def run(command: BaseCommand, *, app: str, name: str | None, dry_run: bool) -> None:
    """Write the migration, or say that none is needed.

    Raises:
        CommandError: There is no such app, or its migrations are none, have several leaves, or are not the project's.
    """
    config = _app(app)
    if name is not None and not name.isidentifier():
        raise CommandError(f"--name {name!r} cannot be part of a module's name: use letters, digits and '_'.")
    discover()
    loader = MigrationLoader(None)
    leaf = _leaf(loader, config)
    changes = _changes(wanted(config), installed(loader, app))
    if not changes:
        command.stdout.write(f"No changes: the migrations of {app!r} install what its observers want.")
        return
    # Ours come with functions that the SQL calls, so the newest that this version has.
    ours = loader.graph.leaf_nodes("djcrf_pg")
    number = (MigrationAutodetector.parse_number(leaf[1]) or 0) + 1
    migration = Migration(f"{number:04d}_{name or _free_name(loader, app)}", app)
    path = Path(MigrationWriter(migration).path)
    if {"site-packages", "dist-packages"} & set(path.parts):
        raise CommandError(
            f"The migrations of {app!r} are not this project's: they are in {path.parent}. Name a package of yours in "
            f"MIGRATION_MODULES[{app!r}], or install these triggers with `manage.py djcrf_pg install`."
        )
    text = _text(app, [leaf, *ours], changes)
    for operation in changes:
        command.stdout.write(f"  - {operation.describe()}")
    if dry_run:
        command.stdout.write(text)
        return
    path.write_text(text, encoding="utf-8")
    run_formatters([str(path)])
    command.stdout.write(f"Written: {_shown(path)}")


def _shown(path: Path) -> str:
    """A path as Django's ``makemigrations`` shows it: from the current directory, where it is below that."""
    shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    return shown


def wanted(app: AppConfig) -> dict[Place, Definitions]:
    """The triggers that the observers want on an app's tables, join tables among them, in any database."""
    tables: dict[str, tuple[str, ...]] = {}
    for alias in connections:
        tables |= registry.tables(alias) if connections[alias].vendor == "postgresql" else {}
    return {place: dict(definitions(tables[name])) for name, place in places(app).items() if name in tables}


def _app(label: str) -> AppConfig:
    try:
        return apps.get_app_config(label)
    except LookupError as error:
        raise CommandError(str(error)) from error


def _leaf(loader: MigrationLoader, app: AppConfig) -> tuple[str, str]:
    leaves = loader.graph.leaf_nodes(app.label)
    if not leaves:
        raise CommandError(
            f"The app {app.label!r} has no migrations, so its tables do not come before the triggers. Run "
            f"`manage.py makemigrations {app.label}` first, or install triggers with `manage.py djcrf_pg install`."
        )
    if len(leaves) > 1:
        names = ", ".join(name for _, name in leaves)
        raise CommandError(f"The app {app.label!r} has several leaf migrations ({names}): merge them first.")
    leaf: tuple[str, str] = leaves[0]
    return leaf


def _free_name(loader: MigrationLoader, app_label: str) -> str:
    """A name that no migration of the app has, whatever its number."""
    taken = {re.sub(r"^\d+_", "", name) for label, name in loader.disk_migrations if label == app_label}
    name, number = "djcrf_pg_triggers", 2
    while name in taken:
        name, number = f"djcrf_pg_triggers_{number}", number + 1
    return name


def _changes(wanted: dict[Place, Definitions], there: dict[Place, Definitions]) -> list[AlterTriggers]:
    """The operations that lead from what the migrations install to what is wanted; only what differs."""
    changes = []
    for place in sorted({*wanted, *there}, key=lambda place: (place.model_name, place.field_name or "")):
        before, after = there.get(place, {}), wanted.get(place, {})
        old = {name: list(made) for name, made in before.items() if after.get(name) != made}
        new = {name: list(made) for name, made in after.items() if before.get(name) != made}
        if old or new:
            changes.append(AlterTriggers(place.model_name, new, old or None, **_field(place)))
    return changes


def _field(place: Place) -> dict[str, str]:
    return {"field_name": place.field_name} if place.field_name else {}


def _text(app_label: str, dependencies: list[tuple[str, str]], operations: list[AlterTriggers]) -> str:
    template = Template((files("djcrf_pg.migrations_templates") / _TEMPLATE).read_text(encoding="utf-8"))
    # The writer names the operation by its module, the template imports it.
    written = "\n".join(OperationWriter(operation, indentation=2).serialize()[0] for operation in operations)
    return template.substitute(
        app=app_label,
        version=__version__,
        date=datetime.now(UTC).date().isoformat(),
        dependencies="\n".join(f'        ("{label}", "{name}"),' for label, name in dependencies),
        operations=written.replace("djcrf_pg.capture.operations.AlterTriggers(", "AlterTriggers("),
    )
