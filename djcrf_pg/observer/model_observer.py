"""The model observer that receives changes from the database instead of Django's signals."""

import asyncio
import hashlib
import inspect
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import router
from django.db.models import Model, Prefetch
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from djangochannelsrestframework.observer.base_observer import BaseObserver
from djangochannelsrestframework.observer.model_observer import Action
from rest_framework.serializers import BaseSerializer
from rest_framework.settings import api_settings

from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import Event, load
from djcrf_pg.delivery.inbox import Moment, Subscription
from djcrf_pg.delivery.layer import how_to_fix
from djcrf_pg.delivery.protocol import KEY, Origin
from djcrf_pg.delivery.resume import Cursor
from djcrf_pg.exceptions import (
    ChannelLayerError,
    ConfigurationError,
    GroupsError,
    MalformedRequestId,
    ObserverError,
    SubscribeError,
    TooManySubscriptions,
)
from djcrf_pg.instances import sql_fields
from djcrf_pg.listener import embedded
from djcrf_pg.listener.gate import Probe
from djcrf_pg.observations import Observation, cause_of, text_of
from djcrf_pg.observer import by_hand, definitions, handling, silence
from djcrf_pg.observer.consumers import attach, equip, inbox_of, refuse_synchronous
from djcrf_pg.observer.dcrf import DCRFModelObserver
from djcrf_pg.observer.grouping import groups_of
from djcrf_pg.observer.handling import HANDLER_EXTRAS, NAMED_EXTRAS
from djcrf_pg.observer.paths import Path, Shown, lookups_of, shown_by, ways, with_given
from djcrf_pg.observer.related import is_path, named, shown_at, watches_of
from djcrf_pg.observer.serializing import represent
from djcrf_pg.observer.signatures import (
    by_name,
    label_of,
    misfit,
    refuse_groups_for_consumer,
    refuse_groups_for_signal,
    refuse_handler,
    refuse_model,
    refuse_options,
    refuse_resync,
    refuse_serializer,
    returns_nothing,
    takes_function,
)
from djcrf_pg.registry import (
    Relationship,
    Watch,
    family_of,
    is_postgresql,
    observed_tables,
    parents_of,
    registry,
    relationships_of,
)

#: Seconds that leaving groups may take where a subscription is refused.
_FAREWELL = 2.0

#: Characters of a request id: each event repeats it.
MAX_REQUEST_ID = 255

_SERIALIZER_EXTRAS = (*HANDLER_EXTRAS, *NAMED_EXTRAS)


