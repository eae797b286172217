"""What groups and serializers of one event leave behind is not there for the next."""

from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

import pytest
from django.utils import timezone, translation

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.delivery.envelope import parse
from djcrf_pg.delivery.interest import EVERYTHING
from djcrf_pg.observer import model_observer
from djcrf_pg.routing.events import events
from djcrf_pg.routing.routes import Occurrence
from tests.testapp.models import Task
from tests.unit.origin import ORIGIN


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """The handler of an observer."""


def activate(task: Task) -> None:
    """Speak to those who are told of a task as they want it."""
    if task.title == "theirs":
        translation.activate("de")
        timezone.activate("Asia/Tokyo")


@pytest.mark.parametrize("part", ["groups", "serializer"])
def test_a_language_and_a_time_zone_are_not_those_of_the_next_event(part: str) -> None:
    observer = model_observer(Task)(handler)

    def groups(self: Any, instance: Task, **kwargs: Any) -> Any:
        if part == "groups":
            activate(instance)
        yield "a group"

    def serializer(self: Any, instance: Task, action: Any, **kwargs: Any) -> Any:
        if part == "serializer":
            activate(instance)
        return [translation.get_language(), timezone.get_current_timezone_name()]

    observer.groups_for_signal(groups).serializer(serializer)
    before = [translation.get_language(), timezone.get_current_timezone_name()]
    told = [
        Occurrence(RowChange(number, number, 1, None, None, None, datetime.now(UTC)), observer, new=Task(title=title))
        for number, title in enumerate(("theirs", "others'"))
    ]
    items, failed = copy_context().run(events, told, EVERYTHING, ORIGIN)
    assert not failed
    assert [parse(item.line).body for item in items] == [["de", "Asia/Tokyo"], before]
