"""The model observer that hears of changes from the database instead of from Django's signals."""

import inspect
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from channels.exceptions import StopConsumer
from django.db import router
from django.db.models import Model
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from djangochannelsrestframework.observer.base_observer import BaseObserver
from rest_framework.serializers import BaseSerializer, Serializer

from djcrf_pg.changelog.cursor import Snapshot
from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ChannelLayerError, MalformedRequestId, ObserverError
from djcrf_pg.listener import embedded, envelope
from djcrf_pg.observations import ObserverFailed, emit
from djcrf_pg.observer.dcrf import DCRFModelObserver
from djcrf_pg.registry import BATCH, Many2Many, is_postgresql, registry, through_of

#: What DCRF passes to a handler; the rest of an event goes to those that name it or take ``**kwargs``.
_EXTRAS = ("change_id", "committed_at")


class ModelObserver(DCRFModelObserver):
    """Observes a model through the change log.

    Everything of DCRF's class works as before: ``groups``, ``groups_for_signal``, ``groups_for_consumer``,
    ``serializer``, ``subscribe``, ``unsubscribe``, the group names, the message and its keys. What differs:

    - the event comes from the committed row, so ``groups_for_signal`` and serializers see the instance that
      ``Model.objects.get()`` would have loaded, without other attributes that the writer had set on it;
    - one transaction gives one event for each row, with its net effect;
    - a group that a row leaves gets a ``delete`` with the row as it was;
    - ``subscribe`` returns when a listener is up, and raises :class:`~djcrf_pg.exceptions.SubscribeError` if
      the events could not arrive.
    """

    def __init__(self, func: Any, model_cls: type[Model] | None, **kwargs: Any) -> None:
        self.trigger_driven = False
        super().__init__(func, model_cls=model_cls, **kwargs)
        accepted = inspect.signature(func).parameters.values()
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted)
        self._extras = [name for name in _EXTRAS if takes_all or any(parameter.name == name for parameter in accepted)]

    def _connect(self) -> None:
        _require_table(self.model_cls, self.label)
        self.trigger_driven = is_postgresql(self.model_cls)
        if self.trigger_driven:
            registry.add(self)
        else:
            super()._connect()

    # What the listener asks for.

    @property
    def label(self) -> str:
        """Where the handler is defined."""
        return f"{self.func.__module__}.{self.func.__qualname__}"

    @property
    def message_type(self) -> str:
        """The ``type`` of the channel-layer message, which selects the handler."""
        return str(self.func.__name__).replace("_", ".")

    @property
    def many_to_many_fields(self) -> list[Many2Many]:
        """The fields whose join tables are watched: as in DCRF, those that the model declares or inherits."""
        return list(self.model_cls._meta.many_to_many) if self._many_to_many_tracking else []

    @property
    def tables(self) -> list[str]:
        """The tables whose triggers it needs."""
        models = [self.model_cls, *map(through_of, self.many_to_many_fields)]
        return [model._meta.db_table for model in models]

    def serialize(self, instance: Model, action: Any, **kwargs: Any) -> dict[str, Any]:
        """Make the message of an event; a serializer is made once for each batch of the listener."""
        if self._serializer is not None or self._serializer_class is None:
            message: dict[str, Any] = super().serialize(instance, action, **kwargs)
            return message
        return {"type": self.message_type, "body": self._represent(instance), "action": action.value}

    def _represent(self, instance: Model) -> Any:
        serializer_class: type[BaseSerializer[Any]] = self._serializer_class
        batch = BATCH.get()
        if batch is None or not _is_reusable(serializer_class):
            return serializer_class(instance).data
        serializer = batch.get(serializer_class)
        if serializer is None:
            serializer = batch[serializer_class] = serializer_class()
        serializer.instance = instance
        return serializer.to_representation(instance)

    def clean_group_name(self, name: str) -> str:
        """The name that channel layers accept, exactly DCRF's."""
        return _clean_group_name(name)

    # What consumers ask for.

    async def subscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> Iterable[str]:
        """Subscribe the consumer; see DCRF. Changes that commit after this returns arrive.

        Args:
            consumer: The consumer.
            args: For ``groups_for_consumer``.
            request_id: Text or number that the handler gets back in ``subscribing_request_ids``.
            kwargs: For ``groups_for_consumer``.

        Returns:
            The names of the groups.

        Raises:
            SubscribeError: No event could arrive; nothing of the subscription is left.
            MalformedRequestId: ``request_id`` is neither text nor a number.
        """
        check_request_id(request_id)
        if not self.trigger_driven:
            return list(await super().subscribe(consumer, *args, request_id=request_id, **kwargs))
        if consumer.channel_layer is None:
            raise ChannelLayerError(
                "The consumer has no channel layer, so no event can reach it: set CHANNEL_LAYERS in the settings."
            )
        known = {*consumer.groups}
        groups = list(await super().subscribe(consumer, *args, request_id=request_id, **kwargs))
        try:
            snapshot = await embedded.ready(router.db_for_write(self.model_cls), self.tables)
        except BaseException:
            await self._withdraw(consumer, groups, request_id, known)
            raise
        for group in groups:
            if group not in known:
                _since(consumer)[group] = snapshot
        return groups

    async def _withdraw(self, consumer: AsyncAPIConsumer, groups: list[str], request_id: Any, known: set[str]) -> None:
        requests = consumer._observer_group_to_request_id[self._stable_observer_id]
        for group in groups:
            if request_id is not None and group in requests:
                requests[group].discard(request_id)
            if group not in known:
                requests.pop(group, None)
                await consumer.remove_group(group)

    async def unsubscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> Iterable[str]:
        """Unsubscribe the consumer; see DCRF.

        Raises:
            MalformedRequestId: ``request_id`` is neither text nor a number.
        """
        check_request_id(request_id)
        groups = list(await super().unsubscribe(consumer, *args, request_id=request_id, **kwargs))
        for group in groups:
            if group not in consumer.groups:
                _since(consumer).pop(group, None)
        return groups

    async def __call__(self, message: dict[str, Any], consumer: AsyncAPIConsumer | None = None, **kwargs: Any) -> Any:
        """Call the handler for each event of a message, in order.

        An exception of the handler is logged and the next event goes on; in DCRF it would end the consumer, and
        here the rest of the envelope with it.
        """
        if envelope.KEY not in message:
            return await super().__call__(message, consumer=consumer, **kwargs)
        group = message["group"]
        since = None if consumer is None else _since(consumer).get(group)
        for event in envelope.unpack(message):
            if since is None or not since.sees(event.xid):
                await self._handle(event, group, message["type"], consumer, kwargs)
        return None

    async def _handle(
        self, event: envelope.Event, group: str, message_type: str, consumer: Any, kwargs: dict[str, Any]
    ) -> None:
        requests: Iterable[Any] = ()
        if consumer is not None:
            requests = consumer._observer_group_to_request_id[self._stable_observer_id].get(group, ())
        extras = {name: getattr(event, name) for name in self._extras}
        try:
            await self.func(
                consumer,
                event.body,
                observer=self,
                message_type=message_type,
                subscribing_request_ids=list(requests),
                group=group,
                action=event.action,
                **extras,
                **kwargs,
            )
        except StopConsumer:
            raise
        except Exception as error:
            pk = event.body.get("pk") if isinstance(event.body, dict) else None
            failure = ObserverFailed(
                observer=self.label,
                model=self.model_cls._meta.label,
                pk=pk,
                change_id=event.change_id,
                error=repr(error),
            )
            emit(failure, error)


