"""The model of the doorbell holds, and the model checker finds each mistake that is made in it on purpose."""

import re

import pytest

from models import check

pytestmark = pytest.mark.skipif(bool(check.missing()), reason=f"not on the PATH: {', '.join(check.missing())}")

A_LEADER_THAT_DIES, *MORE = check.SIZES


@pytest.mark.parametrize("size", [A_LEADER_THAT_DIES, *(pytest.param(size, marks=pytest.mark.slow) for size in MORE)])
def test_no_state_sleeps_with_a_committed_change_that_was_not_read_and_no_ring_due(size: str):
    verdict = check.check(check.SIZES[size])
    assert verdict.holds, verdict.output
    assert verdict.states > 1_000_000


@pytest.mark.parametrize("mistake", check.MISTAKES)
def test_the_model_checker_finds_the_mistake(mistake: str):
    verdict = check.check(check.MISTAKEN, mistake)
    assert verdict.overslept, verdict.output
    assert "overslept" in verdict.trace


def test_each_mistake_of_the_model_is_made():
    assert set(re.findall(r"#ifn?def (\w+)$", check.MODEL.read_text("utf-8"), re.MULTILINE)) - {
        *("WRITERS", "TRANSACTIONS", "STATEMENTS", "BUSY", "DEATHS")
    } == set(check.MISTAKES)
