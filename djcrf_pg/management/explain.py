"""``manage.py djcrf_pg explain``: whom a change went to, and why not to the others."""

import dataclasses
import json as jsons
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.inspection import explain as inspection
from djcrf_pg.inspection.entries import Key
from djcrf_pg.inspection.explain import ELSEWHERE, Delivery, Explanation, Verdict
from djcrf_pg.inspection.log import Leader, Log
from djcrf_pg.management.databases import add_database, choose, one_of_each
from djcrf_pg.management.history import said_of
from djcrf_pg.management.lines import Printer, as_dict, clean, moment, name_of
from djcrf_pg.observations import text_of

HELP = (
    "Say for a change which observers and groups it went to, which processes have subscribers, and why not to others."
)

_TITLES = {
    inspection.SENT: "Sent to subscribers",
    inspection.RESYNC: "Resync: subscribers reload",
    inspection.FAILED: "The code raises: subscribers receive a resync",
    inspection.UNHEARD: "Nobody is there",
    inspection.UNKNOWN: "Not known",
    inspection.NO_EVENT: "No event",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "change",
        metavar="CHANGE",
        help="The id of a change: the change_id of an event, or what `tail` and `history` print. TRANSACTION.ID is "
        "found more quickly.",
    )
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="Print a JSON document.")


def run(command: BaseCommand, *, change: str, database: list[str] | None, json: bool) -> None:
    """Find the change, and explain it.

    Raises:
        CommandError: It is not in any log; the message says what may have become of it.
    """
    id, xid = _parse(change)
    logs = [Log(alias) for alias in one_of_each(choose(database))]
    if not logs:
        raise CommandError("There is no change log in any PostgreSQL database: run `manage.py migrate`.")
    found = [(log, each) for log in logs for each in log.find(id, xid)]
    if not found:
        raise CommandError("\n".join(_why_not_there(log, id, xid) for log in logs))
    explained = [(log, _explain(log, each)) for log, each in found]
    if json:
        documents = [_as_dict(log.alias, explanation) for log, explanation in explained]
        command.stdout.write(jsons.dumps(documents, indent=2, cls=DjangoJSONEncoder))
    else:
        command.stdout.write("\n\n".join(_as_text(command, log.alias, explanation) for log, explanation in explained))


def _parse(text: str) -> tuple[int, int | None]:
    if text.isascii() and text.isdigit() and int(text) < 2**63:
        return int(text), None
    try:
        key = Key.parse(text)
    except ValueError:
        raise CommandError(
            f"{text!r} is no id of a change: it is a number, the change_id of an event, or TRANSACTION.ID as in "
            f"771.26341208. `manage.py djcrf_pg tail` prints both."
        ) from None
    return key.id, key.xid


def _explain(log: Log, change: Change) -> Explanation:
    try:
        return inspection.explain(log, change)
    except CONNECTION_ERRORS as error:
        raise CommandError(f"Database {log.alias!r} cannot be read: {text_of(error)}") from error


def _why_not_there(log: Log, id: int, xid: int | None) -> str:
    """What may have become of a change that a log does not have."""
    oldest, newest = log.reach(), log.newest()
    what = f"Database {log.alias!r} has no change {id}" + ("" if xid is None else f" of transaction {xid}")
    reach = said_of(oldest, log.alias)
    if oldest.oldest is None or newest is None:
        return f"{what}: {reach}"
    if id < oldest.oldest.id and (oldest.pruned or oldest.trimmed):
        return f"{what}: it may have been deleted. {reach}"
    if id > newest.id:
        return f"{what}: it is not committed yet, or of another database. The newest one is {newest.id}."
    return (
        f"{what}. {reach} A write that is not in the log was rolled back, or not captured: djcrf_pg.suspend, "
        f"session_replication_role = replica, or no triggers (`manage.py djcrf_pg status`)."
    )


# -- the answer ----------------------------------------------------------------------------------------------


def _as_dict(alias: str, explanation: Explanation) -> dict[str, Any]:
    leader = explanation.leader
    return {
        "change": as_dict(alias, explanation.entry),
        "other_changes_of_the_row": explanation.others,
        "delivered": leader.has_delivered(explanation.entry.xid),
        "leader": leader.name,
        "observers": [dataclasses.asdict(verdict) for verdict in explanation.verdicts],
        "notes": explanation.notes,
    }


def _as_text(command: BaseCommand, alias: str, explanation: Explanation) -> str:
    style = command.style
    printer = Printer(command, as_json=False, databases=True)
    lines = [printer.line(alias, explanation.entry)]
    if explanation.others:
        others = ", ".join(map(str, explanation.others))
        lines.append(
            f"The same transaction made other changes to this row ({others}). Observers receive the net effect."
        )
    lines.append(_of_leader(explanation.leader, explanation.entry.xid))
    told = [verdict for verdict in explanation.verdicts if verdict.outcome != ELSEWHERE]
    for outcome, verdicts in groupby(told, lambda verdict: verdict.outcome):
        lines += ["", style.MIGRATE_HEADING(_TITLES[outcome])]
        for verdict in verdicts:
            lines += _of_verdict(verdict)
    if not told:
        name = name_of(explanation.entry).partition(" ")[0]
        lines += ["", f"No observer of this project is for {name}."]
    rest = [verdict for verdict in explanation.verdicts if verdict.outcome == ELSEWHERE]
    if rest:
        lines += ["", style.MIGRATE_HEADING("Observers of something else")]
        for why, verdicts in groupby(sorted(rest, key=lambda each: each.why), lambda verdict: verdict.why):
            lines += [f"  {', '.join(verdict.observer for verdict in verdicts)}: {why}"]
    lines += ["", *(style.NOTICE(f"Note: {note}") for note in explanation.notes)]
    return "\n".join(lines)


def _of_leader(leader: Leader, xid: int) -> str:
    leads = "Nobody leads now." if leader.pid is None else f"{leader.name} (server process {leader.pid}) leads now."
    if leader.has_delivered(xid):
        return f"Delivered: the leader's cursor has passed it. {leads}"
    if leader.pid is None:
        return (
            "NOT delivered: nobody leads. Start `manage.py djcrf_pg listen`; an embedded listener starts with the "
            "first subscription of its process."
        )
    saved = "was never saved" if leader.saved_at is None else f"was saved at {moment(leader.saved_at)}"
    return f"NOT delivered yet. {leads} Its cursor {saved}, and has not passed the change."


def _of_verdict(verdict: Verdict) -> Iterator[str]:
    why = "" if verdict.outcome == inspection.SENT else f": {clean(verdict.why)}"
    yield f"  {verdict.observer} ({verdict.model}){why}"
    for line in _of_deliveries(verdict.deliveries):
        yield f"    {line}"


def _of_deliveries(deliveries: Iterable[Delivery]) -> Iterator[str]:
    for delivery in deliveries:
        to = "all its subscribers" if delivery.group is None else f"group {clean(delivery.group)}"
        if delivery.group == delivery.name and delivery.name is not None:
            to = "its one group"  # DCRF's hash would tell nobody anything
        count = len(delivery.processes)
        where = "no process has subscribers"
        if count:
            names = ", ".join(map(clean, delivery.processes))
            where = f"{count} process{'' if count == 1 else 'es'} with subscribers: {names}"
        yield f"{delivery.action} to {to}; {where}"
