"""Occurrences to encoded events: groups and serializers, which are user code and may query.

One failing observer harms no other, and what it fails on is no hole: see :mod:`djcrf_pg.listener.failures`. That holds
for whatever it raises: a ``SystemExit`` or a ``CancelledError`` would end the listener's task.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NamedTuple

from django.core.exceptions import ObjectDoesNotExist
from django.db import InterfaceError, OperationalError, connections
from django.db.models import Model
from djangochannelsrestframework.observer.model_observer import Action

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.delivery.envelope import RESYNC, Event, dump, name_of
from djcrf_pg.delivery.interest import Wanted
from djcrf_pg.delivery.protocol import EVERYBODY, Item, Origin
from djcrf_pg.delivery.resume import Cursor, Mark, digest
from djcrf_pg.observations import ObserverFailed, emit, text_of
from djcrf_pg.registry import BATCH, Observed
from djcrf_pg.routing.failed import GROUPS, SERIALIZER, Failed, Failure, key_text
from djcrf_pg.routing.parents import hint, rescue
from djcrf_pg.routing.prefetch import prefetched
from djcrf_pg.routing.routes import Occurrence

#: Levels of lists and objects that a writer's context may have.
_DEEPEST = 100


#: The events of an occurrence: what happened, to which instance, for which groups.
_Parts = list[tuple[Action, Model | None, list[str]]]


class Made(NamedTuple):
    """An event of an occurrence.

    Attributes:
        line: The event, encoded.
        groups: Those that receive it, :data:`~djcrf_pg.delivery.protocol.EVERYBODY` alone for a resync.
        instance: The instance that it is of; None for a resync.
    """

    line: str
    groups: Sequence[str]
    instance: Model | None = None


class _BodyFailed(Exception):
    """The serializer raised; the groups are known."""

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__(groups)
        self.groups = groups


def events(
    occurrences: Iterable[Occurrence], interest: Wanted, origin: Origin, *, forgiving: bool = False
) -> tuple[list[Item], list[Failed]]:
    """Have groups and serializers of the observers make events.

    Args:
        occurrences: What there is to tell, in order.
        interest: Which groups somebody has; nothing is made for others.
        origin: The part of the log that they are made of.
        forgiving: Take user code's database errors as failures of that observer, instead of raising.

    Returns:
        The events, in order; and what failed.

    Raises:
        OperationalError, InterfaceError: User code found its database gone.
    """
    items: list[Item] = []
    failed: list[Failed] = []
    for occurrence, made in make_events(occurrences, interest, origin, forgiving=forgiving):
        if isinstance(made, Failed):
            failed.append(made)
        else:
            address = occurrence.observer.address
            items += [Item(address, group, line) for line, groups, _ in made for group in groups]
    return items, failed


def make_events(
    occurrences: Iterable[Occurrence], interest: Wanted, origin: Origin, *, forgiving: bool = False
) -> list[tuple[Occurrence, list[Made] | Failed]]:
    """As :func:`events`, with each occurrence its own events, or what it failed on."""
    occurrences = list(occurrences)
    following: dict[Observed, list[Occurrence]] = {}
    for occurrence in occurrences:
        if occurrence.resync is None and occurrence.observer.prefetches:
            following.setdefault(occurrence.observer, []).append(occurrence)
    make = partial(_made, interest=interest, origin=origin, forgiving=forgiving)
    token = BATCH.set({})
    try:
        made: dict[int, list[Made] | Failed] = {}
        for observer, theirs in following.items():
            # Groups first, for what nobody receives follows nothing.
            plans = [_Plan.of(occurrence, interest) for occurrence in theirs]
            parts = [part for plan in plans for part in plan.parts or ()]
            # Not by its truth: an instance may have a length.
            instances = [instance for _, instance, groups in parts if instance is not None and groups]
            with prefetched(observer, instances, forgiving=forgiving) as require:
                made |= {id(plan.occurrence): make(plan, require) for plan in plans}
        return [
            (occurrence, made[id(occurrence)] if id(occurrence) in made else make(_Plan(occurrence)))
            for occurrence in occurrences
        ]
    finally:
        BATCH.reset(token)


@dataclasses.dataclass(slots=True)
class _Plan:
    """What is to be made of an occurrence.

    Attributes:
        occurrence: The occurrence.
        context: Its own: a language or a time zone that groups or serializer activate is not for the rest.
        parts: Its events, where they are known.
    """

    occurrence: Occurrence
    context: Context = dataclasses.field(default_factory=copy_context)
    parts: _Parts | None = None

    @classmethod
    def of(cls, occurrence: Occurrence, interest: Wanted) -> "_Plan":
        """One whose events are known, unless the groups fail; what they fail on is met when they are made."""
        plan = cls(occurrence)
        with suppress(BaseException):
            plan.parts = plan.context.run(parts_of, occurrence, interest)
        return plan


def _made(
    plan: _Plan,
    require: Callable[[Model], None] | None = None,
    *,
    interest: Wanted,
    origin: Origin,
    forgiving: bool,
) -> list[Made] | Failed:
    """The events of an occurrence, or what it failed on."""
    try:
        return plan.context.run(_tried_twice, plan, interest, origin, forgiving, require)
    except BaseException as error:
        if _is_of_the_database(error):
            connections.close_all()
            if not forgiving:
                raise _cause(error) from None
        return _failed(plan.occurrence, error)


def _tried_twice(
    plan: _Plan, interest: Wanted, origin: Origin, forgiving: bool, require: Callable[[Model], None] | None
) -> list[Made]:
    """Make the events of an occurrence, all or none; the second time without what the batch shares."""
    occurrence = plan.occurrence
    try:
        return list(_events(occurrence, interest, origin, plan.parts, require))
    except BaseException as error:
        if _is_of_the_database(error) and not forgiving:
            raise
        is_missing = isinstance(_cause(error), ObjectDoesNotExist)
        # A serializer that stopped half-way is of no use to the others either.
        if (shared := BATCH.get()) is not None:
            shared.clear()
    token = BATCH.set(None)
    try:
        if is_missing:
            rescue(occurrence.old)
            rescue(occurrence.new)
        return list(_events(occurrence, interest, origin, require=require))
    finally:
        BATCH.reset(token)


def _cause(error: BaseException) -> BaseException:
    """What user code raised."""
    # Not by its truth: an error may have a length.
    return error.__cause__ if isinstance(error, _BodyFailed) and error.__cause__ is not None else error


def _is_of_the_database(error: BaseException) -> bool:
    return isinstance(_cause(error), OperationalError | InterfaceError)


def _events(
    occurrence: Occurrence,
    interest: Wanted,
    origin: Origin,
    parts: _Parts | None = None,
    require: Callable[[Model], None] | None = None,
) -> Iterable[Made]:
    observer = occurrence.observer
    if occurrence.resync is not None:
        if not interest.hears(observer.address):
            return
        body: dict[str, Any] = {"reason": occurrence.resync, "model": observer.model_cls._meta.label}
        if occurrence.change.count is not None:
            body["count"] = occurrence.change.count
        yield Made(_encode(occurrence, RESYNC, body), (EVERYBODY,))
        return
    if parts is None:
        parts = parts_of(occurrence, interest)
    for action, instance, groups in parts:
        if groups and instance is not None:
            groups = sorted(groups, key=digest) if len(groups) > 1 else groups
            try:
                if require is not None:
                    require(instance)
                event = _encode(occurrence, action.value, body_of(occurrence, instance, action, groups, origin))
            except BaseException as error:
                raise _BodyFailed([group for _, _, concerned in parts for group in concerned]) from error
            yield Made(event, groups, instance)


def parts_of(occurrence: Occurrence, interest: Wanted) -> _Parts:
    """Groups by old and new row: only the old one has it, delete; both, update; only the new one, create.

    A group that a row leaves receives the row as it was: what it became is not for that group to know.

    Args:
        occurrence: What happened to an instance.
        interest: Which groups somebody has; others are left out.

    Returns:
        For each action the instance, and the groups that receive it.

    Raises:
        Exception: Whatever the groups raise.
    """
    observer, old, new = occurrence.observer, occurrence.old, occurrence.new
    parts: list[tuple[Action, Model | None, Iterable[str]]]
    before = _groups(observer, old)
    after = before if new is old else _groups(observer, new)
    is_told = occurrence.again or observer.tells(occurrence.changed)
    if before == after:
        parts = [(Action.UPDATE, new, before)] if is_told else []
    else:
        same = [group for group in after if group in before]
        parts = [
            (Action.DELETE, old, [group for group in before if group not in after]),
            (Action.UPDATE, new, same if same and is_told else ()),
            (Action.CREATE, new, [group for group in after if group not in before]),
        ]
    return [
        (action, instance, [group for group in groups if interest.has(observer.address, group)])
        for action, instance, groups in parts
    ]


def _groups(observer: Observed, instance: Model | None) -> dict[str, None]:
    return {} if instance is None else dict.fromkeys(observer.group_names_for_signal(instance=instance))


def body_of(occurrence: Occurrence, instance: Model, action: Action, groups: Sequence[str], origin: Origin) -> Any:
    """Have the serializer make the body of an event.

    Args:
        occurrence: What happened.
        instance: As it is sent.
        action: What it means to the groups.
        groups: Who receives it.
        origin: The part of the log that the event is made of.

    Raises:
        Exception: Whatever the serializer raises.
    """
    observer = occurrence.observer
    extras = _extras(occurrence, action, groups, origin) if observer.takes_extras else {}
    return observer.serialize(instance, action, **extras)["body"]


def _extras(occurrence: Occurrence, action: Action, groups: Sequence[str], origin: Origin) -> dict[str, Any]:
    change = occurrence.change
    extras = {
        "changed": occurrence.changed,
        "old_instance": occurrence.old,
        "context": _context(change.context),
        "committed_at": change.at,
        "change_id": change.id,
        "transaction": name_of(_writer(change)),
    }
    if occurrence.observer.serializes_cursor:
        # One body for all groups: who has it by one of several has not had it by the others yet.
        mark = Mark.of(change.id, occurrence.row, action.value, groups[0] if len(groups) == 1 else None)
        address = digest(occurrence.observer.address)
        cursor = Cursor(origin.history, origin.span, mark, address, is_exact=not origin.span.is_empty)
        extras["cursor"] = cursor.encode()
    return extras


def _encode(occurrence: Occurrence, action: str, body: Any) -> str:
    change, old = occurrence.change, occurrence.old
    return Event(
        action=action,
        body=body,
        change_id=change.id,
        xid=_writer(change),
        committed_at=change.at.isoformat(),
        changed=occurrence.changed,
        context=_context(change.context),
        old=None if old is None or not occurrence.observer.wants_old else dump(old),
        row=occurrence.row,
    ).encode(decimals_as_text=occurrence.observer.decimals_as_text)


def _writer(change: RowChange) -> int:
    return change.xid if change.writer is None else change.writer


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


def _failed(occurrence: Occurrence, error: BaseException) -> Failed:
    """Report a failure to operators, and describe it."""
    observer, cause = occurrence.observer, _cause(error)
    if (note := hint(observer, cause)) is not None:
        cause.add_note(note)
    instance = occurrence.old if occurrence.new is None else occurrence.new
    emit(
        ObserverFailed(
            observer=observer.label,
            model=observer.model_cls._meta.label,
            pk=None if instance is None else _key(instance),
            change_id=occurrence.change.id,
            error=text_of(cause),
        ),
        cause,
    )
    groups = error.groups if isinstance(error, _BodyFailed) else None
    key = "" if instance is None else key_text(instance)
    part = GROUPS if groups is None else SERIALIZER
    failure = Failure.of(observer, part, key, occurrence.change.id, cause)
    return Failed(failure, observer, occurrence.change, groups, cause)
