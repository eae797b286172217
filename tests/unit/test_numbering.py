"""Numbers on messages: a consumer knows of each message that the layer dropped, and of none that it did not."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.listener import numbering as module
from djcrf_pg.listener.gate import Moment
from djcrf_pg.listener.numbering import UNKNOWN, Control, Numbering, Tail
from djcrf_pg.observer.subscriptions import Subscriptions

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EARLIER, LATER = "2026-01-01T11:59:59+00:00", "2026-01-01T12:00:01+00:00"
CONTROL = Control("all", "tell", "someone")


def tail(number: int) -> Tail:
    """A message that was sent after the groups were joined."""
    return Tail(number, 20, LATER) if number else UNKNOWN


def subscriptions(*groups: str) -> Subscriptions:
    """A consumer that joined groups when transactions below 10 had ended."""
    moment = Moment(Snapshot(10, 10), NOON)
    return Subscriptions(observer=None, since=dict.fromkeys(groups, moment))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20),
    st.lists(st.booleans(), max_size=20),
)
def test_a_dropped_message_is_missed_by_the_next_one_or_by_the_roll_and_no_other_is(
    messages: list[tuple[str, bool]], rolls: list[bool]
) -> None:
    numbering, state = Numbering(), subscriptions("a", "b")
    dropped = False
    for place, (group, arrives) in enumerate(messages):
        before, number = numbering.number(group)
        numbering.sent(CONTROL, group, Tail(number, 20 + place, LATER), now=0.0)
        if group == "c":
            continue  # of others
        if arrives:
            assert state.takes(group, 1, before, number)
        dropped = dropped or not arrives
    for _, tails in numbering.rolls(now=10.0):
        state.compare(1, tails)
    assert state.stale is dropped
    # Once is enough, however often the roll is called.
    state.stale = False
    for _, tails in numbering.rolls(now=1_000.0):
        state.compare(1, tails)
    assert not state.stale


def test_what_was_sent_before_the_group_was_joined_is_not_missing() -> None:
    state = subscriptions("a")
    state.compare(1, {"a": Tail(5, 9, EARLIER)})
    assert not state.stale
    assert state.takes("a", 1, Tail(5, 9, EARLIER), 6)
    assert not state.stale


def test_the_message_before_the_first_one_counts_if_it_was_sent_after_joining() -> None:
    state = subscriptions("a")
    assert state.takes("a", 1, Tail(41, 9, EARLIER), 42)
    assert not state.stale
    state = subscriptions("a")
    assert state.takes("a", 1, tail(41), 42)
    assert state.stale


def test_a_message_that_comes_again_is_no_gap() -> None:
    state = subscriptions("a")
    for before, number in ((0, 1), (1, 2), (1, 2), (2, 3)):
        assert state.takes("a", 1, tail(before), number)
    assert not state.stale


def test_a_newer_leader_counts_anew_and_an_older_one_is_not_heard() -> None:
    state = subscriptions("a")
    assert state.takes("a", 1, UNKNOWN, 7)
    assert state.takes("a", 2, UNKNOWN, 1)
    assert not state.takes("a", 1, tail(7), 8)
    state.compare(1, {"a": tail(8)})
    assert not state.stale
    state.compare(3, {"a": tail(1)})
    assert state.stale, "nothing was heard of the third one's message"


def test_rolls_come_later_and_later_and_end() -> None:
    numbering = Numbering()
    assert numbering.due is None
    numbering.sent(CONTROL, "a", Tail(1, 1, LATER), now=0.0)
    called = []
    while (due := numbering.due) is not None:
        assert list(numbering.rolls(due - 0.01)) == []
        assert list(numbering.rolls(due)) == [(CONTROL, {"a": Tail(1, 1, LATER)})]
        called.append(due)
    assert called[:4] == [2.0, 6.0, 14.0, 30.0]
    assert 3_600 < called[-1] + 2_048 < 7_200


def test_under_steady_traffic_a_roll_comes_every_two_seconds() -> None:
    numbering, called = Numbering(), 0
    for tick in range(1_000):
        numbering.sent(CONTROL, "a", Tail(tick, 1, LATER), now=tick / 10)
        called += len(list(numbering.rolls(tick / 10)))
    assert 45 <= called <= 51


def test_a_roll_is_cut_and_names_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CUT", 2)
    monkeypatch.setattr(module, "_ROLL", 3)
    numbering = Numbering()
    for number, group in enumerate("abcda"):
        numbering.sent(CONTROL, group, Tail(number, 1, LATER), now=0.0)
    named = [list(tails) for _, tails in numbering.rolls(5.0)]
    assert named == [["c", "d"], ["a"]]


def test_what_is_forgotten_has_no_message_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GROUPS", 2)
    numbering, before = Numbering(), []
    for group in "abcabb":
        known, number = numbering.number(group)
        before.append(known.number)
        numbering.sent(CONTROL, group, tail(number), now=0.0)
    assert before == [0, 0, 0, 0, 0, 5]


def test_rolls_go_on_when_an_observer_passes_the_groups_that_they_can_name_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CUT", 2)
    monkeypatch.setattr(module, "_ROLL", 4)
    numbering, named = Numbering(), []
    for number, group in enumerate("abcd"):
        numbering.sent(CONTROL, group, tail(number), now=0.0)
    for _, tails in numbering.rolls(2.0):
        named += tails
        for number, group in enumerate("wxyz"):  # a delivery, while the roll is on its way
            numbering.sent(CONTROL, group, tail(number), now=2.0)
    assert named == ["a", "b", "c", "d"]
    assert numbering.due == 4.0, "the delivery has a roll of its own"
