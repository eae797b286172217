"""What an observer costs ``save()``: one thread, one row after the other.

A worker process saves. The listener and an ASGI process run, one client is subscribed to ours and to DCRF's, and
somebody listens to the NOTIFY peers. DCRF's in-memory layer is that of the writer's process, where nobody subscribes:
the least that it can cost.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.audience import Audience
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import has_pgpubsub, quiet


def run(bench: Bench) -> Iterator[Result]:
    """Measure saves a second."""
    lab, seconds = bench.lab, bench.choose(0.5, 3.0)
    with lab.listener() as listener, lab.web() as web, Audience() as audience:
        seat = audience.seat(web)
        seat.subscribe("captured")
        seat.subscribe("signalled")
        seat.expect(1_000_000_000)  # no frames
        with lab.worker() as worker, lab.worker(memory=True) as memory, lab.ears(worker):
            measures = {
                runner.FLOOR: lambda: worker.ask("save", table="plain", seconds=seconds),
                runner.OURS: lambda: worker.ask("save", table="captured", seconds=seconds),
                runner.DCRF: lambda: worker.ask("save", table="signalled", seconds=seconds),
                runner.DCRF_MEMORY: lambda: memory.ask("save", table="signalled", seconds=seconds),
                runner.NOTIFY: lambda: worker.ask("save", table="notified", seconds=seconds),
            }
            if has_pgpubsub():
                measures[runner.PUBSUB] = lambda: worker.ask("save", table="published", seconds=seconds)

            def before() -> None:
                lab.settle("plain", "captured", "signalled", "notified", "published")
                quiet(listener)

            found = bench.turns(measures, before=before)
    yield from runner.against(
        found,
        runner.FLOOR,
        scenario="write-one",
        what="`save()`, one thread",
        unit="saves/s",
        goals={runner.OURS: Goal("≥", 0.87)},
    )
