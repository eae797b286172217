"""Each body is that of its own instance, whatever its serializer remembers; one serializer does many where it may."""

from collections.abc import Iterator
from functools import cached_property, lru_cache, partial
from typing import Any

import pytest
from django.db.models import Model
from django.urls import path
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework import serializers
from rest_framework.serializers import SerializerMetaclass

from djcrf_pg.checks import check_serializers
from djcrf_pg.observer import model_observer
from djcrf_pg.observer.serializing import context, is_reusable, needs_request, represent
from djcrf_pg.registry import BATCH
from tests.testapp.models import Project, Task

PRIVATE = "private"


@pytest.fixture
def batch() -> Iterator[dict[Any, Any]]:
    """A batch of the listener; what is in it are the serializers that it keeps."""
    kept: dict[Any, Any] = {}
    token = BATCH.set(kept)
    yield kept
    BATCH.reset(token)


def bodies(serializer_class: Any, instances: list[Model], reuse: bool | None = None) -> list[Any]:
    """What one batch makes of instances."""
    token = BATCH.set({})
    try:
        return [represent(serializer_class, instance, reuse) for instance in instances]
    finally:
        BATCH.reset(token)


# -- what a serializer can be made of ------------------------------------------------------------------------
#
# Each of these lets a row through that was before, unless a serializer is made for each.


class HidesInGetFields:
    """A plain mixin, as the packages for dynamic fields have it."""

    def get_fields(self) -> Any:
        """Without the body of a private row."""
        fields = super().get_fields()  # type: ignore[misc]
        if getattr(self.instance, "status", None) == PRIVATE:  # type: ignore[attr-defined]
            fields.pop("body", None)
        return fields


class HidesInInit:
    """Another one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if getattr(self.instance, "status", None) == PRIVATE:  # type: ignore[attr-defined]
            self.fields.pop("body", None)  # type: ignore[attr-defined]


class Remembers(serializers.ModelSerializer[Task]):
    """A cached property."""

    first = serializers.SerializerMethodField()

    @cached_property
    def title(self) -> str:
        """The title of the instance that it was first asked for."""
        return self.instance.title if isinstance(self.instance, Task) else ""

    def get_first(self, task: Task) -> str:
        """The title."""
        return self.title


class Stores(serializers.ModelSerializer[Task]):
    """A method that stores what it was given."""

    stored = serializers.SerializerMethodField()

    def get_stored(self, task: Task) -> str:
        """The title of the first instance."""
        self._stored = getattr(self, "_stored", task.title)
        return self._stored


class StoresElsewhere(serializers.ModelSerializer[Task]):
    """The same, in what it can reach: its context, and a function that is given it."""

    context_first = serializers.SerializerMethodField()
    helped = serializers.SerializerMethodField()

    def get_context_first(self, task: Task) -> str:
        """The title of the first instance."""
        return str(self.context.setdefault("first", task.title))

    def get_helped(self, task: Task) -> str:
        """The title of the first instance."""
        return _help(self, task)


def _help(serializer: Any, task: Task) -> str:
    found: str = serializer.__dict__.setdefault("helped", task.title)
    return found


class StoresInAWrapper(serializers.ModelSerializer[Task]):
    """The same, in a decorator."""

    wrapped = serializers.SerializerMethodField()

    @staticmethod
    def once(function: Any) -> Any:
        """Call it once for each serializer."""

        def wrapper(*args: Any) -> Any:
            return args[0].__dict__.setdefault("once", function(*args))

        return wrapper

    @once
    def get_wrapped(self, task: Task) -> str:
        """The title of the first instance."""
        return task.title


class Closure(serializers.ModelSerializer[Task]):
    """A method whose inner function keeps the serializer."""

    enclosed = serializers.SerializerMethodField()

    def get_enclosed(self, task: Task) -> str:
        """The title of the first instance."""

        def ask() -> str:
            found: str = self.__dict__.setdefault("enclosed", task.title)
            return found

        return ask()


class Nested(serializers.ModelSerializer[Project]):
    """Looks at the row that it is nested in."""

    class Meta:
        model = Project
        fields = ("id", "name")

    def get_fields(self) -> Any:
        """Without the name of a private task's project."""
        fields = super().get_fields()
        if getattr(self.root.instance, "status", None) == PRIVATE:
            del fields["name"]
        return fields


