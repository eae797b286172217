"""5 000 clients over two server processes at 10 000 frames a second for a minute, on one machine with all the rest.

Fifty clients share a group, and each change is for one group. Times are from the call of ``save()`` to the frame in the
client. The clients are one process, whose share of the machine is among the results.
"""

import time
from collections.abc import Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.scenarios.latency import percentile
from benchmarks.servers import cpu, quiet

#: Clients of a group.
MEMBERS = 50

#: Seconds after the last change in which all frames are to be there.
PATIENCE = 30

#: Milliseconds that Supabase publishes for its cluster of 2 to 6 nodes at as many frames a second.
PUBLISHED = {0.5: 46, 0.95: 132}


def run(bench: Bench) -> Iterator[Result]:
    """Measure milliseconds, and the CPU of each process."""
    lab = bench.lab
    clients, seconds, rate = bench.choose((200, 3, 20), (5_000, 60, 200))
    groups = clients // MEMBERS
    env = {"BENCH_GROUPS": str(groups)}
    with (
        lab.listener(**env) as listener,
        lab.web(**env) as one,
        lab.web(**env) as other,
        lab.worker() as writer,
        lab.worker() as load,
    ):
        for web in (one, other):
            load.ask("load", call="open", url=web.consumer_url("bench"), count=clients // 2)
        load.ask("load", call="subscribe", name="grouped", groups=[*range(groups)])
        quiet(listener)
        processes = {
            "the load generator": load,
            "the listener": listener,
            "Redis": lab.redis,
            "the servers": one,
            "the other server": other,
            "the writer": writer,
        }
        load.ask("load", call="expect")
        used, began = {name: cpu(process) for name, process in processes.items()}, time.monotonic()
        saves = writer.ask("paced", table="grouped", rate=rate, seconds=seconds, threads=2)
        used = {name: (cpu(process) - used[name]) / (time.monotonic() - began) for name, process in processes.items()}
        frames = len(saves) * MEMBERS
        found = load.ask("load", call="done", count=frames, timeout=PATIENCE)
        begins = [(key, begin) for key, begin, _ in saves]
        times = [1000 * took for _, took in load.ask("load", call="latencies", begins=begins)]
    used["the servers"] += used.pop("the other server")
    title = f"{clients} clients, {rate * MEMBERS} frames/s for {seconds} s"
    reached = f"{frames / seconds:.0f} frames/s came about"
    for share, published in PUBLISHED.items():
        goal, figure = Goal("≤", published, "figure"), percentile(times, share) if times else float("inf")
        what = f"{title}, `save()` to frame, p{100 * share:.0f}"
        reference = ("published by Supabase", [published])
        yield Result("many-clients", what, runner.OURS, [figure], "ms", *reference, goal, reached)
    for what, value in (("missing", frames - found["different"]), ("resyncs", found["resyncs"])):
        yield Result("many-clients", title, runner.OURS, [value], what, "frames", [frames], Goal("≤", 0, "figure"))
    for name in ("the load generator", "the listener", "Redis", "the writer"):
        what, reference = f"{title}: CPU of {name}", ("the servers", [used["the servers"]])
        yield Result("many-clients", what, runner.OURS, [used[name]], "cores", *reference)
