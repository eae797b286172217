"""What a serializer shows of related rows, and what is watched for it."""

import functools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import models
from django.db.models.functions import Upper
from django.test.utils import isolate_apps
from django.utils.functional import cached_property
from rest_framework import serializers

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.exceptions import ObserverError
from djcrf_pg.observer import model_observer
from djcrf_pg.observer.paths import lookups_of, shown_by
from djcrf_pg.observer.related import named, watches_of
from djcrf_pg.registry import Watch
from djcrf_pg.routing import related as routing
from djcrf_pg.routing.related import Place
from djcrf_pg.routing.routes import Link
from tests.testapp.models import Label, Project, Task
from tests.testapp.related import CardSerializer, NameSerializer, ProgrammeSerializer
from tests.zoo import models as zoo


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """The handler of an observer."""


def made(model: Any = Task, **fields: Any) -> type[serializers.ModelSerializer[Any]]:
    """A serializer class with these fields."""
    meta = type("Meta", (), {"model": model, "fields": ["id", *fields]})
    return type("Made", (serializers.ModelSerializer,), {**fields, "Meta": meta})


class _Shouted(serializers.SlugRelatedField[Any]):
    """Shows what it likes."""

    def to_representation(self, value: Any) -> str:
        return str(value).upper()


class _Loud(NameSerializer):
    """Shows what it likes of a nested row."""

    def to_representation(self, instance: Any) -> Any:
        return super().to_representation(instance)


class _Asking(NameSerializer):
    """Has a method."""

    size = serializers.SerializerMethodField()

    def get_size(self, instance: Any) -> int:
        return 1


@pytest.mark.parametrize(
    ("field", "path", "fields"),
    [
        (NameSerializer(), ("project",), {"name"}),
        (_Loud(), ("project",), None),
        (_Asking(), ("project",), None),
        (serializers.SlugRelatedField("name", read_only=True), ("project",), {"name"}),
        (_Shouted("name", read_only=True), ("project",), None),
        (serializers.StringRelatedField(), ("project",), None),
        (serializers.CharField(source="project.name"), ("project",), {"name"}),
        (serializers.CharField(source="project.pk"), ("project",), {"id"}),
        (serializers.PrimaryKeyRelatedField(read_only=True, source="project"), (), {"id", "project"}),
        (serializers.PrimaryKeyRelatedField(many=True, read_only=True, source="labels"), ("labels",), set()),
        (NameSerializer(many=True, source="labels"), ("labels",), {"name"}),
        (serializers.IntegerField(source="project_id"), (), {"id", "project"}),
    ],
)
def test_what_is_shown_of_a_row(field: Any, path: tuple[str, ...], fields: set[str] | None) -> None:
    name = "project" if field.source is None else "shown"
    assert shown_by(made(**{name: field}), Task)[path] == fields


def test_code_of_models_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def heading(self: Task) -> str:
        return f"{self.project.name}: {self.labels.filter(name='a').count()}"  # type: ignore[union-attr]

    monkeypatch.setattr(Task, "heading", property(heading), raising=False)
    shown = shown_by(made(heading=serializers.ReadOnlyField()), Task)
    assert (shown[("project",)], shown[("labels",)], shown[()]) == ({"name"}, None, None)


def test_cached_properties_and_decorated_ones_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def heading(self: Task) -> str:
        return self.project.name  # type: ignore[union-attr]

    @functools.wraps(heading)
    def decorated(*args: Any, **kwargs: Any) -> str:
        return heading(*args, **kwargs)

    for kind in (functools.cached_property(heading), cached_property(heading), property(decorated), decorated):
        if hasattr(kind, "__set_name__"):
            kind.__set_name__(Task, "heading")
        with monkeypatch.context() as patch:
            patch.setattr(Task, "heading", kind, raising=False)
            shown = shown_by(made(heading=serializers.ReadOnlyField()), Task)
        assert shown.get(("project",)) == {"name"}, kind


def watches(model: Any, serializer_class: Any) -> set[Watch]:
    shown = {path: fields for path, fields in shown_by(serializer_class, model).items() if path}
    return set(watches_of(model, shown))


