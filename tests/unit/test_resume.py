"""Cursors of clients: what one has seen, as text, and what is left for it."""

import random
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.signing import Signer
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from djcrf_pg.changelog.cursor import Position, Snapshot, Span
from djcrf_pg.delivery import resume
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.delivery.inbox import Inbox, Moment, Subscription
from djcrf_pg.delivery.protocol import History, Origin
from djcrf_pg.delivery.resume import MOST, Cursor, Mark, digest
from djcrf_pg.exceptions import CursorExpired, InvalidCursor
from djcrf_pg.observer import handling

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OURS = History(7_713_261_555_475_993_915, 16_384, 16_584, 1)


@st.composite
def snapshots(draw: st.DrawFn, size: int = 20) -> Snapshot:
    """Any, with so many transactions in progress at most."""
    xmin = draw(st.integers(1, 2**60))
    xips = {xmin + after for after in draw(st.sets(st.integers(0, 10**6), max_size=size))}
    xmin = min(xips, default=xmin)
    return Snapshot(xmin, max(xips, default=xmin - 1) + 1 + draw(st.integers(0, 1_000)), frozenset(xips))


IDS = st.integers(0, 2**62)
MARKS = st.builds(Mark, IDS, st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(-1, 2**32 - 1))
SPANS = st.builds(Span, snapshots(), st.none() | snapshots(), IDS, st.none() | IDS, st.booleans())


@given(SPANS, st.none() | MARKS, st.sampled_from([0, digest("app.tasks")]))
def test_a_cursor_comes_out_as_it_went_in(span: Span, mark: Mark | None, observer: int) -> None:
    cursor = Cursor(OURS, span, mark, observer)
    text = cursor.encode()
    assert Cursor.decode(text, OURS, "app.tasks") == cursor
    assert len(text) <= MOST
    assert text.isascii()
    assert not set(text) & set(" +/=&?#%"), "it may stand in an address"


