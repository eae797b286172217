"""Which messages of signals and triggers belong together, and what they differ in."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.serializers import CharField, IntegerField, Serializer

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.delivery.protocol import Origin
from djcrf_pg.routing.events import Made
from djcrf_pg.routing.routes import Occurrence
from djcrf_pg.shadow import comparison
from djcrf_pg.shadow.differences import DIFFERENT, EQUAL, EXTRA, MISSED, Waiting, results
from djcrf_pg.shadow.excluded import LEFT_OUT, hidden
from djcrf_pg.shadow.messages import MOST, body_as_sent, message, row_key
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task
from tests.zoo.models import Unique

UPDATE = {"update": [["g"], {"title": "a"}]}


def waiting(side: str, parts: object = None, *, age: str = "due", name: str = "") -> Waiting:
    parts = UPDATE if parts is None else parts
    made = message(name, "address", "[1]", parts, {})
    is_due, is_old = age in ("due", "old"), age == "old"
    return Waiting(name, side == "signals", made.digest, json.loads(made.parts), {}, is_due, is_old)


def found(*messages: Waiting) -> list[tuple[str, str]]:
    return [(result.kind, result.what) for result in results(messages)]


def update(**body: object) -> dict[str, list[object]]:
    return {"update": [["g"], body]}


def test_equal_ones_meet_whichever_came_first_and_however_young():
    assert found(waiting("triggers", age="young"), waiting("signals", age="young")) == [(EQUAL, "")]
    assert found(waiting("signals"), waiting("signals"), waiting("triggers")) == [(EQUAL, ""), (EXTRA, "update")]


@pytest.mark.parametrize(("side", "kind"), [("signals", EXTRA), ("triggers", MISSED)])
def test_one_alone_is_a_difference_when_it_is_due(side: str, kind: str):
    assert found(waiting(side, age="young")) == []
    assert found(waiting(side)) == [(kind, "update")]


@pytest.mark.parametrize(
    ("signals", "triggers", "what"),
    [
        (update(title="a"), update(title="b"), "update: title"),
        (update(title="a", n=1), update(title="b"), "update: n, title"),
        (update(n=1), update(n=1.0), "update: n"),
        (update(**{"\0": 1, "\ud800": 1}), update(), "update: \\0, \\ud800"),
        (update(**{f"f{n}": 1 for n in range(9)}), update(), "update: f0, f1, f2, f3, f4 and 4 more"),
        ({"update": [["g"], {}]}, {"update": [["h"], {}]}, "update: groups"),
        ({"update": [["g"], [1]]}, {"update": [["g"], [2]]}, "update: body"),
        ({"create": [["g"], {}], "delete": [["h"], {}]}, {"create": [["g"], {}], "delete": [["h"], 1]}, "delete: body"),
    ],
)
def test_two_that_differ_are_one_result(signals: object, triggers: object, what: str):
    assert found(waiting("signals", signals), waiting("triggers", triggers, age="young")) == [(DIFFERENT, what)]


def test_like_goes_to_like():
    deletes, moves = {"delete": [["g"], 1]}, {"create": [["h"], 2], "delete": [["g"], 1]}
    messages = [waiting("signals", moves), waiting("signals", deletes), waiting("triggers", {"delete": [["g"], 3]})]
    assert found(*messages) == [(DIFFERENT, "delete: body"), (EXTRA, "create, delete")]
    assert found(*messages, waiting("triggers", {**moves, "create": [["h"], 4]})) == [
        (DIFFERENT, "create: body"),
        (DIFFERENT, "delete: body"),
    ]


def test_what_differs_in_its_actions_waits_for_something_like_it():
    create = {"create": [["g"], 1]}
    assert found(waiting("signals", create), waiting("triggers")) == []
    assert found(waiting("signals", create, age="old"), waiting("triggers", age="old")) == [
        (DIFFERENT, "create instead of update")
    ]
    # They were written some milliseconds apart, and the comparison came in between.
    assert found(waiting("signals", create, age="old"), waiting("triggers")) == [
        (DIFFERENT, "create instead of update")
    ]
    assert found(waiting("signals", create), waiting("triggers", age="old")) == [
        (DIFFERENT, "create instead of update")
    ]
    assert found(waiting("signals", create, age="old"), waiting("triggers", age="young")) == [(EXTRA, "create")]


sides = st.sampled_from(["signals", "triggers"])
bodies = st.sampled_from([update(n=1), update(n=2), {"create": [["g"], 1]}, {"delete": [["h"], 1]}])
ages = st.sampled_from(["young", "due", "old"])


@given(st.lists(st.tuples(sides, bodies, ages), max_size=8))
def test_each_message_has_one_result_at_most_and_equality_is_never_claimed_wrongly(drawn):
    messages = [waiting(side, body, age=age, name=str(n)) for n, (side, body, age) in enumerate(drawn)]
    made = results(messages)
    names = [each.name for result in made for each in (result.signals, result.triggers) if each is not None]
    assert len(names) == len(set(names))
    for result in made:
        assert (result.kind == EQUAL) == bool(
            result.signals and result.triggers and result.signals.parts == result.triggers.parts
        )
    # All that is old is through, and nothing young without a counterpart is judged.
    through = set(names)
    assert all(each.name in through for each in messages if each.is_old)
    for result in made:
        alone = result.triggers if result.signals is None else result.signals if result.triggers is None else None
        assert alone is None or alone.is_due


@override_settings(DJCRF_PG={"EXCLUDE": {"testapp.Task": ["body"]}})
def test_values_that_are_left_out_count_and_are_not_kept():
    one, other = (
        message("", "", "", {"update": (["g"], {"rows": [{"body": body, "password": 1}], "n": 1})}, {}, hidden())
        for body in "ab"
    )
    assert one.digest != other.digest
    assert one.parts == other.parts
    assert json.loads(one.parts) == {"update": [["g"], {"rows": [{"body": LEFT_OUT, "password": LEFT_OUT}], "n": 1}]}
    assert found(*(waiting(side)._replace(digest=side) for side in ("signals", "triggers"))) == [
        (DIFFERENT, "what is not kept")
    ]


class Inner(Serializer):
    also = CharField(source="password")
    n = IntegerField()


class Alias(Serializer):
    renamed = CharField(source="user.password")
    inner = Inner()


def test_a_value_is_left_out_wherever_it_stands():
    user = get_user_model()(username="ada", password="hunter2")
    left = hidden(user)
    body = {
        "n": 1,
        "renamed": "hunter2",
        "said": ["it is hunter2!"],
        "user": {"password": "", "name": "ada"},
        "hunter2": 1,
    }
    assert left.without(body) == {
        "n": 1,
        "renamed": LEFT_OUT,
        "said": [LEFT_OUT],
        "user": {"password": LEFT_OUT, "name": "ada"},
        LEFT_OUT: 1,
    }
    assert hidden(LogEntry(user=user)).without("hunter2") == LEFT_OUT
    assert hidden(serializer_class=Alias).without({"renamed": "a", "inner": {"also": "b", "n": 1}}) == {
        "renamed": LEFT_OUT,
        "inner": {"also": LEFT_OUT, "n": 1},
    }


@pytest.mark.parametrize(
    ("assigned", "stored"),
    [
        ("550E8400-E29B-41D4-A716-446655440000", UUID("550e8400-e29b-41d4-a716-446655440000")),
        (UUID(int=7), UUID(int=7)),
    ],
)
def test_a_row_has_one_key_whatever_was_assigned(assigned: object, stored: object):
    assert row_key(Unique(pk=assigned)) == row_key(Unique(pk=stored))


def test_a_long_message_is_compared_whole_and_kept_without_its_body():
    one, other = (message("", "", "", {"create": (["g"], "x" * MOST + end)}, {}) for end in "ab")
    assert one.digest != other.digest
    assert json.loads(one.parts) == {"create": [["g"]]}


def test_the_order_of_groups_and_keys_makes_no_difference():
    one = message("", "", "", {"update": (["g", "h"], {"a": 1, "b": 2})}, {})
    assert one == message("", "", "", {"update": (["h", "g"], {"b": 2, "a": 1})}, {})


def test_a_body_that_is_no_json_is_refused():
    with pytest.raises(TypeError):
        body_as_sent(object(), "update", decimals_as_text=True)


@override_settings(DJCRF_PG={"EXCLUDE": {"testapp.Task": ["body"]}})
def test_the_names_of_groups_have_nothing_that_is_left_out(monkeypatch: pytest.MonkeyPatch):
    task, now = Task(pk=1, body="hunter2"), datetime.now(UTC)
    observer = BoardConsumer.tasks
    made = [Made(Event("update", {}, 1, 1, now.isoformat()).encode(), ["g", "h"], task)]
    monkeypatch.setattr(comparison, "make_events", lambda occurrences, *_, **__: [(each, made) for each in occurrences])
    monkeypatch.setattr(type(observer), "said_groups", lambda self, instance: {"g": f"of-{instance.body}", "h": "all"})
    occurrence = Occurrence(RowChange(1, 1, 0, None, None, None, now), observer, task, task)
    (noted,) = comparison.made_by_triggers([occurrence], Origin(None, None)).messages
    assert json.loads(noted.origin)["groups"] == {"g": LEFT_OUT, "h": "all"}


def test_what_cannot_be_noted_keeps_no_leader_from_what_comes_behind_it(monkeypatch: pytest.MonkeyPatch):
    made = [Made("no JSON", ["g"])]
    monkeypatch.setattr(comparison, "make_events", lambda occurrences, *_, **__: [(each, made) for each in occurrences])
    row = RowChange(1, 1, 0, None, None, None, datetime.now(UTC))
    noted = comparison.made_by_triggers([Occurrence(row, BoardConsumer.tasks)], Origin(None, None))
    assert (noted.messages, len(noted.errors)) == ([], 1)
