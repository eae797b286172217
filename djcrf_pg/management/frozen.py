"""What the migrations of an app say of its triggers: the end of their history, read without a database."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from django.apps import AppConfig
from django.db.migrations import operations as django_operations
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import Model

from djcrf_pg.capture.operations import AlterTriggers


class Place(NamedTuple):
    """A table as the migrations know it: a model, or the join table of one of its many-to-many fields.

    By model and not by name, so that what renames a table need not be understood here.
    """

    model_name: str
    field_name: str | None = None


#: The name of a trigger to its statements.
Definitions = dict[str, tuple[str, ...]]


def place_of(model: type[Model]) -> Place:
    """Where the migrations of a model's app would look for its table."""
    # django-stubs say that it is True; it is the model whose field has made this one.
    owner: Any = model._meta.auto_created
    if not owner:
        return Place(model._meta.model_name or "")
    fields = owner._meta.local_many_to_many
    name = next(field.name for field in fields if field.remote_field.through is model)
    return Place(owner._meta.model_name, name)


def places(app: AppConfig) -> dict[str, Place]:
    """The tables of an app, by ``db_table``."""
    models = [model for model in app.get_models(include_auto_created=True) if not model._meta.proxy]
    return {model._meta.db_table: place_of(model) for model in models}


def installed(loader: MigrationLoader, app_label: str) -> dict[Place, Definitions]:
    """The triggers that an app's tables have once all of its migrations have run."""
    found: dict[Place, Definitions] = {}
    for operation in _operations(loader, app_label):
        found = _after(operation, found)
    return {place: definitions for place, definitions in found.items() if definitions}


def _operations(loader: MigrationLoader, app_label: str) -> Iterator[Operation]:
    for leaf in loader.graph.leaf_nodes(app_label):
        for key in loader.graph.forwards_plan(leaf):
            if key[0] == app_label:
                yield from _flat(loader.graph.nodes[key].operations)


def _flat(operations: Iterable[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if isinstance(operation, django_operations.SeparateDatabaseAndState):
            # A model that is renamed in the state alone is one that is renamed, for us.
            yield from _flat([*operation.state_operations, *operation.database_operations])
        else:
            yield operation


def _after(operation: Operation, found: dict[Place, Definitions]) -> dict[Place, Definitions]:
    match operation:
        case AlterTriggers():
            place = Place(operation.model_name.lower(), operation.field_name)
            there = {name: made for name, made in found.get(place, {}).items() if name not in operation.old}
            made = {name: tuple(statements) for name, statements in operation.new.items()}
            return {**found, place: {**there, **made}}
        case django_operations.RenameModel():
            model = operation.old_name.lower()
            return _moved(found, lambda place: place.model_name == model, model_name=operation.new_name.lower())
        case django_operations.RenameField():
            field = Place(operation.model_name.lower(), operation.old_name)
            return _moved(found, lambda place: place == field, field_name=operation.new_name)
        case django_operations.DeleteModel():
            return _without(found, lambda place: place.model_name == operation.name.lower())
        case django_operations.RemoveField():
            gone = Place(operation.model_name.lower(), operation.name)
            return _without(found, lambda place: place == gone)
    return found


def _moved(
    found: dict[Place, Definitions], concerns: Callable[[Place], bool], **changes: str
) -> dict[Place, Definitions]:
    return {place._replace(**changes) if concerns(place) else place: made for place, made in found.items()}


def _without(found: dict[Place, Definitions], concerns: Callable[[Place], bool]) -> dict[Place, Definitions]:
    return {place: made for place, made in found.items() if not concerns(place)}
