"""The relations that a serializer follows, read off its fields, and what it shows of the rows at their ends.

Each relation that a body shows is a query for each event, unless it is loaded for all instances of a batch
(:mod:`djcrf_pg.routing.prefetch`); and a change of the rows there makes the body stale
(:mod:`djcrf_pg.observer.related`). What a field follows is known from its ``source``, and from the source code of a
property or a method of the model that it names, as far as that takes attributes of ``self``. What a method of the
serializer does is not looked at. A relation that is found and not used costs a query a batch; one that is not found is
loaded as before, event by event.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.core.exceptions import FieldDoesNotExist
from django.db.models import ForeignObjectRel, Model, OrderBy, Prefetch
from django.db.models.manager import BaseManager
from django.utils.functional import cached_property
from rest_framework.fields import SerializerMethodField
from rest_framework.relations import (
    ManyRelatedField,
    PrimaryKeyRelatedField,
    RelatedField,
    SlugRelatedField,
    StringRelatedField,
)
from rest_framework.serializers import BaseSerializer, ListSerializer, Serializer

from djcrf_pg.exceptions import ObserverError

#: Properties that use properties are followed so far.
_DEEPEST = 4

#: What of a class is read for what it takes of ``self``.
_READABLE = (property, functools.cached_property, cached_property, FunctionType)

Path = tuple[str, ...]

#: What is shown of a row: these fields; None for whatever it has.
Shown = frozenset[str] | None

_known: "WeakKeyDictionary[type[BaseSerializer[Any]], dict[type[Model], tuple[_Use, ...]]]" = WeakKeyDictionary()


class _Use(NamedTuple):
    """What a serializer has from a row.

    Attributes:
        path: The relations that lead to the row.
        field: The field; None for whatever it has, and "" for nothing but that it is there.
        is_loaded: Whether it is had from what is loaded beforehand, and not by a query of its own.
    """

    path: Path
    field: str | None = ""
    is_loaded: bool = True


def lookups_of(serializer_class: type[BaseSerializer[Any]], model: type[Model]) -> tuple[str, ...]:
    """The relations of a model that a serializer of it follows, as ``prefetch_related`` takes them.

    Args:
        serializer_class: The class.
        model: What its instances are of.

    Returns:
        The lookups, without those that others begin with. Nothing for a class that cannot be instantiated.
    """
    try:
        uses = _uses_of(serializer_class, model)
    except Exception:
        return ()  # what is wrong with it, the event tells
    paths = dict.fromkeys(use.path for use in uses if use.is_loaded)
    return tuple("__".join(path) for path in paths if path and not any(_leads(path, other) for other in paths))


def shown_by(serializer_class: type[BaseSerializer[Any]], model: type[Model]) -> Mapping[Path, Shown]:
    """What a serializer of a model shows of the rows that it follows relations to.

    Args:
        serializer_class: The class.
        model: What its instances are of.

    Returns:
        By the relations that lead there, ``()`` for the instance itself. That has None where the serializer has code of
            its own, which may follow more relations.

    Raises:
        Exception: What the class raises where it cannot be instantiated.
    """
    found: dict[Path, set[str] | None] = {}
    for path, field, _ in _uses_of(serializer_class, model):
        for way in ((), *ways(path)):
            found.setdefault(way, set())
        fields = found[path]
        if field is None:
            found[path] = None
        elif field and fields is not None:
            fields.add(field)
    return {path: fields if fields is None else frozenset(fields) for path, fields in found.items()}


def ways(path: Path) -> list[Path]:
    """A path up to each of its relations.

    Args:
        path: The relations.
    """
    return [path[:end] for end in range(1, len(path) + 1)]


def _uses_of(serializer_class: type[BaseSerializer[Any]], model: type[Model]) -> "tuple[_Use, ...]":
    known = _known.setdefault(serializer_class, {})
    if model not in known:
        uses = list(_of_serializer(serializer_class(), model))
        for path in dict.fromkeys(way for use in uses for way in ways(use.path)):
            _, there, rest = _follow(model, path)
            if there is not None and not rest and _is_many(model, path):
                uses += _behind(path, _of_choice(there))
        known[model] = tuple(uses)
    return known[model]


def _of_choice(model: type[Model]) -> Iterator[_Use]:
    """What of many rows decides which of them a relation gives, and in what order; none of it is loaded for that."""
    if type(model._default_manager).get_queryset is not BaseManager.get_queryset:
        yield _Use((), None, False)  # it may hide rows, by whatever they have
    yield from _of_order(model)


def _of_order(model: type[Model], depth: int = 0) -> Iterator[_Use]:
    for order in model._meta.ordering or ():
        expression: Any = order.expression if isinstance(order, OrderBy) else order
        name = getattr(expression, "name", expression)  # that of an F, or what is one
        path, there, rest = _follow(model, name.lstrip("-").split("__") if isinstance(name, str) else ["?"])
        column = None if there is None or not rest else _column(there, rest[0])
        if column is not None:
            yield _Use(path, column.name, False)
        elif rest:
            yield _Use(path, None if rest[0] != "pk" else "", False)
        else:  # in the order that the model there has
            yield _Use(path[:-1], path[-1], False)
            if there is not None and depth < _DEEPEST:
                yield from _behind(path, _of_order(there, depth + 1))


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
            here = None if field is None else field.related_model
    return given + tuple(lookup for lookup in found if lookup not in named)


def _leads(path: Path, other: Path) -> bool:
    return len(path) < len(other) and other[: len(path)] == path


def _of_serializer(serializer: Any, model: type[Model] | None) -> Iterator[_Use]:
    """What a serializer has from instances of a model."""
    if isinstance(serializer, ListSerializer):
        if not _represents_as(serializer, ListSerializer):
            yield _Use((), None)
        serializer = serializer.child
    if model is None:
        return
    if not isinstance(serializer, Serializer) or not _represents_as(serializer, Serializer):
        yield _Use((), None)
    if isinstance(serializer, Serializer):
        for field in serializer._readable_fields:
            yield from _of_field(field, model)


def _of_field(field: Any, model: type[Model]) -> Iterator[_Use]:
    if isinstance(field, SerializerMethodField):
        yield _Use((), None)
        return
    names: list[str] = field.source_attrs
    if isinstance(field, RelatedField) and field.use_pk_only_optimization() and _is_foreign_key(model, names):
        yield _Use(tuple(names[:-1]), names[-1])  # the key is in the row
        return
    path, there, rest = _follow(model, names)
    yield _Use(path)
    if there is None:
        return
    if rest == ["all"] and _is_many(model, path):
        rest = ()  # "labels.all" is what "labels" is
    if rest:
        yield from _of_attribute(there, path, rest[0])
    else:
        inner = field.child_relation if isinstance(field, ManyRelatedField) else field
        yield from _behind(path, _of_value(inner, there))


def _of_value(field: Any, model: type[Model]) -> Iterator[_Use]:
    """What is had from an instance of a model to show it."""
    if isinstance(field, BaseSerializer):
        yield from _of_serializer(field, model)
    elif isinstance(field, SlugRelatedField) and _represents_as(field, SlugRelatedField):
        path, there, rest = _follow(model, field.slug_field.split("__"))
        yield _Use(path) if rest else _Use(path, None)
        if rest and there is not None:
            yield from _of_attribute(there, path, rest[0])
    elif not (isinstance(field, PrimaryKeyRelatedField) and _represents_as(field, PrimaryKeyRelatedField)):
        yield _Use((), None)
        if isinstance(field, StringRelatedField):
            yield from _of_attribute(model, (), "__str__")


def _represents_as(field: Any, base: type) -> bool:
    """Whether no code of the project's or of a package makes what is shown."""
    return type(field).to_representation is base.to_representation  # type: ignore[attr-defined]


