"""One change to 1 000 and to 10 000 subscribers in one process, against a bare ``group_send`` of what DCRF would send.

The listener is a process of its own, Redis between; the consumers are those of `benchmarks.crowd`. Ours is from the
commit to the last frame, so it has the listener's work in it; the bare one is from the call of ``group_send``.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result

#: Frames a second that Centrifugo publishes for each core.
PUBLISHED = 12_500


def run(bench: Bench) -> Iterator[Result]:
    """Measure seconds."""
    few = min(2, bench.rounds)  # a turn of ten thousand takes most of a minute where the machine is busy, so none more
    for count, rounds, warm_up, most in bench.choose(
        ((50, 1, False, 0.33),), ((1_000, 2 * bench.rounds, True, 0.33), (10_000, few, False, 0.15))
    ):
        with bench.lab.listener(), bench.lab.worker() as worker:
            found = worker.ask("crowd", what="fan_out", count=count, rounds=rounds, warm_up=warm_up)
        ours, cpu, bare = ([1000 * turn[place] for turn in found] for place in (0, 1, 2))
        title = f"one change to {count} subscribers"
        what = f"{title}, commit to the last frame"
        yield Result("fan-out", what, runner.OURS, ours, "ms", "bare group_send", bare, Goal("≤", most))
        rates = [1000 * count / used for used in cpu]
        reference = ("published by Centrifugo", [PUBLISHED] * len(rates))
        yield Result("fan-out", f"{title}, for each second of CPU", runner.OURS, rates, "frames", *reference)
