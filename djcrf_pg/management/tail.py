"""``manage.py djcrf_pg tail``: changes as they are committed."""

import re
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, connections
from django.db.models import Model
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.inspection.entries import Entry, Key
from djcrf_pg.inspection.log import Filters, Log
from djcrf_pg.inspection.reader import Reader
from djcrf_pg.management.databases import add_database, choose, one_of_each
from djcrf_pg.management.lines import (
    Printer,
    databases_of,
    give_up_output,
    is_closed,
    model_named,
    moment,
    warn_of_triggers,
)
from djcrf_pg.observations import text_of

HELP = "Print changes as they are committed: when, what, of which row, and what the writer said of itself."

#: Changes in one read.
_LIMIT = 1_000

#: What ends a connection of either driver.
_LOST = (*CONNECTION_ERRORS, OperationalError, InterfaceError)

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser)
    parser.add_argument("--model", metavar="APP.MODEL", help="Print changes of this model alone.")
    parser.add_argument(
        "--pk", metavar="KEY", help="Print changes of this row alone; with --model. A composite key: a,b."
    )
    parser.add_argument("--since", type=_since, metavar="TIME", help="Begin in the past: 30s, 10m, 2h, 1d, or a time.")
    parser.add_argument(
        "--interval", type=_interval, default=0.5, metavar="SECONDS", help="Time between reads. Default: 0.5."
    )
    parser.add_argument("--json", action="store_true", help="Print a JSON object for each change, one in a line.")


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 3600:
        raise ArgumentTypeError(f"{text!r} is no number of seconds from 0.01 to 3600")
    return seconds


def _since(text: str) -> datetime:
    if match := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: float(match[1])})
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no time: write 30s, 10m, 2h, 1d, or 2026-11-29T14:00")
    return found if timezone.is_aware(found) else timezone.make_aware(found)


def run(
    command: BaseCommand,
    *,
    database: list[str] | None,
    model: str | None,
    pk: str | None,
    since: datetime | None,
    interval: float,
    json: bool,
) -> None:
    """Follow the logs until Ctrl-C, or until nobody reads the output.

    Raises:
        CommandError: There is no such model, or nothing to follow.
    """
    if pk is not None and model is None:
        raise CommandError("--pk is the key of a row of a model: name it with --model app.Model.")
    wanted = None if model is None else model_named(model)
    aliases = choose(database)
    if wanted is not None:
        aliases = databases_of(wanted, aliases)
    aliases = one_of_each(aliases)
    if not aliases:
        raise CommandError("There is no change log in any PostgreSQL database: run `manage.py migrate`.")
    printer = Printer(command, as_json=json, databases=len(aliases) > 1)
    feeds = [_Feed(alias, printer, Filters(model=wanted, pk=pk, since=since)) for alias in aliases]
    try:
        for feed in feeds:
            feed.open()
        if not json:
            what = f"{wanted._meta.label if wanted else 'all models'}{'' if pk is None else f' {pk}'}"
            begin = "from now on" if since is None else f"since {moment(since)}"
            printer.note(f"Changes of {what} in {', '.join(map(repr, aliases))} {begin}; Ctrl-C ends it.")
        while not is_closed(command):
            more = [feed.poll() for feed in feeds]
            if not any(more):
                time.sleep(interval)
            command.stdout.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        give_up_output()
    finally:
        for feed in feeds:
            feed.close()