class ModelObserver(DCRFModelObserver):
    """Observes a model through the change log.

    Everything of DCRF's class works as before: ``groups``, ``groups_for_signal``, ``groups_for_consumer``,
    ``serializer``, ``subscribe``, ``unsubscribe``, the group names, the message and its keys. What differs:

    - the event comes from the committed row, so ``groups_for_signal`` and serializers see the instance that
      ``Model.objects.get()`` would have loaded, without other attributes that the writer had set on it;
    - one transaction gives one event for each row, with its net effect;
    - a group that a row leaves gets a ``delete`` with the row as it was;
    - ``subscribe`` returns when a listener is up, and raises :class:`~djcrf_pg.exceptions.SubscribeError` if
      the events could not arrive;
    - what cannot be sent row by row is a *resync*, see :meth:`resync`.

    Handlers and serializers may take, by keyword: ``changed`` (names of the fields that differ), ``context`` (what
    the writer said of itself), ``committed_at`` (a datetime for serializers, ISO 8601 for handlers), ``change_id``
    (the id in the change log), ``old_instance`` (the instance before), ``cursor`` (text: where a subscription goes
    on behind this event, see :meth:`subscribe`) and ``transaction`` (as :func:`djcrf_pg.transaction_token` names it).
    The last three have to be named, ``**kwargs`` is not given them.

    Args:
        func: The handler.
        model_cls: The model.
        partition: Distinguishes observers that share a handler.
        serializer_class: A DRF serializer for the message.
        many_to_many: True for the many-to-many fields that the model declares or inherits; or the names of fields
            and of reverse accessors.
        fields: Names of fields and relations; an update that touches none of them is no event.
        parents: Paths of foreign keys, such as ``"desk__place"``, whose tables get triggers: where one transaction
            deletes them with the instance, groups and serializers find them as they were.
        reuse_serializer: Whether one instance of ``serializer_class`` makes all bodies of a batch. By default where
            it provably has no state, see :mod:`djcrf_pg.observer.serializing`. True is for those who know that theirs
            has none: state of one row would show in the body of another. False makes one for each event.
        prefetch: What ``serializer_class`` follows is read off it and loaded for a whole batch at once. Lookups of
            ``prefetch_related``, text or ``Prefetch``, add to that and correct it: a ``Prefetch`` stands for what is
            found under its name. False has each event load its own.
        related: An update too is what changes a related row so that a body shows it. True for the relations that
            ``serializer_class`` follows and ``prefetch`` names; or their paths, such as ``"product__tags"``. What is
            not shown of a row does not count, where it is known what is shown.
        shows: The serializer that shows an instance to subscribers, where the body does not: ``related`` is of that.
        skip_unchanged: An update that changes no field is no event.
        every_change: Tell each change of a row in a transaction, instead of their net effect.

    Raises:
        ObserverError: The model has no table of its own, a name is none of its fields, a query selects its key as SQL,
            as that of an encrypted field, or ``related`` cannot be followed.
    """

    #: Whether it makes events for a comparison alone, see :mod:`djcrf_pg.shadow`.
    is_shadow = False

    def __init__(
        self,
        func: Any,
        model_cls: type[Model] | None = None,
        partition: str = "*",
        serializer_class: type[BaseSerializer[Any]] | None = None,
        many_to_many: bool | Iterable[str] = False,
        *,
        fields: Iterable[str] | None = None,
        parents: Iterable[str] = (),
        reuse_serializer: bool | None = None,
        prefetch: "bool | Iterable[str | Prefetch[Any]]" = True,
        related: bool | Iterable[str] = False,
        shows: type[BaseSerializer[Any]] | None = None,
        skip_unchanged: bool = False,
        every_change: bool = False,
    ) -> None:
        self.trigger_driven = False
        refuse_handler(func, (*HANDLER_EXTRAS, *NAMED_EXTRAS))
        refuse_options(
            label_of(func),
            {
                "serializer_class": serializer_class,
                "many_to_many": many_to_many,
                "fields": fields,
                "parents": parents,
                "prefetch": prefetch,
                "related": related,
                "shows": shows,
            },
        )
        self._home = label_of(func)
        self._is_named = False
        self.every_change = every_change
        self._fields = None if fields is None else frozenset(fields)
        self._skip_unchanged = skip_unchanged
        self._reuse_serializer = reuse_serializer
        self._parents = tuple(parents)
        self._prefetch = prefetch if isinstance(prefetch, bool) else tuple(prefetch)
        self._related = related if isinstance(related, bool) else tuple(related)
        self._shows = shows
        self._resync: Any = None
        #: What :meth:`rows_for_consumer` decorated, or None.
        self.rows_of_groups: Any = None
        self._serializer_extras: tuple[str, ...] = ()
        self._extras = _accepted(func, (*HANDLER_EXTRAS, "transaction"))
        named = inspect.signature(func).parameters
        self.wants_old, self.takes_cursor = "old_instance" in named, "cursor" in named
        #: Whether the handler names the request ids of subscriptions.
        self.replies = "subscribing_request_ids" in named
        #: What was said of it that is said once.
        self.said: set[type[Observation]] = set()
        self._partition = partition
        super().__init__(func, model_cls, partition, serializer_class, many_to_many)
        definitions.note(func, self.label)

    if not TYPE_CHECKING:  # type checkers would take any name for one that there is

        def __getattr__(self, name: str) -> Any:
            """Say what ``self`` is, where groups or serializers take it for the consumer."""
            if name.startswith("_") or hasattr(type(self), name):
                return object.__getattribute__(self, name)  # raises what it raised
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}. In groups functions and serializers self "
                f"is the observer: groups_for_consumer is given the consumer by name; for events there is none.",
                name=name,
                obj=self,
            )

    def __set_name__(self, owner: type, name: str) -> None:
        """Look at the class that has the observer; it may be a mixin, and no consumer yet."""
        refuse_synchronous(owner, self.label)
        attach(owner)
        self.belong_to(owner, name)

    def belong_to(self, owner: type, name: str) -> None:
        """Take its identity from the class that has it."""
        if self._is_named:
            return  # Another class has it too; a process that knows the first alone has to call it the same.
        self._is_named = True
        definitions.settle(self.func, self.label)
        self._home = f"{owner.__module__}.{owner.__qualname__}.{name}"
        self.__dict__.pop("address", None)
        registry.renamed()

    def _connect(self) -> None:
        refuse_model(self.model_cls, self.label)
        self.trigger_driven = is_postgresql(self.model_cls)
        if self.trigger_driven:
            registry.add(self)
            by_hand.receive(self.model_cls)
        else:
            registry.without_triggers.add(self)
            super()._connect()
        if apps.models_ready:
            self._check_names()
            if self.trigger_driven:
                self._check_key()

    def _check_names(self) -> None:
        try:
            relationships = {relationship.name for relationship in self.relationships}
            parents_of(self.model_cls, self._parents)
            if not isinstance(self._prefetch, bool):
                with_given(self.model_cls, self._prefetch, ())
            if self.trigger_driven:
                self.watches  # noqa: B018
        except ObserverError as error:
            raise ObserverError(f"@model_observer on {self.label}: {error}") from None
        known = {field.name for field in self.model_cls._meta.concrete_fields} | relationships
        if unknown := sorted((self._fields or set()) - known):
            raise ObserverError(
                f"@model_observer on {self.label}: fields names {unknown[0]!r}, which is no field of "
                f"{self.model_cls._meta.label} that is watched; those are {', '.join(sorted(known))}."
            )

    def _check_key(self) -> None:
        for model in self.models:
            for field in sql_fields(model, router.db_for_write(model)).values():
                if field in model._meta.pk_fields:
                    raise ObserverError(
                        f"@model_observer on {self.label}: a query selects the primary key {field.name!r} of "
                        f"{model._meta.label} as SQL of {type(field).__name__}, and the change log has what is stored: "
                        f"no instance could be made of it. Give the model a key that is stored as it is selected."
                    )

    def post_init_receiver(self, instance: Model, **kwargs: Any) -> None:
        """Keep no groups of an instance: the log has the row as it was. DCRF's where the model has no triggers."""
        if not self.trigger_driven:
            super().post_init_receiver(instance, **kwargs)

    def post_save_receiver(self, instance: Model, created: bool, **kwargs: Any) -> None:
        """Do nothing where the project has connected it to another sender, a proxy, say: triggers capture those too."""
        if not (self.trigger_driven and by_hand.is_sent_by_django(**kwargs)):
            super().post_save_receiver(instance, created, **kwargs)

    def database_event(self, instance: Model, action: Action) -> None:
        """Answer a receiver of DCRF's that is called by hand, as after a ``bulk_create``; see :mod:`.by_hand`."""
        if not self.trigger_driven:
            super().database_event(instance, action)
        else:
            by_hand.answer(instance, action, f"a receiver of {self.label}")

    # What the listener asks for.

    @cached_property
    def label(self) -> str:
        """Where the handler is defined."""
        return label_of(self.func)

    @property
    def action(self) -> bool:
        """False: ``@action()`` marks with it what clients may call."""
        return False

    @action.setter
    def action(self, value: bool) -> None:
        raise ObserverError(
            f"@action() stands on the observer {self.label}, which no client calls. Write an action of another name, "
            f"which awaits self.{self.func.__name__}.subscribe(request_id=request_id)."
        )

    @property
    def identity(self) -> str:
        """The consumer class and the attribute, with whatever else makes a difference between two of them.

        DCRF's groups have the module and the name of the handler alone, so two consumers of a module share them.
        """
        made_by = "" if (made := self._serializer_class) is None else f"{made.__module__}.{made.__qualname__}"
        parts = [self._home, self._partition, self.model_cls._meta.label, made_by]
        if self._related:  # whoever does not know of it is not to serve its subscribers
            parts.append(repr(self._related))
        return "|".join(parts)

    @cached_property
    def address(self) -> str:
        """The identity, shortened."""
        return hashlib.sha256(self.identity.encode()).hexdigest()[:16]

    def makes_the_same(self, other: "ModelObserver") -> bool:
        """Whether the events of another one with the same identity are those that this one would make."""
        return self._recipe == other._recipe

    @property
    def _recipe(self) -> tuple[Any, ...]:
        functions = (self._serializer, self._group_names_for_signal)
        options = (self._many_to_many_tracking, self._prefetch, self._fields, self._skip_unchanged)
        return (
            type(self),
            self._serializer_class,
            *options,
            self._related,
            self._shows,
            self.every_change,
            self.wants_old,
            *map(_text_of, functions),
        )

    @cached_property
    def message_type(self) -> str:
        """The ``type`` of the channel-layer message, which selects the handler."""
        return str(self.func.__name__).replace("_", ".")

    @property
    def models(self) -> list[type[Model]]:
        """The observed model, and those whose tables hold the rest of its columns."""
        return family_of(self.model_cls)

    @property
    def relationships(self) -> list[Relationship]:
        """The relations whose join tables are watched."""
        return relationships_of(self.model_cls, self._many_to_many_tracking)

    @cached_property
    def watches(self) -> tuple[Watch, ...]:
        """What is watched of the rows that its bodies show.

        Raises:
            ObserverError: It cannot be known, or be watched.
        """
        if not self._related:
            return ()
        return watches_of(self.model_cls, self._shown(self._shows or self.serializer_class))

    def _shown(self, serializer_class: type[BaseSerializer[Any]] | None) -> Mapping[Path, Shown]:
        """What bodies that a serializer makes show of the related rows that count."""
        shown: Mapping[Path, Shown] = {(): None}
        if serializer_class is not None:
            try:
                shown = shown_by(serializer_class, self.model_cls)
            except Exception as error:
                if self._related is True:
                    raise ObserverError(
                        f"related asks {serializer_class.__name__} what it shows, which cannot be made: "
                        f"{text_of(error)}"
                    ) from error
        elif self._related is True:
            raise ObserverError("related=True is for a serializer_class; name the relations: related=[…].")
        given = () if isinstance(self._prefetch, bool) else self._prefetch
        lookups = {lookup.prefetch_through if isinstance(lookup, Prefetch) else lookup: lookup for lookup in given}
        # What a queryset leaves out, and the order of what it does not, may depend on any field.
        queried = {name for name, lookup in lookups.items() if getattr(lookup, "queryset", None) is not None}
        shown = {path: None if "__".join(path) in queried else fields for path, fields in shown.items()}
        if not isinstance(self._related, bool):
            return named(self.model_cls, self._related, shown)
        paths = (way for name in lookups for way in ways(tuple(name.split("__"))))
        # What comes behind a name that only a ``Prefetch`` gives is no relation.
        known = {path: shown_at(shown, path) for path in paths if is_path(self.model_cls, path)}
        return {path: fields for path, fields in shown.items() if path} | known

    def observes(
        self,
        model: type[Model],
        many_to_many: bool | Iterable[str],
        related: bool | Iterable[str],
        shows: type[BaseSerializer[Any]] | None,
    ) -> bool:
        """Whether it is for this model, these of its relations, and what a serializer shows."""
        related = related if isinstance(related, bool) else tuple(related)
        mine = (self._many_to_many_tracking, self._related, self._shows)
        return self.model_cls is model and mine == (many_to_many, related, shows)

    @property
    def parents(self) -> list[type[Model]]:
        """The models that ``parents`` leads through."""
        return parents_of(self.model_cls, self._parents)

    @property
    def tables(self) -> dict[str, str]:
        """The tables whose triggers it needs, each with the entry of ``OBSERVE`` that brings it."""
        return {model._meta.db_table: entry for model, entry in observed_tables(self).items()}

    def tells(self, changed: Collection[str]) -> bool:
        """Whether an update that changed these fields is an event."""
        if self.told_of is not None and self.told_of.isdisjoint(changed):
            return False
        return bool(changed) or not self._skip_unchanged

    @cached_property
    def told_of(self) -> frozenset[str] | None:
        """What an update has to change one of to be an event; None where anything will do."""
        return None if self._fields is None else self._fields.union(watch.path for watch in self.watches)

    @property
    def takes_extras(self) -> bool:
        """Whether the serializer takes more than the instance and the action."""
        return bool(self._serializer_extras) or self._has_other("serialize")

    @property
    def serializes_cursor(self) -> bool:
        """Whether the serializer takes a cursor."""
        return "cursor" in self._serializer_extras

    @property
    def needs_old(self) -> bool:
        """Whether groups, serializer or handler are given the instance as it was before."""
        named = self.wants_old or "old_instance" in self._serializer_extras
        return named or not self.has_one_group or self._has_other("serialize")

    @property
    def needs_row(self) -> bool:
        """Whether anybody is given more of an instance than its primary key."""
        makes_body = self._serializer is not None or self._serializer_class is not None
        return makes_body or self.needs_old

    @cached_property
    def prefetches(self) -> "tuple[str | Prefetch[Any], ...]":
        """The relations that are loaded for a batch before its bodies are made."""
        if self._prefetch is False:
            return ()
        made_by = self.serializer_class
        found = () if made_by is None else lookups_of(made_by, self.model_cls)
        return found if self._prefetch is True else with_given(self.model_cls, self._prefetch, found)

    @property
    def decimals_as_text(self) -> bool:
        """Whether a decimal in a body becomes text; else a number, where that has each digit.

        For the body of a function, REST framework's setting says so. A serializer class has asked its fields already:
        what they left a decimal is to be a number.
        """
        return self._serializer is not None and bool(api_settings.COERCE_DECIMAL_TO_STRING)

    @property
    def has_one_group(self) -> bool:
        """Whether it has no groups of its own, so that all rows are in one."""
        return self._group_names_for_signal is None and not self._overrides_groups

    @cached_property
    def _overrides_groups(self) -> bool:
        """Looked up once: it is asked for each event."""
        return self._has_other("group_names") or self._has_other("group_names_for_signal")

    @property
    def overrides_groups(self) -> bool:
        """Whether a subclass says which groups rows or subscriptions have."""
        return self._overrides_groups or self._has_other("group_names_for_consumer")

    def _has_other(self, method: str) -> bool:
        """Whether a subclass has a method of its own, which may want more than ours."""
        return getattr(type(self), method) is not getattr(ModelObserver, method)

    @property
    def serializer_class(self) -> type[BaseSerializer[Any]] | None:
        """The class that makes its bodies, unless a function does."""
        return None if self._serializer is not None else self._serializer_class

    @property
    def awaits_a_request_id(self) -> bool:
        """Whether the handler takes a ``request_id``, which no event has."""
        return "request_id" in inspect.signature(self.func).parameters

    @property
    def makes_no_body(self) -> bool:
        """Whether the function that is to make its bodies surely returns None."""
        return returns_nothing(self._serializer)

    def resync_group(self) -> str:
        """The group of all subscribers, whatever their groups."""
        return self._everybody

    @cached_property
    def _everybody(self) -> str:
        return self.clean_group_name(f"{self._stable_observer_id}-resync-{self.model_label}")

    @cached_property
    def _one_group(self) -> list[str]:
        """The group of an observer that has no groups of its own."""
        return list(super().group_names_for_signal())

    def group_names_for_signal(self, *args: Any, **kwargs: Any) -> Iterable[str]:
        """The groups that an instance belongs to; see DCRF."""
        if self.has_one_group:
            return self._one_group
        if (made := self._group_names_for_signal) is None:
            groups: Iterable[str] = super().group_names_for_signal(*args, **kwargs)
            return groups
        return self._named(groups_of(self.label, "groups_for_signal", made(self, *args, **kwargs)))

    def said_groups(self, instance: Model) -> dict[str, str]:
        """As :meth:`group_names_for_signal`, each with what the code yields for it; nothing where that is the same."""
        if (made := self._group_names_for_signal) is None:
            return {}
        groups = list(groups_of(self.label, "groups_for_signal", made(self, instance=instance)))
        return dict(zip(self._named(groups), groups, strict=True))

    def group_names_for_consumer(self, consumer: AsyncAPIConsumer, *args: Any, **kwargs: Any) -> Iterable[str]:
        """The groups that a subscription is for; see DCRF.

        Raises:
            GroupsError: The function that says so was not given what it takes, or gave what names no group.
        """
        if (made := self._group_names_for_consumer) is None:
            groups: Iterable[str] = super().group_names_for_consumer(consumer, *args, **kwargs)
            return groups
        try:
            given = made(self, *args, consumer=consumer, **kwargs)
        except TypeError:
            if (why := misfit(made, (self, *args), {"consumer": consumer, **kwargs})) is None:
                raise
            raise GroupsError(
                f"{self.label} was subscribed to with ({silence.listed(kwargs)}), and the function for "
                f"@….groups_for_consumer cannot be called with that ({why}): pass what it takes by name, as in "
                f"`subscribe(request_id=request_id, room_id=room_id)`, or give its parameters defaults."
            ) from None
        return self._named(groups_of(self.label, "groups_for_consumer", given))

    def _named(self, groups: Iterable[str]) -> list[str]:
        """The names that DCRF gives to groups."""
        return [self.clean_group_name(f"{self._stable_observer_id}-{group}") for group in groups]

    @takes_function
    def serializer(self, func: Any) -> "ModelObserver":
        """Use the decorated function for the body of the message; see DCRF."""
        if func is not None:
            named = inspect.signature(func).parameters if callable(func) else ()
            refuse_serializer(self.label, func, [name for name in _SERIALIZER_EXTRAS if name in named])
        self._serializer_extras = () if func is None else _accepted(func, _SERIALIZER_EXTRAS)
        super().serializer(func)
        return self

    @takes_function
    def groups_for_signal(self, func: Any) -> "ModelObserver":
        """Have the decorated function yield the groups that an instance belongs to; see DCRF.

        Raises:
            ObserverError: It could not be called as ``(self, instance=…)``, or yields nothing.
        """
        if func is not None and not self._has_other("group_names_for_signal"):
            refuse_groups_for_signal(self.label, func)
        super().groups_for_signal(func)
        return self

    @takes_function
    def groups_for_consumer(self, func: Any) -> "ModelObserver":
        """Have the decorated function yield the groups to subscribe to; see DCRF.

        Raises:
            ObserverError: It could not be called as ``(self, consumer=…)``, or yields nothing.
        """
        if func is not None and not self._has_other("group_names_for_consumer"):
            refuse_groups_for_consumer(self.label, func)
        super().groups_for_consumer(func)
        return self

    @takes_function
    def groups(self, func: Any) -> "ModelObserver":
        """Have one function yield both; see DCRF.

        Raises:
            ObserverError: It could not be called as ``(self, instance=…)`` and as ``(self, consumer=…)``, or yields
                nothing.
        """
        if func is not None and not self._has_other("group_names_for_signal"):
            refuse_groups_for_signal(self.label, func, "groups")
        if func is not None and not self._has_other("group_names_for_consumer"):
            refuse_groups_for_consumer(self.label, func, "groups")
        super().groups(func)
        return self

    @takes_function
    def rows_for_consumer(self, func: Any) -> "ModelObserver":
        """Say with the decorated function which rows are in the groups that ``groups_for_consumer`` gives.

        It is called as ``(self, consumer, **kwargs)`` with what that is given, and returns a
        :class:`~django.db.models.Q`. A list of these rows is what events continue, see
        :class:`~djcrf_pg.observer.generics.ListAndSubscribeMixin`.
        """
        self.rows_of_groups = func
        return self

    @takes_function
    def resync(self, func: Any) -> "ModelObserver":
        """Use the decorated method when subscribers have to load their data again. Use it as a decorator.

        It is called as ``(self, reason, subscribing_request_ids, **kwargs)`` for every subscriber of the observer,
        whatever its groups; ``reason`` is ``"truncate"``, ``"unreadable"`` where a row could not be read, or
        ``"channel_layer"`` where that has lost events of this process which the log does not have;
        ``kwargs`` has ``model``, ``observer``, ``group`` and what handlers may take. Without one, the consumer replies
        ``{"action": "resync", "response_status": 205, "data": {"reason": …, "model": …}}`` to each request id.
        """
        if func is not None:
            refuse_resync(self.label, func)
        self._resync = func
        return self

    def serialize(self, instance: Model, action: Any, **kwargs: Any) -> dict[str, Any]:
        """Make the message of an event; a serializer is made once for each batch of the listener."""
        if self._serializer is not None or self._serializer_class is None:
            if self._serializer is not None:
                kwargs = {
                    name: value
                    for name, value in kwargs.items()
                    if name in self._serializer_extras or name not in _SERIALIZER_EXTRAS
                }
            elif type(instance.pk) in (int, str):  # DCRF tries whether it is JSON, instance by instance
                return {"type": self.message_type, "body": {"pk": instance.pk}, "action": action.value}
            message: dict[str, Any] = super().serialize(instance, action, **kwargs)
            return message
        body = represent(self._serializer_class, instance, self._reuse_serializer)
        return {"type": self.message_type, "body": body, "action": action.value}

    def clean_group_name(self, name: str) -> str:
        """The name that channel layers accept, exactly DCRF's."""
        return _clean_group_name(name)

    # What consumers ask for.

    async def current_cursor(self, consumer: AsyncAPIConsumer) -> str:
        """A cursor that has seen all that is committed now, for :meth:`subscribe`.

        Args:
            consumer: The consumer.

        Raises:
            SubscribeError: The database cannot be asked, or is none of PostgreSQL.
        """
        self.require_log()
        try:
            probe = await embedded.runtime(router.db_for_write(self.model_cls)).probe((), ())
        except (ConfigurationError, *CONNECTION_ERRORS) as error:
            raise SubscribeError(f"The database cannot be asked for a cursor: {error}") from error
        return Cursor.at(probe.history, probe.moment.snapshot).encode()

    def require_log(self) -> None:
        """Refuse what needs a log, of which a model on another database vendor has none.

        Raises:
            SubscribeError: It has none.
        """
        if not self.trigger_driven:
            raise SubscribeError(f"{self.label} has no cursors: {self.model_cls._meta.label} is not on PostgreSQL.")

    @by_name
    async def subscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, since: str | None = None, **kwargs: Any
    ) -> Iterable[str]:
        """Subscribe the consumer; see DCRF. Changes that commit after this returns arrive.

        With a cursor, what it has not seen comes first: one event for each row, from what it was to what it is, for the
        groups that are subscribed to now.

        Args:
            consumer: The consumer.
            args: For ``groups_for_consumer``.
            request_id: Text or number that the handler gets back in ``subscribing_request_ids``.
            since: A cursor that a handler, a serializer or :meth:`current_cursor` was given.
            kwargs: For ``groups_for_consumer``.

        Returns:
            The names of the groups.

        Raises:
            SubscribeError: No event could arrive; nothing of the subscription is left.
            MalformedRequestId: ``request_id`` is neither text nor a number.
            InvalidCursor: ``since`` is no cursor of this database.
            CursorExpired: What it has not seen is not to be had any more.
            ObserverError: The consumer is synchronous, or cannot send a resync.
        """
        check_request_id(request_id)
        if since is not None:
            self.require_log()
        equip(consumer, self.label, replies=request_id is not None and self._resync is None)
        silence.refuse(self)
        silence.warn(self, request_id, kwargs)
        if not self.trigger_driven:
            return list(await super().subscribe(consumer, *args, request_id=request_id, **kwargs))
        self._refuse_if_replaced()
        try:
            settings = get_settings()
        except ConfigurationError as error:
            raise SubscribeError(str(error)) from error
        names = list(self.group_names_for_consumer(*args, consumer=consumer, **kwargs))  # type: ignore[misc]
        if not names:
            silence.warn_of_no_groups(self, kwargs)
        self._refuse_if_ended(consumer)
        subscription = self._subscription(consumer)
        requests = consumer._observer_group_to_request_id[self._stable_observer_id]
        self._refuse_if_too_many(consumer, names, request_id, settings.MAX_SUBSCRIPTIONS)
        # What is there already, and what another call that waits at the same time has made, is not ours to undo.
        fresh = [group for group in names if request_id not in requests.get(group, ())]
        subscription.wait(names)
        inbox = subscription.inbox
        if since is not None:
            inbox.hold()
        alias = router.db_for_write(self.model_cls)
        try:
            if request_id is not None:
                for group in names:  # all of them before another call counts
                    requests[group].add(request_id)
            if settings.JOIN_GROUPS and consumer.channel_layer is not None:
                await _join_groups(subscription, names, settings.SUBSCRIBE_TIMEOUT)
            probe = await embedded.ready(alias, self.tables, subscription, names)
            moment = probe.moment
            if since is not None:
                replayed, moment = await self._replay(since, probe, names, request_id)
            self._refuse_if_ended(consumer)
        except BaseException:
            if since is not None:
                inbox.release()
            subscription.waited(names)
            for group in fresh:
                requests[group].discard(request_id)
            with suppress(Exception):  # memberships of a layer that does not answer expire
                async with asyncio.timeout(_FAREWELL):
                    await self._leave_unused(subscription, names)
            raise
        subscription.waited(names)
        for group in names:
            # What was on its way before is not for whoever goes on behind a cursor: neither alone nor beside others.
            if group not in subscription.since or (since is not None and requests.get(group) in (None, {request_id})):
                subscription.since[group] = moment
            elif since is not None:
                subscription.later[group, request_id] = moment
        if since is not None:
            inbox.put_first(subscription, replayed)
            inbox.release()
        return names

    async def _replay(
        self, since: str, probe: Probe, groups: Collection[str], request_id: Any
    ) -> tuple[list[tuple[str, str, Origin]], Moment]:
        """What a cursor has not seen; and the moment, after the answer, up to which it is that."""
        cursor = Cursor.decode(since, probe.history, self.address)
        replays = embedded.runtime(router.db_for_write(self.model_cls)).replays
        backoff, patience = Backoff(0.05, 1.0), get_settings().SUBSCRIBE_TIMEOUT
        begun = time.monotonic()
        while True:
            try:
                events, moment = await replays.resume(cursor, self, groups)
                break
            except ConfigurationError as error:
                raise SubscribeError(str(error)) from error
            except CONNECTION_ERRORS as error:
                if time.monotonic() - begun > patience:
                    raise SubscribeError(
                        f"The database cannot be asked for what the cursor has not seen: {error}"
                    ) from error
            await asyncio.sleep(backoff.delay())
        requests = () if request_id is None else (request_id,)
        return [(group, line, origin._replace(requests=requests)) for group, line, origin in events], moment

    def _refuse_if_ended(self, consumer: AsyncAPIConsumer) -> None:
        """Nobody would take such a subscription out of the hub again."""
        if inbox_of(consumer).closed:
            raise SubscribeError(f"{type(consumer).__name__} subscribes to {self.label} and has ended already.")

    def _refuse_if_too_many(
        self, consumer: AsyncAPIConsumer, groups: Collection[str], request_id: Any, most: int
    ) -> None:
        requests = consumer._observer_group_to_request_id
        subscriptions = inbox_of(consumer).subscriptions
        own, known = subscriptions[self._stable_observer_id], requests[self._stable_observer_id]
        added = sum(
            not own.holds(group) if request_id is None else request_id not in known.get(group, ())
            for group in set(groups)
        )
        count = sum(
            max(len(requests[observer].get(group, ())), 1)  # one that was made without a request id counts too
            for observer, subscription in subscriptions.items()
            for group in subscription.groups
        )
        if added and count + added > most:
            raise TooManySubscriptions(
                f"A consumer may have {most} subscriptions (DJCRF_PG['MAX_SUBSCRIPTIONS']: groups, each for each "
                f"request id); this one has {count}, and {self.label} would add {added}."
            )

    def _refuse_if_replaced(self) -> None:
        newest = registry.at(self.address)
        if newest is not self and isinstance(newest, ModelObserver) and not self.makes_the_same(newest):
            raise SubscribeError(
                f"{self.label} was defined again by the same code ({self._home}), with other groups or another "
                f"serializer, and events are those of the newest definition. Give each of them a partition of its own: "
                f"@model_observer({self.model_cls.__name__}, partition=…)."
            )

    async def _leave_unused(self, subscription: Subscription, groups: Collection[str]) -> None:
        """Leave groups that no subscription has and none waits for."""
        consumer = subscription.consumer
        self._leave_lanes(subscription, groups)  # all of them before the layer, which may fail
        for group in groups:
            async with subscription.changing:
                if group in consumer.groups and not subscription.holds(group):
                    await consumer.remove_group(group)

    def _leave_lanes(self, subscription: Subscription, groups: Iterable[str]) -> None:
        requests = subscription.consumer._observer_group_to_request_id[self._stable_observer_id]
        hub = embedded.hub_of(self.model_cls)
        for group in groups:
            if not subscription.holds(group):
                requests.pop(group, None)
                hub.leave(subscription, group)

    def forget(self, subscription: Subscription) -> None:
        """Leave nothing of a subscription whose consumer has ended; the layer's groups are left by the hub."""
        hub, consumer = subscription.hub, subscription.consumer
        if hub is None:
            return
        hub.forget(subscription)
        if consumer.channel_layer is not None and (
            left := [each for each in subscription.groups if each in consumer.groups]
        ):
            hub.abandon(consumer.channel_layer, consumer.channel_name, left)

    @by_name
    async def unsubscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> Iterable[str]:
        """Unsubscribe the consumer; see DCRF.

        Without a request id all requests end, also a subscription that was made without one, which DCRF forgets.

        Raises:
            MalformedRequestId: ``request_id`` is neither text nor a number.
        """
        check_request_id(request_id)
        equip(consumer, self.label)
        if not self.trigger_driven:
            return list(await super().unsubscribe(consumer, *args, request_id=request_id, **kwargs))
        subscription = self._subscription(consumer)
        requests = consumer._observer_group_to_request_id[self._stable_observer_id]
        async with subscription.changing:
            known = list(requests)
            names = list(self.group_names_for_consumer(*args, consumer=consumer, **kwargs))  # type: ignore[misc]
            try:
                groups = list(await super().unsubscribe(consumer, *args, request_id=request_id, **kwargs))
            finally:  # also where the layer fails
                for group in names:
                    if request_id is None or (group in known and group not in requests):
                        subscription.since.pop(group, None)
                for group, request in list(subscription.later):
                    if group in names and request_id in (None, request):
                        del subscription.later[group, request]
                subscription.inbox.withdraw(subscription, names, request_id)
                self._leave_lanes(subscription, names)
        await self._leave_unused(subscription, groups)
        return groups

    def _subscription(self, consumer: AsyncAPIConsumer) -> Subscription:
        return inbox_of(consumer).subscribe(self._stable_observer_id, self, consumer)

    async def __call__(
        self, message: dict[str, Any] | None = None, consumer: AsyncAPIConsumer | None = None, **kwargs: Any
    ) -> Any:
        """Call the handler with a message of DCRF's form, as an application may send it.

        Events come by way of the hub; what a listener of 0.1.0 sends to DCRF's groups is not taken from there.

        Raises:
            GroupsError: There is no message; somebody meant to subscribe.
        """
        if message is None:
            raise GroupsError(
                f"{self.label} is called without a message: to subscribe to it, write "
                f"`await self.{self.func.__name__}.subscribe(request_id=request_id)`."
            )
        if KEY in message:
            return None
        return await super().__call__(message, consumer=consumer, **kwargs)

    async def receive(self, subscription: Subscription, group: str, line: str, origin: Origin) -> None:
        """Have the consumer handle an event; see :mod:`djcrf_pg.observer.handling`."""
        await handling.receive(self, subscription, group, line, origin)

    async def settle(self, subscription: Subscription) -> None:
        """Send the consumer a resync where that is due."""
        await handling.settle(self, subscription)

    def extras_of(self, event: Event) -> dict[str, Any]:
        """What the handler is given of an event because it named it."""
        extras = {name: getattr(event, name) for name in self._extras}
        if self.wants_old:
            alias = router.db_for_write(self.model_cls)
            extras["old_instance"] = event.old and load(self.model_cls, alias, event.old)
        return extras

    @property
    def resync_handler(self) -> Any:
        """What :meth:`resync` decorated, or None."""
        return self._resync


