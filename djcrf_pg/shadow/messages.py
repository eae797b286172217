"""What an observer has sent of one change of a row, or would have: for each action the groups and the body."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import Model
from django.utils.timezone import is_naive, make_aware

from djcrf_pg.delivery.envelope import Event
from djcrf_pg.routing.failed import key_text
from djcrf_pg.shadow.excluded import NOTHING, Hidden

#: Characters of a message that are kept; of a longer one only actions and groups are.
MOST = 20_000


class Message(NamedTuple):
    """One side of a comparison.

    Attributes:
        name: Tells it from all others, so that one that is written twice counts once.
        address: Of the observer.
        pk: The key of the row, see :func:`row_key`; empty for a resync.
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
    hidden: Hidden = NOTHING,
) -> Message:
    """Make one.

    Args:
        name: As the attribute.
        address: As the attribute.
        pk: As the attribute.
        parts: By action, the groups and the body, which is JSON already.
        origin: As the attribute, not encoded yet.
        hidden: What is not to be kept.
    """
    made = {action: [sorted(groups), body] for action, (groups, body) in parts.items()}
    whole = _encode(made)
    kept = whole
    if hidden.names:
        kept = _encode({action: [groups, hidden.without(body)] for action, (groups, body) in made.items()})
    if len(kept) > MOST:
        kept = _encode({action: [groups[:100]] for action, (groups, _) in made.items()})
    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return Message(name, address, pk, digest, kept, _encode(origin))


def row_key(instance: Model) -> str:
    """The key of a row, the same whatever a project has assigned: text for a UUID, a time in another zone.

    Otherwise as :func:`djcrf_pg.routing.failed.key_text`.
    """
    try:
        return json.dumps([_text_of(field, instance) for field in instance._meta.pk_fields])
    except Exception:  # what was assigned is no value of the field
        return key_text(instance)


def _text_of(field: Any, instance: Model) -> str:
    value = field.to_python(field.value_from_object(instance))
    if isinstance(value, datetime):
        if settings.USE_TZ and is_naive(value):
            value = make_aware(value)
        return (value if is_naive(value) else value.astimezone(UTC)).isoformat()
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    return str(value if isinstance(value, int | str | UUID) else field.value_to_string(instance))


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
