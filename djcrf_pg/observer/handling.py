"""What becomes of a message in a consumer: which of its events are news, and the calls of the handler."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from channels.exceptions import StopConsumer

from djcrf_pg.listener import envelope
from djcrf_pg.listener.numbering import Tail
from djcrf_pg.observations import EnvelopeUnreadable, MessagesMissing, ObserverFailed, emit
from djcrf_pg.observer.subscriptions import Subscriptions
from djcrf_pg.registry import registry

#: What DCRF does not pass to handlers and serializers: it goes to those that name it or take ``**kwargs``.
HANDLER_EXTRAS = ("change_id", "committed_at", "changed", "context")


class Handling:
    """An observer's messages for one consumer.

    An exception of the handler is logged and the next event goes on; in DCRF it would end the consumer, and here the
    rest of the envelope with it. A message that cannot be read is logged too, and a resync: what it told is lost
    otherwise.

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
        for event in events:
            if state is not None and envelope.is_of_the_layer(event):
                # Not from the log, so it is in no snapshot. It is sent until it was handled, and may come twice.
                fresh, state.stale = state.stale, False
            else:
                fresh = since is None or not since.sees(event.xid, event.committed_at)
            if fresh:
                await self._handle(event, group=group, message_type=message["type"], **kwargs)

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
        observer = self._observer
        try:
            if event.action == envelope.RESYNC:
                await self._handle_resync(event, **kwargs)
                return
            await observer.func(
                self._consumer,
                event.body,
                observer=observer,
                subscribing_request_ids=list(self._requests().get(kwargs["group"], ())),
                action=event.action,
                **observer.extras_of(event),
                **kwargs,
            )
        except StopConsumer:
            raise
        except Exception as error:
            failure = ObserverFailed(
                observer=observer.label,
                model=observer.model_cls._meta.label,
                pk=event.body.get("pk") if isinstance(event.body, dict) else None,
                change_id=event.change_id,
                error=repr(error),
            )
            emit(failure, error)

    async def _handle_resync(self, event: envelope.Event, **kwargs: Any) -> None:
        requests = list(dict.fromkeys(chain.from_iterable(self._requests().values())))
        if self._observer.resync_handler is None:
            for request_id in requests:
                await self._consumer.reply(action=envelope.RESYNC, data=event.body, status=205, request_id=request_id)
            return
        extras = {name: getattr(event, name) for name in HANDLER_EXTRAS if name != "changed"}
        await self._observer.resync_handler(
            self._consumer,
            subscribing_request_ids=requests,
            observer=self._observer,
            **event.body,
            **extras,
            **kwargs,
        )

    def _requests(self) -> Mapping[str, Iterable[Any]]:
        """The request ids of the consumer's subscriptions, by group."""
        if self._consumer is None:
            return {}
        requests: Mapping[str, Iterable[Any]] = self._consumer._observer_group_to_request_id[
            self._observer._stable_observer_id
        ]
        return requests
