"""How many events a second one leader takes from the log to a consumer's handler in another process, over Redis.

One statement changes all rows; the time is from its commit to the handler's last row, all of them there. DCRF's is the
time of as many ``save()`` as it takes, to the handler's last row. django-pgpubsub's is from the commit to the last call
of a listener that only counts, which no consumer has heard of yet.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks import runner
from benchmarks.audience import Audience, Seat
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import Worker, has_pgpubsub, quiet
from tests.servers import ManagePy

FLAVOURS = {
    "captured": ("primary key as body", 30_000, Goal("≥", 25_000, "figure")),
    "serialized": ("`serializer_class`", 30_000, Goal("≥", 20_000, "figure")),
    "custom": ("`serializer` that makes a dict", 30_000, Goal("≥", 8_000, "figure")),
    "documented": ("`serializer` that makes a DRF serializer for each event", 3_000, None),
    "nested": ("`serializer_class` that nests a foreign key and a many-to-many", 10_000, None),
    "lonely": ("the same with `prefetch=False`", 1_000, None),
    "grouped": ("1 000 groups, primary key as body", 30_000, Goal("≥", 5_000, "figure")),
}


def deliver(worker: Worker, seat: Seat, table: str, rows: int) -> float:
    """Events a second from the commit of one statement to the last row in the handler."""
    seat.expect(rows)
    _, committed = worker.ask("update", table=table, count=rows)
    done = seat.done()
    if done["done"] != rows:
        runner.say(f"{table}: {done['done']} events for {rows} rows")
    return rows / (float(done["last"]) - float(committed))


def signals(worker: Worker, seat: Seat, rows: int) -> float:
    """DCRF's events a second."""
    seat.expect(rows)
    begin = worker.ask("save_rows", table="signalled", count=rows)
    return rows / (seat.done()["last"] - float(begin))


def published(worker: Worker, listener: ManagePy, rows: int) -> float:
    """django-pgpubsub's events a second."""
    before = listener.position
    _, committed = worker.ask("update", table="published", count=rows)
    heard = listener.wait_for(r"heard \d+ at ([\d.]+)", after=before, timeout=300)
    return rows / (float(heard[1]) - float(committed))


def run(bench: Bench) -> Iterator[Result]:
    """Measure events a second."""
    lab, few = bench.lab, bench.choose(200, 500, 2_000)
    with ExitStack() as stack:
        listener = stack.enter_context(lab.listener())
        web = stack.enter_context(lab.web())
        audience = stack.enter_context(Audience())
        worker = stack.enter_context(lab.worker())
        seats = {name: audience.seat(web) for name in (*FLAVOURS, "signalled")}
        for name, seat in seats.items():
            seat.subscribe(name)
        peer = stack.enter_context(lab.peer_listener(few)) if has_pgpubsub() else None

        def measures(share: float) -> dict[str, Callable[[], float]]:
            found: dict[str, Callable[[], float]] = {
                name: lambda name=name, rows=int(share * rows): deliver(worker, seats[name], name, rows)
                for name, (_, rows, _) in FLAVOURS.items()
            }
            found[runner.DCRF] = lambda: signals(worker, seats["signalled"], few)
            if peer is not None:
                found[runner.PUBSUB] = lambda: published(worker, peer, few)
            return found

        def before() -> None:
            lab.settle(*FLAVOURS, "signalled", "published")
            quiet(listener)

        share = bench.choose(0.1, 1.0, 3.0)
        found = bench.turns(measures(share), before=before, warm_up=measures(0.1))
    reference = (runner.DCRF, found[runner.DCRF])
    for name, (what, _, goal) in FLAVOURS.items():
        yield Result("throughput", what, runner.OURS, found[name], "events/s", *reference, goal)
    what, one = "1 000 groups, all joined by one consumer", ("one group", found["captured"])
    yield Result("throughput", what, runner.OURS, found["grouped"], "events/s", *one, Goal("≥", 0.7))
    what, flat = "nested, against flat", ("`serializer_class`, flat", found["serialized"])
    yield Result("throughput", what, runner.OURS, found["nested"], "events/s", *flat, Goal("≥", 0.4))
    seconds = [FLAVOURS["nested"][1] / rate for rate in found["nested"]]
    alone = [FLAVOURS["nested"][1] / rate for rate in found["lonely"]]
    what = f"`update()` of {FLAVOURS['nested'][1]} rows with nested ones, commit to the last handler call"
    yield Result("throughput", what, runner.OURS, seconds, "s", "with `prefetch=False`", alone, Goal("≤", 5, "figure"))
    if runner.PUBSUB in found:
        what = "the row, to a listener that counts"
        yield Result("throughput", what, runner.PUBSUB, found[runner.PUBSUB], "events/s", *reference)
