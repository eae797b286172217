"""The consumer mixin that gives a list and follows it: the rows of some groups, and then the events of these groups.

Events know the groups of a row and nothing else. So a list is one that events continue where its rows are *exactly*
those of the groups that are subscribed to, and the mixin gives no other. What can be known of groups, which are code:

- Which rows are meant is said beside the groups, by ``rows_for_consumer``.
- That the consumer's queryset is neither less nor more than these rows is known from its SQL, whatever is in the table:
  but for order and columns it is that of the whole table with this filter.
- That the filter uses nothing which the groups do not is asked of the groups: with another value of an argument they
  have to be others, all of them.
- That each row of the list is in one of the groups is asked of each row.

What remains is a row that is in the groups and that the filter leaves out: the whole table would have to be read.
:meth:`ListAndSubscribeMixin.verify_list` does that, in a project's tests.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from channels.db import database_sync_to_async
from django.core.exceptions import EmptyResultSet
from django.db import router
from django.db.models import Model, Q, QuerySet
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.mixins import ListModelMixin, PaginatedModelListMixin
from rest_framework import status

from djcrf_pg.exceptions import ListError, MalformedRequestId
from djcrf_pg.observer.model_observer import ModelObserver, check_request_id
from djcrf_pg.observer.reading import consistent_read

__all__ = ["ListAndSubscribeMixin"]


#: How an observer says which rows are in its groups.
_DECORATE = (
    "decorate a function with @<observer>.rows_for_consumer, which takes what groups_for_consumer takes and returns a "
    "Q of the rows."
)


class ListAndSubscribeMixin:
    """Give a list, and subscribe to what becomes of it; for a ``GenericAsyncAPIConsumer``.

    ::

        class TaskConsumer(ListAndSubscribeMixin, GenericAsyncAPIConsumer):
            queryset = Task.objects.all()
            serializer_class = TaskSerializer

            @model_observer(Task, serializer_class=TaskSerializer)
            async def task_changes(self, message, action, cursor, **kwargs):
                await self.send_json({"action": action, "task": message, "cursor": cursor})

            @task_changes.groups_for_signal
            def task_changes(self, instance, **kwargs):
                yield f"project__{instance.project_id}"

            @task_changes.groups_for_consumer
            def task_changes(self, project, **kwargs):
                yield f"project__{project}"

            @task_changes.rows_for_consumer
            def task_changes(self, project, **kwargs):
                return Q(project=project)

    A client sends ``{"action": "list_and_subscribe", "project": 7, "request_id": 1}``. The reply has the rows as the
    consumer's ``list`` action gives them, and the cursor that continues them; then the handler is called for what comes
    after that cursor, with nothing left out and nothing twice.

    Attributes:
        list_observer: The name of the observer. It may be left out where only one of the consumer's observers has
            ``rows_for_consumer``, or where the only one has no groups: then the list is the whole table.
    """

    list_observer: str | None = None

    @action()
    async def list_and_subscribe(
        self, request_id: Any = None, action: Any = None, since: str | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], int]:
        """Give the rows of the groups that the arguments name, and subscribe to these groups since then.

        With a cursor the client has a list already: it receives what that cursor has not seen, and no list. A
        call without one replaces the subscription that the same request has to the same groups.

        Args:
            request_id: Names the subscription, and the resyncs that it gets.
            action: This one's name.
            since: A cursor of an earlier reply or event.
            arguments: Those of ``rows_for_consumer`` and ``groups_for_consumer``.

        Returns:
            ``{"cursor": …, "results": […]}``; with ``since``, that cursor and None.

        Raises:
            ListError: The list would not be that of the groups, so its events would not match it.
            MalformedRequestId: ``request_id`` is missing, or neither text nor a number.
            SubscribeError: No event could arrive.
            InvalidCursor, CursorExpired: There is nothing to be had behind ``since``.
        """
        if request_id is None:
            raise MalformedRequestId("request_id must have a value set: a list is loaded again when a resync says so.")
        check_request_id(request_id)
        consumer: Any = self
        observer = self._list_observer()
        observer.require_log()
        self._refuse_unknown(observer, arguments)
        await consumer.check_permissions("list", **arguments)
        request = {"request_id": request_id, "action": "list", **arguments}
        results = None
        if since is None:
            cursor, results = await database_sync_to_async(self._read_list)(observer, arguments, request)
            await self._end_former(observer, request_id, arguments)
        else:
            cursor = since
            await database_sync_to_async(self._listed)(observer, arguments, request)
        await observer.subscribe(consumer, request_id=request_id, since=cursor, **arguments)
        return {"cursor": cursor, "results": results}, status.HTTP_201_CREATED

    @action()
    async def unsubscribe_list(self, request_id: Any = None, action: Any = None, **arguments: Any) -> tuple[None, int]:
        """End the subscription of this request to the groups, or without ``request_id`` those of all requests.

        Args:
            request_id: Names the subscription.
            action: This one's name.
            arguments: Those that it was made with.

        Raises:
            ListError: The arguments are not those of the groups.
        """
        observer = self._list_observer()
        self._refuse_unknown(observer, arguments)
        await observer.unsubscribe(self, request_id=request_id, **arguments)
        return None, status.HTTP_204_NO_CONTENT

    def verify_list(self, **arguments: Any) -> None:
        """Read the whole table, and see that the list has exactly the rows that are in the groups; for tests.

        Synchronous, and it may stand inside a transaction.

        Args:
            arguments: Those of ``rows_for_consumer`` and ``groups_for_consumer``.

        Raises:
            ListError: A row is in the one and not in the other, or the list is none that events can continue.
        """
        observer = self._list_observer()
        self._refuse_unknown(observer, arguments)
        rows, groups = self._listed(observer, arguments, {"request_id": None, "action": "list", **arguments})
        pks = {row.pk for row in rows}
        table: QuerySet[Model] = QuerySet(rows.model, using=rows.db)
        for row in table.iterator():
            if _is_in(observer, row, groups) and row.pk not in pks:
                raise ListError(
                    f"{type(self).__name__} does not list {row._meta.label} {row.pk}, which is in the groups of "
                    f"{observer.label} ({_text(arguments)}): rows_for_consumer leaves out what groups_for_signal has."
                )
        self._refuse_strangers(observer, rows, groups, arguments)

    # Which list it is.

    def _list_observer(self) -> ModelObserver:
        cls, name = type(self), self.list_observer
        if name is not None:
            observer = getattr(cls, name, None)
            if not isinstance(observer, ModelObserver):
                raise ListError(f"{cls.__name__}.list_observer is {name!r}, and no model observer has that name.")
            if not _says_rows(observer):
                raise ListError(f"{observer.label} does not say which rows are in its groups: {_DECORATE}")
            return observer
        found = [each for each in _observers(cls) if _says_rows(each)]
        # One that says it means the list; one without groups may be there for something else.
        found = [each for each in found if each.rows_of_groups is not None] or found
        if not found:
            raise ListError(f"{cls.__name__} has no model observer that says which rows are in its groups: {_DECORATE}")
        if len(found) > 1:
            labels = ", ".join(each.label for each in found)
            raise ListError(f"{cls.__name__}.list_and_subscribe may mean {labels}: set list_observer to a name.")
        return found[0]

    def _refuse_unknown(self, observer: ModelObserver, arguments: Mapping[str, Any]) -> None:
        """Refuse what is no argument of the list: a filter or a page that nobody would look at."""
        known = _parameters(observer)
        if unknown := sorted(arguments.keys() - known.keys()):
            raise ListError(
                f"{type(self).__name__}.list_and_subscribe takes no {unknown[0]!r}: its list is that of the groups of "
                f"{observer.label}, whole, and their arguments are {', '.join(known) or 'none'}. A filter or a page of "
                f"a list has no events of its own; have the groups express it (groups_for_signal, "
                f"groups_for_consumer and rows_for_consumer), or use the list action."
            )
        if missing := [name for name, each in known.items() if name not in arguments and each.default is each.empty]:
            raise ListError(f"{type(self).__name__}.list_and_subscribe needs {', '.join(missing)}.")

    def _listed(
        self, observer: ModelObserver, arguments: Mapping[str, Any], request: Mapping[str, Any]
    ) -> "tuple[QuerySet[Model], frozenset[str]]":
        """The rows that the consumer gives and the groups that they are in; refused where they are not the same."""
        self._refuse_pages()
        where = Q()
        if observer.rows_of_groups is not None:
            where = observer.rows_of_groups(observer, consumer=self, **arguments)
            if not isinstance(where, Q):
                raise ListError(f"rows_for_consumer of {observer.label} returned {type(where).__name__}, and no Q.")
        if where and observer.has_one_group:
            raise ListError(
                f"{observer.label} has one group for all rows, and its rows_for_consumer leaves some out: say in "
                f"groups_for_signal which rows are in which group."
            )
        groups = self._groups_of(observer, arguments)
        consumer: Any = self
        rows = consumer.filter_queryset(consumer.get_queryset(**request), **request)
        return self._whole(observer, rows, where, router.db_for_write(observer.model_cls)), groups

    def _refuse_pages(self) -> None:
        consumer: Any = self
        name = type(self).__name__
        if getattr(consumer, "pagination_class", None) is not None:
            raise ListError(
                f"{name} has a pagination_class, and a page has no events of its own: rows move from page to page. "
                f"Leave it out (pagination_class = None) in the consumer that has list_and_subscribe, and have the "
                f"groups be as small as what a client shows."
            )
        own = getattr(type(self), "list", None)
        if own not in (None, ListModelMixin.list, PaginatedModelListMixin.list):
            raise ListError(
                f"{name} has a list() of its own, and what rows it gives cannot be known: have get_queryset(), "
                f"filter_queryset() and get_serializer() do what it does."
            )

    def _groups_of(self, observer: ModelObserver, arguments: Mapping[str, Any]) -> frozenset[str]:
        """The groups that are subscribed to, refused where one of them does not depend on each argument."""
        groups = frozenset(observer.group_names_for_consumer(consumer=self, **arguments))
        if not groups:
            raise ListError(f"groups_for_consumer of {observer.label} gives no group for {_text(arguments)}.")
        for name, value in arguments.items():
            try:
                others = set(observer.group_names_for_consumer(consumer=self, **{**arguments, name: _other(value)}))
            except Exception:  # it was looked at, and found to be wrong
                continue
            if not groups.isdisjoint(others):
                raise ListError(
                    f"The list of {type(self).__name__} is filtered by {name!r}, and groups of {observer.label} are "
                    f"the same whatever it is, so events would come of rows that the list does not have. Yield it in "
                    f"each group of groups_for_signal and groups_for_consumer, or leave it out of rows_for_consumer."
                )
        return groups

    def _whole(self, observer: ModelObserver, given: Any, where: Q, alias: str) -> "QuerySet[Model]":
        """The consumer's queryset with the filter of the groups, refused where it has any other."""
        name, label = type(self).__name__, observer.model_cls._meta.label
        if not isinstance(given, QuerySet) or given._fields is not None:  # type: ignore[attr-defined]
            raise ListError(f"{name}.get_queryset() gives no instances of {label}, whose groups could be asked for.")
        if given.model._meta.concrete_model is not observer.model_cls._meta.concrete_model:
            raise ListError(f"{name} lists {given.model._meta.label}, and {observer.label} observes {label}.")
        # What a router would have somebody else read is not in the snapshot of the cursor.
        rows: QuerySet[Model] = given.using(alias)
        whole = _keys(QuerySet(rows.model, using=alias).filter(where), alias)
        if _keys(rows, alias) == whole:
            return rows
        if _can_be_filtered(rows) and _keys(narrowed := rows.filter(where), alias) == whole:
            return narrowed
        raise ListError(
            f"The queryset of {name} is not the table {label} with the filter of rows_for_consumer of "
            f"{observer.label} alone: its get_queryset(), filter_queryset() or the manager has another filter, a "
            f"slice, distinct fields, a join or an aggregate. The groups do not express that, so events would come of "
            f"rows that the list does not have. Have the groups express it (groups_for_signal, groups_for_consumer and "
            f"rows_for_consumer), or leave it out."
        )

    # Reading it.

    def _read_list(
        self, observer: ModelObserver, arguments: Mapping[str, Any], request: Mapping[str, Any]
    ) -> tuple[str, Any]:
        """The cursor, and the list as it is there."""
        consumer: Any = self
        with consistent_read(using=router.db_for_write(observer.model_cls)) as cursor:
            rows, groups = self._listed(observer, arguments, request)
            self._refuse_strangers(observer, rows, groups, arguments)
            data = consumer.get_serializer(instance=rows, many=True, action_kwargs=dict(request)).data
            if isinstance(data, list) and len(data) != len(rows):
                raise ListError(
                    f"The serializer of {type(self).__name__} gives {len(data)} of {len(rows)} rows (its "
                    f"list_serializer_class filters them), and events would come of the others too: have the groups "
                    f"express that."
                )
            return cursor, data

    def _refuse_strangers(
        self, observer: ModelObserver, rows: "QuerySet[Model]", groups: Collection[str], arguments: Mapping[str, Any]
    ) -> None:
        """Refuse a list with a row of which no event would come."""
        if observer.has_one_group:
            return
        for row in rows:
            if not _is_in(observer, row, groups):
                raise ListError(
                    f"{type(self).__name__} lists {row._meta.label} {row.pk}, which is in none of the groups of "
                    f"{observer.label} that are subscribed to ({_text(arguments)}), so no event of it would come: "
                    f"rows_for_consumer has what groups_for_signal leaves out."
                )

    async def _end_former(self, observer: ModelObserver, request_id: Any, arguments: Mapping[str, Any]) -> None:
        """Leave the groups of an earlier list of this request: what waits of its replay is in the new one."""
        consumer: Any = self
        requests = consumer._observer_group_to_request_id[observer._stable_observer_id]
        groups = observer.group_names_for_consumer(consumer=self, **arguments)
        if any(request_id in requests.get(group, ()) for group in groups):
            await observer.unsubscribe(consumer, request_id=request_id, **arguments)


