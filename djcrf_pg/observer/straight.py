"""The straight way from an instance to its body, for serializers whose own way is REST framework's.

``Serializer.to_representation`` asks for its fields each time, and each field looks its value up by the names of its
source. Of one serializer that makes many bodies the fields are the same, and the value of a field of the model is in
the instance; so are the rows of a relation that were fetched before. What a field makes of the value is left to the
field, but for what most bodies are made of: text and numbers that stay as they are, decimals that have the field's
places, and times. Everything else is REST framework's: a serializer with another ``to_representation``, a field with
another ``get_attribute``, a value that is not in the instance, or that can be called.
"""

import inspect
from collections.abc import Callable
from contextvars import Context, copy_context
from datetime import datetime, tzinfo
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Model
from django.db.models.fields.related_descriptors import (
    ForwardManyToOneDescriptor,
    ManyToManyDescriptor,
    ReverseManyToOneDescriptor,
)
from django.db.models.manager import BaseManager
from django.utils.timezone import get_current_timezone
from rest_framework import ISO_8601
from rest_framework.fields import (
    BooleanField,
    CharField,
    DateTimeField,
    DecimalField,
    Field,
    FloatField,
    IntegerField,
    SkipField,
)
from rest_framework.relations import PKOnlyObject
from rest_framework.serializers import ListSerializer, Serializer
from rest_framework.settings import api_settings

from djcrf_pg.instances import PLACES

Make = Callable[[Any], Any]

#: What these fields make of a value of exactly this type is the value.
_PLAIN: dict[type, type] = {CharField: str, IntegerField: int, FloatField: float, BooleanField: bool}


#: What stands for a relation at a class, and gives the rows that were fetched before.
_TO_ONE, _TO_MANY = {ForwardManyToOneDescriptor}, {ManyToManyDescriptor, ReverseManyToOneDescriptor}


class _Step(NamedTuple):
    """How a field comes into a body.

    Attributes:
        name: Of the field.
        attname: The attribute that holds its value; None where the field finds it.
        find: How the field does.
        plain: The type of values that stay as they are; None where there is none.
        make: What it makes of others.
    """

    name: str
    attname: str | None
    find: Make
    plain: type | None
    make: Make


def straight(serializer: Any) -> Make:
    """What makes the body of an instance, the same as the serializer's ``to_representation``.

    Args:
        serializer: The serializer. Its fields must not change any more.
    """
    cls = type(serializer)
    if _is_as(cls, ListSerializer, "to_representation"):
        return _many(straight(serializer.child))
    if not (_is_as(cls, Serializer, "to_representation") and _is_as(cls, Serializer, "_readable_fields")):
        make: Make = serializer.to_representation
        return make
    known: dict[type, tuple[bool, list[_Step]]] = {}

    def represent(instance: Any) -> Any:
        kind = type(instance)
        if (own := known.get(kind)) is None:
            own = known[kind] = issubclass(kind, Model), _steps(serializer, kind)
        is_of_model, steps = own
        values = vars(instance) if is_of_model else {}
        body = {}
        for name, attname, find, plain, make in steps:
            if attname is None or attname not in values or callable(value := values[attname]):
                try:
                    value = find(instance)
                except SkipField:
                    continue
                if (value.pk if isinstance(value, PKOnlyObject) else value) is None:
                    value = None
            body[name] = value if value is None or type(value) is plain else make(value)
        return body

    return represent


def _many(make: Make) -> Make:
    def represent(data: Any) -> list[Any]:
        return [make(each) for each in (data.all() if isinstance(data, BaseManager) else data)]

    return represent


def _steps(serializer: Any, kind: type) -> list[_Step]:
    return [
        _Step(field.field_name, _attname(field, kind), _find(field, kind), _plain(field), _make(field))
        for field in serializer._readable_fields
    ]


def _plain(field: Any) -> type | None:
    # A boolean has sets of values that a class may have others of.
    own = (base for base in _PLAIN if _is_as(type(field), base, "to_representation"))
    return next((_PLAIN[base] for base in own if base is not BooleanField or type(field) is base), None)


def _make(field: Any) -> Make:
    if isinstance(field, (Serializer, ListSerializer)):
        return straight(field)
    make: Make = field.to_representation
    methods = ("to_representation", "enforce_timezone", "default_timezone")
    if all(_is_as(type(field), DateTimeField, name) for name in methods):
        form = getattr(field, "format", api_settings.DATETIME_FORMAT)
        if settings.USE_TZ and isinstance(form, str) and form.lower() == ISO_8601:
            return _moment(field, make)
    if all(_is_as(type(field), DecimalField, name) for name in ("to_representation", "quantize")):
        return _decimal(field, make)
    return make


