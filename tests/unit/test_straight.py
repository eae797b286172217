"""The straight way makes the bodies that REST framework makes."""

from collections.abc import Mapping
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import ROUND_UP, Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import QuerySet
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor, ManyToManyDescriptor
from django.db.models.query_utils import DeferredAttribute
from django.test import override_settings
from django.utils.timezone import activate, override
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


class _Rounded(serializers.DecimalField):
    def quantize(self, value: Any) -> Any:
        return round(value)


ZONES = st.sampled_from([UTC, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/St_Johns"), timezone(timedelta(hours=1))])
TIMES = st.datetimes(timezones=st.none() | ZONES)

DECIMALS = (
    st.decimals(-100, 100, places=2)
    | st.decimals(allow_nan=False)
    | st.sampled_from(["-0.00", "0.00", "1E+2", "12345.67", "-1.00", "100.00"]).map(Decimal)
    | st.sampled_from(["1.50", 1.5, 3])
)

#: Fields of REST framework's, each with values that an instance may have.
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    serializers.CharField: st.text(max_size=5) | st.integers() | st.builds(_Text, st.text(max_size=5)),
    serializers.SlugField: st.text(max_size=5),
    serializers.ReadOnlyField: st.text(max_size=5) | st.integers() | st.booleans(),
    serializers.IntegerField: st.integers() | st.booleans(),
    serializers.FloatField: st.floats(allow_nan=False) | st.integers(),
    serializers.BooleanField: st.booleans() | st.sampled_from(["true", "no", 1, 0]),
    partial(serializers.DecimalField, max_digits=30, decimal_places=2): st.decimals(-1000, 1000, places=3),
    **{
        partial(serializers.DecimalField, **{"max_digits": 4, "decimal_places": 2, **of}): DECIMALS
        for of in (
            {},
            {"decimal_places": 0},
            {"decimal_places": -1},
            {"decimal_places": None},
            {"max_digits": None},
            {"rounding": ROUND_UP},
            {"normalize_output": True},
            {"localize": True},
            {"coerce_to_string": False},
        )
    },
    partial(_Rounded, max_digits=4, decimal_places=2): DECIMALS,
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
    "labels": partial(_Name, many=True),
    "tagged": partial(_Listed, source="labels", many=True),
    "keys": partial(serializers.PrimaryKeyRelatedField, source="labels", many=True, read_only=True),
    "hidden": partial(serializers.CharField, source="title", write_only=True),
    "called": partial(serializers.ReadOnlyField, source="body"),
}


def fetched(rows: list[Any]) -> QuerySet[Any]:
    """What Django keeps of a relation to many that was fetched before."""
    found = Label.objects.all()
    found._result_cache, found._prefetch_done = rows, True  # type: ignore[attr-defined]
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, Task]:
    """A serializer, and an instance of its model."""
    task = Task(id=draw(st.integers()), project=draw(st.sampled_from([None, Project(id=1, name="a project")])))
    task.listed = draw(st.lists(st.builds(Label, name=st.text(max_size=3)), max_size=3))  # type: ignore[attr-defined]
    vars(task)["_prefetched_objects_cache"] = {"labels": fetched(task.listed)}  # type: ignore[attr-defined]
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


class _Times(serializers.Serializer[Any]):
    title = serializers.DateTimeField()


def test_the_zone_may_be_another_for_each_row() -> None:
    make, task = straight(_Times()), Task(title=datetime(2026, 1, 2, 3, tzinfo=UTC))

    def within(zone: tzinfo) -> tuple[Any, Any]:
        activate(zone)
        return make(task), _Times().to_representation(task)

    zones = [None, *(ZoneInfo(name) for name in ("Asia/Kathmandu", "Europe/Paris", "Asia/Kathmandu"))]
    found = [
        (make(task), _Times().to_representation(task)) if zone is None else copy_context().run(within, zone)
        for zone in zones
    ]
    assert [made for made, _ in found] == [right for _, right in found]
    assert len({made["title"] for made, _ in found}) == 3


def test_a_context_that_cannot_be_compared_is_no_matter() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("it cannot be compared")

        __hash__ = None  # type: ignore[assignment]

    odd, make, task = ContextVar[Odd]("odd"), straight(_Times()), Task(title=datetime(2026, 1, 2, 3, tzinfo=UTC))
    for _ in range(2):
        odd.set(Odd())
        assert make(task) == _Times().to_representation(task)


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


class _Related(serializers.Serializer[Any]):
    project = _Name()
    labels = _Name(many=True)


def _task() -> Task:
    task = Task(id=1, project=Project(id=1, name="a project"))
    vars(task)["_prefetched_objects_cache"] = {"labels": fetched([Label(name="red")])}
    return task


def test_rows_that_were_fetched_are_taken_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the relation was asked")

    make = straight(_Related())
    right = make(_task())
    assert right == {"project": {"name": "a project"}, "labels": [{"name": "red"}]}
    monkeypatch.setattr(ManyToManyDescriptor, "__get__", refuse)
    monkeypatch.setattr(ForwardManyToOneDescriptor, "__get__", refuse)
    assert make(_task()) == right


def test_a_manager_with_an_own_all_is_asked_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = type(_task().labels)
    monkeypatch.setattr(manager, "all", lambda self: [Label(name="hidden")], raising=False)
    make = straight(_Related())
    for _ in range(2):
        assert make(_task()) == _Related().to_representation(_task())
        assert make(_task())["labels"] == [{"name": "hidden"}]


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
