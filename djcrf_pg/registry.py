"""What is observed: the trigger-driven observers of this process, and the models behind them."""

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from django.apps import apps
from django.conf import settings
from django.db import connections, router
from django.db.models import Field, ManyToManyField, Model

from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ConfigurationError

if TYPE_CHECKING:
    Many2Many = ManyToManyField[Any, Any]
else:
    Many2Many = ManyToManyField


class Observed(Protocol):
    """What the lower layers need of a model observer."""

    @property
    def model_cls(self) -> type[Model]:
        """The observed model."""

    @property
    def label(self) -> str:
        """Where the observer is defined, for logs and errors."""

    @property
    def message_type(self) -> str:
        """The ``type`` of its channel-layer messages."""

    @property
    def many_to_many_fields(self) -> list[Many2Many]:
        """The fields whose join tables it watches."""

    def group_names_for_signal(self, *args: Any, **kwargs: Any) -> Iterable[str]:
        """The groups that an instance belongs to."""

    def serialize(self, instance: Model, action: Any, **kwargs: Any) -> dict[str, Any]:
        """The message that tells of an instance; its ``body`` is what counts."""


class Registry:
    """The observers of this process, held weakly and in the order of their definition.

    Weakly, because consumers that a test defines must end with the test.
    """

    def __init__(self) -> None:
        self._observers: list[weakref.ref[Any]] = []
        self._lock = threading.Lock()
        self.version = 0

    def add(self, observer: Observed) -> None:
        """Remember an observer; ``version`` rises, so that compiled routes are made anew."""
        with self._lock:
            self._observers.append(weakref.ref(observer, self._forget))
            self.version += 1

    def _forget(self, reference: "weakref.ref[Any]") -> None:
        with self._lock:
            self._observers = [known for known in self._observers if known is not reference]
            self.version += 1

    def __iter__(self) -> Iterator[Observed]:
        with self._lock:
            known = list(self._observers)
        for reference in known:
            if (observer := reference()) is not None:
                yield observer

    def on(self, alias: str) -> list[Observed]:
        """The observers whose model lives in database ``alias``."""
        return [observer for observer in self if lives_on(observer.model_cls, alias)]

    def tables(self, alias: str) -> dict[str, tuple[str, ...]]:
        """The tables of database ``alias`` that want triggers.

        Returns:
            ``db_table`` to the columns that must not leave it.

        Raises:
            ConfigurationError: ``OBSERVE`` or ``EXCLUDE`` name something that does not exist.
        """
        models: dict[type[Model], None] = {}
        for observer in self.on(alias):
            models[observer.model_cls] = None
            for field in observer.many_to_many_fields:
                models[through_of(field)] = None
        for label in get_settings().OBSERVE:
            model = model_of(label, "OBSERVE")
            if lives_on(model, alias):
                models[model] = None
        return {model._meta.db_table: excluded_columns(model) for model in models}


def through_of(field: Many2Many) -> type[Model]:
    """The model of the join table behind a many-to-many field."""
    through: type[Model] | None = field.remote_field.through
    if through is None:
        raise ConfigurationError(f"{field} has no join table")
    return through


def own_columns(model: type[Model]) -> "dict[str, Field[Any, Any]]":
    """The columns of the model's own table (those of its parents are in theirs), with their fields."""
    concrete = model._meta.concrete_model or model
    return {field.column: field for field in concrete._meta.local_concrete_fields if field.column}


def is_postgresql(model: type[Model]) -> bool:
    """Whether a model's rows are written to PostgreSQL."""
    return connections[router.db_for_write(model)].vendor == "postgresql"


def lives_on(model: type[Model], alias: str) -> bool:
    """Whether ``migrate`` makes the model's table in database ``alias``, and that is PostgreSQL."""
    return connections[alias].vendor == "postgresql" and router.allow_migrate_model(alias, model)


def model_of(label: str, setting: str) -> type[Model]:
    """The model with a label such as ``"app.Model"`` that a setting names.

    Raises:
        ConfigurationError: There is no such model.
    """
    try:
        return apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise ConfigurationError(f"DJCRF_PG[{setting!r}] names {label!r}: {error}") from error


def excluded_columns(model: type[Model]) -> tuple[str, ...]:
    """The columns of a model's table that never leave it, from ``EXCLUDE``.

    The password of the user model is excluded unless ``EXCLUDE`` has an entry for that model.

    Raises:
        ConfigurationError: ``EXCLUDE`` names a field that does not exist.
    """
    entries = {label.lower(): names for label, names in get_settings().EXCLUDE.items()}
    for label in entries:
        model_of(label, "EXCLUDE")
    names = entries.get(model._meta.label_lower)
    if names is None:
        is_user = model._meta.label == settings.AUTH_USER_MODEL and hasattr(model, "password")
        names = ["password"] if is_user else []
    columns = {field.name: column for column, field in own_columns(model).items()}
    if unknown := [name for name in names if name not in columns and name not in columns.values()]:
        raise ConfigurationError(
            f"DJCRF_PG['EXCLUDE'][{model._meta.label!r}] names {unknown[0]!r}, which is no field of its table; "
            f"it has {', '.join(columns)}."
        )
    return tuple(sorted(columns.get(name, name) for name in names))


registry = Registry()

#: What observers may keep for the length of one batch of the listener; None outside of one.
BATCH: ContextVar[dict[Any, Any] | None] = ContextVar("djcrf_pg.batch", default=None)
