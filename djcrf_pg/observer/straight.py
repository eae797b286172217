"""The straight way from an instance to its body, for serializers whose own way is REST framework's.

``Serializer.to_representation`` asks for its fields each time, and each field looks its value up by the names of its
source. Of one serializer that makes many bodies the fields are the same, and the value of a field of the model is in
the instance. What a field makes of the value is left to the field. Everything else is REST framework's: a serializer
with another ``to_representation``, a field with another ``get_attribute``, a value that is not in the instance, or that
can be called.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from django.db.models import Model
from django.db.models.manager import BaseManager
from rest_framework.fields import Field, SkipField
from rest_framework.relations import PKOnlyObject
from rest_framework.serializers import ListSerializer, Serializer

from djcrf_pg.instances import PLACES

Make = Callable[[Any], Any]


class _Step(NamedTuple):
    """How a field comes into a body.

    Attributes:
        name: Of the field.
        attname: The attribute that holds its value; None where the field finds it.
        find: How the field does.
        make: What it makes of the value.
    """

    name: str
    attname: str | None
    find: Make
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
        for name, attname, find, make in own:
            if attname is None or attname not in values or callable(value := values[attname]):
                try:
                    value = find(instance)
                except SkipField:
                    continue
                if (value.pk if isinstance(value, PKOnlyObject) else value) is None:
                    value = None
            body[name] = None if value is None else make(value)
        return body

    return represent


def _many(make: Make) -> Make:
    def represent(data: Any) -> list[Any]:
        return [make(each) for each in (data.all() if isinstance(data, BaseManager) else data)]

    return represent


def _steps(serializer: Any, kind: type) -> list[_Step]:
    return [
        _Step(field.field_name, _attname(field, kind), field.get_attribute, _make(field))
        for field in serializer._readable_fields
    ]


def _make(field: Any) -> Make:
    make: Make = straight(field) if isinstance(field, (Serializer, ListSerializer)) else field.to_representation
    return make


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
    return getattr(cls, name) is method and _is_theirs(getattr(method, "fget", method))


@lru_cache(maxsize=16)
def _is_theirs(function: Any) -> bool:
    module: str = getattr(function, "__globals__", {}).get("__name__", "")
    return module.partition(".")[0] == "rest_framework"
