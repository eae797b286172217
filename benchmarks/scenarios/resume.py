"""One client comes back: how many events a second its replay has, from the subscription to the last frame.

A server process, a listener and Redis run; the client is a process of its own, and connected. Against the same rows
that come live, from the commit to the last frame. A row that was updated many times is one event; how long that takes,
too.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import cpu, quiet

LIVE = "the same events live"
FLAVOURS = {
    "captured": "primary key as body",
    "serialized": "`serializer_class`",
    "resumed": "primary key and cursor in each frame",
    "followed": "`serializer_class` and cursor in each frame",
}


def run(bench: Bench) -> Iterator[Result]:
    """Measure events a second, and milliseconds."""
    lab, count = bench.lab, bench.choose(500, 10_000)
    env = {"BENCH_GROUPS": "1"}
    found: dict[str, list[float]] = {name: [] for name in FLAVOURS}
    live: dict[str, list[float]] = {name: [] for name in FLAVOURS}
    used: dict[str, list[float]] = {name: [] for name in FLAVOURS}
    times: dict[int, list[float]] = {1: [], bench.choose(1_000, 100_000): []}
    with (
        lab.listener(**env) as listener,
        lab.web(**env) as web,
        lab.worker() as writer,
        lab.worker() as load,
    ):
        url = web.consumer_url("bench")

        def resume(name: str, cursor: str, count: int) -> float:
            """Seconds from the subscription to the last frame."""
            quiet(listener)
            quiet(web)
            arguments = {"name": name, "groups": [None], "cursors": [cursor], "count": count}
            [[connected, _, last]] = load.ask("load", call="come_back", urls=[url], **arguments)
            load.ask("load", call="vanish")
            return float(last - connected)

        for number in range(bench.rounds + 1):  # 0 is to warm up
            for name in FLAVOURS:
                lab.settle(name)
                cursor = load.ask("load", call="cursor", url=url, name=name)
                load.ask("load", call="open", url=url, count=1)
                load.ask("load", call="subscribe", name=name)
                load.ask("load", call="expect")
                _, committed = writer.ask("update", table=name, count=count)
                last = load.ask("load", call="done", count=count, timeout=120)["last"]
                load.ask("load", call="vanish")
                work = cpu(web)
                took = resume(name, cursor, count)
                if number:
                    used[name].append(count / (cpu(web) - work))
                    live[name].append(count / (last - committed))
                    found[name].append(count / took)
        for _ in range(min(2, bench.rounds)):
            for often, theirs in times.items():
                lab.settle("resumed")
                cursor = load.ask("load", call="cursor", url=url, name="resumed")
                writer.ask("update_often", table="resumed", key=1, count=often)
                theirs.append(1000 * resume("resumed", cursor, 1))
    for name, what in FLAVOURS.items():
        title, goal = f"{count} events, {what}", Goal("≥", 5_000, "figure")
        yield Result("resume", title, runner.OURS, found[name], "events/s", LIVE, live[name], goal)
        what, wall = f"{title}: for each second of the server's CPU", ("for each second", found[name])
        yield Result("resume", what, runner.OURS, used[name], "events", *wall)
    (once, few), (often, many) = times.items()
    title = f"a row that was updated {often} times is one event"
    yield Result("resume", title, runner.OURS, many, "ms", f"{once} time", few)
