"""The option ``--database`` of the subcommands, and which databases they mean."""

import asyncio
from argparse import ArgumentParser
from collections.abc import Iterable

from django.core.management.base import CommandError
from django.db import connections

from djcrf_pg.capture.install import log_schema
from djcrf_pg.discovery import discover
from djcrf_pg.listener.identity import one_for_each_log
from djcrf_pg.registry import registry


def add_database(parser: ArgumentParser, default: str = "each PostgreSQL alias with a log or observed models") -> None:
    """Declare ``--database``."""
    parser.add_argument(
        "--database",
        action="append",
        metavar="ALIAS",
        help=f"Database alias; may be repeated. Default: {default}.",
    )


def check_alias(alias: str) -> None:
    """See that an alias exists and is PostgreSQL.

    Raises:
        CommandError: It does not, or is not.
    """
    if alias not in connections:
        raise CommandError(f"There is no database {alias!r} in DATABASES; there are {', '.join(connections)}.")
    if (vendor := connections[alias].vendor) != "postgresql":
        raise CommandError(
            f"The database {alias!r} is {vendor}, and djcrf_pg works on PostgreSQL. Name the alias of a PostgreSQL "
            f"database."
        )


def choose(aliases: list[str] | None) -> list[str]:
    """Find the observers of the project, and the databases that a subcommand works on.

    Args:
        aliases: What the user chose; None or nothing for those that have observed models or a change log.

    Raises:
        CommandError: An alias does not exist, or is not PostgreSQL.
    """
    discover()
    for alias in aliases or ():
        check_alias(alias)
    if aliases:
        return list(dict.fromkeys(aliases))
    known = [alias for alias in connections if connections[alias].vendor == "postgresql"]
    return [alias for alias in known if registry.tables(alias) or log_schema(alias) is not None]


def one_of_each(aliases: Iterable[str]) -> list[str]:
    """Of aliases that are one database, the first."""
    return list(asyncio.run(one_for_each_log(aliases)))
