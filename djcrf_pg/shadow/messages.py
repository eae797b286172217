"""What an observer has sent of one change of a row, or would have: for each action the groups and the body."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from djcrf_pg.delivery.envelope import Event
from djcrf_pg.registry import excluded_names

#: Characters of a message that are kept; of a longer one only actions and groups are.
MOST = 20_000

#: What stands for a value of a field that ``EXCLUDE`` keeps in its table.
LEFT_OUT = "(left out)"


class Message(NamedTuple):
    """One side of a comparison.

    Attributes:
        name: Tells it from all others, so that one that is written twice counts once.
        address: Of the observer.
        pk: The key of the row, see :func:`djcrf_pg.routing.failed.key_text`; empty for a resync.
        digest: Of ``parts`` as they were before something was left out.
        parts: By action, ``[groups, body]``, as JSON; the body is missing where it is too long to be kept.
        origin: The change or the process that it is of, as JSON.
    """

    name: str
    address: str
    pk: str
    digest: str
    parts: str
    origin: str


def message(
    name: str,
    address: str,
    pk: str,
    parts: Mapping[str, tuple[Iterable[str], Any]],
    origin: Mapping[str, Any],
) -> Message:
    """Make one.

    Args:
        name: As the attribute.
        address: As the attribute.
        pk: As the attribute.
        parts: By action, the groups and the body, which is JSON already.
        origin: As the attribute, not encoded yet.

    Raises:
        ConfigurationError: ``EXCLUDE`` names what does not exist; nobody knows what may be kept.
    """
    made = {action: [sorted(groups), body] for action, (groups, body) in parts.items()}
    whole = _encode(made)
    kept = whole
    if (excluded := excluded_names()) and any(name in whole for name in excluded):
        kept = _encode({action: [groups, without(body, excluded)] for action, (groups, body) in made.items()})
    if len(kept) > MOST:
        kept = _encode({action: [groups[:100]] for action, (groups, _) in made.items()})
    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return Message(name, address, pk, digest, kept, _encode(origin))


def body_as_sent(body: Any, action: str, *, decimals_as_text: bool) -> Any:
    """A body as a consumer receives it.

    Args:
        body: What a serializer made.
        action: Of its event.
        decimals_as_text: See :meth:`Event.encode`.

    Raises:
        TypeError, ValueError: It is no JSON.
    """
    return json.loads(Event(action, body, 0, 0, "").encode(decimals_as_text=decimals_as_text))[1]


def _encode(value: Any) -> str:
    """JSON in ASCII, the same for what is equal."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def without(body: Any, excluded: Collection[str]) -> Any:
    """A body without the values of some fields, at whatever depth: it may show rows of other tables.

    Args:
        body: What JSON has.
        excluded: The names.
    """
    if isinstance(body, dict):
        return {name: LEFT_OUT if name in excluded else without(value, excluded) for name, value in body.items()}
    return [without(each, excluded) for each in body] if isinstance(body, list) else body
