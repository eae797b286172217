"""What an observer costs ``save()``: one thread, one row after the other.

A worker process saves. The listener and an ASGI process run, one client is subscribed to ours and to DCRF's, and
somebody listens to the NOTIFY peers. DCRF's in-memory layer is that of the writer's process, where nobody subscribes:
the least that it can cost. "The trigger alone" is with a listener that does nothing, as if it had a machine of its own.
"""

from collections.abc import Callable, Iterator

from benchmarks import runner
from benchmarks.audience import Audience
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import has_pgpubsub, quiet


def run(bench: Bench) -> Iterator[Result]:
    """Measure saves a second."""
    lab = bench.lab
    with lab.listener() as listener, lab.web() as web, Audience() as audience:
        seat = audience.seat(web)
        seat.subscribe("captured")
        seat.subscribe("signalled")
        seat.expect(1_000_000_000)  # no frames
        with lab.worker() as worker, lab.worker(memory=True) as memory, lab.ears(worker):
            who = {
                runner.FLOOR: (worker, "plain"),
                runner.OURS: (worker, "captured"),
                runner.DCRF: (worker, "signalled"),
                runner.DCRF_MEMORY: (memory, "signalled"),
                runner.NOTIFY: (worker, "notified"),
            }
            if has_pgpubsub():
                who[runner.PUBSUB] = (worker, "published")

            def measures(seconds: float) -> dict[str, Callable[[], float]]:
                def trigger() -> float:
                    with lab.halted(listener):
                        return float(worker.ask("save", table="captured", seconds=seconds))

                found = {
                    name: lambda writer=writer, table=table: float(writer.ask("save", table=table, seconds=seconds))
                    for name, (writer, table) in who.items()
                }
                return {**found, runner.TRIGGER: trigger}

            def before() -> None:
                lab.settle("plain", "captured", "signalled", "notified", "published")
                quiet(listener)

            found = bench.turns(measures(bench.choose(0.5, 2.0)), before=before, warm_up=measures(0.3))
    yield from runner.against(
        found,
        runner.FLOOR,
        scenario="write-one",
        what="`save()`, one thread",
        unit="saves/s",
        goals={runner.OURS: Goal("≥", 0.87)},
    )
