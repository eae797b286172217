"""What Django would have libpq connect with, as arguments of :func:`asyncpg.connect`.

asyncpg speaks the protocol itself and does not know every parameter of libpq (PostgreSQL manual, 34.1.2). What it
knows is translated, what means nothing to a listener is left out, and the rest is refused by name: a listener must not
connect where Django would not, nor with less protection.

Services are looked up here. asyncpg reads a service file since 0.31, and then only beside a DSN.
"""

import hashlib
import os
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from djcrf_pg.exceptions import ConfigurationError

#: Session settings of the listener. What a database or role sets for its own programs must not reach it: reads under
#: SERIALIZABLE would make the users' transactions fail, a timeout would cancel a long backlog for ever, and with
#: ``exit_on_error`` a standby would end each time it has waited. A generic plan made while the log is short must not
#: scan it when it is long; a sort must not spill, where there may be a ``temp_file_limit``; and a lost peer must be
#: noticed (PostgreSQL manual, 19.3.1 and 19.3.2; ignored on Unix sockets).
_SESSION = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "exit_on_error": "off",
    "client_min_messages": "notice",
    "max_parallel_workers_per_gather": "0",
    "enable_seqscan": "off",
    "work_mem": "64MB",
    "jit": "off",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

#: Of the names of sessions: the longest role, and the hexadecimal digits that stand for the rest of a long host name.
_LONGEST_ROLE, _DIGEST = "listener", 10

#: libpq's name to asyncpg's.
_SAME = {
    "dbname": "database",
    **{name: name for name in ("user", "password", "passfile", "target_session_attrs", "krbsrvname", "gsslib")},
}

