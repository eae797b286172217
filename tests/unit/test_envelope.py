"""Events as text: what a leader encodes comes out the same, and what is damaged is an error that is expected."""

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange, NumericRange
from hypothesis import example, given
from hypothesis import strategies as st

from djcrf_pg.delivery.envelope import RESYNC, Event, dump, load, parse
from tests.decodeapp.models import Everything

NOON = datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def events(actions: list[str], bodies: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    """Events that a leader may send."""
    return st.builds(
        Event,
        action=st.sampled_from(actions),
        body=bodies,
        change_id=st.integers(1, 2**63 - 1),
        xid=st.integers(1, 2**64 - 1),
        committed_at=st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
        changed=st.lists(TEXT, max_size=3),
        context=BODIES,
        old=st.none() | st.dictionaries(TEXT, BODIES, max_size=3),
        row=st.integers(0, 2**32 - 1),
    )


EVENTS = events(["create", "update", "delete"], BODIES) | events([RESYNC], st.fixed_dictionaries({"reason": TEXT}))


def event(action: str, body: Any) -> Event:
    """An event with some change."""
    return Event(action, body, change_id=7, xid=9, committed_at=NOON.isoformat())


# -- events --------------------------------------------------------------------------------------------------


@given(EVENTS)
def test_an_event_comes_out_as_it_went_in_and_is_one_line_of_ascii(sent: Event) -> None:
    line = sent.encode()
    assert parse(line) == sent
    assert line.isascii()
    assert "\n" not in line


def test_each_reading_makes_objects_of_its_own() -> None:
    line = event("create", {"pk": 1}).encode()
    first, second = parse(line), parse(line)
    first.body["pk"] = 2
    assert second.body == {"pk": 1}


def test_a_body_that_has_itself_in_it_is_an_error_and_the_next_one_is_none() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises((RecursionError, ValueError)):
        event("create", circle).encode()
    assert json.loads(event("create", [1]).encode())[1] == [1]


def test_bodies_may_hold_what_drf_renders() -> None:
    body = {
        "uuid": UUID(int=1),
        "price": Decimal("1.10"),
        "at": NOON,
        "day": NOON.date(),
        "tags": ("a", "b"),
        "more": {"set": {1}},
    }
    read = parse(event("update", body).encode())
    assert read.body == {
        "uuid": "00000000-0000-0000-0000-000000000001",
        "price": "1.10",
        "at": "2026-01-01T12:00:00.123456Z",
        "day": "2026-01-01",
        "tags": ["a", "b"],
        "more": {"set": [1]},
    }
    assert (read.action, read.change_id, read.xid) == ("update", 7, 9)
    assert datetime.fromisoformat(read.committed_at) == NOON


@pytest.mark.parametrize(
    ("value", "as_text", "as_number"),
    [
        ("1.10", "1.10", 1.1),
        ("1E+3", "1000", 1000.0),
        ("0.12345678901234567890123", "0.12345678901234567890123", "0.12345678901234567890123"),
        ("NaN", "NaN", "NaN"),
    ],
)
def test_a_decimal_is_text_or_a_number_where_that_has_each_digit(value: str, as_text: Any, as_number: Any) -> None:
    sent = event("update", Decimal(value))
    assert parse(sent.encode()).body == as_text
    assert parse(sent.encode(decimals_as_text=False)).body == as_number


@pytest.mark.parametrize(
    ("body", "error"), [({"x": object()}, TypeError), (b"\xff", ValueError), (time(1, tzinfo=UTC), ValueError)]
)
def test_what_nobody_can_render_raises(body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        event("create", body).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(JSON.map(json.dumps) | TEXT | st.lists(JSON, min_size=5, max_size=8).map(json.dumps))
@example("[" * 100_000)
@example('["create", {}, 1, 1, "noon", [], null, null]')
@example('["resync", [], 1, 1, "2026-01-01T00:00:00Z", [], null, null]')
def test_what_is_damaged_is_an_error_that_is_expected(line: str) -> None:
    try:
        read = parse(line)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    assert datetime.fromisoformat(read.committed_at).tzinfo is not None


GOOD: dict[str, Any] = {
    "action": "update",
    "body": {},
    "change_id": 1,
    "xid": 1,
    "committed_at": "2026-01-01T00:00:00+00:00",
    "changed": [],
    "context": None,
    "old": None,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"committed_at": "2026-01-01T00:00:00"},
        {"committed_at": 5},
        {"change_id": True},
        {"change_id": 2**63},
        {"xid": -1},
        {"xid": 2**64},
        {"action": 5},
        {"action": RESYNC, "body": "again"},
        {"action": RESYNC, "body": {}},
        {"action": RESYNC, "body": {"reason": 5}},
        {"changed": 5},
        {"old": "old"},
        {"more": None},
    ],
    ids=str,
)
def test_what_would_fail_in_a_consumer_is_no_event(wrong: dict[str, Any]) -> None:
    assert parse(json.dumps(list(GOOD.values()))) == Event(**GOOD)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        parse(json.dumps(list({**GOOD, **wrong}.values())))


# -- instances -----------------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "big": -(2**63),
    "boolean": False,
    "decimal": Decimal("123456789012345678901234567890.123456789012345678901234567890"),
    "double": 5e-324,
    "text": 'a "b" \\ é',
    "strange": "",
    "address": "::1",
    "uuid": uuid.UUID(int=1),
    "binary": b"\x00\xff",
    "stamp": datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 999_999),
    "duration": timedelta(days=-45, microseconds=1),
    "data": {"a": [1, 1.5, None, "x"]},
    "target_id": uuid.UUID(int=2),
    "by_code_id": "code",
    "integers": [1, None, -(2**63)],
    "texts": ["NULL", None, ""],
    "decimals": [[Decimal("1.10"), Decimal("2")]],
    "durations": [timedelta(days=45)],
    "integer_range": NumericRange(1, None, "[)"),
    "stamp_range": DateTimeTZRange(datetime(2026, 1, 1, tzinfo=UTC), None),
    "ranges": [NumericRange(1, 2), NumericRange(empty=True)],
}


@pytest.mark.parametrize("name", VALUES)
def test_the_value_of_an_instance_comes_back(name: str) -> None:
    instance = Everything.from_db("default", ["id", name], [5, VALUES[name]])
    loaded = load(Everything, "default", json.loads(json.dumps(dump(instance))))
    assert vars(loaded)[name] == VALUES[name]
    assert loaded.pk == 5
    assert loaded._state.db == "default"
    assert not loaded._state.adding


def test_null_comes_back_and_what_is_deferred_stays_so() -> None:
    instance = Everything.from_db("default", ["id", "text"], [5, None])
    data = dump(instance)
    assert data == {"id": "5", "text": None}
    assert load(Everything, "default", data).get_deferred_fields() == instance.get_deferred_fields()
