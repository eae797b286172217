"""The consumer mixin that observes single instances; the same names as in DCRF's module. And what it has not: lists."""

import inspect
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from channels.db import database_sync_to_async
from django.db.models import Model
from djangochannelsrestframework.decorators import action
from rest_framework import status
from rest_framework.generics import get_object_or_404
from rest_framework.serializers import BaseSerializer

from djcrf_pg.delivery.envelope import RESYNC
from djcrf_pg.exceptions import MalformedRequestId, SubscribeError
from djcrf_pg.observer.consumers import attach
from djcrf_pg.observer.dcrf import DCRFGenericModelObserver, DCRFObserverModelInstanceMixin
from djcrf_pg.observer.listing import ListAndSubscribeMixin
from djcrf_pg.observer.model_observer import ModelObserver, check_request_id

__all__ = ["ListAndSubscribeMixin", "ObserverModelInstanceMixin"]

#: The key of the row that an event is about, while it is looked up for the client. No client can set it.
_event_pk: ContextVar[Any] = ContextVar("djcrf_pg.event_pk", default=None)


class _GenericModelObserver(DCRFGenericModelObserver):
    """A handler that becomes an observer when a consumer class says which model it is for."""

    def bind_to_model(
        self,
        model_cls: type[Model],
        name: str,
        many_to_many: bool = False,
        related: bool | Iterable[str] = False,
        shows: type[BaseSerializer[Any]] | None = None,
    ) -> ModelObserver:
        observer = ModelObserver(
            func=self.func,
            model_cls=model_cls,
            partition=name,
            many_to_many=many_to_many,
            related=related,
            shows=shows,
        )
        observer.groups(self._group_names)
        observer.serializer(self._serializer)
        observer.resync(_resync_instances)
        return observer