def _observers(consumer_class: type) -> Iterator[ModelObserver]:
    for name in dir(consumer_class):
        if isinstance(found := inspect.getattr_static(consumer_class, name), ModelObserver):
            yield found


def _says_rows(observer: ModelObserver) -> bool:
    return observer.rows_of_groups is not None or observer.has_one_group


def _parameters(observer: ModelObserver) -> dict[str, inspect.Parameter]:
    """What the rows depend on: the named parameters of ``rows_for_consumer`` behind ``self``, but ``consumer``."""
    if observer.rows_of_groups is None:
        return {}
    _, *parameters = inspect.signature(observer.rows_of_groups).parameters.values()
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {each.name: each for each in parameters if each.kind not in collecting and each.name != "consumer"}


def _other(value: Any) -> Any:
    """Another value than this one, of the same type where JSON has more than one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}-"
        case _:
            return "-"


def _is_in(observer: ModelObserver, row: Model, groups: Collection[str]) -> bool:
    return any(group in groups for group in observer.group_names_for_signal(instance=row))


def _can_be_filtered(rows: "QuerySet[Model]") -> bool:
    return not rows.query.is_sliced and not rows.query.combinator


def _keys(rows: "QuerySet[Model]", alias: str) -> Any:
    """The SQL of the keys of a queryset: where it is the same, the rows are, whatever is in the tables.

    Without the order and the columns. None where Django knows that there is no row; something that equals nothing else
    where that cannot be known.
    """
    query = rows.query
    if not _can_be_filtered(rows) or query.distinct_fields:
        return object()
    # Not by methods of the queryset's class, which may be the project's.
    keys: Any = QuerySet(rows.model, query=query.chain(), using=alias).order_by().values("pk").distinct()
    try:
        return keys.query.get_compiler(using=alias).as_sql()
    except EmptyResultSet:
        return None


def _text(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "no arguments"
