"""Which observers receive changes of a table, compiled from the registry; and which."""

import dataclasses
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any, cast

from django.core.exceptions import ValidationError
from django.db.models import Model

from djcrf_pg.changelog.net import Image, Key, RowChange
from djcrf_pg.delivery.resume import digest
from djcrf_pg.registry import Observed, Relationship, Watch, own_columns, registry


@dataclasses.dataclass(slots=True)
class Occurrence:
    """What happened to one instance, or to a whole table.

    Attributes:
        change: Where it stands in the log.
        observer: Who receives it.
        old: The instance before; None for a create.
        new: The instance after; None for a delete.
        changed: Names of the fields that differ, and of the many-to-many relations that were touched.
        resync: The reason of a resync; None where the instances say what happened.
        again: Whether somebody wants it sent again, whatever has changed.
    """

    change: RowChange
    observer: Observed
    old: Model | None = None
    new: Model | None = None
    changed: list[str] = dataclasses.field(default_factory=list)
    resync: str | None = None
    again: bool = False

    @property
    def row(self) -> int:
        """What tells it from others of the same observer and change: a changed key is a delete, and then a create."""
        instance = self.old if self.new is None else self.new
        return 0 if instance is None else digest(str(instance.pk)) + (0 if self.new is None else 2**32)


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A table whose rows belong to those of an observed model: a join table, or one that bodies show rows of.

    Attributes:
        observer: Who receives it, as an update of the owner.
        name: The relation, from the owner; what the update says has changed.
        through: The model of the table.
        owner_attname: The attribute of a row that names its owners.
        owner_field: What finds the owners by that, an attribute of theirs or a path from them.
        type_attname: The attribute of a join row that names the owner's content type; None where all are of one model.
        watch: What counts of a row that bodies show; None for a join table, of which all counts.
    """

    observer: Observed
    name: str
    through: type[Model]
    owner_attname: str
    owner_field: str
    type_attname: str | None = None
    watch: Watch | None = None

    @classmethod
    def of(cls, observer: Observed, relationship: Relationship) -> "Link":
        """Describe the join table of a relation."""
        meta = relationship.through._meta
        key: Any = meta.get_field(relationship.owner_key)
        if relationship.owner_type is None:
            target: str = key.target_field.attname
            return cls(observer, relationship.name, relationship.through, key.attname, target)
        kind: Any = meta.get_field(relationship.owner_type)
        pk = observer.model_cls._meta.pk.attname
        return cls(observer, relationship.name, relationship.through, key.attname, pk, kind.attname)

    @classmethod
    def of_watch(cls, observer: Observed, watch: Watch) -> "Link":
        """Describe a table that bodies show rows of."""
        return cls(observer, watch.path, watch.model, watch.attname, watch.lookup, watch=watch)

    def counts(self, row: RowChange, changed: Callable[[], Collection[str]]) -> bool:
        """Whether owners receive what was written to a row.

        Args:
            row: The row.
            changed: Finds its fields that differ; asked for an update of what bodies show alone.
        """
        if self.watch is None:
            return True
        if row.old is None or row.new is None:
            return self.watch.comes_and_goes
        found = changed()
        return bool(found) if self.watch.fields is None else not self.watch.fields.isdisjoint(found)

    def key_in(self, join: Mapping[str, Any]) -> Any:
        """What the attributes of a join row say of its owner: the key, or the content type and the key."""
        key = join[self.owner_attname]
        return key if self.type_attname is None else (join[self.type_attname], key)

    def owner(self, key: Any, alias: str) -> Any:
        """The owner's value of ``owner_field``, for what :meth:`key_in` gave.

        Args:
            key: What it gave.
            alias: Where content types are read from. It is asked once for each; Django keeps them.

        Returns:
            None where no instance of the model can be the owner.
        """
        if self.type_attname is None:
            return key
        kind, value = key
        types: Any = self.through._meta.get_field(self.type_attname).related_model
        meta: Any = self.observer.model_cls._meta
        try:
            owner = types._default_manager.db_manager(alias).get_for_id(kind).model_class()
            # A child's instances have a content type of their own, and are its parent's instances too.
            return meta.pk.to_python(value) if owner and issubclass(owner, meta.concrete_model) else None
        except (types.DoesNotExist, ValidationError):
            return None


@dataclasses.dataclass(slots=True)
class Audience:
    """Who receives changes of a table, for as long as a batch lasts.

    Attributes:
        observers: Those of models that have all of their columns in it.
        every: Those among them that want each change, not the net effect.
        heirs: Those of models that have some of their columns in it: multi-table inheritance.
        links: Those of owners for which it is a join table, or whose bodies show rows of it.
    """

    observers: list[Observed]
    every: list[Observed]
    heirs: list[Observed]
    links: list[Link]

    def everybody(self) -> list[Observed]:
        """All who receive changes of the table in one way or another."""
        return [*self.observers, *self.every, *self.heirs, *(link.observer for link in self.links)]


@dataclasses.dataclass(slots=True)
class Route:
    """A table, and the observers that receive its changes. It does not keep them alive.

    Attributes:
        model: A model whose own table it is.
        key_columns: Its primary key.
        observers, every, heirs: As in :class:`Audience`.
        links: The observers whose models it joins, or whose bodies show rows of it, each with the relation.
    """

    model: type[Model]
    key_columns: tuple[str, ...]
    observers: "list[weakref.ref[Observed]]" = dataclasses.field(default_factory=list)
    every: "list[weakref.ref[Observed]]" = dataclasses.field(default_factory=list)
    heirs: "list[weakref.ref[Observed]]" = dataclasses.field(default_factory=list)
    links: "list[tuple[weakref.ref[Observed], Relationship | Watch]]" = dataclasses.field(default_factory=list)

    def audience(self, silent: Collection[Observed] = ()) -> Audience:
        """Those who still live, but for those that nobody has subscribed to."""
        own, every, heirs = (
            [observer for reference in part if (observer := reference()) is not None and observer not in silent]
            for part in (self.observers, self.every, self.heirs)
        )
        links = [
            Link.of_watch(observer, each) if isinstance(each, Watch) else Link.of(observer, each)
            for reference, each in self.links
            if (observer := reference()) is not None and observer not in silent
        ]
        return Audience(own, every, heirs, links)

    def key(self, image: Image) -> Key:
        """The primary key in an image; the whole image where the model's key is not in it."""
        columns = self.key_columns
        try:
            if len(columns) == 1:
                return _hashable(image[columns[0]])
            return tuple([_hashable(image[column]) for column in columns])
        except KeyError:
            return tuple(sorted((name, repr(value)) for name, value in image.items()))


