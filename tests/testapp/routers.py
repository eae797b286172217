"""Which model lives where."""

from typing import Any

from django.db.models import Model

_PLACES = {"note": "lite"}


class Router:
    """Notes are in SQLite, everything else is in PostgreSQL."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        """The alias that a model is read from."""
        return _PLACES.get(model._meta.model_name or "", "default")

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool:
        """Whether a model has a table there."""
        if model_name is None:
            # Raw SQL of the tests' migrations is PostgreSQL's.
            return db == "default" or app_label == "djcrf_pg"
        return _PLACES.get(model_name, "default") == db
