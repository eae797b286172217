"""1 000 consumers of one process subscribe at the same time: how many a second, against DCRF's own observer.

The consumers are those of `benchmarks.crowd`, connected before. Where the setting ``JOIN_GROUPS`` exists, also without
the groups of the channel layer, and how many commands Redis gets then.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import Worker
from djcrf_pg.conf import Settings

ALONE = f"{runner.OURS}, JOIN_GROUPS = False"


def run(bench: Bench) -> Iterator[Result]:
    """Measure subscriptions a second."""
    lab, count = bench.lab, bench.choose(100, 1_000)
    title = f"{count} consumers subscribe at once"
    commands: list[float] = []
    with ExitStack() as stack:
        stack.enter_context(lab.listener())
        worker = stack.enter_context(lab.worker())

        def rate(worker: Worker, name: str) -> float:
            seconds, sent = worker.ask("crowd", what="subscribe", count=count, name=name, redis=lab.redis.url)
            commands.append(sent / count)
            return float(count / seconds)

        measures = {
            runner.OURS: lambda: rate(worker, "captured"),
            runner.DCRF: lambda: rate(worker, "signalled"),
        }
        if "JOIN_GROUPS" in {field.name for field in dataclasses.fields(Settings)}:
            alone = stack.enter_context(lab.worker(settings={"JOIN_GROUPS": False}))
            measures[ALONE] = lambda: rate(alone, "captured")
        found = bench.turns(measures)
    goals = {runner.OURS: Goal("≥", 1), ALONE: Goal("≥", 2_000, "figure")}
    yield from runner.against(found, runner.DCRF, scenario="subscribe", what=title, unit="a second", goals=goals)
    # What is sent while nobody subscribes, the heartbeats of the listener for example, is among it.
    sent = {name: commands[place :: len(measures)][1:] for place, name in enumerate(measures)}
    yield from runner.against(
        sent,
        runner.DCRF,
        scenario="subscribe",
        what=title,
        unit="commands to Redis each",
        goals={ALONE: Goal("≤", 0.1, "figure")},
    )
