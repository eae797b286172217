"""Delays between tries."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.delivery.backoff import Backoff


@given(least=st.floats(0.001, 1), factor=st.floats(1, 1000), tries=st.integers(1, 50), seed=st.integers())
def test_delays_stay_between_the_limits_for_ever(least: float, factor: float, tries: int, seed: int) -> None:
    random.seed(seed)
    backoff = Backoff(least, least * factor)
    assert all(least <= backoff.delay() <= least * factor for _ in range(tries))


def test_the_bound_doubles_and_begins_again_after_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, bound: bound)
    backoff = Backoff(0.1, 1.0)
    assert [backoff.delay() for _ in range(5)] == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0])
    backoff.reset()
    assert backoff.delay() == pytest.approx(0.2)


def test_two_listeners_do_not_wait_the_same_time() -> None:
    assert len({Backoff(0.1, 10).delay() for _ in range(20)}) > 1
