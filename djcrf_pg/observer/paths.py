"""The relations that a serializer follows, read off its fields, as lookups of ``prefetch_related``.

Each relation that a body shows is a query for each event, unless it is loaded for all instances of a batch
(:mod:`djcrf_pg.routing.prefetch`). What a field follows is known from its ``source``, and from the source code of a
property or a method of the model that it names, as far as that takes attributes of ``self``. What a method of the
serializer does is not looked at. A relation that is found and not used costs a query a batch; one that is not found is
loaded as before, event by event.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from django.core.exceptions import FieldDoesNotExist
from django.db.models import ForeignObjectRel, Model, Prefetch
from rest_framework.fields import SerializerMethodField
from rest_framework.relations import ManyRelatedField, RelatedField, SlugRelatedField, StringRelatedField
from rest_framework.serializers import BaseSerializer, ListSerializer, Serializer

from djcrf_pg.exceptions import ObserverError

#: Properties that use properties are followed so far.
_DEEPEST = 4

Path = tuple[str, ...]

_known: "WeakKeyDictionary[type[BaseSerializer[Any]], dict[type[Model], tuple[str, ...]]]" = WeakKeyDictionary()


def lookups_of(serializer_class: type[BaseSerializer[Any]], model: type[Model]) -> tuple[str, ...]:
    """The relations of a model that a serializer of it follows, as ``prefetch_related`` takes them.

    Args:
        serializer_class: The class.
        model: What its instances are of.

    Returns:
        The lookups, without those that others begin with. Nothing for a class that cannot be instantiated.
    """
    known = _known.setdefault(serializer_class, {})
    if model not in known:
        try:
            paths = dict.fromkeys(_of_serializer(serializer_class(), model))
        except Exception:
            paths = {}  # what is wrong with it, the event tells
        longest = [path for path in paths if path and not any(_leads(path, other) for other in paths)]
        known[model] = tuple("__".join(path) for path in longest)
    return known[model]


def with_given(
    model: type[Model], given: "Iterable[str | Prefetch[Any]]", found: Iterable[str]
) -> "tuple[str | Prefetch[Any], ...]":
    """The lookups that an observer names, and those that were found and are not among them.

    Args:
        model: The model.
        given: Those that it names; they come first, as a ``Prefetch`` has to.
        found: Those that were found.

    Raises:
        ObserverError: A name is none of the model's.
    """
    given = tuple(given)
    named = [lookup.prefetch_through if isinstance(lookup, Prefetch) else lookup for lookup in given]
    for lookup in named:
        here: Any = model
        for name in lookup.split("__"):
            field = None if here is None else _field(here, name)
            if here is not None and (not hasattr(here, name) or (field is not None and not field.is_relation)):
                raise ObserverError(f"prefetch has {lookup!r}, and {here._meta.label} has no relation {name!r}.")
            here = here and _relation(here, name)
    return given + tuple(lookup for lookup in found if lookup not in named)


def _leads(path: Path, other: Path) -> bool:
    return len(path) < len(other) and other[: len(path)] == path


def _of_serializer(serializer: Any, model: type[Model] | None) -> Iterator[Path]:
    """What a serializer of instances of a model follows."""
    if isinstance(serializer, ListSerializer):
        serializer = serializer.child
    if not isinstance(serializer, Serializer) or model is None:
        return
    for field in serializer._readable_fields:
        yield from _of_field(field, model)


def _of_field(field: Any, model: type[Model]) -> Iterator[Path]:
    if isinstance(field, SerializerMethodField):
        return
    names: list[str] = field.source_attrs
    if isinstance(field, RelatedField) and field.use_pk_only_optimization() and _is_foreign_key(model, names):
        names = names[:-1]  # the key is in the row
    path, there, rest = _follow(model, names)
    yield path
    if rest:
        yield from _of_attribute(there, path, rest[0]) if there is not None else ()
    elif names == field.source_attrs and there is not None:
        inner = field.child_relation if isinstance(field, ManyRelatedField) else field
        for more in _of_value(inner, there):
            yield path + more


def _of_value(field: Any, model: type[Model]) -> Iterator[Path]:
    """What is followed to show an instance of a model."""
    if isinstance(field, BaseSerializer):
        yield from _of_serializer(field, model)
    elif isinstance(field, SlugRelatedField):
        path, there, rest = _follow(model, field.slug_field.split("__"))
        yield path
        if rest and there is not None:
            yield from _of_attribute(there, path, rest[0])
    elif isinstance(field, StringRelatedField):
        yield from _of_attribute(model, (), "__str__")


def _follow(model: type[Model], names: Sequence[str]) -> tuple[Path, type[Model] | None, Sequence[str]]:
    """Follow names as far as they are those of relations: the way, the model at its end, and the rest."""
    here: type[Model] | None = model
    for place, name in enumerate(names):
        if here is None or not _is_relation(here, name):
            return tuple(names[:place]), here, names[place:]
        here = _relation(here, name)
    return tuple(names), here, ()


def _is_foreign_key(model: type[Model], names: Sequence[str]) -> bool:
    """Whether names end at a foreign key, whose value is in the row that has it."""
    if not names:
        return False
    _, there, rest = _follow(model, names[:-1])
    if there is None or rest:
        return False
    return any(field.name == names[-1] and field.is_relation for field in there._meta.concrete_fields)


def _field(model: type[Model], name: str) -> Any:
    """The field, or the relation of another model's field, behind an attribute; None where it is none."""
    for relation in model._meta.related_objects:
        if relation.get_accessor_name() == name:
            return relation
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    # A reverse relation has another name as an attribute, and what is found by the name of a column is no relation.
    return None if isinstance(field, ForeignObjectRel) or field.name != name else field


