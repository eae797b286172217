"""Which model lives where."""

from typing import Any

from django.db.models import Model

_PLACES = {"note": "lite", "remote": "second"}


class Router:
    """Notes are in SQLite, remotes in the second database, everything else is in the default one."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        """The alias that a model is read from."""
        return _PLACES.get(model._meta.model_name or "", "default")

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool:
        """Whether a model has a table there; without a model, whether raw SQL of the app runs there."""
        if app_label == "djcrf_pg":
            return db != "lite"
        return _PLACES.get(model_name or "", "default") == db
