"""The net effect of a transaction."""

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from djcrf_pg.changelog.net import UNORDERED, Image, RowChange, net, set_aside_unordered

RELATION = 16_400
XID = 700
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Table = dict[int, Image]


def key_of(relation: int, image: Image) -> int:
    """The primary key, as `Route.key` gives it."""
    key: int = image["id"]
    return key


def row(pk: int, value: object = 0) -> Image:
    """An image with a key and one more column."""
    return {"id": pk, "value": value}


class Log:
    """Writes changes as the triggers would, with rising ids."""

    def __init__(self) -> None:
        self.changes: list[RowChange] = []

    def write(self, old: Image | None, new: Image | None, xid: int = XID, relation: int = RELATION) -> None:
        """Log one row of one statement."""
        number = len(self.changes) + 1
        at = NOON + timedelta(seconds=number)
        self.changes.append(RowChange(number, xid, relation, old, new, f"context {number}", at))

    def touch(self, pk: int) -> None:
        """Log a touch."""
        self.write({"id": pk}, {"id": pk})
        self.changes[-1].touched = True

    def truncate(self) -> None:
        """Log a TRUNCATE."""
        number = len(self.changes) + 1
        self.changes.append(RowChange(number, XID, RELATION, None, None, None, NOON, resync="truncate"))

    def net(self) -> list[RowChange]:
        """The net changes of a copy, for `net` folds in place."""
        return net([dataclasses.replace(change) for change in self.changes], key_of)


def effect(*changes: tuple[Image | None, Image | None]) -> list[tuple[Image | None, Image | None]]:
    """The net images of one transaction's changes."""
    log = Log()
    for old, new in changes:
        log.write(old, new)
    return [(change.old, change.new) for change in log.net()]


# -- one row -------------------------------------------------------------------------------------------------


def test_a_single_change_is_its_own_net_effect() -> None:
    assert effect((None, row(1))) == [(None, row(1))]
    assert effect((row(1), row(1, 5))) == [(row(1), row(1, 5))]
    assert effect((row(1), None)) == [(row(1), None)]


def test_create_and_update_is_a_create_with_the_last_image() -> None:
    assert effect((None, row(1)), (row(1), row(1, 5))) == [(None, row(1, 5))]


def test_updates_are_one_from_the_first_old_to_the_last_new() -> None:
    assert effect((row(1, "a"), row(1, "b")), (row(1, "b"), row(1, "c"))) == [(row(1, "a"), row(1, "c"))]


def test_update_and_delete_is_a_delete_of_the_row_as_it_was_before() -> None:
    assert effect((row(1, "a"), row(1, "b")), (row(1, "b"), None)) == [(row(1, "a"), None)]


def test_create_and_delete_is_nothing() -> None:
    assert effect((None, row(1)), (row(1), None)) == []
    assert effect((None, row(1)), (row(1), row(1, 5)), (row(1, 5), None)) == []


def test_delete_and_create_is_an_update() -> None:
    assert effect((row(1, "a"), None), (None, row(1, "b"))) == [(row(1, "a"), row(1, "b"))]


def test_a_row_that_comes_and_goes_and_comes_is_a_create() -> None:
    assert effect((None, row(1)), (row(1), None), (None, row(1, 5))) == [(None, row(1, 5))]


def test_a_row_that_goes_and_comes_and_goes_is_a_delete() -> None:
    assert effect((row(1, "a"), None), (None, row(1, "b")), (row(1, "b"), None)) == [(row(1, "a"), None)]


# -- keys ----------------------------------------------------------------------------------------------------


def test_a_changed_key_is_a_delete_and_a_create() -> None:
    assert effect((row(1), row(2))) == [(row(1), None), (None, row(2))]


def test_a_key_that_changes_and_changes_back_is_an_update() -> None:
    assert effect((row(1, "a"), row(2, "a")), (row(2, "a"), row(1, "b"))) == [(row(1, "a"), row(1, "b"))]


def test_keys_swapped_by_one_statement_are_two_updates() -> None:
    assert effect((row(1, "a"), row(2, "a")), (row(2, "b"), row(1, "b"))) == [
        (row(1, "a"), row(1, "b")),
        (row(2, "b"), row(2, "a")),
    ]


def test_keys_that_move_up_by_one_are_told_for_each_key() -> None:
    """``UPDATE … SET id = id + 1``, in the order in which each new key is still taken."""
    assert effect((row(1, "a"), row(2, "a")), (row(2, "b"), row(3, "b"))) == [
        (row(1, "a"), None),
        (row(2, "b"), row(2, "a")),
        (None, row(3, "b")),
    ]


def test_a_row_created_before_the_swap_stays_a_create() -> None:
    """Key 2 was not there before the transaction, whatever moved in and out of it."""
    assert effect(
        (None, row(2, "new")),
        (row(1, "old"), row(2, "old")),
        (row(2, "new"), row(1, "new")),
    ) == [(None, row(2, "old")), (row(1, "old"), row(1, "new"))]