def _is_relation(model: type[Model], name: str) -> bool:
    field = _field(model, name)
    return field is not None and bool(field.is_relation)


def _relation(model: type[Model], name: str) -> type[Model] | None:
    """The model that a relation leads to; None where that differs from row to row."""
    field = _field(model, name)
    related: type[Model] | None = None if field is None else field.related_model
    return related


def _of_attribute(model: type[Model], path: Path, name: str, depth: int = 0) -> Iterator[Path]:
    """What a property or a method of a model follows, by its source."""
    found = inspect.getattr_static(model, name, None)
    function = getattr(found, "fget", None) or getattr(found, "func", None) or found
    if not isinstance(found, property | cached_property | FunctionType) or depth > _DEEPEST:
        return
    for names in _attributes_of_self(function):
        way, there, rest = _follow(model, names)
        if way and there is not None and rest and _is_many(model, way) and rest[0] != "all":
            way = way[:-1]  # what a filter gives is another query
        yield path + way
        if not way and rest and there is not None:
            yield from _of_attribute(model, path, rest[0], depth + 1)
        elif rest and there is not None and not _is_many(model, way):
            yield from _of_attribute(there, path + way, rest[0], depth + 1)


def _is_many(model: type[Model], path: Path) -> bool:
    """Whether a relation gives a manager, not an instance."""
    _, there, _ = _follow(model, path[:-1])
    field = None if there is None or not path else _field(there, path[-1])
    return field is not None and bool(field.one_to_many or field.many_to_many)


def source_of(function: Any) -> ast.AST | None:
    """The source code of a function; None where it cannot be read."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None


def _attributes_of_self(function: Any) -> list[list[str]]:
    """The names that code takes one after the other, beginning with its first argument: ``self.a.b`` is ``a, b``."""
    tree = source_of(function)
    if tree is None or not isinstance(function, FunctionType) or not function.__code__.co_argcount:
        return []
    me = function.__code__.co_varnames[0]
    found = []
    inner: set[int] = set()
    for node in ast.walk(tree):  # from the outside in
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        names: list[str] = []
        here: ast.expr = node
        while isinstance(here, ast.Attribute):
            inner.add(id(here))
            names.insert(0, here.attr)
            here = here.value
        if isinstance(here, ast.Name) and here.id == me:
            found.append(names)
    return found
