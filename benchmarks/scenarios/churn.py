"""Twenty clients that come and vanish beside a steady one, for a minute: what that one misses, and the resyncs of all.

The steady one is subscribed to all groups, each of the others to one. Every second visit ends without a close frame, as
when a phone loses its network. The capacity of Redis is its default.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result

VISITORS = 20

#: Seconds that a visit lasts at most.
STAY = 1.0

RATE = 100


def run(bench: Bench) -> Iterator[Result]:
    """Count."""
    lab, seconds = bench.lab, bench.choose(3, 60)
    groups = {"capacity": 100, "BENCH_GROUPS": str(VISITORS)}
    with lab.listener(**groups), lab.web(**groups) as web, lab.worker() as writer, lab.worker() as load:
        url = web.consumer_url("bench")
        load.ask("load", call="open", url=url, count=1)
        load.ask("load", call="subscribe", name="grouped")
        load.ask("load", call="expect")
        load.ask("load", call="churn", url=url, count=VISITORS, name="grouped", groups=[*range(VISITORS)], stay=STAY)
        saves = writer.ask("paced", table="grouped", rate=RATE, seconds=seconds, threads=2)
        visits = load.ask("load", call="visits")
        # Longer than a loss goes unnoticed: a resync of the last second is counted too.
        found = load.ask("load", call="done", count=len(saves) + 1, timeout=5)
    title = f"{VISITORS} clients that come and vanish beside a steady one, {RATE} changes/s for {seconds} s"
    counts = (
        ("lost", len(saves) - found["different"], "changes", len(saves)),
        ("resyncs", found["resyncs"], "visits", visits),
    )
    for what, value, against, number in counts:
        yield Result("churn", title, runner.OURS, [value], what, against, [number], Goal("≤", 0, "figure"))