def fields(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_the_tables_of_a_chain() -> None:
    through = Task.labels.through
    assert watches(Project, ProgrammeSerializer) == {
        Watch("tasks", Task, "testapp.Task", "project_id", "id", fields("id", "title", "project"), True),
        Watch("tasks__labels", through, "testapp.Task.labels", "task_id", "tasks__id", fields("task", "label"), True),
        Watch("tasks__labels", Label, "testapp.Label", "id", "tasks__labels__id", fields("name")),
        Watch("tasks__project", Project, "testapp.Project", "id", "tasks__project__id", fields("name")),
    }


def test_all_of_a_relation_is_the_relation() -> None:
    cards = CardSerializer(many=True, read_only=True, source="tasks.all")
    assert watches(Project, made(Project, shown=cards)) == watches(Project, ProgrammeSerializer)


@pytest.mark.parametrize(
    ("ordering", "path", "counted"),
    [
        (["-points"], ("tasks",), {"id", "title", "points"}),
        ([models.F("points").desc(nulls_last=True), "pk"], ("tasks",), {"id", "title", "points"}),
        ([Upper("status")], ("tasks",), None),
        (["project__name"], ("tasks", "project"), {"name"}),
        (["project"], ("tasks",), {"id", "title", "project"}),
    ],
)
def test_the_order_of_many_rows_is_shown(
    monkeypatch: pytest.MonkeyPatch, ordering: list[Any], path: tuple[str, ...], counted: set[str] | None
) -> None:
    class TitleSerializer(serializers.ModelSerializer[Task]):
        class Meta:
            model = Task
            fields = ("id", "title")

    monkeypatch.setattr(Task._meta, "ordering", ordering)
    serializer_class = made(Project, tasks=TitleSerializer(many=True, read_only=True))
    assert shown_by(serializer_class, Project)[path] == counted
    assert lookups_of(serializer_class, Project) == ("tasks",), "nothing is loaded for it"


def test_what_a_manager_may_hide_rows_by_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(models.Manager[Any]):
        def get_queryset(self) -> Any:
            return super().get_queryset().exclude(status="deleted")

    manager = Kept()
    manager.model = Task
    monkeypatch.setitem(vars(Task._meta), "default_manager", manager)
    titles = serializers.SlugRelatedField("title", many=True, read_only=True)
    assert shown_by(made(Project, tasks=titles), Project)["tasks",] is None
    assert shown_by(made(Label, tasks=titles), Label)["tasks",] is None
    one = made(zoo.Loose, thing=NameSerializer())
    assert shown_by(one, zoo.Loose)["thing",] == {"name"}, "a key finds what a manager hides"


def test_only_keys_of_a_join_table_are_no_watch_of_the_rows_behind_it() -> None:
    keys = serializers.PrimaryKeyRelatedField(many=True, read_only=True)
    assert {watch.model for watch in watches(Task, made(labels=keys))} == {Task.labels.through}


def test_a_foreign_key_on_the_way_is_shown() -> None:
    found = named(zoo.Passport, ["owner__texts"], {(): frozenset()})
    assert {watch.path for watch in watches_of(zoo.Passport, found)} == {"owner__texts"}
    found = named(Label, ["tasks__project"], {(): frozenset()})
    tasks = next(watch for watch in watches_of(Label, found) if watch.model is Task)
    assert (tasks.path, tasks.attname, tasks.lookup, tasks.fields) == ("tasks", "id", "tasks__id", {"project"})


def test_each_table_of_an_inheritance_is_watched_for_what_it_has() -> None:
    serializer_class = made(
        zoo.Person, name=serializers.CharField(), cars=made(zoo.Car, name=None, seats=None)(many=True)
    )
    found = {watch.model: watch for watch in watches(zoo.Person, serializer_class) if watch.path == "cars"}
    assert found[zoo.Vehicle].fields == {"id", "name"}
    assert (found[zoo.FastCar].attname, found[zoo.FastCar].lookup) == ("vehicle_ptr_id", "cars__vehicle_ptr")
    assert found[zoo.FastCar].fields == {"seats"}


def test_a_key_without_a_constraint_may_lead_to_a_row_that_comes_later() -> None:
    (strict,) = watches(Task, made(project=NameSerializer()))
    (loose,) = watches(zoo.Loose, made(zoo.Loose, thing=NameSerializer()))
    assert (strict.comes_and_goes, loose.comes_and_goes) == (False, True)
    assert (loose.attname, loose.lookup) == ("name", "thing__name"), "the key refers to another field"


@isolate_apps("tests.testapp")
def test_rows_that_may_come_and_go_beside_what_refers_to_them() -> None:
    class Base(models.Model):
        name = models.CharField(max_length=9, unique=True)

        class Meta:
            abstract = True
            app_label = "testapp"

        def __str__(self) -> str:
            return self.name

    class End(Base):
        """What is referred to."""

    class Beginning(Base):
        by_name = models.ForeignKey(End, models.CASCADE, related_name="+", to_field="name")
        by_key = models.ForeignKey(End, models.CASCADE, related_name="+")
        strict = models.ManyToManyField(End, related_name="strict")
        loose = models.ManyToManyField(End, related_name="loose", db_constraint=False)

    def comes_and_goes(model: Any, names: Iterable[str], end: Any) -> dict[str, bool]:
        found = watches_of(model, {(name,): frozenset({"name"}) for name in names})
        return {watch.path: watch.comes_and_goes for watch in found if watch.model is end}

    assert comes_and_goes(Beginning, ["by_name", "by_key", "strict", "loose"], End) == {
        "by_name": True,  # its key may change, which is a delete and a create, and the name stay
        "by_key": False,
        "strict": False,
        "loose": True,
    }
    assert comes_and_goes(End, ["strict", "loose"], Beginning) == {"strict": False, "loose": True}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"related": ["owner"]}, "has no relation 'owner' to a model; it has labels, project."),
        ({"related": ["project__nothing"]}, "testapp.Project has no relation 'nothing' to a model; it has tasks."),
        ({"related": ["title"]}, "no relation 'title'"),
        ({"related": True}, "related=True is for a serializer_class; name the relations: related=[…]."),
    ],
)
def test_what_cannot_be_followed_is_refused(arguments: Any, says: str) -> None:
    with pytest.raises(ObserverError, match=r"@model_observer on .*handler: ") as raised:
        model_observer(Task, **arguments)(handler)
    assert says in str(raised.value)