async def _join_groups(subscription: Subscription, groups: Iterable[str], patience: float) -> None:
    """Join the channel layer's groups, as DCRF does: one after the other, however far away the layer is.

    Raises:
        ChannelLayerError: The layer fails, or does not answer once. With ``pubsub``, channels_redis tries for ever.
    """
    consumer = subscription.consumer
    try:
        for group in groups:
            async with subscription.changing, asyncio.timeout(patience):  # else another call may be leaving it
                await consumer.add_group(group)
    except Exception as error:  # whatever the layer raises
        is_silent = isinstance(error, TimeoutError)
        why = f"does not answer within {patience:g} s" if is_silent else f"fails ({cause_of(error)})"
        raise ChannelLayerError(how_to_fix(consumer.channel_layer, why)) from error


def _accepted(func: Any, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that a function takes by keyword."""
    parameters = inspect.signature(func).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    # The instance before is half of what an update costs, and ``**kwargs`` is in every example of DCRF's.
    return tuple(name for name in names if name in parameters or (takes_all and name not in NAMED_EXTRAS))


def _text_of(function: Any) -> Any:
    """What tells whether two functions do the same: their code, and what they were given when they were made."""
    if not isinstance(function, FunctionType):
        return function
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    given = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *cells]
    # Not by their own ``__eq__``: a queryset's is a query.
    plain = (str, bytes, int, float, type, type(None))
    return function.__code__, *(value if isinstance(value, plain) else id(value) for value in given)


def check_request_id(request_id: Any) -> None:
    """Refuse what cannot be kept in a set of request ids; None is no request id.

    Raises:
        MalformedRequestId: It is neither text nor a number, or too long.
    """
    if request_id is not None and not isinstance(request_id, str | int | float):
        raise MalformedRequestId(f"request_id must be text or a number, not {type(request_id).__name__}.")
    # An int of some thousand digits has no text, and each event repeats the id.
    if (isinstance(request_id, str) and len(request_id) > MAX_REQUEST_ID) or (
        isinstance(request_id, int) and abs(request_id) >= 10**MAX_REQUEST_ID
    ):
        raise MalformedRequestId(f"request_id must have {MAX_REQUEST_ID} characters or digits at most.")


@lru_cache(maxsize=16_384)
def _clean_group_name(name: str) -> str:
    cleaned: str = BaseObserver.clean_group_name(None, name)
    return cleaned
