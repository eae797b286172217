"""``manage.py djcrf_pg listen``: the listeners of this project, in the foreground."""

import asyncio
import gc
import logging
import signal
from argparse import ArgumentParser
from collections.abc import Iterable

from django.core.management.base import BaseCommand, CommandError

from djcrf_pg.delivery.layer import channel_layer, is_in_memory
from djcrf_pg.discovery import discover
from djcrf_pg.exceptions import DjcrfPgError, ungrouped
from djcrf_pg.listener.identity import one_for_each_log
from djcrf_pg.listener.service import Listener
from djcrf_pg.management.databases import add_database, check_alias
from djcrf_pg.observations import logger
from djcrf_pg.registry import registry

HELP = "Run the listener in the foreground until SIGTERM or SIGINT."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser, "each PostgreSQL alias with an observed model")


def run(command: BaseCommand, *, database: list[str] | None) -> None:
    """Run one listener for each change log.

    Raises:
        CommandError: There is nothing to listen for, or nobody that it could reach.
    """
    if is_in_memory(channel_layer()):
        raise CommandError(
            "The channel layer is InMemoryChannelLayer, which reaches consumers of its own process alone, and no "
            "consumer runs in this one. Use channels_redis; or run no `listen`, for the listener inside the "
            "ASGI process starts by itself."
        )
    discover()
    for alias in database or ():
        check_alias(alias)
    chosen = database or registry.aliases()
    if not chosen:
        raise CommandError(
            "No model observer on a PostgreSQL model was found in any app's consumers module or behind "
            "ASGI_APPLICATION, so there is nothing to listen for."
        )
    _show_log(command)
    # What was imported stays. Ten thousand changes bring about a full collection, which need not go through it.
    gc.collect()
    gc.freeze()
    asyncio.run(_run(command, chosen))


def _show_log(command: BaseCommand) -> None:
    """A process in the foreground says when it leads and when it stands by, also where LOGGING says nothing."""
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler(command.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        logger.addHandler(handler)


def _stop(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.stop()


async def _run(command: BaseCommand, aliases: Iterable[str]) -> None:
    chosen = await one_for_each_log(aliases)
    for alias, others in chosen.items():
        for other in others:
            command.stderr.write(f"{other!r} is the same database as {alias!r}, whose listener serves it too.")
    listeners = [Listener(alias) for alias in chosen]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, listeners)
    with ungrouped(DjcrfPgError):
        async with asyncio.TaskGroup() as tasks:
            for listener in listeners:
                tasks.create_task(listener.run())
