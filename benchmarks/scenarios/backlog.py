"""Many changes wait when the listener starts: its memory stays flat, and its rate is that of changes that come live.

The changes are statements of up to 100 000 rows. Both rates are from the first to the last call of the handler, in a
process of its own, with Redis between.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.audience import Audience, Seat
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import ROWS, memory, quiet


def run(bench: Bench) -> Iterator[Result]:
    """Measure events a second, and MiB."""
    lab, rows, statements = bench.lab, bench.choose(5_000, ROWS), bench.choose(2, 3, 10)
    total = rows * statements
    live, late, peaks, starts = [], [], [], []
    with lab.web() as web, Audience() as audience, lab.worker() as worker:
        seat = audience.seat(web)
        for number in range(bench.choose(1, 1, bench.rounds)):
            lab.forget()
            with lab.listener() as listener:
                if number == 0:
                    seat.subscribe("captured")
                quiet(listener)
                seat.expect(rows, events=True)
                worker.ask("update", table="captured", count=rows)
                live.append(_rate(seat, rows))
                quiet(listener)
            seat.expect(total, events=True)
            for _ in range(statements):
                worker.ask("update", table="captured", count=rows)
            lab.settle("captured")
            with lab.listener() as listener:
                starts.append(memory(listener)["rss"])
                late.append(_rate(seat, total))
                peaks.append(memory(listener)["peak"])
    what = f"{total} changes wait"
    yield Result(
        "backlog", f"{what}: rate", runner.OURS, late, "events/s", "changes that come live", live, Goal("≥", 0.9)
    )
    goal = Goal("≤", 200, "figure")
    yield Result("backlog", f"{what}: most memory", runner.OURS, peaks, "MiB", "when it began to lead", starts, goal)


def _rate(seat: Seat, count: int) -> float:
    done = seat.done(timeout=300)
    return count / (done["last"] - done["first"])