#: What asyncpg reads out of a DSN alone; its keyword arguments override the rest of that.
_TLS = {
    *("sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
}

#: What is made something else of.
_MADE = {"host", "port", "connect_timeout", "options", "application_name"}

#: What shapes Django's connection, psycopg's or libpq's, and has no meaning for ours: it reads in autocommit, sets its
#: keepalives itself, always speaks UTF-8, and is one connection, which spreads no load.
_MEANINGLESS = {
    *("context", "cursor_factory", "row_factory", "prepare_threshold", "autocommit"),
    *("client_encoding", "fallback_application_name", "load_balance_hosts", "max_protocol_version"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("sslcompression", "sslkeylogfile"),
}

#: The values with which a parameter asks for nothing that asyncpg does not do. With another one it is refused, as is
#: every parameter that is not named here.
_HARMLESS = {
    "channel_binding": {"disable", "prefer"},
    "gssencmode": {"disable", "prefer"},
    "gssdelegation": {"0"},
    "min_protocol_version": {"3.0"},
    "replication": {"false", "off", "no", "0"},
    "sslcertmode": {"allow"},
    "sslsni": {"1"},
}


def asyncpg_arguments(parameters: Mapping[str, Any], role: str = "listener", alias: str = "default") -> dict[str, Any]:
    """Translate the parameters that Django's backend connects with.

    Args:
        parameters: What ``get_connection_params()`` of the backend returns.
        role: What the connection is for; it shows in ``pg_stat_activity.application_name``.
        alias: The Django database alias, for errors.

    Raises:
        ConfigurationError: asyncpg cannot use a parameter, or the service is not found.
    """
    given = {
        name: str(value)
        for name, value in _with_service(parameters, alias).items()
        if name not in _MEANINGLESS and value not in (None, "")
    }
    _refuse(given, alias)
    session = {**_session_settings(given.get("options", ""), alias), **_SESSION}
    name = given.get("application_name", "djcrf_pg")
    session["application_name"] = _session_name(name, role)
    # By these, sessions of this process are found that must be ended.
    session |= {f"djcrf_pg.{each}": _session_name(name, each) for each in ("leader", "listener", "gate")}
    arguments: dict[str, Any] = {"server_settings": session}
    arguments |= {ours: given[theirs] for theirs, ours in _SAME.items() if theirs in given}
    if "host" in given:
        arguments["host"] = _one_or_all(given["host"].split(","))
    if "port" in given:
        arguments["port"] = _one_or_all([_number("port", port, alias) for port in given["port"].split(",")])
    # With 0 libpq waits for ever; a listener waits as long as without it.
    if (seconds := _number("connect_timeout", given.get("connect_timeout", "0"), alias)) > 0:
        arguments["timeout"] = float(seconds)
    if tls := _tls({name: given[name] for name in sorted(_TLS & given.keys())}, alias):
        # Without a slash: with one, the database would be "".
        arguments["dsn"] = f"postgresql://?{urlencode(tls)}"
    return arguments


def _refuse(given: Mapping[str, str], alias: str) -> None:
    known = _SAME.keys() | _TLS | _MADE
    refused = [
        f"{name}={value}" if name in _HARMLESS else name  # any other may be a secret
        for name, value in sorted(given.items())
        if name not in known and value not in _HARMLESS.get(name, ())
    ]
    if refused:
        raise ConfigurationError(
            f"{_cannot(alias)} with {', '.join(map(repr, refused))}, which its OPTIONS, its service or its ENGINE "
            f"sets. Name an alias without it in DJCRF_PG['LISTENER_DATABASE']."
        )


def _cannot(alias: str) -> str:
    return f"The djcrf_pg listener (asyncpg) cannot connect to database {alias!r}"


def _with_service(parameters: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """Add what the service says and nobody has given, as libpq does (PostgreSQL manual, 34.17)."""
    given = {name: value for name, value in parameters.items() if value is not None}
    service = given.pop("service", "") or os.environ.get("PGSERVICE", "")
    file = given.pop("servicefile", "") or os.environ.get("PGSERVICEFILE", "") or "~/.pg_service.conf"
    return {**_service(str(service), str(file), alias), **given} if service else given


def _service(name: str, file: str, alias: str) -> dict[str, str]:
    files = [Path(file).expanduser()]
    if folder := os.environ.get("PGSYSCONFDIR"):
        files.append(Path(folder, "pg_service.conf"))
    for place in files:
        if place.is_file() and (found := _section(place.read_text(encoding="utf-8"), name)) is not None:
            return found
    raise ConfigurationError(
        f"{_cannot(alias)} by its service {name!r}, which is not in {' or '.join(map(str, files))}. Name the file in "
        f"the environment variable PGSERVICEFILE."
    )


def _section(text: str, name: str) -> dict[str, str] | None:
    """The first section of a name in a service file; None where there is none. Of two values, the first counts."""
    found: dict[str, str] | None = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            if found is not None:
                break
            found = {} if line.startswith(f"[{name}]") else None
        elif found is not None and line and not line.startswith("#"):
            keyword, _, value = line.partition("=")
            found.setdefault(keyword, value)
    return found


def _tls(options: dict[str, str], alias: str) -> dict[str, str]:
    if options.get("sslrootcert") == "system":
        # A word of libpq's; asyncpg wants a file.
        bundle = ssl.get_default_verify_paths().cafile
        if bundle is None:
            raise ConfigurationError(
                f"{_cannot(alias)} with 'sslrootcert=system', for Python's OpenSSL has no file of root certificates: "
                f"name one in the environment variable SSL_CERT_FILE, or in OPTIONS['sslrootcert']."
            )
        return {"sslmode": "verify-full", **options, "sslrootcert": bundle}
    return options


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _number(name: str, text: str, alias: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{_cannot(alias)}: its {name} is {text!r}, which is no number.") from None


def _session_name(name: str, role: str) -> str:
    """An ``application_name``, which the server cuts at 63 bytes and keeps in ASCII (PostgreSQL manual, 19.8).

    It identifies the process, so nothing of it is cut there: a host name that does not fit is its beginning and a hash.
    """
    name, host, process = _ascii(name)[:30], _ascii(socket.gethostname()), str(os.getpid())
    # The same for all roles.
    room = 63 - len(f"{name} {_LONGEST_ROLE} :{process}")
    if len(host) > room:
        digest = hashlib.sha256(host.encode()).hexdigest()[:_DIGEST]
        host = f"{host[: max(room - _DIGEST - 1, 0)]}~{digest}"
    return f"{name} {role} {host}:{process}"


def _ascii(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text)


def _session_settings(options: str, alias: str) -> dict[str, str]:
    """Read libpq's ``options``: ``-c name=value`` and ``--name=value`` (PostgreSQL manual, 34.1.2)."""
    found: dict[str, str] = {}
    # As the server splits them: at white space, unless a backslash is before it; quotes are nothing special.
    words = iter(re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options))
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
                f"{_cannot(alias)}: OPTIONS['options'] has {word!r}, which it cannot read. Write -c name=value."
            )
        found[name.replace("-", "_")] = value
    return found
