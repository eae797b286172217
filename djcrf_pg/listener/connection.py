"""An asyncpg connection to where Django's backend would connect, made of what that says each time."""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import asyncpg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from djcrf_pg.capture.tenancy import refusal
from djcrf_pg.changelog.reader import Connection
from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener.parameters import asyncpg_arguments
from djcrf_pg.listener.pooler import is_shared

#: Seconds that a backend may take to say what it connects with, and that a server has to answer unless
#: ``connect_timeout`` says otherwise.
_PATIENCE = 10.0

_SET = "SELECT count(set_config(name, value, false)) FROM unnest($1::text[], $2::text[]) AS setting (name, value)"


async def connect(alias: str, role: str = "listener") -> Connection:
    """Connect to the server that the listener of database ``alias`` reads.

    Django's backend is asked anew each time: the password that it makes may expire.

    Args:
        alias: A Django database alias; ``LISTENER_DATABASE`` may name another for it.
        role: What the connection is for.

    The server has ``OPTIONS['connect_timeout']`` seconds to answer, 10 where it is not set.

    Raises:
        ConfigurationError: The parameters cannot be translated, a pooler gives no session of its own, or the database
            has a schema for each tenant.
        OSError: The server cannot be reached, or the backend cannot say how.
        TimeoutError: It does not answer in time.
        asyncpg.PostgresError: It refuses.
    """
    if why := refusal(alias):
        raise ConfigurationError(why)
    name = get_settings().listener_alias(alias)
    django = connections[name]
    arguments = {"timeout": _PATIENCE, **asyncpg_arguments(await _parameters(name), role, name)}
    session = arguments.pop("server_settings")
    connection = await _open(arguments, session["application_name"])
    try:
        async with asyncio.timeout(arguments["timeout"]):
            if await is_shared(connection, lambda: _open(arguments, session["application_name"])):
                raise ConfigurationError(_refusal(alias, name, arguments))
            if connection.get_server_version() >= (17,):
                session["transaction_timeout"] = "0"
            await connection.execute(_SET, list(session), list(session.values()))
            if assumed := django.settings_dict.get("OPTIONS", {}).get("assume_role"):
                await connection.execute(f"SET ROLE {django.ops.quote_name(assumed)}")
    except BaseException:
        connection.terminate()
        raise
    return connection


@cache
def _thread(alias: str) -> ThreadPoolExecutor:
    """A thread in which the backend of an alias is asked, for it may ask a vault.

    One of its own: what hangs there keeps nobody else waiting, and the same backend can keep what is still valid.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=f"djcrf_pg-parameters-{alias}")


if hasattr(os, "register_at_fork"):
    # A fork has none of the threads, and nothing would ever answer it.
    os.register_at_fork(after_in_child=_thread.cache_clear)


async def _parameters(alias: str) -> dict[str, Any]:
    """What Django would connect with now."""
    asking = asyncio.get_running_loop().run_in_executor(
        _thread(alias), lambda: connections[alias].get_connection_params()
    )
    try:
        async with asyncio.timeout(_PATIENCE) as patience:
            return await asking
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"Database {alias!r}: {error}") from error
    except Exception as error:
        why = f"no answer within {_PATIENCE:g} s" if patience.expired() else repr(error)
        raise ConnectionError(
            f"get_connection_params() of the ENGINE of database {alias!r} does not say what to connect with: {why}"
        ) from error


async def _open(arguments: Mapping[str, Any], name: str) -> Connection:
    # PgBouncer refuses any other setting here, or drops it where `ignore_startup_parameters` says so.
    connection: Connection = await asyncpg.connect(**arguments, server_settings={"application_name": name})
    return connection


def _refusal(alias: str, name: str, arguments: Mapping[str, Any]) -> str:
    place = ":".join(str(arguments[key]) for key in ("host", "port") if key in arguments) or "its address"
    other = f", by way of the alias {name!r} in DJCRF_PG['LISTENER_DATABASE']," if name != alias else ""
    return (
        f"The listener of database {alias!r}{other} reaches a connection pooler at {place} that lends its server "
        f"connections from client to client (PgBouncer with pool_mode = transaction or statement, for example), and "
        f"LISTEN and the leader's lock need a session of their own. Name an alias in DATABASES that goes to PostgreSQL "
        f"itself, or to a pool in session mode: DJCRF_PG['LISTENER_DATABASE'] = {{{alias!r}: 'direct'}}."
    )
