"""An asyncpg connection from Django's settings.

asyncpg speaks the protocol itself and does not read every libpq option that ``OPTIONS`` may hold: what it knows
is translated, what means nothing to a listener is left out, and the rest is refused by name.
"""

import asyncio
import os
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import asyncpg
from django.db import connections

from djcrf_pg.changelog.reader import Connection
from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener.pooler import is_shared

#: What ends a connection, or keeps one from being made.
CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a session that was terminated in the middle of a query may end in
)

#: Session settings of the listener. What a database or role sets for its own programs must not reach it: reads under
#: SERIALIZABLE would make the users' transactions fail, a timeout would cancel a long backlog for ever. A generic plan
#: made while the log is short must not scan it when it is long; and a lost peer must be noticed (PostgreSQL manual,
#: 19.3.1 and 19.3.2; ignored on Unix sockets).
_SESSION = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "enable_seqscan": "off",
    "jit": "off",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

_SET = "SELECT count(set_config(name, value, false)) FROM unnest($1::text[], $2::text[]) AS setting (name, value)"

_SAME_NAME = {"passfile", "target_session_attrs", "krbsrvname", "gsslib", "service", "servicefile"}
_SSL_FILES = {"sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword", "sslnegotiation"}
_SSL_FILES |= {"ssl_min_protocol_version", "ssl_max_protocol_version"}

#: What shapes Django's own connection, or libpq's, and has no meaning for ours: it reads in autocommit, sets its
#: keepalives itself, and always speaks UTF-8.
_MEANINGLESS = {
    *("isolation_level", "server_side_binding", "cursor_factory", "pool", "prepare_threshold", "context"),
    *("client_encoding", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("tcp_user_timeout", "fallback_application_name", "gssencmode", "autocommit", "row_factory"),
}


def asyncpg_arguments(config: Mapping[str, Any], role: str = "listener") -> dict[str, Any]:
    """Translate an entry of ``DATABASES`` into arguments of :func:`asyncpg.connect`.

    Args:
        config: Django's settings of one database.
        role: What the connection is for; it shows in ``pg_stat_activity.application_name``.

    Raises:
        ConfigurationError: ``OPTIONS`` has something that asyncpg cannot do.
    """
    options = dict(config.get("OPTIONS") or {})
    options.pop("assume_role", None)
    session = {**_session_settings(options.pop("options", "")), **_SESSION}
    name = options.pop("application_name", None) or "djcrf_pg"
    session["application_name"] = _session_name(name, role)
    session["djcrf_pg.leader"] = _session_name(name, "leader")
    arguments: dict[str, Any] = {"server_settings": session}
    for theirs, ours in (("HOST", "host"), ("USER", "user"), ("PASSWORD", "password"), ("NAME", "database")):
        if config.get(theirs):
            arguments[ours] = str(config[theirs])
    if config.get("PORT"):
        arguments["port"] = [_port(port) for port in str(config["PORT"]).split(",")]
        if len(arguments["port"]) == 1:
            (arguments["port"],) = arguments["port"]
    if "," in arguments.get("host", ""):
        arguments["host"] = arguments["host"].split(",")
    if "connect_timeout" in options:
        arguments["timeout"] = float(options.pop("connect_timeout"))
    # Files of TLS are read by asyncpg out of a DSN alone; the keywords above override the rest of it.
    tls = {key: options.pop(key) for key in sorted(_SSL_FILES & options.keys())}
    if "sslmode" in options:
        tls["sslmode"] = options.pop("sslmode")
    if tls:
        arguments["dsn"] = f"postgresql:///?{urlencode(tls)}"
    for key in sorted(_SAME_NAME & options.keys()):
        arguments[key] = options.pop(key)
    for key in _MEANINGLESS:
        options.pop(key, None)
    if options:
        raise ConfigurationError(
            f"DATABASES[…]['OPTIONS'] has {', '.join(map(repr, sorted(options)))}, which the djcrf_pg listener "
            f"(asyncpg) cannot use. Name an alias without it in DJCRF_PG['LISTENER_DATABASE']."
        )
    return arguments


def _session_name(name: str, role: str) -> str:
    """An ``application_name``, which has 63 bytes; the role is never what is cut off."""
    return f"{name[:30]} {role} {socket.gethostname()}:{os.getpid()}"[:63]


def _port(text: str) -> int:
    if not text.strip().isdigit():
        raise ConfigurationError(f"DATABASES[…]['PORT'] has {text!r}, which is no port number.")
    return int(text)


def _session_settings(options: str) -> dict[str, str]:
    """Read libpq's ``options``: ``-c name=value`` and ``--name=value`` (PostgreSQL manual, 34.1.2)."""
    found: dict[str, str] = {}
    # As the server splits them: at white space, unless a backslash is before it; quotes are nothing special.
    words = iter(re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", str(options or "")))
    for word in words:
        if word == "-c":
            pair = next(words, "")
        elif word.startswith("-c") or word.startswith("--"):
            pair = word[2:]
        else:
            pair = ""
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError(
                f"DATABASES[…]['OPTIONS']['options'] has {word!r}, which the djcrf_pg listener cannot read: write "
                f"-c name=value."
            )
        found[name.replace("-", "_")] = value
    return found


async def connect(alias: str, role: str = "listener") -> Connection:
    """Connect to the server that the listener of database ``alias`` reads.

    Args:
        alias: A Django database alias; ``LISTENER_DATABASE`` may name another for it.
        role: What the connection is for.

    The server has ``OPTIONS['connect_timeout']`` seconds to answer, 10 where it is not set.

    Raises:
        ConfigurationError: The settings cannot be translated, or a pooler gives no session of its own.
        OSError: The server cannot be reached.
        TimeoutError: It does not answer in time.
        asyncpg.PostgresError: It refuses.
    """
    name = get_settings().listener_alias(alias)
    django = connections[name]
    arguments = {"timeout": 10.0, **asyncpg_arguments(django.settings_dict, role)}
    session = arguments.pop("server_settings")
    connection = await _open(arguments, session["application_name"])
    try:
        async with asyncio.timeout(arguments["timeout"]):
            if await is_shared(connection, lambda: _open(arguments, session["application_name"])):
                raise ConfigurationError(_refusal(alias, name, django.settings_dict))
            await connection.execute(_SET, list(session), list(session.values()))
            if assumed := django.settings_dict.get("OPTIONS", {}).get("assume_role"):
                await connection.execute(f"SET ROLE {django.ops.quote_name(assumed)}")
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _open(arguments: Mapping[str, Any], name: str) -> Connection:
    # PgBouncer refuses any other setting here, or drops it where `ignore_startup_parameters` says so.
    connection: Connection = await asyncpg.connect(**arguments, server_settings={"application_name": name})
    return connection


def _refusal(alias: str, name: str, config: Mapping[str, Any]) -> str:
    place = ":".join(str(config[key]) for key in ("HOST", "PORT") if config.get(key)) or "its address"
    other = f", by way of the alias {name!r} in DJCRF_PG['LISTENER_DATABASE']," if name != alias else ""
    return (
        f"The listener of database {alias!r}{other} reaches a connection pooler at {place} that lends its server "
        f"connections from client to client (PgBouncer with pool_mode = transaction or statement, for example), and "
        f"LISTEN and the leader's lock need a session of their own. Name an alias in DATABASES that goes to PostgreSQL "
        f"itself, or to a pool in session mode: DJCRF_PG['LISTENER_DATABASE'] = {{{alias!r}: 'direct'}}."
    )