def check_request_id(request_id: Any) -> None:
    """Refuse what cannot be kept in a set of request ids; None is no request id.

    Raises:
        MalformedRequestId: It is neither text nor a number.
    """
    if request_id is not None and not isinstance(request_id, str | int | float):
        raise MalformedRequestId(f"request_id must be text or a number, not {type(request_id).__name__}.")


def _require_table(model: Any, label: str) -> None:
    if not (inspect.isclass(model) and issubclass(model, Model)):
        raise ObserverError(f"@model_observer on {label} takes a Django model class, not {model!r}.")
    meta = model._meta
    if meta.abstract:
        raise ObserverError(
            f"@model_observer on {label}: {model.__name__} is abstract, so it has no table: observe the models that "
            f"inherit from it."
        )
    if not meta.managed and meta.label not in get_settings().OBSERVE:
        raise ObserverError(
            f"@model_observer on {label}: {meta.label} is unmanaged (Meta.managed = False), and what is behind it may "
            f"be no table. If it is a PostgreSQL table, say so: DJCRF_PG = {{'OBSERVE': [{meta.label!r}]}}."
        )


def _is_reusable(serializer_class: type[BaseSerializer[Any]]) -> bool:
    """Whether ``.data`` is what ``to_representation`` gives, so that one serializer can do many instances."""
    return issubclass(serializer_class, Serializer) and serializer_class.data is Serializer.data


@lru_cache(maxsize=16_384)
def _clean_group_name(name: str) -> str:
    cleaned: str = BaseObserver.clean_group_name(None, name)
    return cleaned


def _since(consumer: AsyncAPIConsumer) -> dict[str, Snapshot]:
    """What had been committed when the consumer joined each group: not for it, however late it arrives."""
    since: dict[str, Snapshot] | None = getattr(consumer, "_djcrf_pg_since", None)
    if since is None:
        since = consumer._djcrf_pg_since = {}
    return since