class WithNested(serializers.ModelSerializer[Task]):
    """Has one nested."""

    project = Nested()


class LastField(serializers.CharField):
    """A field that remembers."""

    def to_representation(self, value: Any) -> str:
        """The longest value until now."""
        self.longest = max(getattr(self, "longest", ""), str(value), key=len)
        return self.longest


class WithField(serializers.ModelSerializer[Task]):
    """Has one."""

    longest = LastField(source="title")


class Counting:
    """A default with a state of its own, which is copied with its field."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        """Count."""
        self.calls += 1
        return self.calls


class WithDefault(serializers.ModelSerializer[Task]):
    """Has one, of an attribute that no task has."""

    count = serializers.IntegerField(source="nothing.at_all", default=Counting(), read_only=False)


class WithData(serializers.ModelSerializer[Task]):
    """Its ``data`` is its own."""

    @property
    def data(self) -> Any:
        """With what ``to_representation`` has not."""
        return {**super().data, "more": self.instance.title if isinstance(self.instance, Task) else ""}


class Collects(serializers.JSONField):
    """A field that changes what it is given."""

    def to_representation(self, value: Any) -> Any:
        """One more each time."""
        value.append(len(value))
        return list(value)


class WithMutableDefault(serializers.ModelSerializer[Task]):
    """Has one, of an attribute that no task has; its default is copied with the field."""

    collected = Collects(source="nothing.at_all", default=[], read_only=False)


class WithKeyField(serializers.ModelSerializer[Task]):
    """A relation whose keys a field represents that remembers."""

    key: Any = serializers.PrimaryKeyRelatedField(source="project", pk_field=LastField(), read_only=True)


class HidingMeta(SerializerMetaclass):
    """A metaclass that hides a field once the serializer is made."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Without the body of a private row."""
        made = super().__call__(*args, **kwargs)
        if getattr(made.instance, "status", None) == PRIVATE:
            made.fields.pop("body", None)
        return made


class MadeByMeta(serializers.ModelSerializer[Task], metaclass=HidingMeta):
    """Has it."""


class NamesItsMethod(serializers.ModelSerializer[Task]):
    """A method for a body, under a name that else is one of validation."""

    named = serializers.SerializerMethodField(method_name="validate_named")

    def validate_named(self, task: Task) -> str:
        """The title of the first instance."""
        found: str = self.__dict__.setdefault("_named", task.title)
        return found


class Looks(serializers.ModelSerializer[Task]):
    """A method that gets hold of the serializer without naming it."""

    seen = serializers.SerializerMethodField()

    def get_seen(self, task: Task) -> str:
        """The title of the first instance."""
        return str(locals()["self"].__dict__.setdefault("_seen", task.title))


class Declares(serializers.ModelSerializer[Task]):
    """What the class declares is another thing on an instance."""

    _context: Any = None
    declared = serializers.SerializerMethodField()

    def get_declared(self, task: Task) -> str:
        """The title of the first instance."""
        return str(self._context.setdefault("declared", task.title))


class Chosen(serializers.ChoiceField):
    """The same in a field."""

    grouped_choices: Any = None

    def to_representation(self, value: Any) -> str:
        """The first value."""
        return str(self.grouped_choices.setdefault("first", value))


class WithChosen(serializers.ModelSerializer[Task]):
    """Has one."""

    chosen = Chosen(source="title", choices=[])


class AsksByMethod(serializers.ModelSerializer[Task]):
    """A method that gets hold of the serializer by way of another one."""

    asked = serializers.SerializerMethodField()

    def get_asked(self, task: Task) -> str:
        """The title of the first instance."""
        method: Any = self.get_nothing
        return str(method.__self__.__dict__.setdefault("_asked", task.title))

    def get_nothing(self) -> None:
        """A helper."""


