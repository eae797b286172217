"""What serializers follow is fetched by the batch: the number of queries, and the same bodies as without."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models import Prefetch
from django.test.utils import CaptureQueriesContext
from rest_framework import serializers

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.delivery.envelope import parse
from djcrf_pg.delivery.interest import EVERYTHING
from djcrf_pg.exceptions import ObserverError
from djcrf_pg.observations import Observation, PrefetchFailed
from djcrf_pg.observer import model_observer
from djcrf_pg.observer.paths import lookups_of
from djcrf_pg.routing import prefetch
from djcrf_pg.routing.events import events
from djcrf_pg.routing.routes import Occurrence
from tests.testapp.models import Label, Project, Task
from tests.unit.origin import ORIGIN

pytestmark = pytest.mark.django_db(databases="__all__")


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """The handler of an observer."""


def made(model: Any = Task, **fields: Any) -> type[serializers.ModelSerializer[Any]]:
    """A serializer class with these fields."""
    meta = type("Meta", (), {"model": model, "fields": ["id", *fields]})
    return type("Made", (serializers.ModelSerializer,), {**fields, "Meta": meta})


class _Names(serializers.Serializer[Any]):
    name = serializers.CharField()


class _Titles(serializers.Serializer[Any]):
    title = serializers.CharField()
    labels = _Names(many=True)


class _Place(serializers.Serializer[Any]):
    project = _Names()


class _Method(serializers.ModelSerializer[Any]):
    of = serializers.SerializerMethodField()

    class Meta:
        model = Task
        fields = ("of",)

    def get_of(self, task: Task) -> str | None:
        return task.project and task.project.name


class _Key(_Method):
    def get_of(self, task: Task) -> Any:
        return task.project and task.project.pk


KINDS: dict[str, tuple[type[serializers.BaseSerializer[Any]], tuple[str, ...], int]] = {
    "flat": (made(title=serializers.CharField()), (), 0),
    "nested": (made(project=_Names()), ("project",), 1),
    "nested many": (made(labels=_Names(many=True)), ("labels",), 1),
    "nested in nested": (made(project=made(Project, tasks=_Titles(many=True))()), ("project__tasks__labels",), 3),
    "source": (made(project_name=serializers.CharField(source="project.name", default=None)), ("project",), 1),
    "source *": (made(place=_Place(source="*")), ("project",), 1),
    "key": (made(project=serializers.PrimaryKeyRelatedField(read_only=True)), (), 0),
    "key of a column": (made(project_id=serializers.IntegerField()), (), 0),
    "keys": (made(labels=serializers.PrimaryKeyRelatedField(many=True, read_only=True)), ("labels",), 1),
    "slug": (made(project=serializers.SlugRelatedField("name", read_only=True)), ("project",), 1),
    "slugs": (made(labels=serializers.SlugRelatedField("name", many=True, read_only=True)), ("labels",), 1),
    "text": (made(project=serializers.StringRelatedField()), ("project",), 1),
    "texts": (made(labels=serializers.StringRelatedField(many=True)), ("labels",), 1),
    "method of the serializer": (_Method, (), 4),
}


@pytest.fixture
def tasks() -> list[Task]:
    """Four tasks in two projects, and one in none; with labels."""
    projects = [Project.objects.create(name=f"project {number}") for number in range(2)]
    labels = [Label.objects.create(name=f"label {number}") for number in range(3)]
    found = []
    for number in range(5):
        project = None if number == 4 else projects[number % 2]
        task = Task.objects.create(title=f"task {number}", project=project)
        task.labels.set(labels[:number])
        found.append(task)
    return found


def occurrences(observer: Any, instances: Sequence[Any]) -> list[Occurrence]:
    """An update of each."""
    now = datetime.now(UTC)
    return [
        Occurrence(RowChange(number, number, 1, None, None, None, now), observer, instance, instance, again=True)
        for number, instance in enumerate(instances, 1)
    ]


def bodies(told: Sequence[Occurrence]) -> tuple[list[Any], int]:
    """The bodies of the events, and how many queries they took."""
    with CaptureQueriesContext(connection) as queries:
        items, failed = events(told, EVERYTHING, ORIGIN)
    assert not failed
    return [parse(item.line).body for item in items], len(queries)


def again(instances: Sequence[Any]) -> list[Any]:
    """The same rows, as nobody has followed anything of them."""
    return [type(each).objects.get(pk=each.pk) for each in instances]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_serializer_takes_its_queries_for_a_whole_batch(kind: str, tasks: list[Task]) -> None:
    serializer_class, lookups, count = KINDS[kind]
    assert lookups_of(serializer_class, Task) == lookups
    observer = model_observer(Task, serializer_class)(handler)
    found, queries = bodies(occurrences(observer, again(tasks)))
    assert queries == count
    assert found == [serializer_class(each).data for each in again(tasks)]


def test_a_model_s_properties_and_methods_are_looked_at(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    def heading(self: Task) -> str:
        return f"{self.project.name if self.project else ''}: {self.title}"

    def tags(self: Any) -> list[str]:
        return [self.heading, *(label.name for label in self.labels.all())]

    def few(self: Task) -> int:
        return self.labels.filter(name="label 0").count()

    monkeypatch.setattr(Task, "heading", property(heading), raising=False)
    monkeypatch.setattr(Task, "tags", tags, raising=False)
    monkeypatch.setattr(Task, "few", few, raising=False)
    fields = {name: serializers.ReadOnlyField() for name in ("tags", "few")}
    serializer_class = made(**fields)
    assert lookups_of(serializer_class, Task) == ("project", "labels")
    found, queries = bodies(occurrences(model_observer(Task, serializer_class)(handler), again(tasks)))
    assert queries == 2 + len(tasks), "what is filtered is a query for each"
    assert found == [serializer_class(each).data for each in again(tasks)]


def test_what_an_observer_names_is_loaded_and_its_prefetch_stands_for_what_was_found(tasks: list[Task]) -> None:
    first = Prefetch("labels", Label.objects.filter(name="label 0"))
    observer = model_observer(Task, made(labels=_Names(many=True), project=_Names()), prefetch=[first])(handler)
    assert observer.prefetches == (first, "project")
    found, queries = bodies(occurrences(observer, again(tasks)))
    assert queries == 2
    assert [body["labels"] for body in found] == [[], *[[{"name": "label 0"}]] * 4]
    observer = model_observer(Task, _Method, prefetch=["project"])(handler)
    assert bodies(occurrences(observer, again(tasks)))[1] == 1


def test_it_can_be_turned_off(tasks: list[Task]) -> None:
    observer = model_observer(Task, made(project=_Names()), prefetch=False)(handler)
    assert bodies(occurrences(observer, again(tasks)))[1] == 4


def test_what_is_loaded_for_one_observer_is_not_there_for_the_other(tasks: list[Task]) -> None:
    """They share the instances; a prefetch leaves rows out, which the other's body has."""
    serializer_class = made(labels=_Names(many=True))
    some = Prefetch("labels", Label.objects.none())
    few = model_observer(Task, serializer_class, prefetch=[some], partition="few")(handler)
    whole = model_observer(Task, serializer_class, partition="whole")(handler)
    alone = model_observer(Task, serializer_class, prefetch=False, partition="alone")(handler)
    instances = again(tasks)
    told = [
        each for row in zip(*(occurrences(one, instances) for one in (few, whole, alone)), strict=True) for each in row
    ]
    found, _ = bodies(told)
    right = [serializer_class(each).data for each in again(tasks)]
    assert found[0::3] == [{**body, "labels": []} for body in right]
    assert found[1::3] == found[2::3] == right, "and the order is that of what happened"


