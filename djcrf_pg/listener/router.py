"""Changes to messages: the synchronous part of the listener, which runs user code and may query.

One call handles a batch, in a thread of its own. One failing observer harms no other.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import InterfaceError, OperationalError, connections
from django.db.models import Model
from djangochannelsrestframework.observer.model_observer import Action

from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.decode import Hydrator, Relation, raw_columns
from djcrf_pg.changelog.image import parse
from djcrf_pg.changelog.net import Image, RowChange, net
from djcrf_pg.listener.envelope import Event
from djcrf_pg.listener.routes import Link, Route
from djcrf_pg.observations import ObserverFailed, emit
from djcrf_pg.registry import BATCH, Observed

#: Where messages go, and of which type they are.
Destination = tuple[str, str]

#: Encoded events for each destination, in order.
Outgoing = dict[Destination, list[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Occurrence:
    """A row change as one observer hears of it; ``old`` and ``new`` are its instances."""

    change: RowChange
    observer: Observed
    old: Model | None
    new: Model | None


class Router:
    """Routes batches of changes; knows what the catalog said of their tables.

    Args:
        alias: The database.
        routes: Who hears of a table, by its oid (for partitions, the root's).
        relations: The tables, by oid.
    """

    def __init__(self, alias: str, routes: Mapping[int, Route], relations: Mapping[int, Relation]) -> None:
        self._alias = alias
        self._routes = routes
        self._relations = relations
        self._raw = {oid: raw_columns(relation) for oid, relation in relations.items()}
        self._hydrators: dict[tuple[type[Model], int], Hydrator] = {}
        self._lenient = False

    def occurrences(self, changes: Iterable[Change], *, lenient: bool = False) -> list[Occurrence]:
        """Find out who hears of changes, and make the instances.

        Args:
            changes: One piece of the log, in order.
            lenient: Defer fields whose value does not fit, instead of raising.

        Returns:
            What there is to tell, in order.

        Raises:
            StaleRelation: A table was altered since the catalog was read.
            OperationalError, InterfaceError: The owners of join rows cannot be loaded: the database is gone.
        """
        self._lenient = lenient
        return self._occurrences(net(self._rows(changes), self._key))

    def _rows(self, changes: Iterable[Change]) -> Iterable[RowChange]:
        for change in changes:
            relation = self._relations.get(change.relation)
            if relation is None or relation.root not in self._routes or change.op == "T":
                continue
            raw = self._raw[relation.oid]
            old, new = (None if text is None else parse(text, raw) for text in (change.old, change.new))
            yield RowChange(change.id, change.xid, relation.root, old, new, change.context, change.at)

    def _key(self, relation: int, image: Image) -> Any:
        return self._routes[relation].key(image)

    def _occurrences(self, rows: list[RowChange]) -> list[Occurrence]:
        found: list[Occurrence] = []
        told: set[tuple[int, int, Any]] = set()
        touched: dict[tuple[int, Link, Any], RowChange] = {}
        for row in rows:
            route = self._routes[row.relation]
            instances: dict[type[Model], tuple[Model | None, Model | None]] = {}
            for observer in route.observers:
                model = observer.model_cls
                if model not in instances:
                    instances[model] = (
                        self._instance(model, row, row.old),
                        self._instance(model, row, row.new),
                    )
                old, new = instances[model]
                found.append(Occurrence(row, observer, old, new))
                told.update((row.xid, id(observer), instance.pk) for instance in (old, new) if instance)
            for link in route.links:
                for image in (row.old, row.new):
                    if join := self._instance(link.through, row, image):
                        owner = getattr(join, link.owner_attname)
                        touched.setdefault((row.xid, link, owner), row)
        found += self._owners(touched, told)
        found.sort(key=lambda occurrence: occurrence.change.id)
        return found

    def _owners(
        self, touched: Mapping[tuple[int, Link, Any], RowChange], told: set[tuple[int, int, Any]]
    ) -> Iterable[Occurrence]:
        """An update for each owner whose join rows changed, unless its own row tells of that transaction.

        The owner is loaded as it is now: its row is not in the log. One that is gone has its own delete.
        """
        wanted: dict[tuple[type[Model], str], set[Any]] = {}
        for _, link, owner in touched:
            wanted.setdefault((link.observer.model_cls, link.owner_field), set()).add(owner)
        owners = {
            (model, field, getattr(instance, field)): instance
            for (model, field), keys in wanted.items()
            for instance in model._base_manager.using(self._alias).filter(**{f"{field}__in": keys})
        }
        for (xid, link, owner), row in touched.items():
            instance = owners.get((link.observer.model_cls, link.owner_field, owner))
            if instance is None or (xid, id(link.observer), instance.pk) in told:
                continue
            told.add((xid, id(link.observer), instance.pk))
            yield Occurrence(row, link.observer, instance, instance)

    def _instance(self, model: type[Model], row: RowChange, image: Image | None) -> Model | None:
        if image is None:
            return None
        place = (model, row.relation)
        hydrator = self._hydrators.get(place)
        if hydrator is None:
            hydrator = self._hydrators[place] = Hydrator(model, self._relations[row.relation], self._alias)
        return hydrator.instance(image, lenient=self._lenient)


def events(occurrences: Iterable[Occurrence], *, forgiving: bool = False) -> Outgoing:
    """Have groups and serializers of the observers make events.

    Args:
        occurrences: What there is to tell, in order.
        forgiving: Take user code's database errors as failures of that observer, instead of raising.

    Returns:
        The encoded events of each destination. Destinations come in the order of their first event.

    Raises:
        OperationalError, InterfaceError: User code found its database gone.
    """
    BATCH.set({})
    outgoing: Outgoing = {}
    for occurrence in occurrences:
        try:
            for destination, event in _events(occurrence):
                outgoing.setdefault(destination, []).append(event)
        except Exception as error:
            if isinstance(error, OperationalError | InterfaceError):
                connections.close_all()
                if not forgiving:
                    raise
            _report(occurrence, error)
    return outgoing


def _events(occurrence: Occurrence) -> Iterable[tuple[Destination, str]]:
    """Groups by old and new row: only the old one has it, delete; both, update; only the new one, create.

    A group that a row leaves is told of the row as it was: what it became is not for that group to know.
    """
    observer, old, new = occurrence.observer, occurrence.old, occurrence.new
    before = dict.fromkeys(observer.group_names_for_signal(instance=old)) if old else {}
    after = before if new is old else dict.fromkeys(observer.group_names_for_signal(instance=new)) if new else {}
    parts = (
        (Action.DELETE, old, [group for group in before if group not in after]),
        (Action.UPDATE, new, [group for group in after if group in before]),
        (Action.CREATE, new, [group for group in after if group not in before]),
    )
    for action, instance, groups in parts:
        if groups and instance is not None:
            body = observer.serialize(instance, action)["body"]
            change = occurrence.change
            event = Event.of(action.value, body, change.id, change.xid, change.at).encode()
            for group in groups:
                yield (group, observer.message_type), event


def _report(occurrence: Occurrence, error: Exception) -> None:
    instance = occurrence.new or occurrence.old
    emit(
        ObserverFailed(
            observer=occurrence.observer.label,
            model=occurrence.observer.model_cls._meta.label,
            pk=instance and instance.pk,
            change_id=occurrence.change.id,
            error=repr(error),
        ),
        error,
    )