class AsksSuper(serializers.ModelSerializer[Task]):
    """A method that gets hold of the context without naming the serializer."""

    asked_super = serializers.SerializerMethodField()

    def get_asked_super(self, task: Task) -> str:
        """The title of the first instance."""
        return str(super().context.setdefault("asked", task.title))


def asked_outside(self: Any, task: Task) -> str:
    """The title of the first instance; defined outside of the class."""
    return str(super(AsksOutside, self).context.setdefault("outside", task.title))


class AsksOutside(serializers.ModelSerializer[Task]):
    """The same with a function that was defined elsewhere."""

    outside = serializers.SerializerMethodField()
    get_outside = asked_outside


class KeepsSuper(serializers.ModelSerializer[Task]):
    """The same, in two steps."""

    kept_super = serializers.SerializerMethodField()

    def get_kept_super(self, task: Task) -> str:
        """The title of the first instance."""
        parent = super()
        return str(parent.context.setdefault("kept", task.title))


class Patched(serializers.ModelSerializer[Task]):
    """A method that is no function of Python's own."""

    patched = serializers.SerializerMethodField()
    get_patched = partial(lru_cache(lambda task: task.title))


STATEFUL: list[type[Any]] = [
    *(HidesInGetFields, HidesInInit, Remembers, Stores, StoresElsewhere, StoresInAWrapper, Closure, WithNested),
    *(WithField, WithDefault, WithData, WithMutableDefault, WithKeyField, MadeByMeta, NamesItsMethod, Looks, Declares),
    *(WithChosen, AsksByMethod, AsksSuper, AsksOutside, KeepsSuper),
]


# -- serializers that have no state --------------------------------------------------------------------------


class Plain(serializers.ModelSerializer[Task]):
    """Fields, data, validation, and methods that leave the serializer alone."""

    shout = serializers.SerializerMethodField()
    length = serializers.SerializerMethodField()
    prefix = "!"

    class Meta:
        model = Task
        fields = ("id", "title", "status", "body", "shout", "length")

    def get_shout(self, task: Task) -> str:
        """The title, louder."""
        return self.prefix + self.get_loud(task)

    def get_loud(self, task: Task) -> str:
        """A helper."""
        return task.title.upper()

    @staticmethod
    def get_length(task: Task) -> int:
        """The length."""
        return len(task.title)

    def validate_title(self, title: str) -> str:
        """Keeps what it likes: nobody validates here."""
        self.title = title
        return title


class PlainProject(serializers.ModelSerializer[Project]):
    """Fields alone."""

    class Meta:
        model = Project
        fields = ("id", "name")


class Deep(Plain):
    """Nested, and deeper by REST framework's own classes."""

    project = PlainProject()

    class Meta(Plain.Meta):
        fields = (*Plain.Meta.fields, "project")  # type: ignore[assignment]


class WithDepth(serializers.ModelSerializer[Task]):
    """REST framework makes the nested class."""

    class Meta:
        model = Task
        fields = ("id", "title", "project")
        depth = 1


class Shouting(serializers.CharField):
    """A field that leaves itself alone."""

    def to_representation(self, value: Any) -> str:
        """Louder."""
        return str(value).upper()


class WithShouting(serializers.ModelSerializer[Task]):
    """Has one."""

    title = Shouting()

    class Meta:
        model = Task
        fields = ("id", "title")


class Extends(PlainProject):
    """The usual way to add to a body."""

    def to_representation(self, instance: Project) -> Any:
        """With the length of the name."""
        return {**super().to_representation(instance), "length": len(instance.name)}


STATELESS = [Plain, Deep, WithDepth, WithShouting, PlainProject, Extends]