def _behind(path: Path, uses: Iterable[_Use]) -> Iterator[_Use]:
    for use in uses:
        yield use._replace(path=path + use.path)


def _follow(model: type[Model], names: Sequence[str]) -> tuple[Path, type[Model] | None, Sequence[str]]:
    """Follow names as far as they are those of relations: the way, the model at its end, and the rest."""
    here: type[Model] | None = model
    for place, name in enumerate(names):
        relation = None if here is None else relation_of(here, name)
        if relation is None:
            return tuple(names[:place]), here, names[place:]
        here = relation.related_model  # None where that differs from row to row
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
        # A relation to a proxy is among those of its model, which has no such attribute.
        if relation.get_accessor_name() == name and hasattr(model, name):
            return relation
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    # A reverse relation has another name as an attribute, and what is found by the name of a column is no relation.
    return None if isinstance(field, ForeignObjectRel) or field.name != name else field


def relation_of(model: type[Model], name: str) -> Any:
    """The field of a relation, or the relation of another model's field, behind an attribute; None where it is none.

    Args:
        model: The model.
        name: Of the attribute.
    """
    field = _field(model, name)
    return field if field is not None and field.is_relation else None


def _of_attribute(model: type[Model], path: Path, name: str, depth: int = 0) -> Iterator[_Use]:
    """What is had by an attribute of a row: a field, or what the source of a property or a method takes."""
    if name == "pk" or (field := _column(model, name)) is not None:
        yield _Use(path, model._meta.pk.name if name == "pk" else field.name)
        return
    yield _Use(path, None)
    found = inspect.getattr_static(model, name, None)
    if not isinstance(found, _READABLE) or depth > _DEEPEST:
        return
    function: Any = getattr(found, "fget", None) or getattr(found, "func", None) or found
    # The source is that of what a decorator wraps, and so has to be the name of ``self``.
    for names in _attributes_of_self(inspect.unwrap(function)):
        way, there, rest = _follow(model, names)
        if not way:
            if rest and _column(model, rest[0]) is None:
                yield from _of_attribute(model, path, rest[0], depth + 1)
        elif _is_many(model, way):
            # What a filter gives is another query.
            is_loaded = not rest or rest[0] == "all"
            yield _Use(path + way, None, is_loaded)
            yield _Use(path + way[:-1])
        else:
            yield _Use(path + way, None if not rest else "")
            if rest and there is not None:
                yield from _of_attribute(there, path + way, rest[0], depth + 1)


def _column(model: type[Model], name: str) -> Any:
    """The field of the model's tables that has an attribute."""
    return next((field for field in model._meta.concrete_fields if name in (field.name, field.attname)), None)


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
