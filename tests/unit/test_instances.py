"""Instances of values: what is deferred, and what code of the model's sees."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, models
from django.db.models.signals import post_init, pre_init
from django.test.utils import isolate_apps

from djcrf_pg.instances import make, runs_code
from djcrf_pg.observations import DefaultsGiven, Observation, add_sink


@pytest.fixture(autouse=True)
def _apps() -> Iterator[None]:
    with isolate_apps("tests.testapp"):
        yield


@pytest.fixture
def seen() -> Iterator[list[Observation]]:
    """The observations of a test."""
    observations: list[Observation] = []
    remove = add_sink(lambda observation, error: observations.append(observation))
    yield observations
    remove()


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


def test_code_that_reads_what_is_missing_reads_defaults_and_it_is_said_once(seen: list[Observation]) -> None:
    pair = model(__init__=remembering)
    for number in (1, 2):
        instance: Any = make(pair, "default", {"id": number, "left": "a"})
        assert instance.began == ("a", "R")
        assert instance.get_deferred_fields() == {"right"}
    (said,) = seen
    assert isinstance(said, DefaultsGiven)
    assert (said.model, said.fields) == ("testapp.Pair", "right")


def test_a_model_that_recurses_is_tried_once(seen: list[Observation]) -> None:
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
    assert len(seen) == 1


def test_an_error_that_defaults_do_not_cure_is_raised(seen: list[Observation]) -> None:
    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        raise LookupError("whatever it has")

    pair = model(__init__=fail)
    for values in ({"id": 1}, {"id": 1, "left": "a", "right": "b"}):
        with pytest.raises(LookupError, match="whatever it has"):
            make(pair, "default", values)
    assert seen == []


def test_a_database_that_is_gone_is_raised(seen: list[Observation]) -> None:
    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        models.Model.__init__(self, *args, **kwargs)
        if "right" not in vars(self):
            raise OperationalError("gone")

    with pytest.raises(OperationalError, match="gone"):
        make(model(__init__=fail), "default", {"id": 1})
    assert seen == []


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
