"""``manage.py djcrf_pg history``: every change of a row that is in the log."""

import difflib
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Model

from djcrf_pg.conf import get_settings
from djcrf_pg.inspection.log import Filters, Log, Reach
from djcrf_pg.management.databases import add_database, choose, one_of_each
from djcrf_pg.management.lines import (
    Printer,
    clean,
    databases_of,
    give_up_output,
    model_named,
    moment,
    warn_of_triggers,
)

HELP = "Print every change of a row that is in the log, the oldest first."

#: Keys that are named where the log has nothing of a row.
_NEAR = 5


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="APP.MODEL", help="The model.")
    parser.add_argument("pk", metavar="KEY", help="The primary key; a composite one as a,b.")
    add_database(parser, "each PostgreSQL alias with a log that has the model's table")
    parser.add_argument("--json", action="store_true", help="Print a JSON object for each change, one in a line.")


def run(command: BaseCommand, *, model: str, pk: str, database: list[str] | None, json: bool) -> None:
    """Print the changes, and how far back the log goes.

    Raises:
        CommandError: There is no such model, or no database has it.
    """
    wanted = model_named(model)
    aliases = one_of_each(databases_of(wanted, choose(database)))
    printer = Printer(command, as_json=json, databases=len(aliases) > 1)
    try:
        for alias in aliases:
            _print(command, printer, Log(alias), wanted, pk, json)
        command.stdout.flush()
    except BrokenPipeError:
        give_up_output()
    except KeyboardInterrupt as error:
        raise CommandError("Interrupted; there may be more.") from error


def _print(command: BaseCommand, printer: Printer, log: Log, model: type[Model], pk: str, json: bool) -> None:
    log.predicate(Filters(model=model, pk=pk))  # what is wrong with the key is said at once
    warn_of_triggers(printer, log, model)
    count = 0
    for entry in log.history(model, pk):
        printer.entry(log.alias, entry)
        count += 1
    if json:
        return
    if not count:
        command.stdout.write(f"The log of {log.alias!r} has no change of {model._meta.label} {clean(pk)}.")
        if near := _near(log, model, pk):
            command.stdout.write(f"It has changes of {model._meta.label} {', '.join(map(clean, near))}.")
    command.stdout.write(said_of(log.reach(), log.alias))


def _near(log: Log, model: type[Model], pk: str) -> list[str]:
    """Keys of the model that the log has: those like the one that was asked for, or the latest."""
    latest = [entry.pk for entry in log.page(Filters(model=model), limit=200).entries if entry.pk is not None]
    keys = list(dict.fromkeys(latest))
    return difflib.get_close_matches(pk, keys, _NEAR, 0.6) or keys[:_NEAR]


def said_of(reach: Reach, alias: str) -> str:
    """How far back the log of a database goes, in a sentence."""
    if reach.at is None:
        return f"The log of {alias!r} is empty."
    text = f"The log of {alias!r} reaches back to {moment(reach.at)}"
    if reach.trimmed:
        text += "; it was over a cap (LOG_MAX_AGE, LOG_MAX_ROWS, LOG_MAX_BYTES), and what was older is deleted"
    elif reach.pruned:
        text += f"; what was delivered and older than RETENTION ({get_settings().RETENTION:g} s) is deleted"
    else:
        text += "; nothing was deleted from it"
    return f"{text}."
