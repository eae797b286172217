"""``make bench``: speed, as ratios of things measured in turns in the same run.

Each scenario is a module of `benchmarks.scenarios`, which says what runs where. Results are printed as a Markdown
table; ``--markdown`` writes the page of the documentation, its plots and the figures of the README as well.
"""

import argparse
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from benchmarks import report
from benchmarks.runner import Bench, Result, say
from benchmarks.scenarios import ALL
from benchmarks.servers import Lab, has_pgpubsub, statement
from tests.processes import new_test, reports


def main() -> int:
    """Run scenarios; the exit code tells whether all of them could be measured, and nothing of speed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [name.replace("_", "-") for name in ALL]
    parser.add_argument("scenario", nargs="*", help=f"{', '.join(names)}; by default all")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny sizes: to see that it runs")
    size.add_argument("--full", action="store_true", help="the largest backlog, log and number of groups: an hour")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each measurement (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--markdown", action="store_true", help="write docs/benchmarks/ and the figures in the README")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="measure nothing; report these results"
    )
    options = parser.parse_args()
    if unknown := set(options.scenario) - set(names):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = False
    if options.source:
        results, about = report.from_json(options.source.read_text())
    else:
        chosen = [name for name in names if name in (options.scenario or names)]
        size_name = "quick" if options.quick else "full" if options.full else "default"
        results, about, failed = _measure(chosen, size_name, options.rounds)
    if options.json:
        options.json.write_text(report.as_json(results, about))
    if options.markdown:
        report.write(results, about)
    print(f"{about['machine']}\n\n{report.table(results)}")
    return int(failed)


def _measure(names: list[str], size: str, rounds: int) -> tuple[list[Result], dict[str, object], bool]:
    if not has_pgpubsub():
        say("django-pgpubsub is not installed (extra `peers`): it is missing from the results")
    results: list[Result] = []
    failed = False
    begin = time.monotonic()
    with Lab() as lab:
        postgres = str(statement(lab.db, "SHOW server_version"))
        for name in names:
            say(name)
            lab.forget()
            new_test()
            scenario = import_module(f"benchmarks.scenarios.{name.replace('-', '_')}")
            try:
                for result in scenario.run(Bench(lab, rounds, size)):
                    results.append(result)
                    print(report.table([result]).splitlines()[-1], file=sys.stderr, flush=True)
            except Exception:
                print(*reports(), sep="\n", file=sys.stderr)
                # One that cannot be measured takes nothing from the others.
                traceback.print_exc()
                failed = True
    minutes = f"{(time.monotonic() - begin) / 60:.1f}"
    about = {"date": report.today(), "size": size, "rounds": rounds, "minutes": minutes}
    return results, {**about, "machine": report.machine(postgres)}, failed


if __name__ == "__main__":
    sys.exit(main())
