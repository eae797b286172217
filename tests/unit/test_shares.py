"""The simulation of several leaders does what can be reckoned by hand."""

import dataclasses

import pytest

from models.shares import Costs, simulate

FREE = Costs(batch=0.0, row=0.0, other=0.0, message=0.0, redis=0.0)


def test_a_leader_that_is_hardly_asked_takes_what_one_change_costs():
    costs = Costs(batch=1e-3, row=1e-4, other=0.0, message=5e-4, redis=1e-4)
    outcome = simulate(1.0, streams=1, shares=1, costs=costs, seconds=200)
    assert outcome.half == pytest.approx(1e-3 + 1e-4 + 5e-4)
    assert outcome.messages == 1


@pytest.mark.parametrize("cost", ["row", "message"])
@pytest.mark.parametrize("shares", [1, 2, 4])
def test_what_a_change_costs_bounds_the_rate_of_each_leader(cost: str, shares: int):
    # Each change is of a stream of its own, so each is a message.
    costs = dataclasses.replace(FREE, **{cost: 1e-3})
    within, over = (simulate(part * 1_000 * shares, 10**9, shares, costs, seconds=20) for part in (0.8, 1.5))
    assert within.most < 0.1
    assert over.most > 3


def test_leaders_share_one_redis():
    costs = dataclasses.replace(FREE, redis=1e-3)
    assert all(simulate(1_500, 10**9, shares, costs, seconds=20).most > 3 for shares in (1, 4))


def test_in_one_stream_more_changes_travel_in_one_message():
    costs = dataclasses.replace(FREE, message=1e-2)
    slow, fast = (simulate(rate, 1, 1, costs, seconds=10) for rate in (10, 1_000))
    assert slow.messages > 0.9
    assert fast.messages < 0.2


def test_rows_of_other_leaders_are_read_past():
    costs = dataclasses.replace(FREE, row=1e-4, other=1e-4)
    assert simulate(8_000, 1, 1, costs).most < 0.1
    assert simulate(8_000, 1, 4, costs).most < 0.1, "each takes a quarter, and reads four"
    assert simulate(12_000, 1, 4, costs).most > simulate(12_000, 1, 4, dataclasses.replace(costs, other=0.0)).most
