"""``manage.py djcrf_pg …``: the subcommands are modules of :mod:`djcrf_pg.management`."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, DatabaseError

from djcrf_pg.conf import get_settings
from djcrf_pg.diagnosis import denied
from djcrf_pg.exceptions import DjcrfPgError
from djcrf_pg.management import explain, failures, history, listen, migration, prune, shadow, status, tail, triggers


class _Subcommand(NamedTuple):
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[..., None]


_SUBCOMMANDS = {
    "listen": _Subcommand(listen.HELP, listen.add_arguments, listen.run),
    "status": _Subcommand(status.HELP, status.add_arguments, status.run),
    "failures": _Subcommand(failures.HELP, failures.add_arguments, failures.run),
    "tail": _Subcommand(tail.HELP, tail.add_arguments, tail.run),
    "explain": _Subcommand(explain.HELP, explain.add_arguments, explain.run),
    "history": _Subcommand(history.HELP, history.add_arguments, history.run),
    "shadow": _Subcommand(shadow.HELP, shadow.add_arguments, shadow.run),
    "prune": _Subcommand(prune.HELP, prune.add_arguments, prune.run),
    "install": _Subcommand(triggers.INSTALL_HELP, triggers.add_install_arguments, triggers.run_install),
    "uninstall": _Subcommand(triggers.UNINSTALL_HELP, triggers.add_uninstall_arguments, triggers.run_uninstall),
    "makemigrations": _Subcommand(migration.HELP, migration.add_arguments, migration.run),
}

#: What BaseCommand handles itself and a subcommand does not get.
_COMMON = {
    *("verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks"),
    *("stdout", "stderr"),
}


class Command(BaseCommand):
    """The commands of djcrf_pg."""

    help = "Commands of djcrf_pg, the change log behind live updates."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the subcommands."""
        commands = parser.add_subparsers(dest="command", required=True)
        for name, subcommand in _SUBCOMMANDS.items():
            subcommand.add_arguments(commands.add_parser(name, help=subcommand.help, description=subcommand.help))

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        """Run the subcommand.

        Raises:
            CommandError: It cannot do its work; the message says what fixes it.
        """
        try:
            get_settings()
            own = {name: value for name, value in options.items() if name not in _COMMON}
            _SUBCOMMANDS[command].run(self, **own)
        except DjcrfPgError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            alias = (options.get("database") or [DEFAULT_DB_ALIAS])[0]
            raise CommandError(denied(error, alias) or f"Database error: {str(error).strip()}") from error
