"""An event as text: what the leader makes of a change for one group, and what a consumer's process reads.

An event is a JSON list in ASCII. A layer copies and packs a text for next to nothing however many consumers receive it,
every layer carries it, and what a consumer gets is the same over each of them.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from json import encoder
from typing import Any, NamedTuple

from django.db.models import Model
from rest_framework.utils.encoders import JSONEncoder

from djcrf_pg.instances import make

#: The action of an event that stands for changes that are not delivered one by one.
RESYNC = "resync"

#: The reason of a resync that comes from the consumers' own process: the channel layer may have lost events.
CHANNEL_LAYER = "channel_layer"

#: The reasons of those that come while nobody makes events of what changes: the leader has other code, which lacks the
#: observer, or there is no leader, for a reason that does not pass by itself.
UNOBSERVED, LISTENER = "unobserved", "listener"

#: Seconds between two of them.
UNTOLD = 30.0

#: A transaction id that no snapshot has: what carries it is news to every subscriber.
NEVER_SEEN = 2**63 - 1


def name_of(xid: int) -> str | None:
    """A transaction as :func:`djcrf_pg.transaction_token` names it; None for what is of none."""
    return str(xid) if 0 < xid < NEVER_SEEN else None


def _text_of(value: Decimal) -> str:
    """As a serializer's DecimalField has it, which knows no exponents."""
    return format(value, "f")


def _number_of(value: Decimal) -> float | str:
    """A number where a float has each digit, for that is what consumers and browsers read; else text."""
    if value.is_finite():
        number = float(value)
        if Decimal(repr(number)) == value:
            return number
    return _text_of(value)


def _encoder(decimal: Callable[[Decimal], Any]) -> Callable[[Any, int], Iterable[str]]:
    """Make a function from a value, and 0, to the parts of its JSON text.

    Args:
        decimal: What becomes of a decimal. REST framework's encoder, which does the rest, makes floats of them.
    """
    others = JSONEncoder().default

    def default(value: Any) -> Any:
        return decimal(value) if isinstance(value, Decimal) else others(value)

    # ASCII alone: no layer can fail to encode it, and a character is a byte.
    plain = JSONEncoder(separators=(",", ":"), ensure_ascii=True, default=default)
    # Undocumented, but what JSONEncoder makes anew of itself for each text since Python 2.6: 7.4 us an event, and 2.3
    # so. Without markers it does not look for circles; those end in a RecursionError.
    make = encoder.c_make_encoder  # type: ignore[attr-defined]
    if make is None:
        return lambda value, _: [plain.encode(value)]
    chunks: Callable[[Any, int], Iterable[str]] = make(
        None, default, encoder.encode_basestring_ascii, None, ":", ",", False, False, True
    )
    return chunks


#: By whether decimals become text.
_encoders = {True: _encoder(_text_of), False: _encoder(_number_of)}


class Event(NamedTuple):
    """One change as one group receives it.

    Attributes:
        action: ``create``, ``update``, ``delete``, or :data:`RESYNC`.
        body: What the observer's serializer made of the instance.
        change_id: The id in the change log.
        xid: The transaction.
        committed_at: When the row was written, ISO 8601 with an offset.
        changed: Names of the fields that differ.
        context: What the writer said of itself.
        old: The instance as it was, see :func:`dump`; for handlers that take it.
        row: What tells it from other events of the change, see :class:`djcrf_pg.delivery.resume.Mark`.
    """

    action: str
    body: Any
    change_id: int
    xid: int
    committed_at: str
    changed: Sequence[str] = ()
    context: Any = None
    old: dict[str, Any] | None = None
    row: int = 0

    @property
    def transaction(self) -> str | None:
        """As :func:`name_of` has it."""
        return name_of(self.xid)

    def encode(self, *, decimals_as_text: bool = True) -> str:
        """The event as JSON text; what JSON does not know becomes what DRF's renderer makes of it.

        Args:
            decimals_as_text: Make text of decimals; else a number where it keeps each digit.

        Raises:
            TypeError: The body has something that neither knows.
            ValueError: A time with a time zone, bytes that are no UTF-8: DRF refuses them.
        """
        return "".join(_encoders[decimals_as_text](self, 0))


def parse(line: str) -> Event:
    """Read an event; each call makes new objects, so that a handler may change them.

    Raises:
        ValueError, TypeError, AttributeError, RecursionError: It is damaged.
    """
    event = Event(*json.loads(line))
    for value, limit in ((event.change_id, 2**63), (event.xid, 2**64), (event.row, 2**33)):
        if type(value) is not int or not 0 <= value < limit:  # True is an int
            raise ValueError(f"an event has {value!r:.50} where it must have a number below {limit}")
    for field, kind in ((event.action, str), (event.changed, list), (event.old, dict | None)):
        if not isinstance(field, kind):
            raise TypeError(f"an event has {field!r:.50} where it must have {kind}")
    if datetime.fromisoformat(event.committed_at).tzinfo is None:
        raise ValueError("an event has a time without an offset")
    if event.action == RESYNC and not isinstance(event.body.get("reason"), str):
        raise TypeError("a resync has no reason")
    return event


# The instance as it was, for the handlers that take ``old_instance`` in another process. The fields' own text forms,
# which Django's serializers use, carry every value there and back.


def dump(instance: Model) -> dict[str, Any]:
    """The loaded fields of an instance, by attribute; deferred ones are left out."""
    return {
        field.attname: None if instance.__dict__[field.attname] is None else field.value_to_string(instance)
        for field in instance._meta.concrete_fields
        if field.attname in instance.__dict__
    }


def load(model: type[Model], alias: str, dumped: dict[str, Any]) -> Model:
    """Make the instance again; what was left out is deferred."""
    fields = [field for field in model._meta.concrete_fields if field.attname in dumped]
    values = {
        field.attname: None if dumped[field.attname] is None else field.to_python(dumped[field.attname])
        for field in fields
    }
    return make(model, alias, values)