@pytest.mark.parametrize("apart", [1, 3, 1_000, 10**6])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers())
def test_500_transactions_fit_or_the_cursor_has_seen_less(apart: int, seed: int) -> None:
    some = random.Random(seed)
    begun = sorted({some.randrange(1, 500 * apart + 1) for _ in range(500)})
    last = Snapshot(begun[0], begun[-1] + 1, frozenset(begun))
    still = frozenset(xid for xid in begun if some.random() < 0.9) | {begun[-1] + 5}
    target = Snapshot(min(still), begun[-1] + 7, still)
    cursor = Cursor(OURS, Span(last, target, 5, 9), Mark(7, 1, 2, 3))
    text = cursor.encode()
    assert len(text) <= MOST
    found = Cursor.decode(text, OURS, "app.tasks")
    if apart <= 3:
        assert found == cursor, "they fit as they are"
    elif found != cursor:
        assert found.mark is found.span.target is None
        assert [span.netted for span, _ in found.spans(target)] == [False], "its owner has seen more"
        for xid in range(1, begun[-1] + 10, max(apart // 10, 1)):
            assert last.sees(xid) >= found.span.last.sees(xid)


def test_what_was_changed_or_signed_by_somebody_else_is_refused() -> None:
    text = Cursor.at(OURS, Snapshot(5, 9, frozenset({5}))).encode()
    middle = len(text) // 3
    other = "A" if text[middle] != "A" else "B"
    forged: list[Any] = [
        text[:middle] + other + text[middle + 1 :],
        text[:-1],
        text.partition(":")[0],
        Signer(salt="another").sign(text.partition(":")[0]),
        "",
        "x" * 10_000,
        "\ud800",
        None,
        7,
        {"cursor": text},
    ]
    for each in forged:
        with pytest.raises(InvalidCursor):
            Cursor.decode(each, OURS, "app.tasks")


def test_a_key_that_was_rotated_is_taken_as_long_as_it_is_a_fallback() -> None:
    with override_settings(SECRET_KEY="the former one"):
        text = Cursor.at(OURS, Snapshot(5, 9)).encode()
    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=["the former one"]):
        assert Cursor.decode(text, OURS, "app.tasks").span.last == Snapshot(5, 9)
    with override_settings(SECRET_KEY="the new one"), pytest.raises(InvalidCursor, match="SECRET_KEY_FALLBACKS"):
        Cursor.decode(text, OURS, "app.tasks")


@pytest.mark.parametrize(
    ("history", "error"),
    [
        (OURS._replace(system=8), InvalidCursor),
        (OURS._replace(database=8), InvalidCursor),
        (OURS._replace(log=8), InvalidCursor),
        (OURS._replace(timeline=2), CursorExpired),
    ],
)
def test_a_cursor_is_of_one_course_of_one_database(history: History, error: type[Exception]) -> None:
    text = Cursor.at(OURS, Snapshot(5, 9)).encode()
    with pytest.raises(error):
        Cursor.decode(text, history, "app.tasks")


def test_an_event_s_cursor_is_of_its_observer() -> None:
    text = Cursor(OURS, Span(Snapshot(5, 9)), None, digest("app.tasks")).encode()
    with pytest.raises(InvalidCursor, match="another observer"):
        Cursor.decode(text, OURS, "app.others")


def test_one_of_another_version_has_its_owner_load_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_VERSION", 2)
    text = Cursor.at(OURS, Snapshot(5, 2_000)).encode()
    monkeypatch.undo()
    with pytest.raises(CursorExpired, match="version"):
        Cursor.decode(text, OURS, "app.tasks")


# What is left.


A, B, C = Snapshot(10, 10), Snapshot(20, 20), Snapshot(30, 30)
MARK = Mark(7, 1, 2, 3)


@pytest.mark.parametrize(
    ("begin", "end", "mark", "left"),
    [
        # All of a window was seen: what has come since.
        (Position(A), Position(B), None, [Span(B, C, netted=True)]),
        # A window that was read at once.
        (Position(A), Position(B), MARK, [Span(A, B), Span(B, C, netted=True)]),
        # The first piece of one that is larger, and the last.
        (
            Position(A),
            Position(A, B, 50),
            MARK,
            [Span(A, B, 0, 50), Span(A, B, 50), Span(B, C, netted=True)],
        ),
        (Position(A, B, 50), Position(B), MARK, [Span(A, B, 50), Span(B, C, netted=True)]),
    ],
)
def test_what_is_left_behind_an_event(begin: Position, end: Position, mark: Mark | None, left: list[Span]) -> None:
    found = list(Cursor(OURS, Span.between(begin, end), mark).spans(C))
    assert [span for span, _ in found] == left
    assert [each for _, each in found] == [mark if mark is not None else None, None, None][: len(left)]


@pytest.mark.parametrize("position", [Position(A), Position(A, B, 50)])
def test_whoever_has_an_event_beside_what_is_read_may_have_seen_more(position: Position) -> None:
    """Its leader knows what it has sent itself."""
    one = Subscription(None, None, Inbox(), since={"g": Moment(Snapshot(1, 1), NOON)})
    observer, event = Mock(takes_cursor=True, address="app.tasks"), Event("update", 1, 1, 5, NOON.isoformat())
    for span, is_exact in ((Span.before(position), False), (Span.between(position, Position(C)), True)):
        text = handling._cursor_of(observer, one, "g", event, Origin(OURS, span))["cursor"]
        cursor = Cursor.decode(text, OURS, "app.tasks")
        assert cursor.is_exact is is_exact
        assert [each.netted for each, _ in cursor.spans(Snapshot(2_000, 2_000))][-1] is is_exact


def test_beside_what_is_read_all_was_seen_that_was_sent() -> None:
    assert list(Cursor(OURS, Span.before(Position(A)), MARK).spans(C))[1:] == [(Span(A, C, netted=True), None)]
    found = [span for span, _ in Cursor(OURS, Span.before(Position(A, B, 50))).spans(C)]
    assert found == [Span(A, B, 50), Span(B, C, netted=True)]


def test_nothing_is_left_where_nothing_has_come() -> None:
    assert list(Cursor.at(OURS, C).spans(C)) == []


def test_marks_are_in_the_order_in_which_events_are_made() -> None:
    marks = [
        Mark.of(1, 5, "create", "b"),
        Mark.of(2, 1, "delete", None),
        Mark.of(2, 1, "delete", "b"),
        Mark.of(2, 1, "update", "b"),
        Mark.of(2, 1, "create", "b"),
        Mark.of(2, 1, "resync", ""),
        Mark.of(2, 2, "update", "b"),
    ]
    assert marks == sorted(marks)
    assert digest("1") != digest("2")