# -- TRUNCATE ------------------------------------------------------------------------------------------------


def test_a_truncate_takes_what_the_transaction_had_done_to_the_table_and_is_told() -> None:
    log = Log()
    log.write(None, row(1))
    log.write(row(2), row(2, 5))
    log.write(None, row(3), relation=RELATION + 1)
    log.write(row(4), row(4, 5), xid=XID + 1)
    log.truncate()
    log.write(None, row(6))
    found = [(change.xid, change.relation, change.old, change.new, change.resync) for change in log.net()]
    assert found == [
        (XID, RELATION + 1, None, row(3), None),
        (XID + 1, RELATION, row(4), row(4, 5), None),
        (XID, RELATION, None, None, "truncate"),
        (XID, RELATION, None, row(6), None),
    ]


# -- touches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], ({"id": 1}, {"id": 1})),
        ([(row(1, "a"), row(1, "b"))], (row(1, "a"), row(1, "b"))),
        ([(row(1, "a"), row(1, "b")), (row(1, "b"), row(1, "c"))], (row(1, "a"), row(1, "c"))),
        ([(row(1, "a"), row(1, "b")), (row(1, "b"), row(1, "a"))], (row(1, "a"), row(1, "a"))),
        ([(row(1, "b"), row(1, "c")), (row(1, "a"), row(1, "b"))], (row(1, "a"), row(1, "c"))),
        ([(row(1, "a"), row(1, "a"))], (row(1, "a"), row(1, "a"))),
        ([(None, row(1, "a"))], (None, row(1, "a"))),
        ([(row(1, "a"), None)], (row(1, "a"), None)),
        ([(row(1, "a"), None), (None, row(1, "b"))], (row(1, "a"), row(1, "b"))),
        ([(None, row(1, "a")), (row(1, "a"), None)], None),
    ],
    ids=["alone", "update", "updates", "undone", "nested", "no change", "create", "delete", "replace", "nothing"],
)
def test_touches_are_part_of_what_happened_to_the_row_wherever_they_stand(
    changes: list[tuple[Image | None, Image | None]], expected: tuple[Image | None, Image | None] | None
) -> None:
    for places in ({0}, {len(changes)}, set(range(len(changes) + 1))):
        log = Log()
        for place in range(len(changes) + 1):
            if place in places:
                log.touch(1)
            if place < len(changes):
                log.write(*changes[place])
        found = [(change.old, change.new, change.touched) for change in log.net()]
        assert found == ([] if expected is None else [(*expected, True)])


def test_a_touch_alone_is_known_from_one_of_a_row_that_was_written() -> None:
    log = Log()
    log.touch(1)
    log.touch(1)
    log.touch(2)
    log.write(row(2), row(2, 5))
    log.write(row(3), row(3))
    assert [(change.is_as_it_was, change.id) for change in log.net()] == [(True, 1), (False, 3), (False, 5)]


def test_a_touch_of_a_key_that_changes_stays_with_the_key() -> None:
    log = Log()
    log.touch(1)
    log.write(row(1), row(2))
    log.touch(2)
    assert [(change.old, change.new) for change in log.net()] == [(row(1), None), (None, row(2))]


def test_a_touch_before_a_truncate_is_nothing() -> None:
    log = Log()
    log.touch(1)
    log.truncate()
    assert [change.resync for change in log.net()] == ["truncate"]


# -- what is kept apart --------------------------------------------------------------------------------------


def test_transactions_are_kept_apart() -> None:
    log = Log()
    log.write(None, row(1), xid=1)
    log.write(row(1), row(1, 5), xid=2)
    log.write(row(1, 5), None, xid=3)
    assert [(change.xid, change.old, change.new) for change in log.net()] == [
        (1, None, row(1)),
        (2, row(1), row(1, 5)),
        (3, row(1, 5), None),
    ]


def test_tables_are_kept_apart() -> None:
    log = Log()
    log.write(None, row(1), relation=1)
    log.write(row(1), None, relation=2)
    assert [(change.relation, change.old, change.new) for change in log.net()] == [
        (1, None, row(1)),
        (2, row(1), None),
    ]


def test_the_order_is_that_of_each_rows_first_change() -> None:
    log = Log()
    log.write(None, row(2))
    log.write(None, row(1))
    log.write(row(2), row(2, 5))
    assert [(change.id, change.new) for change in log.net()] == [(1, row(2, 5)), (2, row(1))]


def test_context_and_time_are_those_of_the_last_change() -> None:
    log = Log()
    log.write(None, row(1))
    log.write(row(1), row(1, 5))
    (change,) = log.net()
    assert (change.context, change.at) == ("context 2", NOON + timedelta(seconds=2))


# -- any history ---------------------------------------------------------------------------------------------