@pytest.mark.parametrize("serializer_class", STATELESS)
def test_one_serializer_serves_a_batch_where_it_can_remember_nothing(
    serializer_class: Any, batch: dict[Any, Any]
) -> None:
    assert is_reusable(serializer_class)
    instance = Project(pk=1, name="p") if issubclass(serializer_class, PlainProject) else task(1)
    made = [represent(serializer_class, instance) for _ in range(3)]
    assert [type(kept) for kept, _ in batch.values()] == [serializer_class]
    assert made == [serializer_class(instance, context=context()).data] * 3


# -- each body is its own ------------------------------------------------------------------------------------


def task(number: int, status: str = "todo") -> Task:
    """A task with a project of its own; nothing of it is stored."""
    project = Project(pk=number, name=f"project {number}")
    title = "x" * number
    return Task(pk=number, title=title, status=status, body=f"secret {number}", project=project)


def composed(parts: tuple[type[Any], ...]) -> type[Any]:
    """A serializer of tasks that has all of these."""
    declared = [name for part in parts for name in getattr(part, "_declared_fields", ())]

    class Meta:
        model = Task
        fields = ("id", "title", "status", "body", *dict.fromkeys(declared))

    mixins = tuple(part for part in parts if not issubclass(part, serializers.ModelSerializer))
    others = tuple(part for part in parts if issubclass(part, serializers.ModelSerializer))
    bases = (*mixins, *(others or (serializers.ModelSerializer,)))
    return type("Composed", bases, {"Meta": Meta})


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*STATEFUL, Plain]), min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["todo", PRIVATE])), min_size=2, max_size=6),
)
def test_each_body_is_that_of_a_serializer_made_afresh(parts: list[Any], rows: list[tuple[int, str]]) -> None:
    serializer_class = composed(tuple(parts))
    instances: list[Model] = [task(number, status) for number, status in rows]
    afresh = [serializer_class(instance, context=context()).data for instance in instances]
    assert bodies(serializer_class, instances) == afresh


@pytest.mark.parametrize("part", [*STATEFUL, Patched])
def test_what_could_remember_is_made_for_each_event(part: Any) -> None:
    assert not is_reusable(composed((part,)))


@pytest.mark.parametrize("part", STATEFUL)
def test_what_one_observer_reuses_is_none_of_another_s(part: Any, batch: dict[Any, Any]) -> None:
    serializer_class = composed((part,))
    rows: list[Model] = [task(20), task(3, PRIVATE)]
    made = [[represent(serializer_class, row, reuse) for reuse in (True, None, False)] for row in rows]
    afresh = [serializer_class(row, context=context()).data for row in rows]
    assert [found[1:] for found in made] == [[body] * 2 for body in afresh]


@pytest.mark.parametrize("part", STATEFUL)
def test_the_bodies_of_what_remembers_would_show_other_rows(part: Any) -> None:
    """The check of the checks: each of these is told apart by what one serializer would make of two rows."""
    serializer_class = composed((part,))
    instances: list[Model] = [task(20), task(3, PRIVATE)]
    afresh = [serializer_class(instance, context=context()).data for instance in instances]
    assert bodies(serializer_class, instances, reuse=True) != afresh


def test_a_class_made_of_type_is_not_taken_for_rest_frameworks_own() -> None:
    parts = {"shout": serializers.SerializerMethodField(), "get_shout": vars(Stores)["get_stored"], "Meta": Plain.Meta}
    made = type("ModelSerializer", (serializers.ModelSerializer,), parts)
    assert made.__module__ == "rest_framework.serializers"
    assert not is_reusable(made)


def hide_in_get_fields(self: Any) -> Any:
    """In place of REST framework's."""
    return {"title": serializers.CharField()}


