"""One statement changes 100 000 rows: from its beginning until the last row is in the handler, none lost.

A worker process writes, a listener leads, the consumer is in a process of its own, Redis between. Against the same
statement on the table that nobody observes.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.audience import Audience
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import ROWS, quiet


def run(bench: Bench) -> Iterator[Result]:
    """Measure seconds."""
    lab, rows = bench.lab, bench.choose(5_000, ROWS)
    events: list[float] = []
    with lab.listener() as listener, lab.web() as web, Audience() as audience, lab.worker() as worker:
        seats = {name: audience.seat(web) for name in ("captured", "serialized")}
        for name, seat in seats.items():
            seat.subscribe(name)

        def plain() -> float:
            begin, end = worker.ask("update", table="plain", count=rows)
            return float(end - begin)

        def delivered(table: str) -> float:
            seats[table].expect(rows)
            begin, _ = worker.ask("update", table=table, count=rows)
            done = seats[table].done()  # when each row was heard of
            events.append(done["done"])
            return float(done["last"] - begin)

        def before() -> None:
            lab.settle("plain", *seats)
            quiet(listener)

        measures = {
            runner.FLOOR: plain,
            "captured": lambda: delivered("captured"),
            "serialized": lambda: delivered("serialized"),
        }
        found = bench.turns(measures, before=before, warm_up=False)
    twice = sum(events) - rows * len(events)
    for name, body in (("captured", "primary key as body"), ("serialized", "`serializer_class`")):
        yield Result(
            "bulk-delivery",
            f"`update()` of {rows} rows to the last handler call, {body}",
            runner.OURS,
            found[name],
            "s",
            runner.FLOOR,
            found[runner.FLOOR],
            Goal("≤", 6, "figure"),
            f"none lost, {twice:.0f} twice",
        )
