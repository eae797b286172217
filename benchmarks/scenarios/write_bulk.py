"""What capture costs large statements: ``update()`` of 100 000 rows, and ``bulk_create()`` of as many.

A worker process writes, and no listener runs: what is measured is the statement alone.
"""

from collections.abc import Callable, Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.scenarios.write_concurrent import TABLES
from benchmarks.servers import ROWS, has_pgpubsub


def run(bench: Bench) -> Iterator[Result]:
    """Measure seconds."""
    lab, rows = bench.lab, bench.choose(5_000, ROWS)
    tables = {name: table for name, table in TABLES.items() if name != runner.PUBSUB or has_pgpubsub()}
    with lab.worker() as worker:

        def update(table: str) -> float:
            begin, end = worker.ask("update", table=table, count=rows)
            return float(end - begin)

        def create(table: str) -> float:
            return float(worker.ask("bulk_create", table=table, count=rows))

        def measures(work: Callable[[str], float]) -> dict[str, Callable[[], float]]:
            return {name: lambda table=table: work(table) for name, table in tables.items()}

        def before() -> None:
            lab.settle(*TABLES.values())

        for what, work, goal in (("update()", update, 3.0), ("bulk_create()", create, 2.5)):
            found = bench.turns(measures(work), before=before, warm_up=False)
            yield from runner.against(
                found,
                runner.FLOOR,
                scenario="write-bulk",
                what=f"`{what}` of {rows} rows",
                unit="s",
                goals={runner.OURS: Goal("≤", goal)},
            )
