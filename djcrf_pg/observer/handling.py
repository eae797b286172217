"""What becomes of an event in a consumer: the calls of the handler, and resyncs.

A handler that raises is called once more, with the event as it came. If it raises again, the next event goes on, and
the consumer gets a resync ``failed`` for the group: one in :data:`~djcrf_pg.listener.failures.PAUSE` seconds. In DCRF
an exception would end the consumer. A resync counts when its handler has returned, and is delivered again until then.
Where the client is gone, nothing is wrong with a handler that cannot send.
"""

import json
import time
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from django.db.models import Model

from djcrf_pg.delivery.envelope import RESYNC, Event
from djcrf_pg.delivery.inbox import Subscription
from djcrf_pg.delivery.protocol import Origin
from djcrf_pg.delivery.resume import Cursor, Mark, digest
from djcrf_pg.instances import runs_code
from djcrf_pg.listener import embedded
from djcrf_pg.listener.failures import PAUSE
from djcrf_pg.observations import ObserverFailed, emit, text_of
from djcrf_pg.observer.consumers import reply
from djcrf_pg.routing.failed import HANDLER, Failure, resync_event

#: What DCRF does not pass to handlers and serializers: it goes to those that name it or take ``**kwargs``.
HANDLER_EXTRAS = ("change_id", "committed_at", "changed", "context")

#: What goes to those alone that name it: it costs too much for all, or was not there when they took ``**kwargs``.
NAMED_EXTRAS = ("old_instance", "cursor", "transaction")

#: Failures that a consumer keeps for one group until they are recorded.
_MOST = 100

#: Seconds after which a resync that was not handled is delivered again, the first time; then it is twice as long.
_AGAIN, _DOUBLINGS = 10.0, 6


async def receive(observer: Any, subscription: Subscription, group: str, line: str, origin: Origin) -> None:
    """Have the consumer handle an event that is news to it.

    Args:
        observer: The observer.
        subscription: What the consumer has of it.
        group: The group that the event came through; empty for what is for everybody.
        line: The event.
        origin: What it is made of.
    """
    # It was read once when it came off the layer. This makes objects that only this consumer has.
    event = Event(*json.loads(line))
    if origin.requests is None and not _is_news(subscription, group, event):
        return
    if group and not subscription.holds(group):
        return  # left meanwhile
    if event.action == RESYNC:
        if not await _resync(observer, subscription, group, event):
            _again(subscription, event.body)
        return
    try:
        await _call(observer, subscription, group, event, origin)
    except StopConsumer:
        raise
    except Exception:
        if subscription.inbox.gone:
            return
    else:
        return
    # Made anew: the handler may have changed the one that it was given.
    await _call_again(observer, subscription, group, Event(*json.loads(line)), origin)


def _is_news(subscription: Subscription, group: str, event: Event) -> bool:
    """Whether an event is for a subscription: it had not been committed when that began, or last received a resync."""
    if subscription.has_loaded(event.xid, event.committed_at):
        # It would put an old row over a newer one, and nobody misses what would have come after it.
        return False
    moments = subscription.since
    if group:
        moment = moments.get(group)
        return moment is None or not moment.sees(event.xid, event.committed_at)
    return bool(subscription.groups) and not (
        moments and all(moment.sees(event.xid, event.committed_at) for moment in moments.values())
    )


def _is_news_to(subscription: Subscription, group: str, request: Any, event: Event) -> bool:
    """Whether an event is for a request: the list that it goes on behind may have it already."""
    moment = subscription.later.get((group, request))
    return moment is None or not moment.sees(event.xid, event.committed_at)


async def settle(observer: Any, subscription: Subscription) -> None:
    """Do what is due: a resync that was not handled, or the one after failures."""
    if not subscription.groups:
        subscription.lost = subscription.failed = None  # left meanwhile
    if (body := subscription.lost) is not None:
        # What is lost while the handler runs is another resync: it may have loaded already.
        subscription.lost = None
        if await _resync(observer, subscription, "", resync_event(observer, 0)._replace(body=body)):
            subscription.tries = 0
        else:
            _again(subscription, body)
    if subscription.failed:
        wait = subscription.failed_at + PAUSE - time.monotonic()
        if wait > 0:
            subscription.settle_in(wait)
        else:
            await _settle_failures(observer, subscription)


def _again(subscription: Subscription, body: dict[str, Any]) -> None:
    """Have a resync delivered again later, unless there is another one by now."""
    subscription.lost = subscription.lost or body
    subscription.settle_in(_AGAIN * 2**subscription.tries)
    subscription.tries = min(subscription.tries + 1, _DOUBLINGS)


