"""500 people, each in a group of their own, and one UPDATE that changes a row of each: against one in one group.

The listener and the server of the consumers are processes of their own, Redis between, its capacity is its default.
The clients are WebSocket clients in a process each. Both change as many rows and receive as many frames.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import Worker, quiet

CAPACITY = 100

#: Seconds after which an event is lost.
PATIENCE = 10


def run(bench: Bench) -> Iterator[Result]:
    """Measure events a second, and count what is lost."""
    lab, count = bench.lab, bench.choose(50, 500)
    lost: list[float] = []
    resyncs: list[float] = []
    groups = {"capacity": CAPACITY, "BENCH_GROUPS": str(count)}
    with (
        lab.listener(**groups) as listener,
        lab.web(**groups) as web,
        lab.worker() as writer,
        lab.worker() as many,
        lab.worker() as one,
    ):
        for clients, members, table, names in ((many, count, "grouped", [*range(count)]), (one, 1, "captured", [None])):
            clients.ask("load", call="open", url=web.consumer_url("bench"), count=members)
            clients.ask("load", call="subscribe", name=table, groups=names)

        def events(clients: Worker, table: str) -> float:
            clients.ask("load", call="expect")
            _, committed = writer.ask("update", table=table, count=count)
            found = clients.ask("load", call="done", count=count, timeout=PATIENCE)
            if clients is many:
                lost.append(count - found["different"])
                resyncs.append(found["resyncs"])
            return float(found["different"] / (found["last"] - committed)) if found["different"] else 0.0

        def before() -> None:
            lab.settle("grouped", "captured")
            quiet(listener)

        alone = "one consumer in one group"
        found = bench.turns(
            {runner.OURS: lambda: events(many, "grouped"), alone: lambda: events(one, "captured")}, before=before
        )
    title = f"one UPDATE of {count} rows to {count} consumers in a group each, capacity {CAPACITY}"
    yield Result("own-groups", title, runner.OURS, found[runner.OURS], "events/s", alone, found[alone], Goal("≥", 1))
    for what, values in (("lost", lost), ("resyncs", resyncs)):
        values, goal = values[-bench.rounds :], Goal("≤", 0, "figure")
        yield Result("own-groups", title, runner.OURS, values, what, "events", [count] * bench.rounds, goal)
