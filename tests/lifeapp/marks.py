"""Marks that migrations leave in the table that they alter, and so in the change log."""

from typing import Any

from django.db.migrations import RunPython

VALUES = {
    "title": "label -{}",
    "label": "label -{}",
    "amount": "-{}",
    "note": "note -{}",
    "left": "left -{}",
    "right": "right -{}",
    "extra": "extra -{}",
}


def mark(stage: int, model: str) -> RunPython:
    """Insert the row ``n = -stage``: what has a smaller id in the log was written before the migration, the rest after.

    Nobody else writes between an ALTER TABLE and the end of its transaction.
    """

    def insert(apps: Any, schema_editor: Any) -> None:
        historical = apps.get_model("lifeapp", model)
        names = {field.name for field in historical._meta.fields}
        values = {name: value.format(stage) for name, value in VALUES.items() if name in names}
        historical.objects.create(n=-stage, **values)

    return RunPython(insert, RunPython.noop)