def hide_in_data(self: Any) -> Any:
    """In place of REST framework's."""
    return {"title": self.instance.title}


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (serializers.ModelSerializer, "get_fields", hide_in_get_fields),
        (serializers.Serializer, "data", property(hide_in_data)),
    ],
)
def test_what_is_put_into_rest_frameworks_classes_is_not_its_own(
    owner: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Made(serializers.ModelSerializer[Project]):
        class Meta:
            model = Project
            fields = ("id", "name")

    class MadeBefore(Made):
        pass

    assert is_reusable(MadeBefore)
    monkeypatch.setattr(owner, name, value)
    assert not is_reusable(Made)


def test_those_who_know_better_say_so(batch: dict[Any, Any]) -> None:
    class Known(Plain):
        def get_shout(self, task: Task) -> str:
            return f"{type(self).__name__} {task.title}"

    assert not is_reusable(Known)
    assert represent(Known, task(1))["shout"] == "Known x"
    assert not batch
    assert represent(Known, task(1), reuse=True)["shout"] == "Known x"
    assert set(batch) == {(Known, True)}


def test_who_wants_one_for_each_event_gets_it(batch: dict[Any, Any]) -> None:
    assert represent(Plain, task(2), reuse=False)["title"] == "xx"
    assert not batch


def test_a_serializer_that_cannot_be_made_says_so_with_each_event() -> None:
    class Broken(serializers.ModelSerializer[Task]):
        class Meta:
            model = Task
            fields = ("no_such_field",)

    assert not is_reusable(Broken)
    with pytest.raises(Exception, match="no_such_field"):
        represent(Broken, task(1))


# -- what a view would give ----------------------------------------------------------------------------------


urlpatterns = [path("projects/<int:pk>/", lambda request, pk: None, name="project-detail")]  # type: ignore[arg-type, return-value]


class Linked(serializers.HyperlinkedModelSerializer):
    """Needs a context."""

    class Meta:
        model = Project
        fields = ("url", "name")


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("reuse", [True, False])
def test_links_are_relative(reuse: bool, batch: dict[Any, Any]) -> None:
    assert represent(Linked, Project(pk=5, name="p"), reuse) == {"url": "/projects/5/", "name": "p"}


class Asking(serializers.ModelSerializer[Task]):
    """Methods that use a request, in the ways that projects do."""

    class Meta:
        model = Task
        fields = ("id",)

    def get_mine(self, task: Task) -> bool:
        """At once."""
        return bool(self.context["request"].user.pk == task.pk)

    def get_link(self, task: Task) -> str:
        """By way of a variable."""
        request = self.context.get("request")
        return str(request.build_absolute_uri("/"))  # type: ignore[union-attr]

    def get_careful(self, task: Task) -> str:
        """Looks first."""
        request = self.context.get("request")
        return request.path if request else ""

    def get_wary(self, task: Task) -> str:
        """Looks first, and asks then."""
        if self.context.get("request") is None:
            return ""
        return str(self.context["request"].path)

    def get_other(self, task: Task) -> str:
        """Wants something else."""
        return str(self.context["view"])


@pytest.mark.parametrize(
    ("name", "needs"),
    [("get_mine", True), ("get_link", True), ("get_careful", False), ("get_wary", False), ("get_other", False)],
)
def test_a_serializer_that_needs_a_request_is_found(name: str, needs: bool) -> None:
    part = type("Part", (serializers.ModelSerializer,), {name: vars(Asking)[name], "Meta": Asking.Meta})
    meta = type("Meta", (), {"model": Task, "fields": ("id", "inner")})
    whole = type("Whole", (serializers.ModelSerializer,), {"inner": part(source="*"), "Meta": meta})
    found = f"{__name__}.Asking.{name}" if needs else None
    assert (needs_request(part), needs_request(whole)) == (found, found)


def test_the_check_names_the_observer_and_the_method() -> None:
    async def handler(self: Any, message: Any, **kwargs: Any) -> None: ...

    observer = model_observer(Task, serializer_class=Asking)(handler)
    (warning,) = check_serializers(None)
    assert warning.id == "djcrf_pg.W008"
    assert f"{observer.label} has serializer_class=Asking, and {__name__}.Asking.get_mine() needs" in warning.msg
    observer.serializer(lambda self, instance, action, **kwargs: {})
    assert not list(check_serializers(None))