async def _settle_failures(observer: Any, subscription: Subscription) -> None:
    """Resync the consumer for what its handler failed on.

    Where not even that can be sent, the client is gone, and nothing is wrong with the handler.
    """
    failed, subscription.failed, subscription.failed_at = subscription.failed or {}, None, time.monotonic()
    for group, failures in failed.items():
        if await _resync(observer, subscription, group, resync_event(observer, failures[-1].change_id)):
            embedded.hub_of(observer.model_cls).record(failures)


async def _call(observer: Any, subscription: Subscription, group: str, event: Event, origin: Origin) -> None:
    requests = _requests(observer, subscription).get(group, ()) if origin.requests is None else origin.requests
    if subscription.later and origin.requests is None:
        known, requests = requests, [each for each in requests if _is_news_to(subscription, group, each, event)]
        if known and not requests:
            return
    await observer.func(
        subscription.consumer,
        event.body,
        observer=observer,
        message_type=observer.message_type,
        group=group,
        subscribing_request_ids=list(requests),
        action=event.action,
        **_cursor_of(observer, subscription, group, event, origin),
        **await _extras_of(observer, event),
    )


def _cursor_of(observer: Any, subscription: Subscription, group: str, event: Event, origin: Origin) -> dict[str, str]:
    """The cursor behind an event, for a handler that named it."""
    if not observer.takes_cursor:
        return {}
    # A replay is of what it has not had.
    span = subscription.rest_of(origin.span, group) if origin.requests is None else origin.span
    mark = Mark.of_event(event, group)
    # What is beside a read stands behind all that was sent, as its leader knows: a former one may have sent more.
    cursor = Cursor(origin.history, span, mark, digest(observer.address), is_exact=not span.is_empty)
    return {"cursor": cursor.encode()}


async def _extras_of(observer: Any, event: Event) -> dict[str, Any]:
    """What the handler named. Code of the model's that sees the old instance may query, and does so in a thread."""
    if observer.wants_old and runs_code(observer.model_cls):
        extras: dict[str, Any] = await database_sync_to_async(observer.extras_of)(event)
        return extras
    return dict(observer.extras_of(event))


async def _call_again(observer: Any, subscription: Subscription, group: str, event: Event, origin: Origin) -> None:
    """Call the handler once more, and take down what it fails on."""
    key = _key_in(observer.model_cls, event.body)
    try:
        await _call(observer, subscription, group, event, origin)
    except StopConsumer:
        raise
    except Exception as error:
        if subscription.inbox.gone:
            return
        _report(observer, event, error)
        subscription.failed = subscription.failed or {}
        failures = subscription.failed.setdefault(group, [])
        if len(failures) < _MOST:
            failures.append(Failure.of(observer, HANDLER, key, event.change_id, error))
        subscription.inbox.remind(subscription)


def _report(observer: Any, event: Event, error: Exception) -> None:
    failure = ObserverFailed(
        observer=observer.label,
        model=observer.model_cls._meta.label,
        pk=event.body.get("pk") if isinstance(event.body, dict) else None,
        change_id=event.change_id,
        error=text_of(error),
    )
    emit(failure, error)


async def _resync(observer: Any, subscription: Subscription, group: str, event: Event) -> bool:
    """Resync the subscribers of a group, or those of all groups; return whether that could be said."""
    by_group = _requests(observer, subscription)
    requests = list(dict.fromkeys(by_group.get(group) or chain.from_iterable(by_group.values())))
    consumer = subscription.consumer
    try:
        if observer.resync_handler is None:
            for request_id in requests:
                await reply(consumer, action=RESYNC, data=event.body, status=205, request_id=request_id)
            return True
        extras = {name: getattr(event, name) for name in HANDLER_EXTRAS if name != "changed"}
        await observer.resync_handler(
            consumer,
            subscribing_request_ids=requests,
            observer=observer,
            message_type=observer.message_type,
            group=group or observer.resync_group(),
            **event.body,
            **extras,
        )
    except StopConsumer:
        raise
    except Exception as error:
        if not subscription.inbox.gone:
            _report(observer, event, error)
        return False
    return True


def _requests(observer: Any, subscription: Subscription) -> Mapping[str, Iterable[Any]]:
    """The request ids of the consumer's subscriptions, by group."""
    requests: Mapping[str, Iterable[Any]] = subscription.consumer._observer_group_to_request_id[
        observer._stable_observer_id
    ]
    return requests


def _key_in(model: type[Model], body: Any) -> str:
    """The key of the row that a body is of, if it has it under ``pk`` or the field's name; else an empty text."""
    if not isinstance(body, dict):
        return ""
    fields = model._meta.pk_fields
    values = [body["pk"]] if len(fields) == 1 and "pk" in body else [body.get(field.name) for field in fields]
    return json.dumps(list(map(str, values))) if all(isinstance(value, str | int) for value in values) else ""
