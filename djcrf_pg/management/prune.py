"""``manage.py djcrf_pg prune``: delete delivered changes now, instead of when the leader gets to it."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

import asyncpg
from django.core.management.base import BaseCommand, CommandError

from djcrf_pg.changelog.cursor import Position
from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.conf import get_settings
from djcrf_pg.inspection.log import Leader, Log
from djcrf_pg.inspection.reader import Reader
from djcrf_pg.management.databases import add_database, choose, one_of_each
from djcrf_pg.management.history import said_of
from djcrf_pg.management.lines import moment
from djcrf_pg.observations import text_of

HELP = "Delete changes that were delivered and are older than RETENTION. What was not delivered stays."

#: Changes that one DELETE takes: a fraction of a second, and a writer that trims the log passes them by.
_BATCH = 5_000

#: What deleting takes beside looking.
_RIGHTS = (
    "GRANT SELECT, UPDATE, DELETE ON djcrf_pg_change TO {role}; "
    "GRANT SELECT, INSERT, UPDATE ON djcrf_pg_cursor TO {role}; "
    "GRANT SELECT ON SEQUENCE djcrf_pg_front_xid, djcrf_pg_front_id, djcrf_pg_late, djcrf_pg_reach_xid TO {role};"
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser)
    parser.add_argument(
        "--older-than",
        type=_seconds,
        metavar="SECONDS",
        help="Delete what is older than this, instead of what is older than RETENTION.",
    )
    parser.add_argument("--dry-run", action="store_true", help="Say how much would be deleted, and delete nothing.")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e10:
        raise ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def run(command: BaseCommand, *, database: list[str] | None, older_than: float | None, dry_run: bool) -> None:
    """Delete, one log after the other.

    Raises:
        CommandError: A log cannot be read, or a right is missing.
    """
    aliases = one_of_each(choose(database))
    if not aliases:
        raise CommandError("There is no change log in any PostgreSQL database: run `manage.py migrate`.")
    retention = get_settings().RETENTION
    keep = retention if older_than is None else older_than
    for alias in aliases:
        log = Log(alias)
        leader = log.leader()
        if obstacle := _obstacle(alias, leader):
            command.stdout.write(obstacle)
            continue
        assert leader.snapshot is not None
        if dry_run:
            count, first, last = log.deletable(leader.snapshot, keep)
            span = "" if first is None or last is None else f", written from {moment(first)} to {moment(last)}"
            command.stdout.write(f"{alias}: {count} changes would be deleted{span}. {said_of(log.reach(), alias)}")
            continue
        count = _delete(command, alias, Position(leader.snapshot), keep)
        command.stdout.write(f"{alias}: {count} changes deleted. {said_of(log.reach(), alias)}")
        if count and keep < retention:
            command.stdout.write(
                command.style.NOTICE(
                    f"{alias}: clients that were away for longer than {keep:g} s cannot resume now: they reload."
                )
            )


def _obstacle(alias: str, leader: Leader) -> str | None:
    """Why nothing can be deleted from a log."""
    if leader.snapshot is None:
        return f"{alias}: nothing was delivered yet, so nothing is deleted. No leader has ever saved a cursor."
    if leader.is_strange:
        return (
            f"{alias}: the saved cursor is another cluster's, so what was delivered is not known, and nothing is "
            f"deleted. The next leader corrects it: start `manage.py djcrf_pg listen`."
        )
    return None


def _delete(command: BaseCommand, alias: str, position: Position, keep: float) -> int:
    count = 0
    shows = bool(getattr(command.stdout, "isatty", lambda: False)())
    try:
        with Reader(alias, "prune", is_readonly=False, rights=_RIGHTS) as reader:
            while True:
                deleted = reader.run(reader.log.prune(position, keep, _BATCH))
                count += deleted
                if shows:
                    command.stdout.write(f"\r{alias}: {count} changes deleted …", ending="")
                    command.stdout.flush()
                if deleted < _BATCH:
                    break
    except KeyboardInterrupt as error:
        raise CommandError(f"{alias}: interrupted after {count} changes; what is deleted stays deleted.") from error
    except CONNECTION_ERRORS as error:
        raise CommandError(f"Database {alias!r}, after {count} changes were deleted: {_said(error)}") from error
    finally:
        if shows:
            command.stdout.write("\r\033[K", ending="")
    return count


def _said(error: BaseException) -> Any:
    return str(error) if isinstance(error, asyncpg.PostgresError) else text_of(error)
