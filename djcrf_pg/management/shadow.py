"""``manage.py djcrf_pg shadow``: where what signals send differs from what triggers would have."""

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from itertools import groupby
from json import dumps
from typing import Any

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder

from djcrf_pg.inspection.log import Log
from djcrf_pg.inspection.shadow import Found, forget, found
from djcrf_pg.management.databases import add_database, choose, one_of_each
from djcrf_pg.management.lines import clean, moment
from djcrf_pg.observer import shadowed
from djcrf_pg.pages import see

HELP = "Show where what DCRF's signals send differs from what triggers would have sent, in shadow mode."

#: Characters of a sample's side that a line shows.
_SIDE = 300


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="Print a JSON document.")
    parser.add_argument("--reset", action="store_true", help="Forget what was compared, and begin anew.")


def run(command: BaseCommand, *, database: list[str] | None, json: bool, reset: bool) -> None:
    """Print what was compared, or forget it.

    Raises:
        NotMigrated: The change log is of an older version.
    """
    aliases = one_of_each(choose(database))
    if reset:
        for alias in aliases:
            command.stdout.write(f"{alias}: {forget(alias)} results forgotten.")
        return
    results = {alias: found(alias) for alias in aliases}
    command.stdout.write(_as_json(results) if json else "\n".join(_lines(results)))


def _as_json(results: dict[str, list[Found]]) -> str:
    rows = [{"database": alias, **each._asdict()} for alias, some in results.items() for each in some]
    document = {"shadow": shadowed.is_on(), "results": rows, "skipped": shadowed.skipped}
    return dumps(document, indent=2, cls=DjangoJSONEncoder)


def _lines(results: dict[str, list[Found]]) -> Iterator[str]:
    on = shadowed.is_on()
    if not any(results.values()):
        yield from (
            _why_nothing(results)
            if on
            else [
                f"Nothing was compared, and shadow mode is off: set DJCRF_PG = {{'SHADOW': True}}. "
                f"{see('how-to/move-from-dcrf-signals.md')}"
            ]
        )
    for alias, some in results.items():
        for label, same in groupby(some, lambda each: each.observer):
            yield from _of_observer(label, list(same), f" (database {alias!r})" if len(results) > 1 else "")
    if shadowed.skipped:
        yield "Not compared, for triggers would not serve them:"
        for label, error in shadowed.skipped.items():
            yield f"  {label}: {error}"
    if any(each.is_difference for some in results.values() for each in some):
        yield see("how-to/move-from-dcrf-signals.md#what-the-report-says")
    if any(results.values()) and not on:
        yield "Shadow mode is off: this is what was compared before. `--reset` forgets it."


def _why_nothing(aliases: Iterable[str]) -> Iterator[str]:
    yield "Nothing was compared yet. A difference is known about ten seconds after its change."
    for alias in aliases:
        if Log(alias).leader().name is None:
            yield (
                f"Nobody leads in database {alias!r}: start `manage.py djcrf_pg listen`, or let a client subscribe to "
                f"an observer."
            )


def _of_observer(label: str, some: list[Found], database: str) -> Iterator[str]:
    equal = sum(each.times for each in some if not each.is_difference)
    yield f"{label}, {some[0].model}{database}: {equal} equal"
    for each in some:
        if each.is_difference:
            what = f": {clean(each.what)}" if each.what else ""
            yield f"  {each.says}{what} ({each.times} in all), last at {moment(each.last_at)}"
            for sample in each.samples[:1]:
                yield f"    {_title(each, sample)}"
                for side in ("signals", "triggers"):
                    if sample.get(side):
                        yield f"      {side:8} {_cut(clean(dumps(sample[side], ensure_ascii=False)))}"
    yield ""


def _title(each: Found, sample: dict[str, Any]) -> str:
    origin = sample["origin"]
    key = clean(",".join(json.loads(sample["pk"]))) if sample["pk"] else "(all rows)"
    names = [f"{name} {origin[name]}" for name in ("change", "transaction") if origin.get(name)]
    if origin.get("context") is not None:
        names.append(f"context {clean(dumps(origin['context'], ensure_ascii=False))}")
    if origin.get("process"):
        names.append(f"sent by {origin['process']}")
    return f"{each.model} {key}: {', '.join(names)}"


def _cut(text: str) -> str:
    return text if len(text) <= _SIDE else f"{text[:_SIDE]}…"
