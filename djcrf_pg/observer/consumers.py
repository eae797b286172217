"""What observers need of a consumer, and give it where it is missing.

An observer that finds itself in a class wraps the class's ``__call__`` and ``dispatch``, and those of the classes that
derive from it: so the consumer has an :class:`~djcrf_pg.delivery.inbox.Inbox`, whose events take turns with whatever
else it dispatches, and which ends with it. The request ids of subscriptions, and the methods for groups, are DCRF's;
other asynchronous consumers of Channels are given them.
"""

import asyncio
import functools
from collections import defaultdict
from types import MethodType
from typing import Any

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer
from djangochannelsrestframework.consumers import AsyncAPIConsumer

from djcrf_pg.delivery.inbox import Inbox
from djcrf_pg.exceptions import ObserverError
from djcrf_pg.observer.access import warn_of_no_user

#: Where an inbox is among the attributes of its consumer, and what marks a method that knows of it.
_INBOX = "_djcrf_pg_inbox"


def refuse_synchronous(consumer_class: type, observer: str) -> None:
    """Refuse a consumer in which no handler would ever run.

    Args:
        consumer_class: The class that has the observer: a consumer, or what consumers inherit from.
        observer: Where the observer's handler is defined.

    Raises:
        ObserverError: It is synchronous.
    """
    if issubclass(consumer_class, SyncConsumer):
        raise ObserverError(
            f"@model_observer on {observer}: {consumer_class.__name__} is a SyncConsumer, which cannot await the "
            f"handler. Derive it from djangochannelsrestframework's AsyncAPIConsumer, or from Channels' "
            f"AsyncJsonWebsocketConsumer."
        )


def attach(owner: Any) -> None:
    """Have the consumers of a class, and of those that derive from it, hand over what is in their inboxes.

    Args:
        owner: A class that has an observer: a consumer, or what consumers inherit from.
    """
    _wrap(owner)
    own = vars(owner).get("__init_subclass__")
    if getattr(own, _INBOX, False):
        return

    def __init_subclass__(cls: Any, **kwargs: Any) -> None:
        if own is not None:
            own.__func__(cls, **kwargs)
        else:
            super(owner, cls).__init_subclass__(**kwargs)
        _wrap(cls)

    made: Any = classmethod(__init_subclass__)  # type: ignore[arg-type]
    setattr(made, _INBOX, True)
    owner.__init_subclass__ = made


def _wrap(consumer_class: Any) -> None:
    if not issubclass(consumer_class, AsyncConsumer):
        return
    for name, wrapper in (("__call__", _called), ("dispatch", _dispatched)):
        method = getattr(consumer_class, name)
        if not _is_ours(method):
            wrapped = functools.wraps(method)(wrapper(method))
            setattr(wrapped, _INBOX, wrapped)
            setattr(consumer_class, name, wrapped)


def _is_ours(method: Any) -> bool:
    """Whether a method knows of the inbox itself; ``functools.wraps`` copies the mark to others, with whose it is."""
    return method is not None and getattr(method, _INBOX, None) is method


def _has_turns(consumer: Any) -> bool:
    """Whether handlers of a consumer would take turns with what it dispatches.

    Code that replaces a method of the class later, as instrumentation does, calls ours all the same.
    """
    classes = type(consumer).__mro__
    return _INBOX in vars(consumer) or any(_is_ours(vars(each).get("dispatch")) for each in classes)


