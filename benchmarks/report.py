"""Results as JSON, as Markdown tables and as plots."""

import dataclasses
import datetime
import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.runner import DCRF, FLOOR, OURS, Goal, Result
from tests.processes import ROOT

FOLDER = ROOT / "docs" / "benchmarks"
README = ROOT / "README.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
PACKAGES = (
    "Django",
    "channels",
    "channels_redis",
    "djangochannelsrestframework",
    "django-pgpubsub",
    "asyncpg",
    "psycopg",
)


def machine(postgres: str) -> str:
    """The machine and the versions, in a line."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*: (.+)", info)
    name = found[1] if found else platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB", f"{platform.system()} {platform.release()}"]
    parts += [f"PostgreSQL {postgres} (fsync on)", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} not installed")
    return "; ".join(parts)


def as_json(results: Iterable[Result], about: dict[str, Any]) -> str:
    """Everything, to be read again by `from_json`."""
    return json.dumps({**about, "results": [dataclasses.asdict(result) for result in results]}, indent=1) + "\n"


def from_json(text: str) -> tuple[list[Result], dict[str, Any]]:
    """What `as_json` wrote."""
    about = json.loads(text)
    results = []
    for found in about.pop("results"):
        goal = found.pop("goal")
        results.append(Result(**found, goal=goal and Goal(**goal)))
    return results, about


def write(results: Sequence[Result], about: dict[str, Any]) -> None:
    """Write the page, its plots, the JSON, and the figures in the README."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "results.json").write_text(as_json(results, about))
    for old in FOLDER.glob("*.svg"):
        old.unlink()
    for name, theirs in _by_scenario(results).items():
        (FOLDER / f"{name}.svg").write_text(plot(theirs))
    (FOLDER / "index.md").write_text(page(results, about))
    # A run of some scenarios has not all of these figures; the README then keeps those of the run before.
    if figures := headline(results, about):
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{figures}{END}{rest.partition(END)[2]}")


def page(results: Sequence[Result], about: dict[str, Any]) -> str:
    """The page of the documentation: what was aimed at, then each scenario."""
    goals = [result for result in results if result.goal]
    parts = [PAGE.format(**about), f"## Goals\n\n{table(goals, peers=results)}"]
    for name, theirs in _by_scenario(results).items():
        parts += [f"## {name}\n\n![{name}: ratios, with their least and most]({name}.svg)\n", table(theirs)]
    return "\n".join(parts)


def headline(results: Iterable[Result], about: dict[str, Any]) -> str:
    """Three figures beside DCRF's, for the README; empty if one of them was not measured."""
    found = {(result.scenario, result.what, result.subject, result.reference): result for result in results}
    try:
        alone = [found["write-one", "`save()`, one thread", whose, FLOOR] for whose in (OURS, DCRF)]
        latency = found["latency", "`save()` to frame at 100/s, p99", OURS, DCRF]
        events = found["throughput", "`serializer_class`", OURS, DCRF]
    except KeyError:
        return ""
    ratios = [_number(statistics.median(result.ratios)) for result in alone]
    return f"""
| {about["date"]}, {about["machine"].partition(";")[0]} | djcrf_pg | DCRF with Redis |
|---|---|---|
| Rate of `save()` in one thread; 1 is the rate without an observer | {" | ".join(ratios)} |
| From `save()` to the WebSocket frame, 100 writes a second, p99 | {" | ".join(_sides(latency))} |
| Events a second, bodies made by a `serializer_class` | {" | ".join(_sides(events, unit=""))} |

"""


def _sides(result: Result, unit: str | None = None) -> list[str]:
    unit = f" {result.unit}" if unit is None else unit
    return [f"{_number(statistics.median(values))}{unit}" for values in (result.figures, result.references)]


def _by_scenario(results: Iterable[Result]) -> dict[str, list[Result]]:
    scenarios: dict[str, list[Result]] = {}
    for result in results:
        scenarios.setdefault(result.scenario, []).append(result)
    return scenarios


