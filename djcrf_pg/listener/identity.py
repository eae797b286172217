"""Which change log an alias reaches: two aliases may be one database, and one listener serves them both then."""

import asyncio
from collections.abc import Iterable
from typing import Any

from djcrf_pg.capture.catalog import IDENTITY
from djcrf_pg.capture.siblings import look_alike, may_be_siblings
from djcrf_pg.changelog.reader import CONNECTION_ERRORS, Asks
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener.connection import connect

Identity = tuple[Any, ...]

#: Seconds that an alias has to answer.
_PATIENCE = 5.0


async def ask(alias: str) -> Identity | None:
    """The log that an alias reaches; None where it cannot be asked."""
    try:
        connection = await connect(alias, "identity")
        try:
            async with asyncio.timeout(_PATIENCE):
                return await _identity(connection)
        finally:
            connection.terminate()
    except (*CONNECTION_ERRORS, ConfigurationError):
        return None


async def aliases_of(connection: Asks, alias: str, others: Iterable[str]) -> list[str]:
    """The alias of a connection, and those of the others that reach its log.

    One that cannot be asked is among them where :func:`look_alike` says so: its models must not be forgotten.
    """
    possible = [other for other in others if may_be_siblings(alias, other)]
    if not possible:
        return [alias]
    own = await _identity(connection)
    answers = zip(possible, await asyncio.gather(*map(ask, possible)), strict=True)
    return [alias, *(other for other, found in answers if found == own or (not found and look_alike(alias, other)))]


async def one_for_each_log(aliases: Iterable[str]) -> dict[str, list[str]]:
    """Aliases, each with those that reach the same log and come after it."""
    aliases = list(aliases)
    if len(aliases) < 2:
        return {alias: [] for alias in aliases}
    kept: dict[str, list[str]] = {}
    first: dict[Identity, str] = {}
    for alias, found in zip(aliases, await asyncio.gather(*map(ask, aliases)), strict=True):
        known = alias if found is None else first.setdefault(found, alias)
        kept.setdefault(known, [])
        if known != alias:
            kept[known].append(alias)
    return kept


async def _identity(connection: Asks) -> Identity:
    row = await connection.fetchrow(IDENTITY)
    assert row is not None
    return tuple(row)
