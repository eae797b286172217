"""What the pieces of a window have in common."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from djcrf_pg.changelog import window as module
from djcrf_pg.changelog.change import MASS, UNORDERED, Change
from djcrf_pg.changelog.window import Window, crowds

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
INNER, OUTER = 2, 1


def changes(*places: tuple[int, int, int]) -> list[Change]:
    """Changes of so many transactions, tables and depths."""
    return [Change(n, xid, table, "U", depth, "{}", "{}", None, NOON) for n, (xid, table, depth) in enumerate(places)]


def told(changes: Iterable[Change]) -> list[tuple[int, int, str]]:
    """What is to be told: transaction, table and op."""
    return [(change.xid, change.relation, change.op) for change in changes]


def test_a_piece_without_more_to_it_is_told_as_it_is() -> None:
    piece = changes((1, 1, OUTER), (1, 2, INNER), (2, 1, OUTER))
    assert Window().fold(piece) == piece


def test_a_statement_of_a_trigger_and_the_one_that_fired_it_in_two_pieces_have_no_order() -> None:
    window = Window()
    window.fold(changes((1, 1, INNER), (2, 1, OUTER)))
    piece = changes((1, 1, OUTER), (1, 1, OUTER), (2, 1, OUTER), (1, 2, OUTER))
    assert told(window.fold(piece)) == [(1, 1, UNORDERED), (2, 1, "U"), (1, 2, "U")]
    assert told(window.fold(changes((1, 1, INNER), (2, 1, OUTER)))) == [(2, 1, "U")], "once is enough"


def test_a_statement_that_comes_after_is_told() -> None:
    """A deeper one after it was fired by it or comes later; one as deep comes later."""
    window = Window()
    window.fold(changes((1, 1, OUTER), (1, 2, INNER)))
    piece = changes((1, 1, INNER), (1, 2, INNER))
    assert window.fold(piece) == piece


def test_what_stands_for_changes_that_are_gone_is_told() -> None:
    window = Window()
    window.fold(changes((1, 1, INNER)))
    (change,) = changes((1, 1, 0))
    assert window.fold([change]) == [change]


def test_what_is_not_known_of_former_pieces_makes_all_of_their_transactions_unordered() -> None:
    window = Window()
    window.forget(2)
    piece = changes((1, 1, OUTER), (2, 1, INNER), (2, 1, OUTER), (3, 1, OUTER))
    assert told(window.fold(piece)) == [(1, 1, UNORDERED), (2, 1, UNORDERED), (3, 1, "U")]


def test_a_crowd_is_one_change_with_its_number() -> None:
    window = Window(mass={(1, 1): 1000})
    (first, second) = window.fold(changes((1, 1, OUTER), (2, 1, OUTER), (1, 1, OUTER)))
    assert (first.op, first.rows, first.old, first.new) == (MASS, 1000, None, None)
    assert second.op == "U"
    assert window.fold(changes((1, 1, OUTER))) == []


def test_crowds_are_counted_for_each_transaction_and_table() -> None:
    piece = changes((1, 1, OUTER), (1, 1, INNER), (1, 2, OUTER), (2, 1, OUTER), (2, 1, OUTER), (1, 1, OUTER))
    assert crowds(piece, 2) == {(1, 1): 3}
    assert crowds(piece, 1) == {(1, 1): 3, (2, 1): 2}
    assert crowds(piece, 6) == {}
    gone = [change._replace(old=None, new=None) for change in piece]
    assert crowds(gone, 1) == {}, "a TRUNCATE is no row"


def test_what_is_forgotten_is_taken_for_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MANY", 2)
    window = Window()
    window.fold(changes(*((xid, 1, INNER) for xid in (1, 2, 3, 4))))
    assert len(window.nested) == 2
    piece = changes((2, 1, OUTER), (4, 1, INNER), (9, 1, OUTER), (4, 1, OUTER))
    assert told(window.fold(piece)) == [(2, 1, UNORDERED), (4, 1, "U"), (9, 1, "U"), (4, 1, UNORDERED)]
