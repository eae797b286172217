"""What becomes of a message in a consumer: which of its events are news, and the calls of the handler."""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from django.db.models import Model

from djcrf_pg.instances import runs_code
from djcrf_pg.listener import envelope
from djcrf_pg.listener.failures import HANDLER, PAUSE, Failure, resync_event
from djcrf_pg.listener.numbering import Tail
from djcrf_pg.observations import EnvelopeUnreadable, MessagesMissing, ObserverFailed, emit, text_of
from djcrf_pg.observer import membership
from djcrf_pg.observer.consumers import reply
from djcrf_pg.observer.subscriptions import Subscriptions
from djcrf_pg.registry import registry

#: What DCRF does not pass to handlers and serializers: it goes to those that name it or take ``**kwargs``.
HANDLER_EXTRAS = ("change_id", "committed_at", "changed", "context")

#: Failures that a consumer keeps for one group until they are recorded.
_MOST = 100


class Handling:
    """An observer's messages for one consumer.

    A handler that raises is called once more, with the event as it came. If it raises again, the next event goes on,
    and the consumer gets a resync ``failed`` for the group: one in :data:`~djcrf_pg.listener.failures.PAUSE` seconds.
    In DCRF an exception would end the consumer, and here the rest of the envelope with it. A message that cannot be
    read is a resync too.

    Args:
        observer: The observer.
        consumer: The consumer; None where somebody calls the observer without one.
        state: What the consumer has of the observer; None without a consumer.
    """

    def __init__(self, observer: Any, consumer: Any, state: Subscriptions | None) -> None:
        self._observer = observer
        self._consumer = consumer
        self._state = state

    async def take(self, message: Mapping[str, Any], **kwargs: Any) -> None:
        """Call the handler for each event that is news, in order; ``kwargs`` are for the handler."""
        state, since = self._state, None
        try:
            group, term = envelope.head(message)
            # Before its term counts: one out of a damaged message would make all that follow old.
            events = envelope.unpack(message)
            before, number = envelope.numbers_of(message)
            tails = envelope.tails_of(message)
            address = envelope.address_of(message)
        except ValueError as error:
            group = str(message.get("group"))
            emit(EnvelopeUnreadable(observer=self._observer.label, group=group, error=str(error)), None)
            events, state = [self._lost()], None
        else:
            if state is not None:
                since = state.since.get(group)
                if not self._heeds(state, group, term, before, number, tails):
                    return
            if address is not None and not self._is_ours(address, state if events else None):
                return
        kwargs |= {"group": group, "message_type": message["type"]}
        for place, event in enumerate(events):
            if state is not None and envelope.is_of_the_layer(event):
                # Not from the log, so it is in no snapshot. It is sent until it was handled, and may come twice.
                fresh, state.stale = state.stale, False
            else:
                fresh = since is None or not since.sees(event.xid, event.committed_at)
            if not fresh:
                continue
            if event.action == envelope.RESYNC:
                await self._handle_resync(event, **kwargs)
                continue
            raised = False
            try:
                await self._handle(event, **kwargs)
            except StopConsumer:
                raise
            except Exception:
                raised = True
            if raised:
                # Made anew: the handler may have changed the one that it was given.
                await self._handle_again(envelope.unpack(message)[place], **kwargs)
        if state is not None and state.failed and time.monotonic() >= state.failed_at + PAUSE:
            await self._tell_of_failures(state, **kwargs)

    def _is_ours(self, address: str, state: Subscriptions | None) -> bool:
        """Whether a message is of this observer, and not of one that has the same groups.

        One that nobody here knows is that of other code, as in a deploy that renames a consumer. It may have been for
        us or not, and its bodies may not be for our subscribers: they load again.
        """
        newest = registry.at(address)
        if address != self._observer.address:
            known = newest is not None
        elif newest is None or newest is self._observer or self._observer.makes_the_same(newest):
            return True
        else:
            known = False
        if state is not None and not known:
            state.lose()
        return False

    def _lost(self) -> envelope.Event:
        """What stands for events that could not be read: nothing is known of them but that there were some."""
        body = {"reason": "unreadable", "model": self._observer.model_cls._meta.label}
        return envelope.Event(envelope.RESYNC, body, 0, 0, datetime.now(UTC).isoformat())

    def _heeds(
        self, state: Subscriptions, group: str, term: int, before: Tail, number: int, tails: Mapping[str, Tail]
    ) -> bool:
        """Whether a message is news. Term 0 is none of a leader's, but the keeper's."""
        if not term:
            return True
        complete = not state.stale
        if not state.takes(group, term, before, number):
            return False
        state.compare(term, tails)
        if complete and state.stale:
            emit(MessagesMissing(observer=self._observer.label))
        return True

    async def _handle(self, event: envelope.Event, **kwargs: Any) -> None:
        await self._observer.func(
            self._consumer,
            event.body,
            observer=self._observer,
            subscribing_request_ids=list(self._requests().get(kwargs["group"], ())),
            action=event.action,
            **await self._extras_of(event),
            **kwargs,
        )

    async def _extras_of(self, event: envelope.Event) -> dict[str, Any]:
        """What the handler named. Code of the model's that sees the old instance may query, and does so in a thread."""
        observer = self._observer
        if observer.wants_old and runs_code(observer.model_cls):
            extras: dict[str, Any] = await database_sync_to_async(observer.extras_of)(event)
            return extras
        return dict(observer.extras_of(event))

    async def _handle_again(self, event: envelope.Event, **kwargs: Any) -> None:
        """Call the handler once more, and take down what it fails on."""
        key = _key_in(self._observer.model_cls, event.body)
        try:
            await self._handle(event, **kwargs)
        except StopConsumer:
            raise
        except Exception as error:
            self._report(event, error)
            if self._state is not None:
                failures = self._state.failed.setdefault(kwargs["group"], [])
                if len(failures) < _MOST:
                    failures.append(Failure.of(self._observer, HANDLER, key, event.change_id, error))

    async def _tell_of_failures(self, state: Subscriptions, **kwargs: Any) -> None:
        """Have the consumer load again what its handler failed on.

        Where not even that can be sent, the client is gone, and nothing is wrong with the handler.
        """
        failed, state.failed, state.failed_at = state.failed, {}, time.monotonic()
        for group, failures in failed.items():
            event = resync_event(self._observer, failures[-1].change_id)
            if await self._handle_resync(event, **{**kwargs, "group": group}):
                membership.keeper(self._consumer.channel_layer).record(self._observer, failures)

    def _report(self, event: envelope.Event, error: Exception) -> None:
        failure = ObserverFailed(
            observer=self._observer.label,
            model=self._observer.model_cls._meta.label,
            pk=event.body.get("pk") if isinstance(event.body, dict) else None,
            change_id=event.change_id,
            error=text_of(error),
        )
        emit(failure, error)

    async def _handle_resync(self, event: envelope.Event, **kwargs: Any) -> bool:
        """Have the subscribers of a group load again, or those of all groups; return whether that could be said."""
        by_group = self._requests()
        concerned = by_group.get(kwargs["group"]) or chain.from_iterable(by_group.values())
        requests = list(dict.fromkeys(concerned))
        try:
            if self._observer.resync_handler is None:
                for request_id in requests:
                    await reply(
                        self._consumer, action=envelope.RESYNC, data=event.body, status=205, request_id=request_id
                    )
                return True
            extras = {name: getattr(event, name) for name in HANDLER_EXTRAS if name != "changed"}
            await self._observer.resync_handler(
                self._consumer,
                subscribing_request_ids=requests,
                observer=self._observer,
                **event.body,
                **extras,
                **kwargs,
            )
        except StopConsumer:
            raise
        except Exception as error:
            self._report(event, error)
            return False
        return True

    def _requests(self) -> Mapping[str, Iterable[Any]]:
        """The request ids of the consumer's subscriptions, by group."""
        if self._consumer is None:
            return {}
        requests: Mapping[str, Iterable[Any]] = self._consumer._observer_group_to_request_id[
            self._observer._stable_observer_id
        ]
        return requests


def _key_in(model: type[Model], body: Any) -> str:
    """The key of the row that a body is of, if it has it under ``pk`` or the field's name; else an empty text."""
    if not isinstance(body, dict):
        return ""
    fields = model._meta.pk_fields
    values = [body["pk"]] if len(fields) == 1 and "pk" in body else [body.get(field.name) for field in fields]
    return json.dumps(list(map(str, values))) if all(isinstance(value, str | int) for value in values) else ""
