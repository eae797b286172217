"""``make compat``: what depends on PostgreSQL, on each version that can be had here, and the page that says so.

Runs ``scripts/test.sh database`` in each of the virtual environments given, on each version of PostgreSQL, some at a
time. What cannot be had (no npm, no Docker, a Django that is too new for the server) is left out, and named on the page
and at the end.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self
from xml.etree import ElementTree

from tests import servers
from tests.processes import ROOT, stop_all
from tests.servers import PgParams

PAGE = ROOT / "docs" / "reference" / "compatibility.md"

#: What decides, beside PostgreSQL and Python.
PACKAGES = {
    "Django": "Django",
    "djangorestframework": "DRF",
    "channels": "channels",
    "djangochannelsrestframework": "DCRF",
    "psycopg": "psycopg",
    "asyncpg": "asyncpg",
}

_ASK = """\
import json, platform, sys
from importlib.metadata import version
from django.db.backends.postgresql.features import DatabaseFeatures

(oldest, *_) = DatabaseFeatures.minimum_database_version
print(json.dumps([oldest, platform.python_version(), *map(version, sys.argv[1:])]))
"""

_TEXT = """\
# Compatibility

What the tests have been run with: the oldest and the newest versions of Python and Django, on each version of
PostgreSQL. `make compat` runs everything that depends on PostgreSQL, from the triggers to the WebSocket, and writes
this page. What does not depend on it, processes that die and networks that freeze, runs with both Pythons in `.ci/run`,
on PostgreSQL 18 and on an older one.

Versions between these are expected to work.

"""


class Lane(NamedTuple):
    """A virtual environment, what is in it, and the oldest PostgreSQL that its Django takes."""

    environment: Path
    versions: list[str]
    oldest: int

    @classmethod
    def of(cls, environment: Path) -> Self:
        """Asks the environment."""
        command = [str(environment / "bin" / "python"), "-c", _ASK, *PACKAGES]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        oldest, *versions = json.loads(run.stdout)
        return cls(environment, versions, oldest)

    def __str__(self) -> str:
        python, django, *_ = self.versions
        return f"Python {python}, Django {django}"


class Result(NamedTuple):
    """What came of a run."""

    postgres: str
    lane: Lane
    passed: int
    failed: int
    skipped: list[str]


def run(version: str, server: PgParams, lane: Lane) -> Result:
    """Runs the tests on a server that nobody else uses."""
    with server.connect() as connection:
        (release,) = connection.execute("SHOW server_version").fetchone() or ("",)
    release = release.split()[0]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = ["sh", "scripts/test.sh", "database", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = {servers.DSN: server.dsn(), servers.VERSION: version, "VENV": str(lane.environment)}
        process = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise RuntimeError(f"PostgreSQL {release}, {lane}: pytest did not run\n{process.stdout}{process.stderr}")
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, bad, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    reasons = [element.get("message", "") for suite in suites for element in suite.iter("skipped")]
    found = Result(release, lane, total - bad - skipped, bad, reasons)
    print(f"PostgreSQL {release}, {lane}: {found.passed} passed, {bad} failed, {skipped} skipped", flush=True)
    if process.returncode:
        print(process.stdout, process.stderr, sep="\n", file=sys.stderr, flush=True)
    return found


def page(results: Iterable[Result], left_out: Iterable[str], day: datetime.date) -> str:
    """Returns the text of the page."""
    head = ["PostgreSQL", "Python", *PACKAGES.values(), "passed", "failed", "skipped"]
    lines = [f"Run of {day}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    reasons: dict[str, dict[str, None]] = {}
    for result in results:
        cells = [result.postgres, *result.lane.versions, result.passed, result.failed, len(result.skipped)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        for reason in result.skipped:
            reasons.setdefault(reason, {})[result.postgres.partition(".")[0]] = None
    if reasons:
        lines += ["", "Skipped:", ""]
        lines += [f"- on {', '.join(versions)}: {reason}" for reason, versions in sorted(reasons.items())]
    if left_out := list(left_out):
        lines += ["", "Left out:", "", *(f"- {reason}" for reason in left_out)]
    return _TEXT + "\n".join(lines) + "\n"


def main() -> int:
    """Runs them; the exit code says whether all passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("environment", nargs="+", type=Path, help="a virtual environment with the tests' packages")
    parser.add_argument("--postgres", action="append", choices=servers.VERSIONS, help="only this; writes no page")
    parser.add_argument("--at-once", type=int, default=(os.cpu_count() or 1) + 1, help="runs at a time")
    options = parser.parse_args()
    lanes = [Lane.of(environment) for environment in options.environment]
    left_out = []
    started = []
    for version in options.postgres or servers.VERSIONS:
        for lane in lanes:
            if int(version) < lane.oldest:
                left_out.append(f"PostgreSQL {version} with {lane}, which needs {lane.oldest}")
                continue
            try:
                started.append((version, servers.start_postgres(version), lane))
            except RuntimeError as error:
                left_out.append(f"PostgreSQL {version} with {lane}: {error}")
    with ThreadPoolExecutor(options.at_once) as pool:
        results = list(pool.map(lambda arguments: run(*arguments), started))
    for reason in left_out:
        print(f"left out: {reason}")
    if not options.postgres:
        PAGE.write_text(page(results, left_out, datetime.date.today()))
        print(f"written: {PAGE.relative_to(ROOT)}")
    return int(not results or any(result.failed for result in results))


if __name__ == "__main__":
    try:
        code = main()
    finally:
        stop_all()
    sys.exit(code)