PAGE = """# Benchmarks

`make bench ARGS=--markdown` writes this page. Each figure is a ratio of two things that were measured in turns in the
same run (A B A B), as the median over the rounds with the least and the most. Absolute figures are those of this
machine.

{date}, {size} sizes, {rounds} rounds, {minutes} minutes. {machine}.

A goal that is an absolute figure is for two cores. [Where the time goes](../explanation/speed.md) says what was tried
where a goal is missed.
"""


def table(results: Iterable[Result], peers: Iterable[Result] = ()) -> str:
    """A Markdown table; with the ratios of peers to the same reference, where `peers` has them."""
    others: dict[tuple[str, str, str], list[str]] = {}
    for result in peers:
        if result.subject != OURS and result.ratios:
            place = (result.scenario, result.what, result.reference)
            others.setdefault(place, []).append(f"{result.subject} {_number(statistics.median(result.ratios))}")
    head = ["scenario", "measured", "whose", "figure", "against", "ratio (least-most)", "goal", ""]
    if others:
        head[-1:] = ["", "peers' ratios"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for result in results:
        figure = f"{_number(statistics.median(result.figures))} {result.unit}"
        ratio, against = "", result.reference
        if result.ratios:
            ratio = f"{_number(statistics.median(result.ratios))} {_spread(result.ratios)}"
            against += f", {_number(statistics.median(result.references))}"
        what = f"{result.what} ({result.note})" if result.note else result.what
        cells = [result.scenario, what, result.subject, figure, against, ratio, _goal(result), _verdict(result)]
        if others:
            cells.append(", ".join(others.get((result.scenario, result.what, result.reference), [])))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _goal(result: Result) -> str:
    if result.goal is None:
        return ""
    unit = f" {result.unit}" if result.goal.of == "figure" else ""
    return f"{result.goal.sign} {result.goal.value:g}{unit}"


def _verdict(result: Result) -> str:
    return {None: "", True: "met", False: "**not met**"}[result.verdict]


def _spread(values: Sequence[float]) -> str:
    return f"({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def plot(results: Sequence[Result]) -> str:
    """Bars of the ratios, with whiskers from the least to the most."""
    rows = [result for result in results if result.ratios]
    most = max((max(row.ratios) for row in rows), default=0.0) or 1.0  # what is counted may all be nothing
    width, left, line = 900, 430, 24
    height = line * len(rows) + 40

    def place(value: float) -> float:
        return left + (width - left - 60) * value / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, row in enumerate(rows):
        y, median = 10 + line * number, statistics.median(row.ratios)
        colour = "#2f6fb2" if row.subject == OURS else "#b0b0b0"
        label = _escape(f"{row.what}: {row.subject} / {row.reference}")
        parts += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end" textLength="{min(left - 16, 6 * len(label))}" '
            f'lengthAdjust="spacingAndGlyphs">{label}</text>',
            f'<rect x="{left}" y="{y + 3}" width="{place(median) - left:.1f}" height="15" fill="{colour}"/>',
            f'<path d="M{place(min(row.ratios)):.1f} {y + 10}H{place(max(row.ratios)):.1f}" stroke="#222"/>',
            f'<text x="{place(max(row.ratios)) + 6:.1f}" y="{y + 15}">{_number(median)}</text>',
        ]
        if row.goal and row.goal.of == "ratio" and row.goal.value <= most:
            parts.append(f'<path d="M{place(row.goal.value):.1f} {y}v22" stroke="#c0392b" stroke-width="2"/>')
    note = "ratio to the reference; red: the goal"
    return "\n".join([*parts, f'<text x="{left}" y="{height - 10}" fill="#555">{note}</text>', "</svg>"]) + "\n"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("`", "")


def today() -> str:
    """The date."""
    return datetime.date.today().isoformat()