def _hashable(value: Any) -> Key:
    """A key may be an array or an object in JSON."""
    return repr(value) if isinstance(value, (list, dict)) else cast(Key, value)


class Routes:
    """The routes of one database.

    Args:
        aliases: Those that it has.

    Attributes:
        version: Of the registry, when they were compiled.
        tables: The names of the tables that they know, as in ``db_table``.
    """

    def __init__(self, aliases: Iterable[str]) -> None:
        self.version = registry.version
        self._routes: dict[str, Route] = {}
        for observer in registry.on(*aliases):
            reference = weakref.ref(observer)
            chain = observer.models
            for model in chain:
                route = self._route(model)
                if len(chain) > 1:
                    route.heirs.append(reference)
                elif observer.every_change:
                    route.every.append(reference)
                else:
                    route.observers.append(reference)
            for relationship in observer.relationships:
                self._route(relationship.through).links.append((reference, relationship))
            for watch in observer.watches:
                self._route(watch.model).links.append((reference, watch))
            for model in observer.parents:
                self._route(model)
        self.tables = list(self._routes)

    def _route(self, model: type[Model]) -> Route:
        keys = model._meta.pk_fields
        columns = tuple(column for column, field in own_columns(model).items() if field in keys)
        return self._routes.setdefault(model._meta.db_table, Route(model, columns))

    def key_columns(self, observer: Observed) -> dict[str, tuple[str, ...]]:
        """The columns of the keys of the tables that tell of an observer's instances, by ``db_table``."""
        through = [relationship.through for relationship in observer.relationships]
        models = [*observer.models, *through, *(watch.model for watch in observer.watches), *observer.parents]
        return {(table := model._meta.db_table): self._routes[table].key_columns for model in models}

    def lost(self, oids: Mapping[str, int]) -> "weakref.WeakSet[Observed]":
        """The observers that have a table which does not exist.

        Args:
            oids: ``db_table`` to oid, of those that exist.
        """
        missing = (route.audience() for table, route in self._routes.items() if table not in oids)
        return weakref.WeakSet(chain.from_iterable(audience.everybody() for audience in missing))

    def by_oid(self, oids: Mapping[str, int]) -> dict[int, Route]:
        """The routes by oid of their table.

        Args:
            oids: ``db_table`` to oid.
        """
        return {oids[table]: route for table, route in self._routes.items() if table in oids}
