"""Occurrences to encoded events: groups and serializers, which are user code and may query.

One failing observer harms no other.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.db import InterfaceError, OperationalError, connections
from django.db.models import Model
from djangochannelsrestframework.observer.model_observer import Action

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.listener import portable
from djcrf_pg.listener.envelope import RESYNC, Event
from djcrf_pg.listener.numbering import Control
from djcrf_pg.listener.occurrence import Occurrence
from djcrf_pg.observations import ObserverFailed, emit
from djcrf_pg.registry import BATCH, Observed

#: Levels of lists and objects that a writer's context may have.
_DEEPEST = 100


class Destination(NamedTuple):
    """Where messages go.

    Attributes:
        group: The channel-layer group.
        control: That of all subscribers of the observer, and what selects the consumer's handler.
        resync: Whether the group is that of all subscribers, which has to hear last.
    """

    group: str
    control: Control
    resync: bool = False


@dataclasses.dataclass(slots=True)
class Bundle:
    """Encoded events, in order.

    Attributes:
        last: The change of the last one.
        events: The events.
    """

    last: RowChange
    events: list[str] = dataclasses.field(default_factory=list)

    @property
    def xid(self) -> int:
        """The transaction of the last one."""
        return self.last.xid

    @property
    def at(self) -> str:
        """When that was written, ISO 8601."""
        return self.last.at.isoformat()


#: What goes to each destination.
Outgoing = dict[Destination, Bundle]


def events(occurrences: Iterable[Occurrence], *, forgiving: bool = False) -> Outgoing:
    """Have groups and serializers of the observers make events.

    Args:
        occurrences: What there is to tell, in order.
        forgiving: Take user code's database errors as failures of that observer, instead of raising.

    Returns:
        The encoded events of each destination. Destinations come in the order of their first event.

    Raises:
        OperationalError, InterfaceError: User code found its database gone.
    """
    BATCH.set({})
    outgoing: Outgoing = {}
    controls: dict[Observed, Control] = {}
    for occurrence in occurrences:
        observer = occurrence.observer
        try:
            control = controls.get(observer)
            if control is None:
                control = Control(observer.resync_group(), observer.message_type, observer.address)
                controls[observer] = control
            for destination, event in _events(occurrence, control):
                bundle = outgoing.get(destination)
                if bundle is None:
                    bundle = outgoing[destination] = Bundle(occurrence.change)
                bundle.events.append(event)
                bundle.last = occurrence.change
        except Exception as error:
            if isinstance(error, OperationalError | InterfaceError):
                connections.close_all()
                if not forgiving:
                    raise
            _report(occurrence, error)
    return outgoing


def _events(occurrence: Occurrence, control: Control) -> Iterable[tuple[Destination, str]]:
    """Groups by old and new row: only the old one has it, delete; both, update; only the new one, create.

    A group that a row leaves is told of the row as it was: what it became is not for that group to know.
    """
    observer, old, new = occurrence.observer, occurrence.old, occurrence.new
    if occurrence.resync is not None:
        body: dict[str, Any] = {"reason": occurrence.resync, "model": observer.model_cls._meta.label}
        if occurrence.change.count is not None:
            body["count"] = occurrence.change.count
        yield Destination(control.group, control, resync=True), _encode(occurrence, RESYNC, body)
        return
    parts: list[tuple[Action, Model | None, Iterable[str]]]
    before = _groups(observer, old)
    after = before if new is old else _groups(observer, new)
    if before == after:
        parts = [(Action.UPDATE, new, before)] if observer.tells(occurrence.changed) else []
    else:
        same = [group for group in after if group in before]
        parts = [
            (Action.DELETE, old, [group for group in before if group not in after]),
            (Action.UPDATE, new, same if same and observer.tells(occurrence.changed) else ()),
            (Action.CREATE, new, [group for group in after if group not in before]),
        ]
    for action, instance, groups in parts:
        if groups and instance is not None:
            event = _encode(occurrence, action.value, _body(occurrence, instance, action))
            for group in groups:
                yield Destination(group, control), event


def _groups(observer: Observed, instance: Model | None) -> dict[str, None]:
    return {} if instance is None else dict.fromkeys(observer.group_names_for_signal(instance=instance))


def _body(occurrence: Occurrence, instance: Model, action: Action) -> Any:
    change = occurrence.change
    message = occurrence.observer.serialize(
        instance,
        action,
        changed=occurrence.changed,
        old_instance=occurrence.old,
        context=_context(change.context),
        committed_at=change.at,
        change_id=change.id,
    )
    return message["body"]


def _encode(occurrence: Occurrence, action: str, body: Any) -> str:
    change, old = occurrence.change, occurrence.old
    return Event(
        action=action,
        body=body,
        change_id=change.id,
        xid=change.xid,
        committed_at=change.at.isoformat(),
        changed=occurrence.changed,
        context=_context(change.context),
        old=None if old is None or not occurrence.observer.wants_old else portable.dump(old),
    ).encode()


def _context(text: str | None) -> Any:
    """What the writer said of itself.

    Any session can set it, so it may be anything. It is nothing where it is no JSON, has a number that JSON does not
    know, or is so deep that somebody on the way to a handler could not follow; no event may be lost over it.
    """
    if not text:
        return None
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if text.count("[") + text.count("{") <= _DEEPEST or not _is_deep(value) else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def _key(instance: Model) -> Any:
    keys = [instance.__dict__.get(field.attname) for field in instance._meta.pk_fields]
    return keys[0] if len(keys) == 1 else tuple(keys)


def _report(occurrence: Occurrence, error: Exception) -> None:
    instance = occurrence.old if occurrence.new is None else occurrence.new
    emit(
        ObserverFailed(
            observer=occurrence.observer.label,
            model=occurrence.observer.model_cls._meta.label,
            pk=None if instance is None else _key(instance),
            change_id=occurrence.change.id,
            error=repr(error),
        ),
        error,
    )
