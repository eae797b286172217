"""Many events in one channel-layer message: what the leader packs and the consumer's observer unpacks.

The events travel as one JSON text. A layer copies and packs a text for next to nothing however many consumers
hear it, every layer carries it, and what a consumer gets is the same over each of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from json import encoder
from typing import Any, NamedTuple

from rest_framework.utils.encoders import JSONEncoder

from djcrf_pg.listener.numbering import UNKNOWN, Control, Tail

#: The key of the message that holds the envelope; a message without it is DCRF's own.
KEY = "djcrf_pg"

#: The version of what is under it; it rises with each change that an older reader cannot take.
VERSION = 1

#: The action of an event that stands for changes that cannot be told one by one.
RESYNC = "resync"

#: The reason of a resync that comes from the consumers' own process: the channel layer may have lost events.
CHANNEL_LAYER = "channel_layer"


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
    """One change as one group hears of it.

    Attributes:
        action: ``create``, ``update``, ``delete``, or :data:`RESYNC`.
        body: What the observer's serializer made of the instance.
        change_id: The id in the change log.
        xid: The transaction.
        committed_at: When the row was written, ISO 8601.
        changed: Names of the fields that differ.
        context: What the writer said of itself.
        old: The instance as it was, see :mod:`djcrf_pg.listener.portable`; for handlers that take it.
    """

    action: str
    body: Any
    change_id: int
    xid: int
    committed_at: str
    changed: Sequence[str] = ()
    context: Any = None
    old: dict[str, Any] | None = None

    def encode(self, *, decimals_as_text: bool = True) -> str:
        """The event as JSON text; what JSON does not know becomes what DRF's renderer makes of it.

        Args:
            decimals_as_text: Make text of decimals; else a number where it keeps each digit.

        Raises:
            TypeError: The body has something that neither knows.
            ValueError: A time with a time zone, bytes that are no UTF-8: DRF refuses them.
        """
        return "".join(_encoders[decimals_as_text](self, 0))


def pack(
    control: Control, group: str, events: Iterable[str], *, term: int, max_events: int, max_bytes: int
) -> Iterator[dict[str, Any]]:
    """Cut encoded events into messages.

    Args:
        control: The observer that they are of.
        group: The group that they go to.
        events: JSON texts, in order.
        term: The leadership that sends them.
        max_events: So many events a message at most.
        max_bytes: So many bytes of events a message at most; a larger event travels alone.

    Yields:
        Messages for ``group_send``.
    """
    part: list[str] = []
    size = 0
    for event in events:
        if part and (len(part) >= max_events or size + len(event) > max_bytes):
            yield message_of(control, group, part, term)
            part, size = [], 0
        part.append(event)
        size += len(event)
    if part:
        yield message_of(control, group, part, term)


def message_of(control: Control, group: str, events: Sequence[str], term: int) -> dict[str, Any]:
    """A message with these events, whatever their number."""
    return {
        "type": control.message_type,
        "group": group,
        KEY: {"v": VERSION, "term": term, "observer": control.address, "events": f"[{','.join(events)}]"},
    }


def roll(control: Control, tails: Mapping[str, Tail], *, term: int) -> dict[str, Any]:
    """A message that says what the last messages to groups were."""
    message = message_of(control, control.group, [], term)
    message[KEY]["tails"] = json.dumps(tails, separators=(",", ":"))
    return message


def numbers_of(message: Mapping[str, Any]) -> tuple[Tail, int]:
    """What the message before this one in its group was, and the number of this one.

    Raises:
        ValueError: They are damaged.
    """
    sealed = message[KEY]
    number = sealed.get("number", 0)
    if type(number) is not int:  # True is an int
        raise ValueError("its number is none")
    return _tail(sealed.get("before", UNKNOWN)), number


def tails_of(message: Mapping[str, Any]) -> dict[str, Tail]:
    """What a roll says; nothing where the message is none.

    Raises:
        ValueError: It is damaged.
    """
    text = message[KEY].get("tails")
    try:
        return {} if text is None else {group: _tail(tail) for group, tail in json.loads(text).items()}
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError("its roll cannot be read") from error


def _tail(fields: Any) -> Tail:
    match fields:
        case [int(number), int(xid), str(at)]:
            if number:
                _require_offset(at)
            return Tail(number, xid, at)
    raise ValueError("it names no message before it")


def address_of(message: Mapping[str, Any]) -> str | None:
    """The address of the observer that a message is of; None in one of version 0.1.0, which does not say.

    Raises:
        ValueError: It is damaged.
    """
    address = message[KEY].get("observer")
    if address is not None and not isinstance(address, str):
        raise ValueError("the address of its observer is none")
    return address


def is_of_the_layer(event: Event) -> bool:
    """Whether an event is the resync after a failure of the channel layer."""
    return event.action == RESYNC and event.body["reason"] == CHANNEL_LAYER


def head(message: Mapping[str, Any]) -> tuple[str, int]:
    """The group and the term of a message.

    Raises:
        ValueError: The message is not of this version, or damaged.
    """
    inside, group = message[KEY], message.get("group")
    if not isinstance(inside, Mapping) or not isinstance(group, str):
        raise ValueError("it has no group, or its envelope is none")
    if inside.get("v") != VERSION:
        raise ValueError(f"its version is {inside.get('v')!r}, and here is {VERSION}")
    if not isinstance(inside.get("term"), int):
        raise ValueError("it has no term")
    return group, inside["term"]


def unpack(message: Mapping[str, Any]) -> list[Event]:
    """Read the events of a message; each call makes new objects, so that a handler may change them.

    Raises:
        ValueError: They are damaged.
    """
    try:
        return [_event(fields) for fields in json.loads(message[KEY]["events"])]
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its events cannot be read ({type(error).__name__}: {error})") from error


def _event(fields: list[Any]) -> Event:
    event = Event(*fields)
    for value, kind in (
        (event.action, str),
        (event.change_id, int),
        (event.xid, int),
        (event.changed, list | tuple),
        (event.old, dict | None),
        (event.body.get("reason") if event.action == RESYNC else "", str),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"an event has {value!r:.50} where it must have {kind}")
    _require_offset(event.committed_at)
    return event


def _require_offset(at: str) -> None:
    """Make sure that a time can be compared.

    Raises:
        ValueError: It is no time in ISO 8601, or has no offset.
        TypeError: It is no text.
    """
    if datetime.fromisoformat(at).tzinfo is None:
        raise ValueError(f"it has the time {at!r:.50} without an offset")
