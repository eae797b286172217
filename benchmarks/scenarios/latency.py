"""How long a change takes to a WebSocket client in another process, at a change, a hundred and a thousand a second.

A worker process calls ``save()``; the listener, the consumers and Redis are processes of their own; the client is in
the runner. All times are from the call of ``save()``, so that one thing is measured for all: for a bare LISTEN it is
the round trip of statement and notification, and DCRF sends before ``save()`` returns. What passes from the return of
``save()``, when the change is committed, to our frame is told as well.

At one change a second all are measured at the same time, each third of a second another; otherwise in turns.
"""

import dataclasses
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks import runner
from benchmarks.audience import Audience, Seat
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import Ears, Worker, quiet
from tests.processes import wait_until

BARE = "bare LISTEN"
TABLES = {runner.OURS: "captured", runner.DCRF: "signalled", BARE: "notified"}


@dataclasses.dataclass
class Block:
    """Latencies of one turn, in milliseconds.

    Attributes:
        whole: From the call of ``save()``.
        after: From its return.
        saves: What it took itself.
        rate: Saves a second that came about.
    """

    whole: list[float]
    after: list[float]
    saves: list[float]
    rate: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value that such a share of the values is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(worker: Worker, table: str, heard: dict[int, float], rate: float, seconds: float, threads: int) -> Block:
    """Write at a rate, and match what was heard."""
    heard.clear()
    saves = worker.ask("paced", table=table, rate=rate, seconds=seconds, threads=threads)
    keys = {key for key, _, _ in saves}
    wait_until(lambda: keys <= heard.keys(), 60, lambda: f"{table}: {len(keys - heard.keys())} of {len(keys)} missing")
    whole = [1000 * (heard[key] - begin) for key, begin, _ in saves]
    after = [1000 * (heard[key] - end) for key, _, end in saves]
    took = max(end for _, _, end in saves) - min(begin for _, begin, _ in saves)
    itself = [1000 * (end - begin) for _, begin, end in saves]
    return Block(whole, after, itself, len(saves) / took)


def run(bench: Bench) -> Iterator[Result]:
    """Measure milliseconds."""
    lab = bench.lab
    with lab.listener() as listener, lab.web() as web, Audience() as audience:
        heard: dict[str, dict[int, float]] = {name: {} for name in TABLES}
        for name in (runner.OURS, runner.DCRF):
            _follow(audience.seat(web), TABLES[name], heard[name])
        bare = Ears(lab.params, "peer", lambda text: heard[BARE].__setitem__(json.loads(text)["id"], time.monotonic()))
        workers = {name: lab.worker() for name in TABLES}
        try:
            plan = ((1, bench.choose(3, 8), 1), (100, bench.choose(1, 4), 2), (1000, bench.choose(1, 3), 4))
            for rate, seconds, threads in plan:

                def block(name: str, rate: int = rate, seconds: int = seconds, threads: int = threads) -> Block:
                    return measure(workers[name], TABLES[name], heard[name], rate, seconds, threads)

                blocks: dict[str, list[Block]] = {name: [] for name in TABLES}
                for number in range(0 if rate > 1 else 1, bench.rounds + 1):  # 0 is to warm up
                    if rate == 1:
                        found = _together({name: lambda name=name: block(name) for name in TABLES})
                    else:
                        found = {}
                        for name in TABLES:
                            lab.settle(*TABLES.values())
                            quiet(listener)
                            found[name] = block(name)
                    if number:
                        for name, one in found.items():
                            blocks[name].append(one)
                yield from _results(rate, blocks)
        finally:
            bare.close()
            for worker in workers.values():
                worker.__exit__()


def _follow(seat: Seat, name: str, heard: dict[int, float]) -> None:
    seat.on_event = lambda at, message: heard.setdefault(message["pk"], at)
    seat.subscribe(name)
    seat.call("echo")


def _together(measures: dict[str, Callable[[], Block]]) -> dict[str, Block]:
    """Run all at the same time, each a third of a second after the other."""
    found: dict[str, Block] = {}
    threads = [
        threading.Thread(target=lambda name=name, work=work: found.__setitem__(name, work()))
        for name, work in measures.items()
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.33)
    for thread in threads:
        thread.join()
    if found.keys() != measures.keys():
        raise RuntimeError("a measurement failed, see above")
    return found


def _results(rate: int, blocks: dict[str, list[Block]]) -> Iterator[Result]:
    def figures(name: str, share: float) -> list[float]:
        return [percentile(block.whole, share) for block in blocks[name]]

    def reached(name: str) -> str:
        return f"{statistics.median(block.rate for block in blocks[name]):.0f}/s came about"

    for share, what in ((0.5, "p50"), (0.99, "p99")):
        if share > 0.5 and rate == 1:
            continue  # that would be the slowest of a few
        bare = figures(BARE, share)
        # The limit of p99 is stated in milliseconds for one rate, that of p50 as a ratio for all.
        goal = Goal("≤", 5) if share == 0.5 else Goal("≤", 20, "figure") if rate == 100 else None
        title = f"`save()` to frame at {rate}/s, {what}"
        ours, dcrf = figures(runner.OURS, share), figures(runner.DCRF, share)
        yield Result("latency", title, runner.OURS, ours, "ms", BARE, bare, goal, reached(runner.OURS))
        yield Result("latency", title, runner.DCRF, dcrf, "ms", BARE, bare, None, reached(runner.DCRF))
        yield Result("latency", title, runner.OURS, ours, "ms", runner.DCRF, dcrf, Goal("≤", 1))
        after = [percentile(block.after, share) for block in blocks[runner.OURS]]
        saves = [percentile(block.saves, share) for block in blocks[runner.OURS]]
        title = f"commit to frame at {rate}/s, {what}"
        yield Result("latency", title, runner.OURS, after, "ms", "the `save()` before it", saves)
