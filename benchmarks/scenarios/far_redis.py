"""Redis 100 ms away, ten changes a second: whether the latency stays what it is in the beginning, and what is missing.

The listener and the server reach Redis through `benchmarks.distance`, which adds 100 ms to each round trip. A change is
of one of a hundred groups, and one client is subscribed to all of them.
"""

import statistics
from collections.abc import Iterator

from benchmarks import runner
from benchmarks.distance import Distance
from benchmarks.runner import Bench, Goal, Result

ROUND_TRIP = 0.1

RATE = 10

#: Seconds after the last change in which all are to be there.
PATIENCE = 15


def run(bench: Bench) -> Iterator[Result]:
    """Measure milliseconds."""
    lab, seconds = bench.lab, bench.choose(6, 60)
    with Distance(lab.redis.port, ROUND_TRIP) as far:
        env = {
            "capacity": 100,
            "BENCH_GROUPS": "100",
            "redis": lab.redis.url.replace(str(lab.redis.port), str(far.port)),
        }
        with lab.listener(**env), lab.web(**env) as web, lab.worker() as writer, lab.worker() as load:
            load.ask("load", call="open", url=web.consumer_url("bench"), count=1)
            load.ask("load", call="subscribe", name="grouped")
            load.ask("load", call="expect")
            saves = writer.ask("paced", table="grouped", rate=RATE, seconds=seconds, threads=1)
            found = load.ask("load", call="done", count=len(saves), timeout=PATIENCE)
            begins = [(key, end) for key, _, end in saves]
            times = [1000 * late for _, late in sorted(load.ask("load", call="latencies", begins=begins))]
    part = max(1, len(times) // 4)
    title = f"Redis {1000 * ROUND_TRIP:.0f} ms away, {RATE} changes/s for {seconds} s"
    first, last = ([statistics.median(some)] if some else [] for some in (times[:part], times[-part:]))
    what = f"{title}: commit to frame, p50 of the last quarter"
    yield Result("far-redis", what, runner.OURS, last, "ms", "the first quarter", first, Goal("≤", 1.2))
    for what, value in (("missing", len(saves) - found["different"]), ("resyncs", found["resyncs"])):
        goal = Goal("≤", 0, "figure")
        yield Result("far-redis", title, runner.OURS, [value], what, "changes", [len(saves)], goal)