def test_nothing_is_kept(tasks: list[Task]) -> None:
    named = Prefetch("labels", to_attr="all_labels")
    observer = model_observer(Task, made(project=_Names(), labels=_Names(many=True)), prefetch=[named])(handler)
    instances = again(tasks)
    before = [set(vars(each)) for each in instances]
    bodies(occurrences(observer, instances))
    assert [set(vars(each)) for each in instances] == before
    assert not any(each._state.fields_cache for each in instances)


def test_what_nobody_hears_is_not_loaded(tasks: list[Task]) -> None:
    class Nobody:
        def has(self, address: str, group: str) -> bool:
            return False

        def hears(self, address: str) -> bool:
            return False

    told = occurrences(model_observer(Task, made(project=_Names()))(handler), again(tasks))
    with CaptureQueriesContext(connection) as queries:
        items, failed = events(told, Nobody(), ORIGIN)
    assert (items, failed, len(queries)) == ([], [], 0)


def test_a_parent_that_is_gone_is_told_as_without(tasks: list[Task]) -> None:
    """Django says None where a foreign key leads nowhere; whoever asks by himself gets ``DoesNotExist``."""
    tasks[1].project_id = 987_654
    for lookups in (["project"], False):
        for each in tasks:
            each._state.fields_cache.clear()
        told = occurrences(model_observer(Task, _Key, prefetch=lookups)(handler), tasks)
        assert bodies(told)[0] == [{"of": each.project_id} for each in tasks]


def test_a_row_without_the_column_of_a_foreign_key_has_it_from_its_table(tasks: list[Task]) -> None:
    """It was excluded from the log."""
    instances = again(tasks)
    instances[0] = Task.objects.defer("project").get(pk=tasks[0].pk)
    found, queries = bodies(occurrences(model_observer(Task, made(project=_Names()))(handler), instances))
    assert queries == 2
    assert [body["project"] for body in found][:2] == [{"name": "project 0"}, {"name": "project 1"}]