def test_generic_relations_are_refused() -> None:
    for name, kind in (("target", "GenericForeignKey"), ("marks", "GenericRelation")):
        model = zoo.Mark if name == "target" else zoo.Loose
        with pytest.raises(ObserverError, match=f"is a {kind}, and not a foreign key or a many-to-many field"):
            model_observer(model, related=[name])(handler)


def test_a_serializer_that_cannot_be_made_is_refused() -> None:
    class Needing(NameSerializer):
        def __init__(self, *args: Any, of: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    with pytest.raises(ObserverError, match="Needing what it shows, which cannot be made: TypeError"):
        model_observer(Task, Needing, related=True)(handler)
    observer = model_observer(Task, Needing, related=["project"])(handler)
    assert [(watch.path, watch.fields) for watch in observer.watches] == [("project", None)]


def test_named_relations_of_a_serializer_without_an_end() -> None:
    class Tree(serializers.ModelSerializer[zoo.Thing]):
        class Meta:
            model = zoo.Thing
            fields = ("id", "name")

        def get_fields(self) -> dict[str, Any]:
            return {**super().get_fields(), "parts": Tree(many=True)}

    observer = model_observer(zoo.Thing, Tree, related=["parts__parts"])(handler)
    assert {watch.path for watch in observer.watches} == {"parts", "parts__parts"}


def test_named_relations_count_whole_where_the_serializer_has_code() -> None:
    def of(serializer_class: Any, *names: str) -> Any:
        (watch,) = model_observer(Task, serializer_class, related=names)(handler).watches
        return watch.fields

    class Method(CardSerializer):
        of = serializers.SerializerMethodField()

        class Meta(CardSerializer.Meta):
            fields = (*CardSerializer.Meta.fields, "of")

        def get_of(self, task: Task) -> int:
            return 1

    assert of(CardSerializer, "project") == {"name"}
    assert of(Method, "project") is None
    assert of(None, "project") is None


def test_what_prefetch_names_is_shown() -> None:
    def of(prefetch: Iterable[Any]) -> set[str]:
        observer = model_observer(Task, made(), related=True, prefetch=prefetch)(handler)
        return {watch.path for watch in observer.watches}

    assert of(["project__tasks"]) == {"project", "project__tasks"}
    assert of([models.Prefetch("labels", to_attr="all_labels")]) == {"labels"}


def test_what_is_named_for_a_method_counts_whole_though_a_field_shows_it_too() -> None:
    def of(serializer_class: Any, path: str, **arguments: Any) -> Any:
        found = model_observer(Task, serializer_class, **arguments)(handler).watches
        return next(watch.fields for watch in found if watch.path == path and watch.model is not Task.labels.through)

    class Asking(CardSerializer):
        of = serializers.SerializerMethodField()

        class Meta(CardSerializer.Meta):
            fields = (*CardSerializer.Meta.fields, "of")

    class AskingProject(NameSerializer):
        tasks = serializers.SlugRelatedField("title", many=True, read_only=True)
        of = serializers.SerializerMethodField()

    nested = made(project=AskingProject())
    assert of(CardSerializer, "project", related=True, prefetch=["project"]) == {"name"}
    assert of(Asking, "project", related=True) == {"name"}
    assert of(Asking, "project", related=True, prefetch=["project"]) is None
    assert of(nested, "project__tasks", related=True, prefetch=["project__tasks"]) is None
    assert of(nested, "project__tasks", related=["project__tasks"]) is None
    some = models.Prefetch("labels", Label.objects.exclude(name="hidden").order_by("-pk"))
    assert of(CardSerializer, "labels", related=True, prefetch=[some]) is None
    assert of(CardSerializer, "labels", related=["labels"], prefetch=[some]) is None
    assert of(CardSerializer, "labels", related=True, prefetch=[models.Prefetch("labels")]) == {"name"}


def test_observers_that_are_told_of_other_rows_are_not_the_same() -> None:
    def observing(related: Any) -> Any:
        return model_observer(Task, CardSerializer, related=related)(handler)

    plain, all_of_them, one = observing(False), observing(True), observing(["project"])
    assert len({plain.address, all_of_them.address, one.address}) == 3
    assert plain.watches == ()


def test_an_update_of_related_rows_is_told_beside_the_fields() -> None:
    observer = model_observer(Task, CardSerializer, related=True, fields=["title"])(handler)
    told: Callable[[list[str]], bool] = observer.tells
    assert (told(["labels"]), told(["title"]), told(["points"])) == (True, True, False)


def test_observers_of_what_differs_to_subscribers_do_not_make_the_same() -> None:
    def observing(shows: Any) -> Any:
        return model_observer(Task, related=True, shows=shows)(handler)

    card = observing(CardSerializer)
    assert card.makes_the_same(observing(CardSerializer))
    assert not card.makes_the_same(observing(made(labels=serializers.StringRelatedField(many=True))))


def test_rows_are_found_by_what_the_database_calls_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # A key without case, as citext: what refers to "a" may have "A", and that is what the query gives.
    monkeypatch.setattr(routing, "find_related", lambda *arguments: [("A", 1), ("a", 1), ("a", 2), ("b", 3)])
    observer = model_observer(zoo.Loose, related=["thing"])(handler)
    link = Link.of_watch(observer, observer.watches[0])
    change = RowChange(1, 1, 1, None, None, None, datetime.now(UTC))
    places = {Place(link, value, 7): change for value in "ab"}
    keys, crowds = routing.concerned(["default"], places)
    assert ({place.value: set(found) for place, found in keys.items()}, crowds) == ({"a": {1, 2}, "b": {1, 3}}, [])
