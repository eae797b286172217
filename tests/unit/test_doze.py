"""How long a listener that fell asleep goes on looking."""

from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.listener.doorbell import Doze

SAFETY_POLL = 60.0


def running(*xids: int) -> Snapshot:
    """A snapshot with these transactions in progress."""
    return Snapshot(min(xids, default=100), 100, frozenset(xids))


def test_with_nothing_in_progress_it_sleeps_until_the_safety_poll() -> None:
    doze = Doze()
    doze.saw(running())
    assert doze.patience(SAFETY_POLL) == SAFETY_POLL


def test_it_keeps_looking_with_a_growing_delay_while_one_that_may_have_seen_awake_runs() -> None:
    doze = Doze()
    delays = []
    for _ in range(30):
        doze.saw(running(7))
        delays.append(doze.patience(SAFETY_POLL))
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.002, 1.0)
    doze.saw(running())
    assert doze.patience(SAFETY_POLL) == SAFETY_POLL


def test_transactions_that_began_later_do_not_keep_it_up_for_they_ring() -> None:
    doze = Doze()
    doze.saw(running(7, 8))
    doze.saw(running(8, 9))
    assert doze.pending == {8}
    doze.saw(running(9, 10))
    assert doze.patience(SAFETY_POLL) == SAFETY_POLL


@given(st.lists(st.frozensets(st.integers(1, 9)), min_size=1))
def test_it_waits_for_exactly_those_of_the_first_read_that_still_run(seen: list[frozenset[int]]) -> None:
    doze = Doze()
    for xids in seen:
        doze.saw(running(*xids))
        assert (doze.patience(SAFETY_POLL) == SAFETY_POLL) is not bool(doze.pending)
    assert doze.pending == frozenset.intersection(*seen)
