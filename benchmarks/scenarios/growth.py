"""What a change costs as the log, the groups and the observers of one model grow.

- Log: one-row UPDATEs by pgbench, as a ratio to the table without an observer, and events a second to the handler, with
  few and with many rows in the log. The rows are one transaction's, delivered, with small images.
- Groups: the listener's CPU for a change, when it has sent to all of the groups and each change is for another one.
- Observers: the listener's CPU for a change that all of them hear of.
"""

import time
from collections.abc import Iterator

from benchmarks import runner
from benchmarks.audience import Audience
from benchmarks.runner import Bench, Goal, Result
from benchmarks.scenarios.throughput import deliver
from benchmarks.servers import Lab, Worker, cpu, quiet
from tests.servers import ManagePy

FEW = 10_000


def run(bench: Bench) -> Iterator[Result]:
    """Measure each in turns of small and large."""
    yield from _log(bench)
    yield from _groups(bench)
    yield from _observers(bench)


def _fill(lab: Lab, rows: int) -> None:
    """Put rows into the log that are delivered already."""
    lab.db.execute("TRUNCATE djcrf_pg_change")
    lab.db.execute(
        "INSERT INTO djcrf_pg_change (relation, op, old, new) "
        """SELECT 'bench_plain'::regclass, 'U', '{"id": 1}', '{"id": 1}' FROM generate_series(1, %s)""",
        [rows],
    )
    lab.db.execute("DELETE FROM djcrf_pg_cursor")
    lab.db.execute("INSERT INTO djcrf_pg_cursor (name, snapshot, term) VALUES ('leader', pg_current_snapshot(), 1)")
    lab.settle("plain", "captured")


def _log(bench: Bench) -> Iterator[Result]:
    lab, many = bench.lab, bench.choose(50_000, 1_000_000, 10_000_000)
    seconds, rows = bench.choose(1, 2), bench.choose(1_000, 20_000)
    writing: dict[int, list[float]] = {FEW: [], many: []}
    reading: dict[int, list[float]] = {FEW: [], many: []}
    settings = {"LOG_MAX_ROWS": 100_000_000}
    with lab.web() as web, Audience() as audience, lab.worker() as worker:
        seat, subscribed = audience.seat(web), False
        for _ in range(_rounds(bench)):
            for size in (FEW, many):
                _fill(lab, size)
                with lab.listener(settings=settings) as listener:
                    if not subscribed:
                        seat.subscribe("captured")
                        subscribed = True
                    quiet(listener)
                    reading[size].append(deliver(worker, seat, "captured", rows))
                    quiet(listener)
                    seat.expect(1_000_000_000)
                    plain = lab.pgbench("plain", 8, seconds)
                    writing[size].append(lab.pgbench("captured", 8, seconds) / plain)
                    quiet(listener)
    for what, found, unit in (
        ("one-row UPDATE, 8 clients, against no observer", writing, "of plain"),
        ("events to the handler", reading, "events/s"),
    ):
        title = f"{many} rows in the log: {what}"
        yield Result("growth", title, runner.OURS, found[many], unit, f"{FEW} rows", found[FEW], Goal("≥", 0.8))


def _rounds(bench: Bench) -> int:
    return int(bench.choose(1, min(2, bench.rounds)))


def cost(worker: Worker, listener: ManagePy, table: str, rows: int) -> float:
    """Microseconds of the listener's CPU for a change."""
    quiet(listener)
    before = cpu(listener)
    worker.ask("update", table=table, count=rows)
    time.sleep(0.1)
    quiet(listener)
    return 1e6 * (cpu(listener) - before) / rows


def _groups(bench: Bench) -> Iterator[Result]:
    lab, rows = bench.lab, bench.choose(200, 1_000)
    sizes = bench.choose((1, 200), (1, 1_000, 5_000), (1, 1_000, 100_000))
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(_rounds(bench)):
        for size in sizes:
            lab.forget()
            with lab.listener(BENCH_GROUPS=str(size)) as listener, lab.worker() as worker:
                worker.ask("update", table="grouped", count=max(size, rows))
                time.sleep(0.1)
                found[size].append(cost(worker, listener, "grouped", rows))
    one, middle, *most = sizes
    # One event in a message of its own costs a `group_send`; what may not grow is that cost.
    title = f"{rows} changes, each for another of {middle} groups that nobody joined: CPU of the listener"
    yield Result("growth", title, runner.OURS, found[middle], "µs a change", "one group", found[one])
    for size in most:
        title = f"{rows} changes, each for another of {size} groups that nobody joined: CPU of the listener"
        goal = Goal("≤", 1.25)
        yield Result("growth", title, runner.OURS, found[size], "µs a change", f"{middle} groups", found[middle], goal)


def _observers(bench: Bench) -> Iterator[Result]:
    lab, rows = bench.lab, bench.choose(500, 2_000, 5_000)
    sizes = bench.choose((1, 5), (1, 10, 50))
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(_rounds(bench)):
        for size in sizes:
            lab.forget()
            with lab.listener(BENCH_OBSERVERS=str(size)) as listener, lab.worker() as worker:
                worker.ask("update", table="crowded", count=100)
                found[size].append(cost(worker, listener, "crowded", rows))
    for size in sizes[1:]:
        title = f"{size} observers of one model: CPU of the listener"
        yield Result("growth", title, runner.OURS, found[size], "µs a change", "1 observer", found[1], Goal("≤", size))
