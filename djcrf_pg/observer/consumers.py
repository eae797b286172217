"""What observers need of a consumer: DCRF's consumers have it, other asynchronous ones of Channels are given it."""

from collections import defaultdict
from types import MethodType
from typing import Any

from channels.consumer import SyncConsumer
from djangochannelsrestframework.consumers import AsyncAPIConsumer

from djcrf_pg.exceptions import ObserverError


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


def equip(consumer: Any, observer: str, *, replies: bool = False) -> None:
    """Give a consumer what it lacks of DCRF's: the request ids of its subscriptions, and the methods for groups.

    What it has under these names is left alone.

    Args:
        consumer: The consumer.
        observer: Where the handler is defined of the observer that it subscribes to.
        replies: Whether resyncs are to be sent to a request id, as :func:`reply` does.

    Raises:
        ObserverError: It is synchronous, or has no ``send_json`` to reply with.
    """
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
