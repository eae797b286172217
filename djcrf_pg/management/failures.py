"""``manage.py djcrf_pg failures``: the rows that observers failed on, and sending them again."""

import time
from argparse import ArgumentParser
from collections.abc import Iterable
from itertools import groupby
from json import dumps, loads
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections

from djcrf_pg.capture.install import has_table
from djcrf_pg.listener.doorbell import CHANNEL, RETRY
from djcrf_pg.management.databases import add_database, choose
from djcrf_pg.models import Failure

HELP = "Show the rows that groups, serializers and handlers of observers failed on; send them again, or forget them."

#: Seconds that ``--retry`` waits for a leader.
_PATIENCE = 15.0

#: Keys of one error that are shown.
_SHOWN = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="Print a JSON document.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--retry",
        nargs="*",
        type=int,
        metavar="ID",
        help="Have the leader send these rows again as they are now, or all; those that succeed are forgotten.",
    )
    what.add_argument("--forget", nargs="*", type=int, metavar="ID", help="Forget these rows, or all.")


def run(
    command: BaseCommand,
    *,
    database: list[str] | None,
    json: bool,
    retry: list[int] | None,
    forget: list[int] | None,
) -> None:
    """Show, retry or forget.

    Raises:
        CommandError: An id is that of no failure.
        NotMigrated: The change log is of an older version.
    """
    aliases = [alias for alias in choose(database) if has_table(alias, Failure._meta.db_table)]
    chosen = retry if retry is not None else forget
    if chosen:
        known = {id for alias in aliases for id in Failure.objects.using(alias).values_list("id", flat=True)}
        if unknown := sorted(set(chosen) - known):
            raise CommandError(
                f"There is no failure {unknown[0]}. `manage.py djcrf_pg failures --json` shows all failures with their "
                f"ids."
            )
    for alias in aliases:
        if retry is not None:
            _retry(command, alias, retry)
        elif forget is not None:
            count, _ = _chosen(alias, forget).delete()
            command.stdout.write(f"{alias}: {count} forgotten.")
    if retry is None and forget is None:
        found = Failure.objects.order_by("address", "part", "error", "id")
        entries = {alias: list(found.using(alias)) for alias in aliases}
        command.stdout.write(_as_json(entries) if json else _as_text(entries))


def _chosen(alias: str, ids: list[int]) -> Any:
    found = Failure.objects.using(alias)
    return found.filter(id__in=ids) if ids else found.all()


def _retry(command: BaseCommand, alias: str, ids: list[int]) -> None:
    marked = set(_chosen(alias, ids).values_list("id", flat=True))
    if not marked:
        command.stdout.write(f"{alias}: no failures.")
        return
    entries = Failure.objects.using(alias).filter(id__in=marked)
    entries.update(retry=True)
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, RETRY])
    deadline = time.monotonic() + _PATIENCE
    while entries.filter(retry=True).exists():
        if time.monotonic() > deadline:
            command.stdout.write(
                f"{alias}: no leader has answered in {_PATIENCE:g} s. The rows are marked, and the next leader sends "
                f"them: start `manage.py djcrf_pg listen`, or let a client subscribe."
            )
            return
        time.sleep(0.1)
    failed = entries.count()
    command.stdout.write(f"{alias}: {len(marked) - failed} sent again, {failed} failed again.")


def _as_json(entries: dict[str, list[Failure]]) -> str:
    rows = [
        {
            "database": alias,
            "id": entry.id,
            "observer": entry.observer.partition("|")[0],
            "part": entry.part,
            "model": entry.model,
            "key": loads(entry.key) if entry.key else None,
            "change_id": entry.change_id,
            "error": entry.error,
            "traceback": entry.traceback,
            "times": entry.times,
            "first_at": entry.first_at,
            "last_at": entry.last_at,
        }
        for alias, found in entries.items()
        for entry in found
    ]
    return dumps(rows, indent=2, cls=DjangoJSONEncoder)


def _as_text(entries: dict[str, list[Failure]]) -> str:
    blocks = [
        _block(alias, list(same))
        for alias, found in entries.items()
        for _, same in groupby(found, lambda entry: (entry.address, entry.part, entry.error))
    ]
    if not blocks:
        return "No failures."
    blocks.append("Fix the code, restart the listener, and `manage.py djcrf_pg failures --retry` sends the rows again.")
    return "\n\n".join(blocks)


def _block(alias: str, same: list[Failure]) -> str:
    """One error of a part of an observer, and the rows that it was raised for."""
    latest = max(same, key=lambda entry: entry.last_at)
    times = sum(entry.times for entry in same)
    when = f"{latest.last_at:%Y-%m-%d %H:%M:%S%z}"
    return "\n".join(
        [
            f"{latest.observer.partition('|')[0]}, {latest.part}: {latest.error}",
            f"  {_rows(latest.model, same)} (database {alias!r}), {times} times, last at {when}",
            *(f"  {line}" for line in latest.traceback.rstrip().splitlines()),
        ]
    )


def _rows(model: str, entries: Iterable[Failure]) -> str:
    keys = [", ".join(loads(entry.key)) if entry.key else "" for entry in entries]
    shown = [f"({key})" if ", " in key else key for key in keys if key]
    rest = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    more = " and rows that are not kept one by one" if "" in keys else ""
    return f"{model} {', '.join(shown[:_SHOWN])}{rest}{more}"
