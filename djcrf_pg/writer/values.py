"""The values of a context: turned into JSON when the block begins, and held for whatever runs in it."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Self

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

#: Bytes of a context as JSON, at most; it is stored with each change. The triggers leave out what is longer.
LONGEST = 8192

# An escape is one only behind an even number of backslashes.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class _Encoder(DjangoJSONEncoder):
    """Django's, and a model instance is its primary key."""

    def default(self, o: Any) -> Any:
        return o.pk if isinstance(o, Model) else super().default(o)


def fragment(name: str, value: Any) -> str:
    """Turn one value into JSON.

    Args:
        name: What the value is called, for the errors.
        value: JSON data, or what :class:`~django.core.serializers.json.DjangoJSONEncoder` knows (UUID, date and
            time, Decimal, lazy strings), or a model instance, which becomes its primary key.

    Raises:
        TypeError: It is something else.
        ValueError: PostgreSQL's JSON cannot hold it: NaN, an infinity, a NUL character, half of a surrogate
            pair, a structure that contains itself.
    """
    where = f"djcrf_pg.context({name}=…)"
    try:
        text = json.dumps(value, cls=_Encoder, ensure_ascii=False, allow_nan=False)
        text.encode()
    except TypeError as error:
        raise TypeError(f"{where}: {error}. Pass JSON data: text, numbers, lists, dicts.") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: half of a surrogate pair is no text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from error
    if _NUL.search(text):
        raise ValueError(f"{where}: PostgreSQL's text cannot hold the NUL character.")
    return text


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """One ``with djcrf_pg.context(…)`` block, with what it has from those around it.

    Attributes:
        outer: The block around it.
        fragments: JSON by name.
        deferred: Callables by name; each is called for a statement that writes.
        text: ``fragments`` as one JSON object.
    """

    outer: "State | None"
    fragments: Mapping[str, str]
    deferred: Mapping[str, Callable[[], Any]]
    text: str

    @classmethod
    def inside(cls, outer: "State | None", values: Mapping[str, Any]) -> Self:
        """Make the state of a block with ``values`` inside ``outer``; the inner value of a name wins.

        Raises:
            TypeError, ValueError: See :func:`fragment`; also where the whole is too long.
        """
        fragments: dict[str, str] = {}
        deferred: dict[str, Callable[[], Any]] = {}
        if outer is not None:
            fragments = {name: text for name, text in outer.fragments.items() if name not in values}
            deferred = {name: value for name, value in outer.deferred.items() if name not in values}
        for name, value in values.items():
            if callable(value):
                deferred[name] = value
            else:
                fragments[name] = fragment(name, value)
        return cls(outer, fragments, deferred, _object(fragments))

    def known(self) -> str:
        """The JSON object without calling anything; callables that can tell at no cost have ``peek()``."""
        peeks = {name: value.peek for name, value in self.deferred.items() if hasattr(value, "peek")}
        found = {name: peek() for name, peek in peeks.items()}
        return self._with({name: value for name, value in found.items() if value is not None})

    def full(self) -> str:
        """The JSON object with what the callables return now."""
        return self._with({name: value() for name, value in self.deferred.items()})

    def _with(self, values: Mapping[str, Any]) -> str:
        if not values:
            return self.text
        return _object({**self.fragments, **{name: fragment(name, value) for name, value in values.items()}})


def _object(fragments: Mapping[str, str]) -> str:
    """The JSON object.

    Raises:
        ValueError: It is too long for the log.
    """
    whole = "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in fragments.items()) + "}"
    if len(whole) > LONGEST // 4 and (size := len(whole.encode())) > LONGEST:
        longest = max(fragments, key=lambda name: len(fragments[name]))
        raise ValueError(
            f"djcrf_pg.context({longest}=…): the context has {size} bytes of JSON, and may have {LONGEST}: it is "
            f"stored with each change. Store the data in a table, and let the context carry its key."
        )
    return whole


#: The innermost block; a context variable follows asyncio's tasks and the threads of ``sync_to_async``.
current: ContextVar[State | None] = ContextVar("djcrf_pg.context", default=None)
