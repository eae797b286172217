"""What of ``EXCLUDE`` shadow mode must not keep: the values of an instance and its relatives, and what has their names.

A body need not call a field by its name: ``source="secret"``, a function, a serializer of a related row. So a value is
left out wherever it stands, and a name at each level.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from django.db.models import Field, Model

from djcrf_pg.conf import Settings, get_settings
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.registry import excluded_columns, family_of, model_of, own_columns, password_of_the_user_model

#: What stands for what is left out.
LEFT_OUT = "(left out)"

#: Characters of a text that is left out also where it is a part of another.
_PART = 4

#: Related instances of related instances: how far.
_DEPTH = 3


class Hidden(NamedTuple):
    """What is to be left out.

    Attributes:
        names: Of fields.
        values: Numbers and texts.
    """

    names: frozenset[str] = frozenset()
    values: frozenset[Any] = frozenset()

    def without(self, value: Any) -> Any:
        """JSON without it."""
        if isinstance(value, dict):
            return {
                LEFT_OUT if self._has(name) else name: LEFT_OUT if name in self.names else self.without(each)
                for name, each in value.items()
            }
        if isinstance(value, list):
            return [self.without(each) for each in value]
        return LEFT_OUT if self._has(value) else value

    def _has(self, value: Any) -> bool:
        if value is None or isinstance(value, bool) or not self.values:
            return False
        text = str(value)
        return text in self.values or any(len(each) >= _PART and each in text for each in self.values)


NOTHING = Hidden()


def hidden(*instances: Model | None, serializer_class: Any = None) -> Hidden:
    """What is to be left out of what is said of instances.

    Args:
        instances: Those.
        serializer_class: What makes the body, if a class does.

    Raises:
        ConfigurationError: ``EXCLUDE`` names what is not there; no triggers are installed then.
    """
    names = _names(get_settings())
    if not names:
        return NOTHING
    values = frozenset(value for instance in instances if instance is not None for value in _values(instance, _DEPTH))
    return Hidden(names | _aliases_of(serializer_class), values)


class _Known(NamedTuple):
    """What settings say, looked up once: it is asked for each message."""

    settings: Settings | None
    names: frozenset[str]
    fields: "dict[type[Model], list[Field[Any, Any]]]"
    aliases: dict[Any, frozenset[str]]


_known = _Known(None, frozenset(), {}, {})


def _names(settings: Settings) -> frozenset[str]:
    global _known
    if _known.settings is not settings:
        models = {model_of(label, "EXCLUDE") for label in settings.EXCLUDE}
        if (password := password_of_the_user_model()) is not None:
            models.add(password.model)
        fields = {model: _excluded(model) for model in models}
        _known = _Known(
            settings,
            frozenset(name for each in fields.values() for field in each for name in (field.name, field.attname)),
            fields,
            {},
        )
    return _known.names


def _aliases_of(serializer_class: Any) -> frozenset[str]:
    """What a serializer class calls the fields, of related rows too, which are not at hand any more."""
    if serializer_class is None:
        return frozenset()
    if (found := _known.aliases.get(serializer_class)) is None:
        found = frozenset()
        with suppress(Exception):  # it cannot be made by itself
            found = frozenset(_aliases(serializer_class()))
        _known.aliases[serializer_class] = found
    return found


def _aliases(serializer: Any) -> Iterator[str]:
    serializer = getattr(serializer, "child", serializer)
    for name, field in getattr(serializer, "fields", {}).items():
        if (field.source or name).rpartition(".")[2] in _known.names:
            yield name
        yield from _aliases(field)


def _excluded(model: type[Model]) -> "list[Field[Any, Any]]":
    columns = own_columns(model)
    return [columns[column] for column in excluded_columns(model) if column in columns]


def _values(instance: Model, depth: int) -> Iterator[str]:
    for model in family_of(type(instance)):
        if (fields := _known.fields.get(model)) is None:
            fields = _known.fields[model] = _excluded(model)
        for field in fields:
            if field.attname in instance.__dict__:
                yield from _texts(instance.__dict__[field.attname])
    if depth:
        for each in _related(instance):
            yield from _values(each, depth - 1)


def _related(instance: Model) -> Iterable[Model]:
    """What is loaded of what an instance refers to: nothing else can be in what is said of it."""
    state = instance._state
    yield from (each for each in state.fields_cache.values() if isinstance(each, Model))
    for rows in getattr(instance, "_prefetched_objects_cache", {}).values():
        yield from (each for each in getattr(rows, "_result_cache", None) or () if isinstance(each, Model))


def _texts(value: Any) -> Iterator[str]:
    """The numbers and texts in a value, as Python and as a body has them."""
    yield from _leaves(value)
    with suppress(Exception):  # it is no JSON
        yield from _leaves(json.loads(Event("", value, 0, 0, "").encode())[1])


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for each in value:
            yield from _leaves(each)
    elif value is not None and not isinstance(value, bool) and (text := str(value)):
        yield text
