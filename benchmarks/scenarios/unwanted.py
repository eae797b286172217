"""What a change costs that nobody wants, while other changes of the same model are wanted.

- Groups: the listener's CPU for a change of a group that nobody has, in one statement and in statements of a few rows.
- Observers: the CPU of a whole server process with an embedded listener for a change of a model that has 200 observers,
  of which one has a subscriber.
- A statement of 10 000 rows in as many groups that nobody joined, beside 300 subscribers: how long their process is
  busy with it, and which of their own events they miss meanwhile.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import runner
from benchmarks.audience import Audience
from benchmarks.runner import Bench, Goal, Result
from benchmarks.scenarios.growth import cost
from benchmarks.servers import cpu, quiet
from tests.processes import Process

#: Changes of one group each.
GROUPS = 20_000

#: Rows of a small statement.
FEW = 50

#: A process that uses no more than this share of a core between two looks, so many seconds apart, is idle.
IDLE, LOOK = 0.05, 0.3

#: Seconds without work after which none comes of a change: what is sent at intervals has been sent by then.
SILENCE = 5


def run(bench: Bench) -> Iterator[Result]:
    """Measure each."""
    yield from _groups(bench)
    yield from _observers(bench)
    yield from _mass(bench)


def _groups(bench: Bench) -> Iterator[Result]:
    lab, rows = bench.lab, bench.choose(1_000, 10_000)
    env = {"BENCH_GROUPS": str(GROUPS)}
    with lab.listener(**env) as listener, lab.web(**env) as web, Audience() as audience, lab.worker() as worker:
        audience.seat(web).call("subscribe", name="grouped", group=0)

        def small() -> float:
            quiet(listener)
            before, statements = cpu(listener), rows // FEW // 2
            for _ in range(statements):
                worker.ask("update", table="grouped", count=FEW)
            quiet(listener)
            return 1e6 * (cpu(listener) - before) / (FEW * statements)

        found = bench.turns(
            {"one": lambda: cost(worker, listener, "grouped", rows), "small": small},
            before=lambda: lab.settle("grouped"),
        )
    published = ("published by Electric", [20.0] * bench.rounds)
    title = "a change of a group that nobody has: CPU of the listener"
    unit = "µs a change"
    what = f"{title}, {rows} rows in a statement"
    yield Result("unwanted", what, runner.OURS, found["one"], unit, *published, Goal("≤", 20, "figure"))
    yield Result(
        "unwanted",
        f"{title}, {FEW} rows in a statement",
        runner.OURS,
        found["small"],
        unit,
        f"{rows} rows",
        found["one"],
    )


def _observers(bench: Bench) -> Iterator[Result]:
    lab, many, seconds, rate = bench.lab, bench.choose(20, 200), bench.choose(3, 10), 20
    found: dict[int, list[float]] = {1: [], many: []}
    for _ in range(min(2, bench.rounds)):
        for size, figures in found.items():
            lab.forget()
            env: dict[str, Any] = {"BENCH_SIGNALS": "0", "BENCH_OBSERVERS": str(size), "settings": {"EMBEDDED": True}}
            with lab.web(**env) as web, Audience() as audience, lab.worker() as worker:
                seat = audience.seat(web)
                seat.subscribe("crowded0")
                worker.ask("paced", table="crowded", rate=rate, seconds=1, threads=1)
                quiet(web)
                before = cpu(web)
                saves = worker.ask("paced", table="crowded", rate=rate, seconds=seconds, threads=1)
                quiet(web)
                figures.append(1e6 * (cpu(web) - before) / len(saves))
    title = f"{many} observers of a model of which one has a subscriber, {rate} changes/s: CPU of the server process"
    reference = ("1 observer", found[1])
    yield Result("unwanted", title, runner.OURS, found[many], "µs a change", *reference, Goal("≤", 1.5))


def _busy_until(web: Process, listener: Process) -> float:
    """When a server process last did anything, once neither it nor the listener has for a while."""
    until = active = time.monotonic()
    deadline = until + 180
    while time.monotonic() < deadline:
        before = [cpu(process) for process in (web, listener)]
        time.sleep(LOOK)
        used, sending = (cpu(process) - was for process, was in zip((web, listener), before, strict=True))
        if used > IDLE * LOOK:
            until = active = time.monotonic()
        elif sending > IDLE * LOOK:
            active = time.monotonic()
        elif time.monotonic() - active > SILENCE:
            return until
    raise RuntimeError(f"{web.name} does not come to rest\n{web.tail()}")


def _mass(bench: Bench) -> Iterator[Result]:
    lab = bench.lab
    subscribers, rows = bench.choose((50, 1_000), (300, 10_000))
    rate, seconds = bench.choose(20, 50), bench.choose(2, 5)
    env = {"capacity": 100, "BENCH_GROUPS": str(GROUPS)}
    with (
        lab.listener(**env) as listener,
        lab.web(**env) as web,
        lab.worker() as writer,
        lab.worker() as steady,
        lab.worker() as load,
    ):
        load.ask("load", call="open", url=web.consumer_url("bench"), count=subscribers)
        # Row n is of group n; the statement's rows come after those that are subscribed to.
        load.ask("load", call="subscribe", name="grouped", groups=[*range(1, subscribers + 1)])

        def mass() -> float:
            return float(writer.ask("update", table="grouped", count=rows, after=subscribers)[1])

        quiet(web)
        busy: list[float] = []
        missing: list[float] = []
        for _ in range(bench.rounds):
            lab.settle("grouped")
            committed = mass()  # it was idle before, and may be so until the listener sends
            busy.append(_busy_until(web, listener) - committed)
            load.ask("load", call="expect")
            saves: list[Any] = []

            def save(saves: list[Any] = saves) -> None:
                saves += steady.ask("paced", table="grouped", rate=rate, seconds=seconds, threads=1)

            thread = threading.Thread(target=save)
            thread.start()
            time.sleep(seconds / 5)  # the statement comes among what is wanted
            mass()
            thread.join()
            missing.append(len(saves) - load.ask("load", call="done", count=len(saves), timeout=5)["different"])
            _busy_until(web, listener)
    title = f"{rows} rows in as many groups that nobody joined, beside {subscribers} subscribers"
    total = rate * seconds
    what = f"{title}: until their process is idle"
    reference = (f"a look every {LOOK} s", [LOOK] * bench.rounds)
    yield Result("unwanted", what, runner.OURS, busy, "s", *reference, Goal("≤", 1, "figure"))
    what, reference = f"{title}: their events that are missing 5 s later", ("events", [total] * bench.rounds)
    yield Result("unwanted", what, runner.OURS, missing, "missing", *reference, Goal("≤", 0, "figure"))