KEYS = st.integers(0, 4)
VALUES = st.integers(0, 2)
STATEMENTS = st.one_of(
    st.tuples(st.just("insert"), KEYS, VALUES),
    st.tuples(st.just("update"), st.frozensets(KEYS, min_size=1), VALUES),
    st.tuples(st.just("delete"), st.frozensets(KEYS, min_size=1), st.just(0)),
    # One statement that gives the rows other keys, swaps and cycles among them.
    st.tuples(st.just("rekey"), st.permutations(range(5)), VALUES),
)
TABLES = st.dictionaries(KEYS, VALUES).map(lambda rows: {pk: row(pk, value) for pk, value in rows.items()})


def run(statement: tuple[str, object, int], table: Table, log: Log, order: Iterable[int]) -> None:
    """Run a statement on the table, and log it row by row in the order of a scan."""
    kind, argument, value = statement
    before = dict(table)
    if kind == "insert":
        assert isinstance(argument, int)
        if argument not in table:
            table[argument] = row(argument, value)
            log.write(None, table[argument])
        return
    moved: Table = {}
    for pk in [pk for pk in order if pk in before]:
        if kind == "rekey":
            assert isinstance(argument, list)
            new = row(argument[pk], before[pk]["value"])
        elif pk not in argument:  # type: ignore[operator]
            continue
        elif kind == "delete":
            del table[pk]
            log.write(before[pk], None)
            continue
        else:
            new = row(pk, value)
        moved[new["id"]] = new
        log.write(before[pk], new)
    if kind == "rekey":
        table.clear()
    table.update(moved)


@given(
    before=TABLES, statements=st.lists(STATEMENTS, max_size=6), orders=st.lists(st.permutations(range(5)), min_size=6)
)
@example(
    before={1: row(1, 1)},
    statements=[("insert", 2, 2), ("rekey", [0, 2, 1, 3, 4], 0)],
    orders=[[0, 1, 2, 3, 4]] * 6,
)
@example(
    before={1: row(1, 0), 2: row(2, 0)},
    statements=[("update", frozenset({2}), 0), ("rekey", [0, 2, 1, 3, 4], 0)],
    orders=[[0, 1, 2, 3, 4]] * 6,
)
def test_the_net_effect_leads_from_the_state_before_to_the_state_after(
    before: Table, statements: list[tuple[str, object, int]], orders: list[list[int]]
) -> None:
    table, log = dict(before), Log()
    for statement, order in zip(statements, orders, strict=False):
        run(statement, table, log, order)
    changes = log.net()
    keys = [(change.old or change.new or {})["id"] for change in changes]
    assert len(keys) == len(set(keys)), "one change for each key at most"
    replayed = dict(before)
    for pk, change in zip(keys, changes, strict=True):
        assert change.old is None or change.new is None or change.old["id"] == change.new["id"]
        assert change.old == before.get(pk), "the old image is the row as it was before the transaction"
        if change.new is None:
            del replayed[pk]
        else:
            replayed[pk] = change.new
    assert replayed == table


def test_no_changes_have_no_effect() -> None:
    assert net([], key_of) == []


@pytest.mark.parametrize("key", [(1, "a"), None])
def test_keys_may_be_composite(key: object) -> None:
    changes = [RowChange(1, XID, RELATION, None, {"a": 1, "b": "a"}, None, NOON)]
    (change,) = net(changes, lambda relation, image: (image["a"], image["b"]))
    assert change.new == {"a": 1, "b": "a"}


@pytest.mark.parametrize(
    ("writes", "cut", "doubtful"),
    [
        pytest.param([(None, 1, 7), (1, None, 8)], False, [0, 1], id="made-then-deleted-by-another"),
        pytest.param([(None, 1, 7), (1, None, 7)], False, [], id="made-then-deleted-by-itself"),
        pytest.param([(1, None, 8), (None, 1, 7)], False, [], id="deleted-then-made-by-another"),
        pytest.param([(None, 1, 7), (2, None, 8)], False, [], id="different-keys"),
        pytest.param([(2, 1, 7), (1, 3, 8)], False, [0, 1], id="keys-that-change"),
        pytest.param([(1, None, 8)], True, [0], id="whose-maker-may-be-in-another-piece"),
        pytest.param([(None, 1, 7), (1, 1, 8)], True, [], id="an-update-keeps-its-key"),
    ],
)
def test_what_is_in_doubt_where_keys_are_deferrable(
    writes: list[tuple[int | None, int | None, int]], cut: bool, doubtful: list[int]
) -> None:
    def image(key: int | None) -> Image | None:
        return None if key is None else row(key)

    log = Log()
    for old, new, xid in writes:
        log.write(image(old), image(new), xid=xid)
    set_aside_unordered(log.changes, key_of, {RELATION}, cut=cut)
    found = [place for place, change in enumerate(log.changes) if change.resync == UNORDERED]
    assert found == doubtful
