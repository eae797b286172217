"""What is written to and compared."""

import json
from typing import Any

LANES = ("todo", "doing", "done")
KEYS = range(1, 11)
LABELS = range(1, 5)
PROJECTS = range(1, 4)

#: Groups that are one client's each, by the last digit of the key; and that of the client that is compared.
OWN = range(10)
STEADY = 3

Rows = dict[int, dict[str, Any]]

_TASKS = "SELECT id, project_id AS project, title, status, points, body FROM testapp_task"

_CARD = (
    "id, title, (SELECT json_build_object('name', name) FROM testapp_project WHERE id = project_id) AS project,"
    " ARRAY(SELECT name FROM testapp_task_labels JOIN testapp_label AS label ON label.id = label_id"
    "  WHERE task_id = task.id) AS labels"
)

#: What each subscription is a copy of.
QUERIES = {
    "all_tasks": _TASKS,
    **{f"lane {lane}": f"{_TASKS} WHERE status = '{lane}'" for lane in LANES},
    f"own {STEADY}": f"{_TASKS} WHERE id % {len(OWN)} = {STEADY}",
    "labelled": (
        "SELECT id, ARRAY(SELECT label_id FROM testapp_task_labels WHERE task_id = task.id) AS labels"
        " FROM testapp_task AS task"
    ),
    "all_projects": "SELECT id, name FROM testapp_project",
    "cards": f"SELECT {_CARD} FROM testapp_task AS task",
    "boards": (
        f"SELECT id, ARRAY(SELECT row_to_json(card) FROM (SELECT {_CARD} FROM testapp_task AS task"
        " WHERE project_id = project.id) AS card) AS tasks FROM testapp_project AS project"
    ),
}


def subscription(name: str) -> dict[str, str]:
    """What the consumer's action `subscribe` is told for one of these names."""
    observer, _, group = name.partition(" ")
    return {"action": "subscribe", "observer": observer, **({"group": group} if group else {})}


def in_order(value: Any) -> Any:
    """A body with its lists sorted: rows come in any order, from the database and in events."""
    if isinstance(value, dict):
        return {name: in_order(each) for name, each in value.items()}
    return sorted(map(in_order, value), key=json.dumps) if isinstance(value, list) else value
