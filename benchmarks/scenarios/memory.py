"""What subscribers weigh.

- A subscription: Python's memory (tracemalloc) that the subscribing of 1 000 consumers leaves behind, for each; against
  DCRF's own observer. The consumers are those of `benchmarks.crowd`.
- An idle connection with one subscription: what the resident memory (RSS) of a server process grows by, for each. Of
  that, what it grows by while they subscribe.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import memory, quiet

#: kB that Centrifugo publishes for a connection.
PUBLISHED = 27


def run(bench: Bench) -> Iterator[Result]:
    """Measure kB."""
    lab, count = bench.lab, bench.choose(100, 1_000)
    with lab.listener(), lab.worker() as worker:
        measures = {
            name: lambda table=table: worker.ask("crowd", what="weigh", count=count, name=table) / 1000
            for name, table in ((runner.OURS, "captured"), (runner.DCRF, "signalled"))
        }
        found = bench.turns(measures)
    yield from runner.against(
        found,
        runner.DCRF,
        scenario="memory",
        what=f"a subscription, by the mean of {count} (tracemalloc)",
        unit="kB",
        goals={runner.OURS: Goal("≤", 3, "figure")},
    )
    yield from _connections(bench)


def _connections(bench: Bench) -> Iterator[Result]:
    lab, count = bench.lab, bench.choose(200, 2_000)
    whole: list[float] = []
    subscribing: list[float] = []
    for _ in range(min(2, bench.rounds)):
        with lab.listener(), lab.web() as web, lab.worker() as first, lab.worker() as load:
            url = web.consumer_url("bench")
            # What the first ones have the process load stays out of it.
            first.ask("load", call="open", url=url, count=20)
            first.ask("load", call="subscribe", name="captured")
            sizes = []
            for step in (None, {"call": "open", "url": url, "count": count}, {"call": "subscribe", "name": "captured"}):
                if step:
                    load.ask("load", **step)
                quiet(web)
                sizes.append(memory(web)["rss"] * 2**20 / 1000)
            before, connected, subscribed = sizes
            whole.append((subscribed - before) / count)
            subscribing.append((subscribed - connected) / count)
    title = f"an idle connection with one subscription, by the mean of {count} (RSS)"
    reference = ("published by Centrifugo for a connection", [PUBLISHED] * len(whole))
    yield Result("memory", title, runner.OURS, whole, "kB", *reference)
    yield Result("memory", f"{title}: its subscribing", runner.OURS, subscribing, "kB", "the whole", whole)
