"""What is written to and compared."""

from typing import Any

LANES = ("todo", "doing", "done")
KEYS = range(1, 11)
LABELS = range(1, 5)
PROJECTS = range(1, 4)

Rows = dict[int, dict[str, Any]]

_TASKS = "SELECT id, project_id AS project, title, status, points, body FROM testapp_task"

#: What each subscription is a copy of.
QUERIES = {
    "all_tasks": _TASKS,
    **{f"lane {lane}": f"{_TASKS} WHERE status = '{lane}'" for lane in LANES},
    "labelled": (
        "SELECT id, ARRAY(SELECT label_id FROM testapp_task_labels WHERE task_id = task.id ORDER BY label_id) AS labels"
        " FROM testapp_task AS task"
    ),
    "all_projects": "SELECT id, name FROM testapp_project",
}
