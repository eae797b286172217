"""An event that groups, a serializer or a handler failed on, as it is kept, and the resync that stands for it."""

import dataclasses
import json
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db.models import Model

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.delivery.envelope import NEVER_SEEN, RESYNC, Event
from djcrf_pg.observations import text_of
from djcrf_pg.registry import Observed

#: The reason of the resync.
FAILED = "failed"

#: The parts of an observer that may fail.
GROUPS, SERIALIZER, HANDLER = "groups", "serializer", "handler"

#: Characters of a traceback that are kept.
_TEXT = 20_000

#: Bytes of a key that is kept. It is in an index, whose entries have 2704 (PostgreSQL manual, 64.1).
_KEY = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """An event that could not be made, or handled.

    Attributes:
        observer: The identity of its observer.
        address: The same, as messages have it.
        part: What raised: :data:`GROUPS`, :data:`SERIALIZER` or :data:`HANDLER`.
        model: The label of the observed model.
        pk: The key of the row, see :func:`key_text`; an empty text where it is not known, or longer than :data:`_KEY`.
        change_id: The change.
        error: What was raised.
        traceback: Where.
    """

    observer: str
    address: str
    part: str
    model: str
    pk: str
    change_id: int
    error: str
    traceback: str

    @classmethod
    def of(cls, observer: Observed, part: str, pk: str, change_id: int, error: BaseException) -> "Failure":
        """Describe an error of a part of an observer."""
        text = "".join(traceback.format_exception(error))
        texts = (storable(part) for part in (text_of(error)[:_TEXT], text[-_TEXT:]))
        label, key = observer.model_cls._meta.label, storable(pk)
        if len(key.encode()) > _KEY:
            key = ""
        return cls(observer.identity, observer.address, part, label, key, change_id, *texts)


class Failed(NamedTuple):
    """An occurrence that groups or the serializer failed on, also when it was tried by itself.

    Attributes:
        failure: What is kept of it.
        observer: Whose they are.
        change: The change.
        groups: Those that would have received it; None where the groups failed.
        error: What was raised.
    """

    failure: Failure
    observer: Observed
    change: RowChange
    groups: Sequence[str] | None
    error: BaseException


def storable(text: str) -> str:
    """What PostgreSQL takes as a text: no NUL, no half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def key_text(instance: Model) -> str:
    """The key of an instance as a JSON list of its fields' text forms; the reverse is :func:`key_values`."""
    return json.dumps([str(field.value_to_string(instance)) for field in instance._meta.pk_fields])


def key_values(model: type[Model], text: str) -> dict[str, Any]:
    """The fields of a key and their values, for a filter.

    Raises:
        ValueError: The text is no key of the model.
    """
    fields, texts = model._meta.pk_fields, json.loads(text)
    return {field.attname: field.to_python(value) for field, value in zip(fields, texts, strict=True)}


def resync_event(observer: Observed, change_id: int) -> Event:
    """The resync for what failed."""
    body = {"reason": FAILED, "model": observer.model_cls._meta.label}
    return Event(RESYNC, body, change_id, NEVER_SEEN, datetime.now(UTC).isoformat())
