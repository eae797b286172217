"""The straight way makes the bodies that REST framework makes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models.query_utils import DeferredAttribute
from django.test import override_settings
from django.utils.timezone import override
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework import serializers

from djcrf_pg.observer.straight import straight
from tests.testapp.models import Awkward, Label, Project, Task


class _Text(str):
    """Is text, and of another type."""


class _Negated(serializers.BooleanField):
    TRUE_VALUES = frozenset({False})
    FALSE_VALUES = frozenset({True})


class _Counted(serializers.IntegerField):
    def to_representation(self, value: Any) -> int:
        return int(value) + 1


class _Local(serializers.DateTimeField):
    def enforce_timezone(self, value: Any) -> Any:
        return value.replace(tzinfo=None)


ZONES = st.sampled_from([UTC, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/St_Johns"), timezone(timedelta(hours=1))])
TIMES = st.datetimes(timezones=st.none() | ZONES)

#: Fields of REST framework's, each with values that an instance may have.
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    serializers.CharField: st.text(max_size=5) | st.integers() | st.builds(_Text, st.text(max_size=5)),
    serializers.SlugField: st.text(max_size=5),
    serializers.ReadOnlyField: st.text(max_size=5) | st.integers() | st.booleans(),
    serializers.IntegerField: st.integers() | st.booleans(),
    serializers.FloatField: st.floats(allow_nan=False) | st.integers(),
    serializers.BooleanField: st.booleans() | st.sampled_from(["true", "no", 1, 0]),
    partial(serializers.DecimalField, max_digits=30, decimal_places=2): st.decimals(-1000, 1000, places=3),
    serializers.DateTimeField: TIMES | st.sampled_from([datetime.max.replace(tzinfo=UTC), "a text"]),
    partial(serializers.DateTimeField, default_timezone=ZoneInfo("Europe/Paris")): TIMES,
    partial(serializers.DateTimeField, format=None): TIMES,
    partial(serializers.DateTimeField, format="%Y %H"): TIMES,
    _Local: TIMES,
    _Negated: st.booleans(),
    _Counted: st.integers(),
    serializers.DateField: st.dates(),
    serializers.TimeField: st.times(),
    serializers.DurationField: st.timedeltas(timedelta(0), timedelta(9)),
    serializers.UUIDField: st.uuids(),
    partial(serializers.ChoiceField, choices=["a", (1, "one")]): st.sampled_from(["a", "b", 1, ""]),
    serializers.JSONField: st.lists(st.integers(), max_size=3),
    serializers.ListField: st.lists(st.integers(), max_size=3),
    serializers.DictField: st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
}

#: The attributes that are given such values: those of model fields, whatever these are for.
NAMES = ("title", "status", "points", "body", "project_id")


class _Name(serializers.Serializer[Any]):
    name = serializers.CharField()


class _Shouts(_Name):
    def to_representation(self, instance: Any) -> Any:
        return {"name": super().to_representation(instance)["name"].upper()}


class _Lists(serializers.ListSerializer[Any]):
    def to_representation(self, data: Any) -> Any:
        return ["all", *super().to_representation(data)]


class _Listed(_Name):
    class Meta:
        list_serializer_class = _Lists


class _Finds(serializers.CharField):
    def get_attribute(self, instance: Any) -> Any:
        return f"found {instance.title}"


#: Fields that find their value by themselves.
OTHERS: dict[str, Any] = {
    "project": _Name,
    "shouting": partial(_Shouts, source="project"),
    "project_name": partial(serializers.CharField, source="project.name", default="none"),
    "lost": partial(serializers.CharField, source="project.nothing", required=False, read_only=True),
    "key": partial(serializers.PrimaryKeyRelatedField, source="project", read_only=True),
    "text": partial(serializers.StringRelatedField, source="project"),
    "place": partial(_Name, source="project", allow_null=True),
    "itself": partial(serializers.ReadOnlyField, source="__str__"),
    "finds": partial(_Finds, source="title"),
    "many": partial(_Name, source="listed", many=True),
    "listed": partial(_Listed, many=True),
    "hidden": partial(serializers.CharField, source="title", write_only=True),
    "called": partial(serializers.ReadOnlyField, source="body"),
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, Task]:
    """A serializer, and an instance of its model."""
    task = Task(id=draw(st.integers()), project=draw(st.sampled_from([None, Project(id=1, name="a project")])))
    task.listed = draw(st.lists(st.builds(Label, name=st.text(max_size=3)), max_size=3))  # type: ignore[attr-defined]
    fields: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        field = draw(st.sampled_from(list(FIELDS)))
        value = draw(st.none() | FIELDS[field] | st.just(lambda: None))
        vars(task)[name] = value
        fields[name] = field()
    fields |= {name: OTHERS[name]() for name in draw(st.lists(st.sampled_from(list(OTHERS)), unique=True))}
    return type("Made", (serializers.Serializer,), fields)(), task


@settings(deadline=None, max_examples=400)
@given(cases(), st.none() | ZONES)
def test_it_makes_what_rest_framework_makes(case: tuple[Any, Task], zone: tzinfo | None) -> None:
    serializer, task = case
    make = straight(serializer)
    with override(zone):
        try:
            right = serializer.to_representation(task)
        except Exception as error:
            with pytest.raises(type(error)):
                make(task)
            return
        made = make(task)
    assert made == right
    assert list(made) == list(right)
    assert [type(value) for value in made.values()] == [type(value) for value in right.values()]


def test_a_time_that_a_zone_does_not_have_is_the_field_s_to_refuse() -> None:
    serializer = type("Times", (serializers.Serializer,), {"title": serializers.DateTimeField()})()
    with override(ZoneInfo("Asia/Kathmandu")), pytest.raises(serializers.ValidationError):
        straight(serializer)(Task(title=datetime.max.replace(tzinfo=UTC)))


@pytest.mark.parametrize("of", [{"USE_TZ": False}, {"REST_FRAMEWORK": {"DATETIME_FORMAT": "%d.%m.%Y"}}])
def test_the_settings_of_times_count(of: dict[str, Any]) -> None:
    class Times(serializers.Serializer[Any]):
        title = serializers.DateTimeField()

    task = Task(title=datetime(2026, 1, 2, 3, tzinfo=ZoneInfo("Asia/Kathmandu")))
    with override_settings(**of):
        assert straight(Times())(task) == Times().to_representation(task)


class _All(serializers.ModelSerializer[Any]):
    class Meta:
        model = Awkward
        fields = "__all__"


def test_a_value_in_the_instance_is_taken_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the field was asked")

    serializer, row = _All(), Awkward(id=1)
    right = serializer.to_representation(row)
    for field in serializer.fields.values():
        monkeypatch.setattr(field, "get_attribute", refuse)
    assert straight(serializer)(row) == right


@pytest.mark.parametrize("what", ["missing", "a property", "an own __getattribute__"])
def test_any_other_value_is_found_by_the_field(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Awkward(id=1, text="stored")
    if what == "missing":
        del vars(row)["text"]
        monkeypatch.setattr(DeferredAttribute, "__get__", lambda self, instance, cls=None: "loaded")
    elif what == "a property":
        monkeypatch.setattr(Awkward, "text", property(lambda self: "computed"))
    else:
        monkeypatch.setattr(
            Awkward,
            "__getattribute__",
            lambda self, name: "any" if name == "text" else object.__getattribute__(self, name),
        )
    right = _All().to_representation(row)
    assert straight(_All())(row) == right
    assert right["text"] != "stored"


@pytest.mark.parametrize(
    ("cls", "name"), [(serializers.Field, "get_attribute"), (serializers.Serializer, "to_representation")]
)
def test_what_somebody_has_put_in_their_place_counts(cls: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cls, name, lambda self, instance: "another")
    assert straight(_Name())(Label(name="x")) in ("another", {"name": "another"})


def test_an_object_that_is_no_instance_of_a_model_is_no_matter() -> None:
    row: Mapping[str, Any] = {"name": "from a mapping"}
    assert straight(_Name(many=True))([row, Label(name="x")]) == [{"name": "from a mapping"}, {"name": "x"}]