def _lookup(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters among the arguments of an action."""
    return {name: value for name, value in arguments.items() if name != "action"}


async def _resync_instances(
    consumer: Any, reason: str, subscribing_request_ids: Any = (), model: str = "", group: str = "", **kwargs: Any
) -> None:
    """The mixin keeps its request ids itself: those of the instance, or all of them."""
    for request_id in list(consumer._requests_for(group if group in consumer.subscribed_requests else None)):
        data = {"reason": reason, "model": model}
        await consumer.reply(action=RESYNC, data=data, status=205, request_id=request_id)


class _Subscribed(NamedTuple):
    """What a request subscribed to; like the instance itself, it has the key that its group is named after.

    Attributes:
        pk: The instance's key.
        lookup: The parameters that found it.
    """

    pk: Any
    lookup: dict[str, Any]


def _model_of(consumer_class: Any) -> type[Model] | None:
    """The model of a consumer's instances: that of its queryset, or of its serializer."""
    meta = getattr(getattr(consumer_class, "serializer_class", None), "Meta", None)
    for found in (getattr(consumer_class, "queryset", None), meta):
        model = getattr(found, "model", None)
        if inspect.isclass(model) and issubclass(model, Model) and not model._meta.abstract:
            return model
    return None


class ObserverModelInstanceMixin(DCRFObserverModelInstanceMixin):
    """Subscribe to single instances of the consumer's model; see DCRF's class.

    The model is that of ``queryset``, or of ``serializer_class`` where a consumer has only ``get_queryset()``; here a
    class that derives from a consumer may have another. An event is sent as ``retrieve()`` gives it, whatever
    ``lookup_field`` is.

    Set ``observer_many_to_many_relationships = True`` to receive many-to-many changes too, and ``observer_related`` to
    receive what ``serializer_class`` shows of related rows: True, or the paths of relations as ``related`` of
    ``@model_observer`` takes them.
    """

    observer_related: bool | Iterable[str] = False

    handle_instance_change = _GenericModelObserver(DCRFObserverModelInstanceMixin.handle_instance_change.func).groups(
        DCRFObserverModelInstanceMixin.handle_instance_change._group_names
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Bind the observer where DCRF's metaclass does not, which looks only at what stands in the class body."""
        super().__init_subclass__(**kwargs)
        model, many_to_many = _model_of(cls), cls.observer_many_to_many_relationships
        related, shows = cls.observer_related, getattr(cls, "serializer_class", None) if cls.observer_related else None
        generic = vars(ObserverModelInstanceMixin)["handle_instance_change"]
        bound = cls.handle_instance_change
        if model is None or getattr(bound, "func", None) is not generic.func:
            return  # a class for others to derive from, or one with a handler of its own
        if bound is generic or not bound.observes(model, many_to_many, related, shows):
            name = f"{cls.__module__}.{cls.__name__}.handle_instance_change"
            cls.handle_instance_change = generic.bind_to_model(model, name, many_to_many, related, shows)
        attach(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: By group and request id.
        self._subscribed: dict[tuple[str, Any], _Subscribed] = {}

    def get_object(self, **kwargs: Any) -> Model:
        """The instance that the lookup parameters find; for an event, the one that the event is about.

        An event has the primary key, whatever ``lookup_field`` is and whatever has become of its value. A client's
        parameters are DCRF's to look up, so that it finds nothing by a key that the consumer does not take.
        """
        pk = _event_pk.get()
        instance: Model
        if pk is None or kwargs.get("pk") != pk:
            instance = super().get_object(**kwargs)
        else:
            queryset = self.filter_queryset(queryset=self.get_queryset(**kwargs), **kwargs)
            instance = get_object_or_404(queryset, pk=pk)
        return instance

    @action()
    async def subscribe_instance(
        self, request_id: Any = None, since: str | None = None, cursor: bool = False, **kwargs: Any
    ) -> tuple[dict[str, str] | None, int]:
        """Subscribe to the instance that the lookup parameters find.

        Args:
            request_id: Names the subscription.
            since: A cursor; what it has not seen comes first, see :meth:`ModelObserver.subscribe`.
            cursor: Whether the reply's data has the present ``cursor``.
            kwargs: Lookup parameters.

        Raises:
            MalformedRequestId: A ValueError; ``request_id`` is missing, or neither text nor a number.
            SubscribeError: No event could arrive, or the consumer has no model.
            InvalidCursor, CursorExpired: There is nothing to be had behind ``since``.
        """
        if request_id is None:
            raise MalformedRequestId("request_id must have a value set")
        check_request_id(request_id)
        if isinstance(self.handle_instance_change, _GenericModelObserver):
            raise SubscribeError(
                f"{type(self).__name__} observes no model: set queryset, or a serializer_class with Meta.model."
            )
        instance = await database_sync_to_async(self.get_object)(**kwargs)
        # Before it subscribes: what comes between the two comes twice, and is not left out.
        present = {"cursor": await self.handle_instance_change.current_cursor()} if cursor else None
        groups = set(await self.handle_instance_change.subscribe(instance=instance, since=since))
        self._subscribe(request_id, groups)
        for group in groups:
            self._subscribed[group, request_id] = _Subscribed(instance.pk, _lookup(kwargs))
        return present, status.HTTP_201_CREATED

    @action()
    async def unsubscribe_instance(self, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End the subscription of this request to an instance, or without ``request_id`` those of all requests.

        DCRF leaves the group with the first request that ends, and the others hear no more; here the last one does.

        Args:
            request_id: Names the subscription.
            kwargs: Lookup parameters: those that it was made with, which may find nothing any more, or others.
        """
        check_request_id(request_id)
        found: dict[Any, Any] = {
            known.pk: known
            for (_, request), known in self._subscribed.items()
            if request_id in (None, request) and known.lookup == _lookup(kwargs)
        }
        for instance in found.values() or [await database_sync_to_async(self.get_object)(**kwargs)]:
            groups = list(self.handle_instance_change.group_names_for_consumer(instance=instance))
            for group in groups:
                requests = self.subscribed_requests.get(group, set())
                for request in [request_id] if request_id is not None else list(requests):
                    requests.discard(request)
                    self._subscribed.pop((group, request), None)
                if not requests:
                    self.subscribed_requests.pop(group, None)
            if not any(group in self.subscribed_requests for group in groups):
                await self.handle_instance_change.unsubscribe(instance=instance)
        return None, status.HTTP_204_NO_CONTENT

    async def handle_observed_action(self, action: str, group: str | None = None, **kwargs: Any) -> None:
        """Send an event to the requests that subscribed, if the client may still see it.

        DCRF replies to a refused permission, and then sends the row all the same; here nothing follows a refusal.
        ``retrieve()`` is given what the request subscribed with, and the body of the event, which has the key.

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
                known = self._subscribed.get((group or "", request_id))
                lookup = {**known.lookup, **kwargs} if known else kwargs
                token = _event_pk.set(kwargs.get("pk"))
                try:
                    response = await self.retrieve(request_id=request_id, action=action, **lookup)
                finally:
                    _event_pk.reset(token)
                if isinstance(response, tuple):
                    data, code = response
                    await self.reply(data=data, status=code, action=action, request_id=request_id)
            except Exception as error:
                await self.handle_exception(error, action=action, request_id=request_id)
