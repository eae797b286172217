"""What the values of a context become."""

import datetime
import decimal
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

import djcrf_pg
from djcrf_pg.writer.values import State, current, fragment
from tests.testapp.models import Document, Task

KEY = uuid.UUID("4cfa6ef9-0d9c-4a3e-9a0a-5b7f1f7f8f11")


def told() -> dict[str, object] | None:
    """The values of the innermost block as a trigger would log them."""
    state = current.get()
    return None if state is None else json.loads(state.full())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (17, 17),
        ("it's", "it's"),
        ({"a": [1, 2.5, {"b": None}]}, {"a": [1, 2.5, {"b": None}]}),
        (KEY, str(KEY)),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.datetime(2024, 2, 29, 12, 0, tzinfo=datetime.UTC), "2024-02-29T12:00:00Z"),
        (gettext_lazy("lazy"), "lazy"),
        (Task(pk=5), 5),
        (Task(), None),
        (Document(pk=KEY), str(KEY)),
        ([Task(pk=5)], [5]),
        (SimpleLazyObject(lambda: Task(pk=6)), 6),
        ("\\u0000", "\\u0000"),
    ],
)
def test_a_value_becomes_json(value: object, expected: object):
    assert json.loads(fragment("x", value)) == expected


@pytest.mark.parametrize("value", ["a\0b", {"a\0": 1}, ["\\\0"]])
def test_nul_is_refused(value: object):
    with pytest.raises(ValueError, match=r"context\(reason=…\).*NUL"):
        djcrf_pg.context(reason=value).__enter__()
    assert current.get() is None


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), "\ud800"])
def test_what_json_cannot_hold_is_refused(value: object):
    with pytest.raises(ValueError, match=r"context\(reason=…\)"):
        djcrf_pg.context(reason=value).__enter__()


def test_a_structure_that_contains_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ValueError, match=r"context\(reason=…\)"):
        djcrf_pg.context(reason=endless).__enter__()


def test_what_is_no_json_is_refused():
    with pytest.raises(TypeError, match=r"context\(reason=…\).*object.*Pass JSON data"):
        djcrf_pg.context(reason=object()).__enter__()


def test_nested_blocks_merge_and_end_with_their_errors():
    with djcrf_pg.context(user=1, reason="outer"):
        with suppress(ZeroDivisionError), djcrf_pg.context(reason="inner", request_id="r", self=3):
            assert told() == {"user": 1, "reason": "inner", "request_id": "r", "self": 3}
            raise ZeroDivisionError
        assert told() == {"user": 1, "reason": "outer"}
    assert told() is None


def test_values_are_taken_when_the_block_begins_and_callables_when_asked():
    taken, calls = {"a": 1}, iter([Task(pk=1), Task(pk=2)])
    with djcrf_pg.context(taken=taken, called=lambda: next(calls)):
        taken["a"] = 2
        assert told() == {"taken": {"a": 1}, "called": 1}
        with djcrf_pg.context():
            assert told() == {"taken": {"a": 1}, "called": 2}
        with djcrf_pg.context(called="no more"):
            assert told() == {"taken": {"a": 1}, "called": "no more"}


def test_what_is_known_needs_no_call():
    state = State.inside(None, {"a": 1, "b": lambda: pytest.fail("called")})
    assert json.loads(state.known()) == {"a": 1}


def test_one_object_can_be_entered_again_and_in_itself():
    block = djcrf_pg.context(a=1)
    with block, djcrf_pg.context(a=2), block:
        assert told() == {"a": 1}
    with block:
        assert told() == {"a": 1}
    assert told() is None


def test_a_function_is_decorated():
    @djcrf_pg.context(job="nightly")
    def work(again: bool = True) -> object:
        """Work."""
        return (told(), work(False)) if again else told()

    assert work() == ({"job": "nightly"}, {"job": "nightly"})
    assert (work.__name__, work.__doc__, told()) == ("work", "Work.", None)


async def test_a_coroutine_function_is_decorated():
    @djcrf_pg.context(job="nightly")
    async def work() -> object:
        return told()

    pending = work()
    assert told() is None
    assert await pending == {"job": "nightly"}
    assert told() is None


def test_generators_are_not_decorated():
    def rows() -> Iterator[int]:
        yield 1

    async def more():
        yield 1

    for function in (rows, more):
        with pytest.raises(TypeError, match=r"generator .*Use `with"):
            djcrf_pg.context(a=1)(function)


def test_the_package_is_imported_without_settings():
    code = "import djcrf_pg, sys; djcrf_pg.context, djcrf_pg.suspend; assert 'context' in dir(djcrf_pg)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    with pytest.raises(AttributeError, match="no attribute 'contexts'"):
        djcrf_pg.contexts  # noqa: B018
