"""Run the oracle.

    python -m tests.oracle --seed 1 --seed random --examples 10     a short one, as CI does
    python -m tests.oracle --minutes 60 --report page.md            a long one
"""

import argparse
import random
import sys
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.oracle.tally import Tally
from tests.oracle.world import World


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="tests.oracle")
    parser.add_argument("--seed", action="append", default=[], help="a number or 'random'; may be given again")
    parser.add_argument("--examples", type=int, default=20, help="runs for each seed")
    parser.add_argument("--steps", type=int, default=50, help="steps of a run at most")
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with new seeds for so long")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter story of a mismatch")
    options = parser.parse_args()
    seeds = [random.getrandbits(32) if text == "random" else int(text) for text in options.seed]
    tally, begun = Tally(), time.monotonic()
    with World() as world:
        from tests.oracle.machine import WRITERS, Oracle
        from tests.oracle.writer import Writer

        Oracle.world, Oracle.tally = world, tally
        Oracle.writers = [Writer(f"writer {number}", tally) for number in range(WRITERS)]
        for writer in Oracle.writers:
            writer.start()
        phases = [Phase.generate, Phase.shrink] if options.shrink else [Phase.generate]
        chosen = settings(
            max_examples=options.examples,
            stateful_step_count=options.steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        while seeds or time.monotonic() - begun < options.minutes * 60:
            number = seeds.pop(0) if seeds else random.getrandbits(32)
            print(f"{time.monotonic() - begun:.0f} s, seed {number}; {tally.line()}", flush=True)
            run_state_machine_as_test(seed(number)(Oracle), settings=chosen)
        print(f"{time.monotonic() - begun:.0f} s; {tally.line()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