class _Fails(serializers.ModelSerializer[Any]):
    project = _Names()
    other = serializers.SerializerMethodField()

    class Meta:
        model = Task
        fields = ("project", "other")

    def get_other(self, task: Task) -> int:
        return 1 // (task.title != "task 2")


def test_a_row_that_a_serializer_fails_on_harms_no_other(tasks: list[Task]) -> None:
    observer = model_observer(Task, _Fails)(handler)
    items, failed = events(occurrences(observer, again(tasks)), EVERYTHING, ORIGIN)
    assert len(items) == 4
    assert [each.change.id for each in failed] == [3]


def test_where_it_fails_each_event_loads_its_own_and_that_is_said_once(
    tasks: list[Task], observed: list[Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "odd", property(lambda self: 1), raising=False)
    serializer_class = made(labels=_Names(many=True))
    observer = model_observer(Task, serializer_class, prefetch=["odd"])(handler)
    for _ in range(2):
        found, _ = bodies(occurrences(observer, again(tasks)))
        assert found == [serializer_class(each).data for each in again(tasks)]
    (said,) = [each for each in observed if isinstance(each, PrefetchFailed)]
    assert "'odd' does not resolve to an item that supports prefetching" in said.error


def test_what_a_prefetch_leaves_out_is_left_out_whatever_fails(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "odd", property(lambda self: 1), raising=False)
    nothing = Prefetch("project", Project.objects.none())
    observer = model_observer(Task, _Fails, prefetch=[nothing])(handler)
    found, failed = events(occurrences(observer, again(tasks)), EVERYTHING, ORIGIN)
    assert [parse(item.line).body["project"] for item in found] == [None] * 4
    assert [each.change.id for each in failed] == [3]
    observer = model_observer(Task, _Fails, prefetch=[nothing, "odd"])(handler)
    found, failed = events(occurrences(observer, again(tasks)), EVERYTHING, ORIGIN)
    assert (found, len(failed)) == ([], 5)


def test_what_is_left_out_is_left_out_also_where_groups_fail_once(tasks: list[Task]) -> None:
    failing = [tasks[1].pk]

    def groups(self: Any, instance: Task, **kwargs: Any) -> Iterator[str]:
        if instance.pk in failing:
            failing.remove(instance.pk)
            raise ValueError("once")
        yield "a group"

    serializer_class = made(labels=_Names(many=True))
    observer = model_observer(Task, serializer_class, prefetch=[Prefetch("labels", Label.objects.none())])(handler)
    found, _ = bodies(occurrences(observer.groups_for_signal(groups), again(tasks)))
    assert [body["labels"] for body in found] == [[]] * 5
    assert not failing


def test_an_instance_counts_whatever_its_truth(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "__len__", lambda self: 0, raising=False)
    observer = model_observer(Task, made(project=_Names()))(handler)
    assert bodies(occurrences(observer, again(tasks)))[1] == 1


def test_an_instance_that_cannot_be_loaded_harms_no_other(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    real = prefetch.prefetch_related_objects

    def load(instances: list[Task], *lookups: Any) -> None:
        if any(each.title == "task 2" for each in instances):
            raise ValueError("no good")
        real(instances, *lookups)

    monkeypatch.setattr(prefetch, "prefetch_related_objects", load)
    serializer_class = made(labels=_Names(many=True))
    given: list[tuple[Any, list[int]]] = [(True, []), ([Prefetch("labels", Label.objects.all())], [3])]
    for lookups, lost in given:
        observer = model_observer(Task, serializer_class, prefetch=lookups)(handler)
        found, failed = events(occurrences(observer, again(tasks)), EVERYTHING, ORIGIN)
        assert [parse(item.line).body for item in found] == [
            serializer_class(each).data for number, each in enumerate(again(tasks), 1) if number not in lost
        ]
        assert [each.change.id for each in failed] == lost


def test_where_the_database_is_gone_it_is_tried_again(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise OperationalError("gone")

    closed: list[bool] = []
    monkeypatch.setattr(prefetch, "prefetch_related_objects", load)
    monkeypatch.setattr(type(prefetch.connections), "close_all", lambda self: closed.append(True))
    told = occurrences(model_observer(Task, made(project=_Names()))(handler), again(tasks))
    with pytest.raises(OperationalError):
        events(told, EVERYTHING, ORIGIN)
    assert closed
    items, failed = events(told, EVERYTHING, ORIGIN, forgiving=True)
    assert (len(items), failed) == (5, []), "each has loaded its own"


def test_a_name_that_the_model_has_not_is_refused() -> None:
    for name in ("owner", "name"):
        with pytest.raises(ObserverError, match=f"prefetch has 'project__{name}', and testapp.Project has no relation"):
            model_observer(Task, made(project=_Names()), prefetch=[f"project__{name}"])(handler)