def _called(method: Any) -> Any:
    async def __call__(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if "user" not in scope:
            warn_of_no_user(type(self))
        inbox = inbox_of(self)
        inbox.attach()

        async def noticed_send(message: Any) -> None:
            if message["type"] == "websocket.close":
                inbox.leave()
            try:
                await send(message)
            except (OSError, RuntimeError):
                # The client has gone: the first by the ASGI specification ("Disconnected Client"), the second by
                # uvicorn, where it has seen it closing.
                inbox.leave()
                raise

        try:
            await method(self, scope, receive, noticed_send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if inbox.error is None or task is None or task.uncancel() > 0:
                raise
            if not isinstance(inbox.error, StopConsumer):
                raise inbox.error from None
        finally:
            await end(self)

    return __call__


def _dispatched(method: Any) -> Any:
    async def dispatch(self: Any, message: Any) -> None:
        inbox = inbox_of(self)
        if message["type"] == "websocket.disconnect":
            inbox.leave()
        outermost = type(self).dispatch
        is_inner = outermost is not dispatch and _is_ours(outermost)
        # One that a class further down has calls this, and has the turn: maybe of another task.
        if (is_inner and inbox.dispatching) or not await inbox.begin():
            await method(self, message)
            return
        inbox.dispatching = not is_inner
        try:
            await method(self, message)
        finally:
            inbox.dispatching = False
            inbox.share_context()
            inbox.end()

    return dispatch


def inbox_of(consumer: Any) -> Inbox:
    """The inbox of a consumer; made when there is none."""
    found: Inbox | None = vars(consumer).get(_INBOX)
    if found is None:
        found = vars(consumer)[_INBOX] = Inbox()
    return found


async def end(consumer: Any) -> None:
    """Leave nothing of a consumer that has ended, however it did: no lanes, no groups of its subscriptions."""
    inbox = inbox_of(consumer)
    try:
        await inbox.close()
    finally:  # servers cancel again while a handler takes long to end
        # No circle is to keep the consumer until the next garbage collection.
        subscriptions, inbox.subscriptions = inbox.subscriptions, {}
        for subscription in subscriptions.values():
            subscription.observer.forget(subscription)


def equip(consumer: Any, observer: str, *, replies: bool = False) -> None:
    """Give a consumer what it lacks of DCRF's: the request ids of its subscriptions, and the methods for groups.

    What it has under these names is left alone.

    Args:
        consumer: The consumer.
        observer: Where the handler is defined of the observer that it subscribes to.
        replies: Whether resyncs are to be sent to a request id, as :func:`reply` does.

    Raises:
        ObserverError: It is synchronous, or has no ``send_json`` to reply with,
            or its class had no observer when it was made.
    """
    if not _has_turns(consumer) and not isinstance(consumer, SyncConsumer):
        name = type(consumer).__name__
        raise ObserverError(
            f"{observer} became an observer of {name} after that class was made, so its handlers would run beside "
            f"other code of the consumer. Decorate the handler in the body of the class, or of one that it inherits "
            f"from. Code that adds an observer later with setattr({name}, attribute, observer), as a class decorator "
            f"does, calls observer.__set_name__({name}, attribute) after that."
        )
    if isinstance(consumer, AsyncAPIConsumer):
        return
    refuse_synchronous(type(consumer), observer)
    if replies and not hasattr(consumer, "send_json"):
        raise ObserverError(
            f"{type(consumer).__name__} subscribes to {observer} with a request_id, and has no send_json() to send it "
            f"a resync with. Decorate a method with the observer's .resync, or derive the consumer from Channels' "
            f"AsyncJsonWebsocketConsumer."
        )
    if not hasattr(consumer, "_observer_group_to_request_id"):
        consumer._observer_group_to_request_id = defaultdict(lambda: defaultdict(set))
    if "groups" not in vars(consumer):
        # What the class declares is that of all its consumers.
        consumer.groups = set(getattr(consumer, "groups", None) or ())
    for name in ("add_group", "remove_group"):
        if not hasattr(consumer, name):
            setattr(consumer, name, MethodType(getattr(AsyncAPIConsumer, name), consumer))


async def reply(consumer: Any, **kwargs: Any) -> None:
    """Reply to a request as DCRF does; a ``reply`` of a consumer that is not DCRF's may be anything."""
    if isinstance(consumer, AsyncAPIConsumer):
        await consumer.reply(**kwargs)
    else:
        await AsyncAPIConsumer.reply(consumer, **kwargs)
