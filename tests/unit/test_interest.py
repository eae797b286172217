"""What a process publishes of its subscriptions, and what the leader makes of it: without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.delivery.interest import BITS, CHUNK, EVERYTHING, Interest, Published, bit_of
from djcrf_pg.delivery.protocol import EVERYBODY

bits = st.integers(0, BITS - 1)
groups = st.text(max_size=20)


def has(rows: dict[int, bytes], bit: int) -> bool:
    """Whether a bit is in rows, the first of a chunk being the highest, as PostgreSQL counts them."""
    row = rows.get(bit // CHUNK, bytes(CHUNK // 8))
    return bin(int.from_bytes(row) | 1 << CHUNK)[3:][bit % CHUNK] == "1"


@given(address=st.text(max_size=16), group=groups)
def test_a_bit_is_a_bit_whatever_a_group_is_called(address: str, group: str) -> None:
    assert 0 <= bit_of(address, group) < BITS
    assert 0 <= bit_of(address, "\ud800") < BITS


def test_a_bit_is_the_same_in_each_process_and_version() -> None:
    assert [bit_of("0123456789abcdef", group) for group in (EVERYBODY, "room-1", "Räume")] == [41845, 7860, 10290]


@given(lanes=st.sets(st.tuples(st.text(max_size=4), groups), max_size=20), others=st.sets(groups, max_size=20))
def test_the_leader_knows_each_lane_that_was_published(lanes: set[tuple[str, str]], others: set[str]) -> None:
    published = Published()
    wanted = {bit_of(*lane) for lane in lanes}
    rows = published.add(wanted, 0.0)
    interest = Interest(rows)
    assert all(interest.has(*lane) for lane in lanes)
    assert all(interest.has("other", group) == (bit_of("other", group) in wanted) for group in others)


def test_everything_has_all_and_nothing_none() -> None:
    assert EVERYTHING.has("a", "b")
    assert EVERYTHING.hears("a")
    assert not Interest({}).has("a", "b")
    assert Interest(Published().add([bit_of("a", EVERYBODY)], 0.0)).hears("a")


@given(steps=st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 2_100), max_size=5), st.booleans()), max_size=20))
def test_what_was_added_is_published_until_it_is_no_longer_retained(
    steps: list[tuple[bool, set[int], bool]],
) -> None:
    published, table, now = Published(), dict[int, bytes](), 0.0
    expected: set[int] = set()
    for is_retaining, wanted, succeeds in steps:
        now += 100.0
        rows = published.retain(wanted, now) if is_retaining else published.add(wanted, now)
        if succeeds:
            table |= rows
            published.written(rows)
            expected = wanted if is_retaining else expected | wanted
            assert all(has(table, bit) for bit in wanted)
            assert not is_retaining or Interest(table)._bytes == Interest(Published().add(wanted, now))._bytes
        else:
            table |= rows  # it may be there all the same
            expected = expected & wanted if is_retaining else expected
        assert all(has(published.rows(), bit) for bit in expected)
        assert not published.add(expected, -1e9)


@pytest.mark.parametrize("committed", [True, False])
def test_what_may_be_gone_counts_as_gone(committed: bool) -> None:
    published = Published()
    published.written(published.add({1, 2}, 0.0))
    rows = published.retain({1}, 1_000.0)
    if committed:
        published.written(rows)
    assert has(published.rows(), 1)
    assert not has(published.rows(), 2)
    assert published.add({2}, 1_000.0)


def test_what_is_on_its_way_is_retained() -> None:
    published = Published()
    published.written(published.add({1, 5_000}, 0.0))
    assert published.retain(set(), 59.0) == {}
    rows = published.retain({1}, 61.0)
    assert rows == {4: bytes(128)}


def test_one_more_bit_is_one_row() -> None:
    published = Published()
    published.written(published.add(range(0, BITS, 100), 0.0))
    assert list(published.add({101, 100}, 0.0)) == [0]
    assert published.add({100, 200}, 0.0) == {}
