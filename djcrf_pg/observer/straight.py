"""The straight way from an instance to its body, for serializers whose own way is REST framework's.

``Serializer.to_representation`` asks for its fields each time, and each field looks its value up by the names of its
source. Of one serializer that makes many bodies the fields are the same, and the value of a field of the model is in
the instance. What a field makes of the value is left to the field, but for what most bodies are made of: text and
numbers that stay as they are, and times. Everything else is REST framework's: a serializer with another
``to_representation``, a field with another ``get_attribute``, a value that is not in the instance, or that can be
called.
"""

import inspect
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Model
from django.db.models.manager import BaseManager
from django.utils.timezone import get_current_timezone
from rest_framework import ISO_8601
from rest_framework.fields import BooleanField, CharField, DateTimeField, Field, FloatField, IntegerField, SkipField
from rest_framework.relations import PKOnlyObject
from rest_framework.serializers import ListSerializer, Serializer
from rest_framework.settings import api_settings

from djcrf_pg.instances import PLACES

Make = Callable[[Any], Any]

#: What these fields make of a value of exactly this type is the value.
_PLAIN: dict[type, type] = {CharField: str, IntegerField: int, FloatField: float, BooleanField: bool}


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
    steps: dict[type, list[_Step]] = {}

    def represent(instance: Any) -> Any:
        kind = type(instance)
        if (own := steps.get(kind)) is None:
            own = steps[kind] = _steps(serializer, kind)
        values = vars(instance) if issubclass(kind, Model) else {}
        body = {}
        for name, attname, find, plain, make in own:
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
        _Step(field.field_name, _attname(field, kind), field.get_attribute, _plain(field), _make(field))
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
    return make


def _moment(field: Any, make: Make) -> Make:
    """What a field makes of times that have an offset, in ISO 8601; the field itself is asked for others."""
    own = getattr(field, "timezone", None)

    def represent(value: Any) -> Any:
        if type(value) is not datetime or value.tzinfo is None:
            return make(value)
        try:
            # The zone may be another for each row: whoever makes the groups can activate one.
            text = value.astimezone(own or get_current_timezone()).isoformat()
        except OverflowError:
            return make(value)
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text

    return represent


def _attname(field: Any, kind: type) -> str | None:
    """The attribute of an instance that holds what a field would find."""
    if not issubclass(kind, Model) or len(field.source_attrs) != 1:
        return None
    if not _is_as(type(field), Field, "get_attribute") or kind.__getattribute__ is not object.__getattribute__:
        return None
    (name,) = field.source_attrs
    return name if type(inspect.getattr_static(kind, name, None)) in PLACES else None


def _is_as(cls: type, base: type, name: str) -> bool:
    """Whether a class has a method of REST framework's, which nobody has put another one in the place of."""
    method = getattr(base, name)
    return getattr(cls, name, None) is method and _is_theirs(getattr(method, "fget", method))


@lru_cache(maxsize=16)
def _is_theirs(function: Any) -> bool:
    module: str = getattr(function, "__globals__", {}).get("__name__", "")
    return module.partition(".")[0] == "rest_framework"
