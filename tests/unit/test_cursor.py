"""Positions: the text form of snapshots, and which transactions they see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.changelog.cursor import BEGINNING, Position, Snapshot

XID = st.integers(min_value=1, max_value=2**64 - 1)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """What PostgreSQL can say: xmin <= every xip < xmax, and xmin is the least of xip."""
    xmin = draw(st.integers(1, 50))
    xmax = draw(st.integers(xmin, 60))
    xip = draw(st.frozensets(st.integers(xmin, max(xmin, xmax - 1)))) if xmax > xmin else frozenset()
    return Snapshot(min(xip, default=xmax), xmax, xip)


@given(snapshots())
def test_a_snapshot_survives_its_text_form(snapshot: Snapshot) -> None:
    assert Snapshot.parse(str(snapshot)) == snapshot


@given(xmin=XID, xmax=XID, xip=st.frozensets(XID, max_size=5))
def test_transaction_ids_have_64_bits(xmin: int, xmax: int, xip: frozenset[int]) -> None:
    text = f"{xmin}:{xmax}:{','.join(map(str, sorted(xip)))}"
    assert Snapshot.parse(text) == Snapshot(xmin, xmax, xip)
    assert str(Snapshot.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "10", "10:20", "10:20:10,", "10:20:,10", "10:20:10 14", " 10:20:", "10:20:\n", "-1:2:", "a:b:c", "10:20:10:1"],
)
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no pg_snapshot"):
        Snapshot.parse(text)


@given(data=st.data(), count=st.integers(1, 12))
def test_a_snapshot_sees_what_had_committed_when_it_was_taken(data: st.DataObject, count: int) -> None:
    """A history of begins and ends is run; the snapshot at some moment is made the way PostgreSQL makes it."""
    running: set[int] = set()
    ended: set[int] = set()
    begun = 0
    for _ in range(data.draw(st.integers(0, 2 * count))):
        if running and data.draw(st.booleans()):
            xid = data.draw(st.sampled_from(sorted(running)))
            running.remove(xid)
            ended.add(xid)
        else:
            begun += 1
            running.add(begun)
    # procarray.c: xmax is one past the latest completed transaction, xip what runs below it.
    xmax = max(ended, default=0) + 1
    xip = frozenset(xid for xid in running if xid < xmax)
    snapshot = Snapshot(min(xip, default=xmax), xmax, xip)
    for xid in range(1, begun + 5):
        assert snapshot.sees(xid) is (xid in ended), (snapshot, xid)


def test_the_beginning_sees_nothing() -> None:
    assert not any(BEGINNING.sees(xid) for xid in (1, 2, 3, 2**63))


def test_a_position_is_a_value() -> None:
    assert Position(BEGINNING) == Position(Snapshot.parse("1:1:"), None, None)
    assert Position(BEGINNING, after_id=1) != Position(BEGINNING)
