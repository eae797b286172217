"""``manage.py djcrf_pg …``: run a listener."""

import asyncio
import logging
import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from djcrf_pg.conf import get_settings
from djcrf_pg.discovery import discover
from djcrf_pg.exceptions import DjcrfPgError
from djcrf_pg.listener.sender import channel_layer, is_in_memory
from djcrf_pg.listener.service import Listener
from djcrf_pg.observations import logger
from djcrf_pg.registry import registry


class Command(BaseCommand):
    """The commands of djcrf_pg."""

    help = "Commands of djcrf_pg, the change log behind live updates."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the subcommands."""
        commands = parser.add_subparsers(dest="command", required=True)
        listen = commands.add_parser("listen", help="Run the listener in the foreground until SIGTERM or SIGINT.")
        listen.add_argument(
            "--database",
            action="append",
            metavar="ALIAS",
            help="Database alias; may be repeated. Default: each PostgreSQL alias with an observed model.",
        )

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        """Run the subcommand.

        Raises:
            CommandError: It cannot do its work; the message says what mends it.
        """
        try:
            get_settings()
            self.listen(options["database"])
        except DjcrfPgError as error:
            raise CommandError(str(error)) from error

    def listen(self, aliases: list[str] | None) -> None:
        """Run one listener for each database."""
        if is_in_memory(channel_layer()):
            raise CommandError(
                "The channel layer is InMemoryChannelLayer, which reaches consumers of its own process alone, and no "
                "consumer runs in this one. Use channels_redis; or run no `listen`, for the listener inside the "
                "ASGI process starts by itself."
            )
        discover()
        if unknown := [alias for alias in aliases or () if alias not in connections]:
            raise CommandError(f"There is no database {unknown[0]!r} in DATABASES.")
        chosen = aliases or registry.aliases()
        if not chosen:
            raise CommandError(
                "No model observer on a PostgreSQL model was found in any app's consumers module or behind "
                "ASGI_APPLICATION, so there is nothing to listen for."
            )
        self._show_log()
        asyncio.run(_run([Listener(alias) for alias in chosen]))

    def _show_log(self) -> None:
        """A process in the foreground says when it leads and when it stands by, also where LOGGING says nothing."""
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)
        if not logger.hasHandlers():
            handler = logging.StreamHandler(self.stderr)
            handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
            logger.addHandler(handler)


def _stop(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.stop()


async def _run(listeners: list[Listener]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, listeners)
    try:
        async with asyncio.TaskGroup() as tasks:
            for listener in listeners:
                tasks.create_task(listener.run())
    except* DjcrfPgError as errors:
        raise errors.exceptions[0] from None
