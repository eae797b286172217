"""What capture costs many writers: pgbench, one-row UPDATEs, each its own transaction.

The listener and an ASGI process run with one subscriber; somebody listens to the NOTIFY peers. DCRF's signals hear
nothing of it. "The trigger alone" is with a listener that does nothing, as if it had a machine of its own.
"""

from collections.abc import Callable, Iterator

from benchmarks import runner
from benchmarks.audience import Audience
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import has_pgpubsub, quiet

TABLES = {
    runner.FLOOR: "plain",
    runner.OURS: "captured",
    runner.NOTIFY: "notified",
    runner.PUBSUB: "published",
}


def run(bench: Bench) -> Iterator[Result]:
    """Measure transactions a second."""
    lab, seconds = bench.lab, bench.choose(1, 2, 5)
    tables = {name: table for name, table in TABLES.items() if name != runner.PUBSUB or has_pgpubsub()}
    with lab.listener() as listener, lab.web() as web, Audience() as audience, lab.worker() as worker:
        seat = audience.seat(web)
        seat.subscribe("captured")
        seat.expect(1_000_000_000)  # no frames

        def before() -> None:
            lab.settle(*TABLES.values())
            quiet(listener)

        with lab.ears(worker):
            for clients in bench.choose((1, 32), (1, 8, 32, 64)):

                def trigger(clients: int = clients) -> float:
                    with lab.halted(listener):
                        return lab.pgbench(TABLES[runner.OURS], clients, seconds)

                measures: dict[str, Callable[[], float]] = {
                    name: lambda table=table, clients=clients: lab.pgbench(table, clients, seconds)
                    for name, table in tables.items()
                }
                if clients == 32:
                    measures[runner.TRIGGER] = trigger
                found = bench.turns(measures, before=before, warm_up=clients == 1)
                yield from runner.against(
                    found,
                    runner.FLOOR,
                    scenario="write-concurrent",
                    what=f"one-row UPDATE, {clients} clients",
                    unit="tps",
                    goals={runner.OURS: Goal("≥", 0.65)} if clients == 32 else {},
                )