def _decimal(field: Any, make: Make) -> Make:
    """What a field makes of numbers that have as many places as it shows: their text; it is asked for others."""
    digits, places = field.max_digits, field.decimal_places
    as_text = getattr(field, "coerce_to_string", api_settings.COERCE_DECIMAL_TO_STRING)
    if digits is None or (places or 0) < 1 or not as_text or field.normalize_output or field.localize:
        return make

    def represent(value: Any) -> Any:
        if type(value) is Decimal:
            text = f"{value:f}"
            # No more digits than it takes, whatever of them are zeros at the beginning, or the sign.
            if len(text) <= digits + 1 and text[-places - 1 : -places] == ".":
                return text
        return make(value)

    return represent


class _Zone:
    """The current time zone; Django is asked again when a context variable has changed, for one of them holds it."""

    def __init__(self) -> None:
        self._known: tuple[Context, tzinfo] | None = None

    def __call__(self) -> tzinfo:
        context = copy_context()
        try:
            if self._known is not None and self._known[0] == context:
                return self._known[1]
        except Exception:
            pass  # somebody's value cannot be compared
        self._known = context, get_current_timezone()
        return self._known[1]


def _moment(field: Any, make: Make) -> Make:
    """What a field makes of times that have an offset, in ISO 8601; the field itself is asked for others."""
    own, current = getattr(field, "timezone", None), _Zone()

    def represent(value: Any) -> Any:
        if type(value) is not datetime or value.tzinfo is None:
            return make(value)
        try:
            # The zone may be another for each row: whoever makes the groups can activate one.
            text = value.astimezone(own or current()).isoformat()
        except OverflowError:
            return make(value)
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text

    return represent


def _attname(field: Any, kind: type) -> str | None:
    """The attribute of an instance that holds what a field would find."""
    name = _source(field, kind) if issubclass(kind, Model) else None
    return None if name is None or type(inspect.getattr_static(kind, name, None)) not in PLACES else name


def _source(field: Any, kind: Any) -> str | None:
    """The one attribute that a field takes its value from, as it is."""
    if len(field.source_attrs) != 1 or not _is_as(type(field), Field, "get_attribute"):
        return None
    if kind.__getattribute__ is not object.__getattribute__:
        return None
    name: str = field.source_attrs[0]
    return name


def _find(field: Any, kind: type) -> Make:
    """How a field finds its value; rows that were fetched before are where Django would find them."""
    find: Make = field.get_attribute
    if not issubclass(kind, Model) or (name := _source(field, kind)) is None:
        return find
    place = type(inspect.getattr_static(kind, name, None))
    if place in _TO_ONE:
        return partial(_fetched_one, name, find)
    if place in _TO_MANY and _is_as(type(field), ListSerializer, "to_representation"):
        return _FetchedMany(name, find)
    return find


def _fetched_one(name: str, find: Make, instance: Any) -> Any:
    found = instance._state.fields_cache.get(name)
    return find(instance) if found is None else found


class _FetchedMany:
    """Finds the rows of a relation to many; its manager is made where they were not fetched, and once to be sure.

    Args:
        name: Of the relation.
        find: How the field finds its manager.
    """

    def __init__(self, name: str, find: Make) -> None:
        self._name, self._find = name, find
        self._is_sure: bool | None = None

    def __call__(self, instance: Any) -> Any:
        rows = instance.__dict__.get("_prefetched_objects_cache", {}).get(self._name)
        if rows is None or self._is_sure is False:
            return self._find(instance)
        if self._is_sure is None:
            manager = self._find(instance)
            self._is_sure = getattr(type(manager), "all", None) is BaseManager.all and manager.all() is rows
            return manager
        return rows


def _is_as(cls: type, base: type, name: str) -> bool:
    """Whether a class has a method of REST framework's, which nobody has put another one in the place of."""
    method = getattr(base, name)
    return getattr(cls, name, None) is method and _is_theirs(getattr(method, "fget", method))


@lru_cache(maxsize=16)
def _is_theirs(function: Any) -> bool:
    module: str = getattr(function, "__globals__", {}).get("__name__", "")
    return module.partition(".")[0] == "rest_framework"
