"""The ASGI servers restart: 1 000 clients come back at once with cursors, each with 100 changes to catch up on.

Two server processes, a listener, Redis, the clients and two writers share the machine. The clients have cursors of
events; then the servers end, rows are changed, and new servers start. Times are from the moment when all connect, with
the servers there, to a client's last frame; against what it takes them to connect and to subscribe without a cursor.

One writer writes to an observed table that no client asks for, another one to a table that nobody observes: what both
pay is the machine's. The latency of ``save()`` is compared to that with the clients there and nothing to tell them.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.scenarios.latency import percentile
from benchmarks.servers import Worker, cpu, quiet

#: Saves a second of each writer, and seconds of that.
RATE, WRITING = 100, 10

TABLES = ("captured", "plain")

#: Seconds that the clients have; who has not all by then counts with as many.
PATIENCE = 120


def run(bench: Bench) -> Iterator[Result]:
    """Measure seconds, and the writers' milliseconds."""
    clients, changes = bench.choose((50, 20), (1_000, 100))
    for groups in bench.choose((1, 5), (1, 20), (1, 20, 100)):
        yield from _restart(bench, clients, groups, changes)


def _restart(bench: Bench, clients: int, groups: int, changes: int) -> Iterator[Result]:
    lab, env, seconds = bench.lab, {"BENCH_GROUPS": str(groups)}, bench.choose(1, WRITING)
    numbers = [number % groups for number in range(clients)]
    times: dict[float, list[float]] = {0.5: [], 0.95: [], 1: []}
    without: list[float] = []
    used: list[float] = []
    took: list[float] = []
    late = 0
    before: dict[str, list[float]] = {table: [] for table in TABLES}
    meanwhile: dict[str, list[float]] = {table: [] for table in TABLES}
    for _ in range(min(2, bench.rounds)):
        lab.forget()
        with ExitStack() as stack:
            listener = stack.enter_context(lab.listener(**env))
            writer, load, *writers = (stack.enter_context(lab.worker()) for _ in range(2 + len(TABLES)))
            with ExitStack() as first:
                webs = [first.enter_context(lab.web(**env)) for _ in range(2)]
                begin = time.monotonic()
                for web in webs:
                    load.ask("load", call="open", url=web.consumer_url("bench"), count=clients // 2)
                load.ask("load", call="subscribe", name="resumed", groups=numbers)
                without.append(time.monotonic() - begin)
                load.ask("load", call="expect")
                writer.ask("update", table="resumed", count=groups)
                load.ask("load", call="done", count=clients, timeout=60)
                cursors = load.ask("load", call="cursors")
                for each in (listener, *webs):
                    quiet(each)
                for table, saves in _write(writers, seconds).items():
                    before[table].append(1000 * percentile([end - begin for _, begin, end in saves], 0.99))
            load.ask("load", call="vanish")
            writer.ask("update", table="resumed", count=groups * changes)
            webs = [stack.enter_context(lab.web(**env)) for _ in range(2)]
            for each in (listener, *webs):
                quiet(each)
            asked = {"name": "resumed", "groups": numbers, "cursors": cursors, "count": changes, "timeout": PATIENCE}
            urls = [web.consumer_url("bench") for web in webs]
            work = sum(map(cpu, webs))
            with ThreadPoolExecutor(1) as thread:
                begin = time.monotonic()
                coming = thread.submit(load.ask, "load", call="come_back", urls=urls, **asked)
                written = _write(writers, seconds)
                came = coming.result()
            lasts = [PATIENCE if one is None else one[2] - begin for one in came]
            late += sum(one is None for one in came)
            used.append(sum(map(cpu, webs)) - work)
            took.append(max(lasts))
            for share, theirs in times.items():
                theirs.append(percentile(lasts, share))
            for table, saves in written.items():
                end = begin + max(lasts)
                found = [after - start for _, start, after in saves if start < end]
                meanwhile[table].append(1000 * percentile(found, 0.99))
    title = f"{clients} clients in {groups} group{'s' * (groups > 1)} come back, {changes} changes each"
    note = f"{late} had not all after {PATIENCE} s" if late else ""
    for share, theirs in times.items():
        what = f"{title}: the last one has all" if share == 1 else f"{title}, p{100 * share:.0f}"
        goal = Goal("≤", 10, "figure") if share == 1 else None
        reference = "to connect and subscribe without a cursor"
        yield Result("restart", what, runner.OURS, theirs, "s", reference, without, goal, note)
    yield Result("restart", f"{title}: CPU of both servers", runner.OURS, used, "s", "the whole", took)
    for table, who in (("captured", "an observed table"), ("plain", "a table that nobody observes")):
        what = f"{title}: `save()` to {who} meanwhile, p99"
        goal, whose = (Goal("≤", 1.5), runner.OURS) if table == "captured" else (None, runner.FLOOR)
        yield Result("restart", what, whose, meanwhile[table], "ms", "before", before[table], goal)


def _write(writers: list[Worker], seconds: float) -> dict[str, list[tuple[int, float, float]]]:
    """Have a writer write to each table at the same time."""

    def write(writer: Worker, table: str) -> Any:
        return writer.ask("paced", table=table, rate=RATE, seconds=seconds, threads=2)

    with ThreadPoolExecutor(len(TABLES)) as threads:
        return dict(zip(TABLES, threads.map(write, writers, TABLES), strict=True))
