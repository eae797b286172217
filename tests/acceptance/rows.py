"""Tasks, and what the board's observer ``full`` says of them."""

from typing import Any

from tests.testapp.models import Task


class Interrupted(Exception):
    """Rolls a block back."""


def task(title: str = "a", **values: Any) -> Task:
    return Task.objects.create(title=title, **values)


def row(task: Task) -> dict[str, Any]:
    """What TaskSerializer makes of a task."""
    names = ("id", "title", "status", "points", "body")
    return {**{name: getattr(task, name) for name in names}, "project": task.project_id}
