"""Instances of values: what is deferred, what code of the model's sees, and which fields a query selects as SQL."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, models
from django.db.models.expressions import Col
from django.db.models.signals import post_init, pre_init
from django.test.utils import isolate_apps

from djcrf_pg.changelog.decode import ColumnType, Hydrator, Relation
from djcrf_pg.instances import _copies_values, make, runs_code, sql_fields
from djcrf_pg.observations import DefaultsGiven, Observation


@pytest.fixture(autouse=True)
def _apps() -> Iterator[None]:
    with isolate_apps("tests.testapp"):
        yield


def model(bases: tuple[type, ...] = (models.Model,), **attributes: Any) -> Any:
    """A model ``Pair`` with two fields that have defaults."""
    fields = {"left": models.CharField(max_length=9, default="L"), "right": models.CharField(max_length=9, default="R")}
    meta = type("Meta", (), {"app_label": "testapp"})
    return type("Pair", bases, {"__module__": __name__, "Meta": meta, **fields, **attributes})


def remembering(self: Any, *args: Any, **kwargs: Any) -> None:
    """An ``__init__`` that reads both."""
    models.Model.__init__(self, *args, **kwargs)
    self.began = (self.left, self.right)


# -- making --------------------------------------------------------------------------------------------------


def test_what_is_missing_is_deferred() -> None:
    instance = make(model(), "default", {"id": 1, "left": "a"})
    assert instance.get_deferred_fields() == {"right"}
    assert (instance.pk, vars(instance)["left"]) == (1, "a")
    assert (instance._state.db, instance._state.adding) == ("default", False)


class Behind:
    """What Django's class calls, for it comes behind it."""

    def __init__(self) -> None:
        self.began = True


@pytest.mark.parametrize(
    ("bases", "attributes", "copied"),
    [
        ((models.Model,), {}, True),
        ((models.Model,), {"other": models.ForeignKey("testapp.Pair", models.CASCADE)}, True),
        ((models.Model,), {"paper": models.FileField()}, False),
        ((models.Model, Behind), {}, False),
    ],
    ids=["plain", "foreign key", "file", "mixin"],
)
@pytest.mark.parametrize("names", [("id", "left", "right"), ("id",)], ids=["whole", "key"])
def test_an_instance_is_as_django_would_make_it(
    names: tuple[str, ...], bases: tuple[type, ...], attributes: dict[str, Any], copied: bool
) -> None:
    pair = model(bases, **attributes)
    values = dict.fromkeys(names, "a")
    expected = pair.from_db("other", list(values), list(values.values()))
    instance = make(pair, "other", values)
    assert _copies_values(pair) is copied
    assert type(instance) is pair
    assert vars(instance._state) == vars(expected._state)
    assert {**vars(instance), "_state": None} == {**vars(expected), "_state": None}
    assert list(vars(instance)) == list(vars(expected))


def test_a_receiver_that_comes_later_is_called() -> None:
    pair, made = model(), list[Any]()
    make(pair, "default", {"id": 1})

    def receiver(instance: Any, **kwargs: Any) -> None:
        made.append(instance)

    post_init.connect(receiver, sender=pair)
    try:
        instance = make(pair, "default", {"id": 1})
    finally:
        post_init.disconnect(receiver, sender=pair)
    assert made == [instance]


def test_code_that_reads_what_is_missing_reads_defaults_and_it_is_said_once(observed: list[Observation]) -> None:
    pair = model(__init__=remembering)
    for number in (1, 2):
        instance: Any = make(pair, "default", {"id": number, "left": "a"})
        assert instance.began == ("a", "R")
        assert instance.get_deferred_fields() == {"right"}
    (said,) = observed
    assert isinstance(said, DefaultsGiven)
    assert (said.model, said.fields) == ("testapp.Pair", "right")


def test_a_model_that_recurses_is_tried_once(observed: list[Observation]) -> None:
    tried: list[int] = []

    def recurse(self: Any, *args: Any, **kwargs: Any) -> None:
        models.Model.__init__(self, *args, **kwargs)
        if "right" not in vars(self):
            tried.append(self.pk)
            raise RecursionError

    pair = model(__init__=recurse)
    for number in (1, 2):
        assert make(pair, "default", {"id": number, "left": "a"}).get_deferred_fields() == {"right"}
    assert tried == [1]
    assert len(observed) == 1


def test_an_error_that_defaults_do_not_cure_is_raised(observed: list[Observation]) -> None:
    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        raise LookupError("whatever it has")

    pair = model(__init__=fail)
    for values in ({"id": 1}, {"id": 1, "left": "a", "right": "b"}):
        with pytest.raises(LookupError, match="whatever it has"):
            make(pair, "default", values)
    assert observed == []


