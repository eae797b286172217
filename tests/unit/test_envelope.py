"""Envelopes: cut by count and size, in order, and the same events come out."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from djcrf_pg.listener.envelope import KEY, RESYNC, Event, head, numbers_of, pack, tails_of, unpack
from djcrf_pg.listener.numbering import Control

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
    )


EVENTS = events(["create", "update", "delete"], BODIES) | events([RESYNC], st.fixed_dictionaries({"reason": TEXT}))


def event(action: str, body: Any) -> Event:
    """An event with some change."""
    return Event(action, body, change_id=7, xid=9, committed_at=NOON.isoformat())


def length(text: str) -> int:
    """Its size on the wire."""
    return len(text.encode())


def messages(events: list[str], *, max_events: int = 1_000, max_bytes: int = 1_000_000) -> list[dict[str, Any]]:
    """The messages that encoded events travel in."""
    control = Control("all", "task.changed", "someone")
    return list(pack(control, "DCRF-x", events, term=3, max_events=max_events, max_bytes=max_bytes))


@given(st.lists(EVENTS, max_size=8), st.integers(1, 5), st.integers(1, 400))
def test_events_come_out_as_they_went_in_whatever_the_limits(sent: list[Event], count: int, size: int) -> None:
    packed = messages([event.encode() for event in sent], max_events=count, max_bytes=size)
    assert [event for message in packed for event in unpack(message)] == sent


@given(st.lists(EVENTS, max_size=8), st.integers(1, 5), st.integers(1, 400))
def test_messages_keep_the_limits_and_none_is_cut_too_early(sent: list[Event], count: int, size: int) -> None:
    texts = [event.encode() for event in sent]
    parts = [len(unpack(message)) for message in messages(texts, max_events=count, max_bytes=size)]
    place = 0
    for part in parts:
        together = sum(map(length, texts[place : place + part]))
        assert 1 <= part <= count
        assert together <= size or part == 1, "only a single event may be over the limit"
        place += part
        if place < len(texts):
            assert part == count or together + length(texts[place]) > size, "the next one would have fitted"
    assert place == len(texts)


def test_a_body_that_has_itself_in_it_is_an_error_and_the_next_one_is_none() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises((RecursionError, ValueError)):
        event("create", circle).encode()
    assert json.loads(event("create", [1]).encode())[1] == [1]


def test_an_event_over_the_limit_travels_alone() -> None:
    texts = [event("create", "x" * length).encode() for length in (1, 500, 1)]
    packed = messages(texts, max_bytes=200)
    assert [[len(unpacked.body) for unpacked in unpack(message)] for message in packed] == [[1], [500], [1]]


def test_nothing_to_send_is_no_message() -> None:
    assert messages([]) == []


def test_a_message_is_dcrfs_with_one_key_more_and_every_layer_can_carry_it() -> None:
    (message,) = messages([event("create", {"pk": 1}).encode()])
    assert {**message, KEY: None} == {"type": "task.changed", "group": "DCRF-x", KEY: None}
    assert message[KEY]["term"] == 3
    assert message[KEY]["v"] == 1
    assert json.loads(json.dumps(message)) == message


def test_each_unpacking_makes_objects_of_its_own() -> None:
    (message,) = messages([event("create", {"pk": 1}).encode()])
    first, second = unpack(message), unpack(message)
    first[0].body["pk"] = 2
    assert second[0].body == {"pk": 1}


def test_bodies_may_hold_what_drf_renders() -> None:
    body = {
        "uuid": UUID(int=1),
        "price": Decimal("1.10"),
        "at": NOON,
        "day": NOON.date(),
        "tags": ("a", "b"),
        "more": {"set": {1}},
    }
    (message,) = messages([event("update", body).encode()])
    (unpacked,) = unpack(message)
    assert unpacked.body == {
        "uuid": "00000000-0000-0000-0000-000000000001",
        "price": "1.10",
        "at": "2026-01-01T12:00:00.123456Z",
        "day": "2026-01-01",
        "tags": ["a", "b"],
        "more": {"set": [1]},
    }
    assert (unpacked.action, unpacked.change_id, unpacked.xid) == ("update", 7, 9)
    assert datetime.fromisoformat(unpacked.committed_at) == NOON


def test_what_nobody_can_render_raises() -> None:
    with pytest.raises(TypeError):
        event("create", {"x": object()}).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
DAMAGED = st.one_of(
    JSON,
    st.fixed_dictionaries({}, optional={"v": st.just(1) | JSON, "term": st.just(3) | JSON, "events": JSON}),
    st.fixed_dictionaries({"v": st.just(1), "term": st.just(3), "events": JSON.map(json.dumps)}),
    st.fixed_dictionaries({"v": st.just(1), "term": st.just(3), "events": st.lists(JSON, max_size=3).map(json.dumps)}),
)


@given(DAMAGED, st.just("DCRF-x") | JSON)
@example({"v": 2, "term": 3, "events": "[]"}, "DCRF-x")
@example({"v": 1, "term": 3, "events": "[" * 100_000}, "DCRF-x")
@example({"v": 1, "term": 3, "events": '[["create", {}, 1, 1, "noon"]]'}, "DCRF-x")
@example({"v": 1, "term": 3, "events": '[["create", {}, 1, 1, "2026-01-01T00:00:00"]]'}, "DCRF-x")
def test_what_is_no_envelope_is_a_value_error_and_nothing_else(inside: Any, group: Any) -> None:
    message = {"type": "task.changed", "group": group, KEY: inside}
    try:
        head(message)
        events = unpack(message)
    except ValueError:
        return
    assert all(datetime.fromisoformat(event.committed_at) <= datetime.now(UTC) for event in events)


@pytest.mark.parametrize(
    "inside",
    [
        {"events": "[]", "before": [1, 1, "2026-01-01T00:00:00"]},
        {"events": "[]", "number": True},
        {"events": "[]", "tails": json.dumps({"g": [1, 1, "2026-01-01T00:00:00"]})},
        {"events": json.dumps([[RESYNC, "again", 1, 1, "2026-01-01T00:00:00Z"]])},
        {"events": json.dumps([[RESYNC, {}, 1, 1, "2026-01-01T00:00:00Z"]])},
        {"events": json.dumps([["update", {}, 1, 1, "2026-01-01T00:00:00Z", 5]])},
        {"events": json.dumps([["update", {}, 1, 1, "2026-01-01T00:00:00Z", [], None, "old"]])},
    ],
)
def test_what_would_end_its_consumer_later_is_no_envelope(inside: dict[str, Any]) -> None:
    message = {"type": "task.changed", "group": "DCRF-x", KEY: {"v": 1, "term": 3, **inside}}
    with pytest.raises(ValueError, match=r"its|it |an event"):
        (unpack(message), numbers_of(message), tails_of(message))
