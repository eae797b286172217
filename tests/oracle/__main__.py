"""Run the oracle.

    python -m tests.oracle --seed 1 --seed random                       a short one, as the tests do
    python -m tests.oracle --minutes 60 --slow --report page.md         a long one

It starts processes and a PostgreSQL server of its own. It ends with 1 and the story at the first mismatch.
"""

import argparse
import dataclasses
import random
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.oracle.report import page
from tests.oracle.tally import Tally
from tests.oracle.world import CAPACITY, LAYERS, SHARE, World


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="tests.oracle")
    parser.add_argument("--seed", action="append", default=[], help="a number or 'random'; may be given again")
    parser.add_argument("--examples", type=int, default=20, help="runs for each seed")
    parser.add_argument("--steps", type=int, default=80, help="steps of a run at most")
    parser.add_argument("--faults", type=int, default=3, help="faults of a run at most")
    help_ = "of channels_redis; may be given again: the seeds take turns (default: all)"
    parser.add_argument("--layer", action="append", choices=LAYERS, help=help_)
    help_ = "messages that the layer `core` holds for a process (default: %(default)s)"
    parser.add_argument("--capacity", type=int, default=CAPACITY, help=help_)
    help_ = "the part of all messages that lossy layers drop (default: %(default)s)"
    parser.add_argument("--share", type=float, default=SHARE, help=help_)
    parser.add_argument("--slow", action="store_true", help="also faults of more than ten seconds")
    # More than a standby takes to end a frozen leader, and more than a listener waits between two tries to connect.
    help_ = "seconds after which a copy that is not right will not become right by itself"
    parser.add_argument("--patience", type=float, default=40.0, help=help_)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with new seeds for so long")
    parser.add_argument("--report", type=Path, help="write a page about the run to this file")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter story of a mismatch")
    options = parser.parse_args()
    seeds = [random.getrandbits(32) if text == "random" else int(text) for text in options.seed]
    with World(options.capacity, options.share) as world:
        _Run(world, options).run(seeds)


@dataclasses.dataclass
class _Run:
    world: World
    options: argparse.Namespace
    tally: Tally = dataclasses.field(default_factory=Tally)
    begun: float = dataclasses.field(default_factory=time.monotonic)
    seeds: int = 0

    def run(self, seeds: list[int]) -> None:
        """Go through the seeds, and on with others until the time is over."""
        # These need Django, which the world has set up.
        from tests.oracle.faults import Faults
        from tests.oracle.machine import WRITERS, Oracle
        from tests.oracle.writer import Writer

        Oracle.world, Oracle.tally = self.world, self.tally
        Oracle.faults = Faults(self.world)
        Oracle.most_faults, Oracle.slow = self.options.faults, self.options.slow
        Oracle.patience = self.options.patience
        Oracle.writers = [Writer(f"writer {number}", self.tally) for number in range(WRITERS)]
        for writer in Oracle.writers:
            writer.start()
        try:
            while seeds or self.seconds < self.options.minutes * 60:
                number = seeds.pop(0) if seeds else random.getrandbits(32)
                layers = self.options.layer or LAYERS
                layer = layers[self.seeds % len(layers)]
                print(f"{self.seconds:.0f} s, seed {number}, layer {layer}; {self.tally.line()}", flush=True)
                self.world.use(layer, number)
                self.tally.add("seeds", layer)
                self.seeds += 1
                run_state_machine_as_test(seed(number)(Oracle), settings=self._settings())
                self._report()
        finally:
            self._report()
            for writer in Oracle.writers:
                writer.end()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.begun

    def _settings(self) -> settings:
        # A mismatch takes long to be sure of, so by default it is told as it was found.
        phases = [Phase.generate, Phase.shrink] if self.options.shrink else [Phase.generate]
        return settings(
            max_examples=self.options.examples,
            stateful_step_count=self.options.steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )

    def _report(self) -> None:
        self.tally.set("messages dropped", self.world.drops())
        if self.options.report is not None:
            text = page(self.tally, self.seconds, self.world)
            self.options.report.write_text(text, encoding="utf-8")
        print(f"{self.seconds:.0f} s; {self.tally.line()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
