"""Observers that a class body defines and then loses; and what is meant so."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from djangochannelsrestframework.consumers import AsyncAPIConsumer

from djcrf_pg.exceptions import ObserverError
from djcrf_pg.observations import Observation, ObserverReplaced, add_sink
from djcrf_pg.observer import ModelObserver, definitions

HEAD = """
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from djangochannelsrestframework.decorators import action
from djcrf_pg.observer import model_observer
from tests.testapp.models import Note, Task
"""

TWICE = """
class Shop(AsyncAPIConsumer):
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

    @model_observer(Task, skip_unchanged=True)
    async def rows(self, message, **kwargs): ...
"""

ACTION = """
class Shop(AsyncAPIConsumer):
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

    @action()
    async def rows(self, request_id, **kwargs):
        await self.rows.subscribe(request_id=request_id)
"""

UNDER_AN_ACTION = """
class Shop(AsyncAPIConsumer):
    @action()
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...
"""

GOOD = """
async def shared(self, message, **kwargs): ...

class Shop(AsyncAPIConsumer):
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

    @rows.groups
    def rows(self, **kwargs):
        yield "a"

    @rows.serializer
    def body(self, instance, action, **kwargs):
        return {}

    one = model_observer(Task)(shared)
    other = model_observer(Task, partition="other")(shared)

class Special(Shop):
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

class Plain(Shop):
    async def rows(self, message, **kwargs): ...

class Handlers:
    async def rows(self, message, **kwargs): ...

loose = model_observer(Task)(Handlers.rows)
"""

FAILS = """
class Shop(AsyncAPIConsumer):
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

    1 / 0
"""

CLASH = """
class Tasks:
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

class More:
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

class Special(Tasks):
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...

class Shop(Tasks, More, AsyncAPIConsumer): ...
class Below(Shop, AsyncAPIConsumer): ...
class Chosen(Tasks, More, AsyncAPIConsumer):
    @model_observer(Task)
    async def rows(self, message, **kwargs): ...
class Diamond(Special, Tasks, AsyncAPIConsumer): ...
"""

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Writes a module of consumers and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(definitions, "_open", {})
    names: list[str] = []

    def import_(text: str) -> ModuleType:
        names.append(f"defined_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(HEAD + text)
        importlib.invalidate_caches()
        return importlib.import_module(names[-1])

    yield import_
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def said() -> Iterator[list[Observation]]:
    """What operators receive."""
    seen: list[Observation] = []
    remove = add_sink(lambda observation, error: seen.append(observation))
    yield seen
    remove()


def test_a_second_observer_of_one_name_is_said_when_its_class_is_made(load: Load, said: list[Observation]) -> None:
    load(TWICE)
    (observation,) = said
    assert isinstance(observation, ObserverReplaced)
    assert str(observation) == (
        "defined_0.Shop.rows is defined twice: the one at line 11 replaces the one at line 8. Rename one of them"
    )
    assert list(definitions.lost()) == [("defined_0.Shop.rows", 8, "an observer at line 11")]


def test_an_action_that_takes_an_observer_s_name_is_found(load: Load, said: list[Observation]) -> None:
    load(ACTION)
    assert list(definitions.lost()) == [("defined_0.Shop.rows", 8, "a function at line 11")]


def test_an_action_around_an_observer_is_refused(load: Load) -> None:
    with pytest.raises(
        ObserverError, match=r"@action\(\) stands on the observer defined_0\.Shop\.rows.*subscribe\(request"
    ):
        load(UNDER_AN_ACTION)


def test_what_is_meant_so_is_not_said(load: Load, said: list[Observation]) -> None:
    module = load(GOOD)
    importlib.reload(module)
    assert said == []
    assert list(definitions.lost()) == []
    assert list(definitions.clashes(ModelObserver)) == []


def test_a_body_that_failed_is_no_loss(load: Load, said: list[Observation]) -> None:
    with pytest.raises(ZeroDivisionError):
        load(FAILS)
    assert list(definitions.lost()) == []


def test_two_bases_with_an_observer_of_one_name_clash_unless_the_class_chooses(load: Load) -> None:
    module = load(CLASH)
    found = [(consumer.__name__, name, owners) for consumer, name, owners in definitions.clashes(ModelObserver)]
    assert found == [("Shop", "rows", [module.Tasks, module.More])]


NAMES = """
class Shop(AsyncAPIConsumer):
    @model_observer(Task)
    async def reply(self, message, **kwargs): ...

    @model_observer(Task)
    async def answer(self, message, **kwargs): ...

class Below(Shop):
    async def answer(self, message, **kwargs): ...
"""


def test_an_observer_in_place_of_a_method_that_its_consumer_needs_is_found(load: Load) -> None:
    module = load(NAMES)
    found = [each for each in definitions.covered(ModelObserver) if each[0].__module__ == module.__name__]
    assert found == [(module.Shop, "reply", AsyncAPIConsumer)]
