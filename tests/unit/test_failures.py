"""When subscribers are told of failures, and how a row is named."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.delivery.protocol import EVERYBODY, Item
from djcrf_pg.listener.failures import PAUSE, Failures
from djcrf_pg.listener.service import Listener
from djcrf_pg.observer import model_observer
from djcrf_pg.routing.failed import Failure, key_text, key_values
from tests.testapp.models import Document, Task
from tests.zoo.models import Passport, Seat, Unique


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """A handler."""


def change(number: int) -> RowChange:
    return RowChange(number, number, 1, None, None, None, datetime(2026, 1, 1, tzinfo=UTC))


def groups(items: list[Item]) -> list[str]:
    return sorted(item.group for item in items)


def test_an_observer_is_told_once_in_a_while_and_in_the_end_of_everything() -> None:
    failures, observer = Failures(None), model_observer(Task)(handler)  # type: ignore[arg-type]
    assert failures.wait(0.0) is None
    for number, names in enumerate((["red"], ["red", "blue"]), 1):
        failures.tell(observer, change(number), names)
    assert failures.wait(100.0) == 0.0
    assert groups(failures.due(100.0)) == ["blue", "red"]
    assert failures.wait(100.0) is None
    failures.tell(observer, change(3), ["green"])
    assert failures.due(100.0 + PAUSE / 2) == []
    assert failures.wait(100.0 + PAUSE / 2) == PAUSE / 2
    failures.tell(observer, change(4))
    assert groups(failures.due(100.0 + PAUSE)) == sorted(["green", EVERYBODY])
    assert failures.due(100.0 + 2 * PAUSE) == []


def test_observers_wait_each_for_itself() -> None:
    failures = Failures(None)  # type: ignore[arg-type]
    first, second = model_observer(Task)(handler), model_observer(Document)(handler)
    failures.tell(first, change(1), ["a"])
    assert groups(failures.due(0.0)) == ["a"]
    failures.tell(first, change(2), ["a"])
    failures.tell(second, change(3), ["b"])
    assert groups(failures.due(1.0)) == ["b"]


@pytest.mark.parametrize(
    "instance",
    [Task(pk=5), Document(), Seat(hall="a, b", number=3), Passport(owner=Unique()), Task(pk=2**62)],
)
def test_a_row_is_found_by_the_text_of_its_key(instance: Any) -> None:
    values = key_values(type(instance), key_text(instance))
    assert values == {field.attname: getattr(instance, field.attname) for field in instance._meta.pk_fields}


@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit, GeneratorExit])
async def test_what_ends_a_task_does_not_end_the_one_that_waits_for_the_thread(kind: type[BaseException]) -> None:
    def work() -> None:
        raise kind

    with pytest.raises(RuntimeError, match=kind.__name__):
        await Listener("default").in_thread(work)


def test_what_postgresql_takes_for_no_text_is_told_all_the_same() -> None:
    observer = model_observer(Task)(handler)
    failure = Failure.of(observer, "serializer", '["1"]', 1, ValueError("a\0b\ud800"))
    assert failure.error == "ValueError('a\\x00b\\ud800')"
    assert "a\\0b\\ud800" in failure.traceback
