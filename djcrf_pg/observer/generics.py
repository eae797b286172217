"""The consumer mixin that observes single instances; the same names as in DCRF's module."""

from typing import Any

from channels.db import database_sync_to_async
from django.db.models import Model
from djangochannelsrestframework.decorators import action
from rest_framework import status

from djcrf_pg.exceptions import MalformedRequestId
from djcrf_pg.listener.envelope import RESYNC
from djcrf_pg.observer.dcrf import DCRFGenericModelObserver, DCRFObserverModelInstanceMixin
from djcrf_pg.observer.model_observer import ModelObserver, check_request_id

__all__ = ["ObserverModelInstanceMixin"]


class _GenericModelObserver(DCRFGenericModelObserver):
    """A handler that becomes an observer when a consumer class says which model it is for."""

    def bind_to_model(self, model_cls: type[Model], name: str, many_to_many: bool = False) -> ModelObserver:
        observer = ModelObserver(func=self.func, model_cls=model_cls, partition=name, many_to_many=many_to_many)
        observer.groups(self._group_names)
        observer.serializer(self._serializer)
        observer.resync(_resync_instances)
        return observer


async def _resync_instances(
    consumer: Any, reason: str, subscribing_request_ids: Any = (), model: str = "", group: str = "", **kwargs: Any
) -> None:
    """The mixin keeps its request ids itself: those of the instance, or all of them."""
    for request_id in list(consumer._requests_for(group if group in consumer.subscribed_requests else None)):
        data = {"reason": reason, "model": model}
        await consumer.reply(action=RESYNC, data=data, status=205, request_id=request_id)


class ObserverModelInstanceMixin(DCRFObserverModelInstanceMixin):
    """Subscribe to single instances of the consumer's model; see DCRF's class.

    Set ``observer_many_to_many_relationships = True`` to hear of many-to-many changes too.
    """

    handle_instance_change = _GenericModelObserver(DCRFObserverModelInstanceMixin.handle_instance_change.func).groups(
        DCRFObserverModelInstanceMixin.handle_instance_change._group_names
    )

    @action()
    async def subscribe_instance(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """Subscribe to the instance that the lookup parameters find.

        Args:
            request_id: Names the subscription.
            kwargs: Lookup parameters.

        Raises:
            MalformedRequestId: A ValueError; ``request_id`` is missing, or neither text nor a number.
            SubscribeError: No event could arrive.
        """
        if request_id is None:
            raise MalformedRequestId("request_id must have a value set")
        check_request_id(request_id)
        instance = await database_sync_to_async(self.get_object)(**kwargs)
        groups = set(await self.handle_instance_change.subscribe(instance=instance))
        self._subscribe(request_id, groups)
        return None, status.HTTP_201_CREATED

    @action()
    async def unsubscribe_instance(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End the subscription of this request to an instance, or without ``request_id`` those of all requests.

        DCRF leaves the group with the first request that ends, and the others hear no more; here the last one does.

        Args:
            request_id: Names the subscription.
            kwargs: Lookup parameters.
        """
        check_request_id(request_id)
        instance = await database_sync_to_async(self.get_object)(**kwargs)
        groups = list(self.handle_instance_change.group_names_for_consumer(instance=instance))
        for group in groups:
            requests = self.subscribed_requests.get(group, set())
            requests.discard(request_id)
            if request_id is None or not requests:
                self.subscribed_requests.pop(group, None)
        if not any(group in self.subscribed_requests for group in groups):
            await self.handle_instance_change.unsubscribe(instance=instance)
        return None, status.HTTP_204_NO_CONTENT

    async def handle_observed_action(self, action: str, group: str | None = None, **kwargs: Any) -> None:
        """Send an event to the requests that subscribed, if the client may still see it.

        DCRF replies to a refused permission, and then sends the row all the same; here nothing follows a refusal.

        Args:
            action: ``create``, ``update`` or ``delete``.
            group: The group that it came through.
            kwargs: The body of the event.
        """
        try:
            await self.check_permissions(action, **kwargs)
        except Exception as error:
            await self.handle_exception(error, action=action, request_id=None)
            return
        for request_id in list(self._requests_for(group)):
            try:
                if action == "delete":
                    await self.reply(data=kwargs, status=204, action=action, request_id=request_id)
                    continue
                response = await self.retrieve(request_id=request_id, action=action, **kwargs)
                if isinstance(response, tuple):
                    data, code = response
                    await self.reply(data=data, status=code, action=action, request_id=request_id)
            except Exception as error:
                await self.handle_exception(error, action=action, request_id=request_id)