def test_a_database_that_is_gone_is_raised(observed: list[Observation]) -> None:
    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        models.Model.__init__(self, *args, **kwargs)
        if "right" not in vars(self):
            raise OperationalError("gone")

    with pytest.raises(OperationalError, match="gone"):
        make(model(__init__=fail), "default", {"id": 1})
    assert observed == []


# -- code ----------------------------------------------------------------------------------------------------


def test_django_s_own_making_is_no_code() -> None:
    parent = model(save=lambda self, **kwargs: None, refresh_from_db=lambda self, **kwargs: None)
    assert not runs_code(parent)


class Mixin:
    """No model, and has an ``__init__``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize(
    "make_model",
    [
        lambda: model(__init__=remembering),
        lambda: model(bases=(Mixin, models.Model)),
        lambda: model(from_db=classmethod(lambda cls, *args: models.Model.from_db.__func__(cls, *args))),  # type: ignore[attr-defined]
        lambda: model(__new__=lambda cls, *args, **kwargs: object.__new__(cls)),
        lambda: model(__setattr__=lambda self, name, value: object.__setattr__(self, name, value)),
    ],
    ids=["__init__", "mixin", "from_db", "__new__", "__setattr__"],
)
def test_a_method_of_a_class_is_code(make_model: Callable[[], Any]) -> None:
    assert runs_code(make_model())


@pytest.mark.parametrize("signal", [pre_init, post_init])
@pytest.mark.parametrize("for_all", [True, False])
def test_a_receiver_is_code_while_it_is_connected(signal: Any, for_all: bool) -> None:
    pair = model()

    def receiver(**kwargs: Any) -> None: ...

    signal.connect(receiver, sender=None if for_all else pair)
    assert runs_code(pair)
    signal.disconnect(receiver, sender=None if for_all else pair)
    assert not runs_code(pair)


# -- fields whose SELECT is SQL ------------------------------------------------------------------------------


class Upper(Col):
    """Another column than Django's."""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Render it."""
        sql, params = super().as_sql(compiler, connection)
        return f"upper({sql})", params


class Vendor(Col):
    """Another on PostgreSQL alone."""

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        """Render it."""
        sql, params = self.as_sql(compiler, connection)
        return f"upper({sql})", params


class Same(Col):
    """A subclass that renders the same."""


def field(**methods: Any) -> Any:
    """A text field with methods of its own."""
    return type("Custom", (models.TextField,), methods)()


@pytest.mark.parametrize(
    ("methods", "plain"),
    [
        ({}, True),
        ({"get_col": lambda self, alias, output_field=None: Same(alias, self, output_field)}, True),
        ({"get_col": lambda self, alias, output_field=None: Upper(alias, self, output_field)}, False),
        ({"get_col": lambda self, alias, output_field=None: Vendor(alias, self, output_field)}, False),
        ({"get_col": lambda self, alias, output_field=None: Col(alias, self.model._meta.pk)}, False),
        ({"get_col": lambda self, alias, output_field=None: self.no_key_here}, False),
        ({"select_format": lambda self, compiler, sql, params: (sql, params)}, True),
        ({"select_format": lambda self, compiler, sql, params: (f"{sql}::bytea", params)}, False),
        ({"select_format": lambda self, compiler, sql, params: (f"f({sql}, %s)", [*params, "key"])}, False),
        ({"select_format": lambda self, compiler, sql, params: self.no_key_here}, False),
    ],
)
def test_what_counts_is_the_sql_that_a_field_makes(methods: dict[str, Any], plain: bool) -> None:
    pair = model(custom=field(**methods))
    assert set(sql_fields(pair, "default")) == (set() if plain else {"custom"})


def test_an_instance_of_an_image_lacks_them_and_it_is_said(observed: list[Observation]) -> None:
    pair = model(custom=field(select_format=lambda self, compiler, sql, params: (f"upper({sql})", params)))
    text = ColumnType(25, "text")
    columns = {"id": ColumnType(20, "int8"), "left": text, "right": text, "custom": text}
    hydrator = Hydrator(pair, Relation(1, 1, "pair", columns), "default")
    instance = hydrator.instance({"id": 1, "left": "l", "right": "r", "custom": "stored"})
    assert instance.get_deferred_fields() == {"custom"}
    assert [str(observation) for observation in observed] == [
        "testapp.Pair.custom is deferred: a query selects SQL of Custom, and the log has what is stored"
    ]


def test_the_field_that_a_foreign_key_refers_to_says_how_the_key_is_selected() -> None:
    methods = {"select_format": lambda self, compiler, sql, params: (f"upper({sql})", params)}
    target = type(
        "Target",
        (models.Model,),
        {
            "__module__": __name__,
            "Meta": type("Meta", (), {"app_label": "testapp"}),
            "code": type("Code", (models.TextField,), {**methods})(unique=True),
        },
    )
    pair = model(target=models.ForeignKey(target, models.CASCADE, to_field="code"))
    assert set(sql_fields(pair, "default")) == {"target_id"}