class _Feed:
    """What one log has that was not printed yet.

    It keeps a snapshot, as the leader does, and reads what that has not seen and the present one sees. So a transaction
    that began long ago and commits late is printed when it commits.
    """

    def __init__(self, alias: str, printer: Printer, filters: Filters) -> None:
        self._alias = alias
        self._printer = printer
        self._filters = filters
        self._log = Log(alias)
        self._reader: Reader | None = None
        self._position = Position(Snapshot(1, 1))
        self._passes: Callable[[Entry], bool] = self._log.predicate(filters)
        self._is_standby = False
        self._printed: set[Key] = set()
        self._lost = 0
        self._said = 0
        self._backoff = Backoff(0.2, 5.0)
        self._next_try = 0.0

    def open(self) -> None:
        """Connect for the first time, and take up the position to begin at.

        Raises:
            CommandError: The server cannot be reached, or refuses.
        """
        model: type[Model] | None = self._filters.model
        if model is not None:
            warn_of_triggers(self._printer, self._log, model)
        self._reader = Reader(self._alias, "tail")
        try:
            self._reader.open()
            self._position = self._begin(self._reader)
        except CONNECTION_ERRORS as error:
            raise CommandError(f"Database {self._alias!r} cannot be read: {text_of(error)}") from error

    def _begin(self, reader: Reader) -> Position:
        self._is_standby = reader.is_standby
        now = reader.run(reader.log.now())
        self._said = reader.run(reader.log.horizon())
        since = self._filters.since
        if self._is_standby:
            # A snapshot of a standby does not name the transactions in progress; what is committed is not printed.
            seen = reader.run(reader.log.read(Position(Snapshot(now.xmin, now.xmin)), _LIMIT))
            self._printed = {Key(change.xid, change.id) for change in seen.changes}
        if since is None:
            return Position(Snapshot(now.xmin, now.xmin) if self._is_standby else now)
        self._printed.clear()
        reach = self._log.reach()
        if reach.at is not None and reach.at > since and (reach.pruned or reach.trimmed):
            self._printer.note(
                f"The log of {self._alias!r} reaches back to {moment(reach.at)}; what was older is deleted."
            )
        first = self._log.first_since(since)
        return Position(now if first is None else Snapshot(first, first))

    def poll(self) -> bool:
        """Print what there is; whether there may be more at once."""
        if self._lost and time.monotonic() < self._next_try:
            return False
        try:
            entries, position, horizon = self._read()
        except _LOST as error:
            connections[self._alias].close()
            if not self._lost:
                why = text_of(error)
                self._printer.note(f"Database {self._alias!r}: the connection is lost ({why}); it is tried again.")
            self._lost += 1
            self._next_try = time.monotonic() + self._backoff.delay()
            return False
        for entry in entries:
            if self._passes(entry):
                self._printer.entry(self._alias, entry)
        self._look_for_holes(self._position.last, horizon)
        self._position = position
        return position.target is not None

    def _read(self) -> tuple[list[Entry], Position, int]:
        """What was not printed yet, where to go on, and up to which transaction changes may have been deleted."""
        reader = self._reader
        assert reader is not None
        if self._lost:
            reader.open()
            self._come_back(reader)
        piece = reader.run(reader.log.read(self._position, _LIMIT))
        horizon = reader.run(reader.log.horizon())
        if not self._is_standby:
            return self._log.entries(piece.changes), piece.position, horizon
        position = piece.position
        if position.target is None:
            position = Position(Snapshot(position.last.xmin, position.last.xmin))
        entries = self._log.entries(piece.changes)
        entries = [entry for entry in entries if entry.key not in self._printed]
        self._printed |= {entry.key for entry in entries}
        self._printed = {key for key in self._printed if key.xid >= position.last.xmin}
        return entries, position, horizon

    def _look_for_holes(self, last: Snapshot, horizon: int) -> None:
        """Say so where changes were deleted that this has not read."""
        if horizon > self._said and any(not last.sees(xid) for xid in (horizon, *last.xip) if xid <= horizon):
            self._printer.note(
                f"Database {self._alias!r}: the log was trimmed up to transaction {horizon} before this has read it. "
                f"Changes may be missing here."
            )
        self._said = max(horizon, self._said)

    def _come_back(self, reader: Reader) -> None:
        now = reader.run(reader.log.now())
        self._is_standby = reader.is_standby
        self._lost = 0
        self._backoff = Backoff(0.2, 5.0)
        self._log.tables.forget()
        if now.xmax < self._position.last.xmax:
            self._position = Position(now)
            self._printer.note(
                f"Database {self._alias!r} is another one, or was restored from a backup: its transactions have lower "
                f"numbers than before. It goes on from now."
            )
            return
        self._printer.note(f"Database {self._alias!r}: connected again; it goes on where it was.")

    def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            self._reader.close()
