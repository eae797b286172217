"""What is observed: the trigger-driven observers of this process, and the models behind them."""

import dataclasses
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from itertools import chain
from typing import Any, Protocol, cast

from django.apps import apps
from django.conf import settings
from django.core.exceptions import FieldDoesNotExist
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import (
    Field,
    ForeignObjectRel,
    ManyToManyField,
    ManyToManyRel,
    ManyToOneRel,
    Model,
    OneToOneRel,
)

from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ConfigurationError, ObserverError


class Observed(Protocol):
    """What the lower layers need of a model observer."""

    @property
    def model_cls(self) -> type[Model]:
        """The observed model."""

    @property
    def label(self) -> str:
        """Where the observer is defined, for logs and errors."""

    @property
    def identity(self) -> str:
        """What tells it from others, in this process and in others with the same code."""

    @property
    def address(self) -> str:
        """The same in its messages, in sixteen characters."""

    @property
    def message_type(self) -> str:
        """The ``type`` of its channel-layer messages."""

    @property
    def models(self) -> list[type[Model]]:
        """The models that have the columns in their own tables: the observed one, then those it inherits from."""

    @property
    def relationships(self) -> list["Relationship"]:
        """The many-to-many relations whose join tables it watches."""

    @property
    def watches(self) -> Sequence["Watch"]:
        """The rows of other tables whose changes make its bodies stale."""

    @property
    def parents(self) -> list[type[Model]]:
        """The models whose deleted rows its instances are to find through their foreign keys."""

    @property
    def every_change(self) -> bool:
        """Whether it receives each change of a row in a transaction, instead of the net effect."""

    @property
    def is_shadow(self) -> bool:
        """Whether its events are for a comparison alone."""

    def tells(self, changed: Collection[str]) -> bool:
        """Whether an update that changed these fields is an event."""

    @property
    def told_of(self) -> Collection[str] | None:
        """The fields and relations that an update has to change one of to be an event; None where any will do."""

    @property
    def wants_old(self) -> bool:
        """Whether the handler takes the instance as it was before."""

    @property
    def takes_extras(self) -> bool:
        """Whether what makes its bodies takes more than the instance and what happened to it."""

    @property
    def serializes_cursor(self) -> bool:
        """Whether the serializer takes a cursor."""

    @property
    def needs_old(self) -> bool:
        """Whether groups, serializer or handler are given the instance as it was before."""

    @property
    def needs_row(self) -> bool:
        """Whether anybody is given more of an instance than its primary key."""

    @property
    def prefetches(self) -> Sequence[Any]:
        """The relations that its serializer follows, as ``prefetch_related`` takes them."""

    @property
    def decimals_as_text(self) -> bool:
        """Whether a decimal in a body becomes text; else a number, where that has each digit."""

    def resync_group(self) -> str:
        """The group of all its subscribers, for what cannot be said row by row."""

    def group_names_for_signal(self, *args: Any, **kwargs: Any) -> Iterable[str]:
        """The groups that an instance belongs to."""

    def said_groups(self, instance: Model) -> dict[str, str]:
        """The groups of an instance, each with what the code yields for it, where that differs."""

    def serialize(self, instance: Model, action: Any, **kwargs: Any) -> dict[str, Any]:
        """The message that tells of an instance; its ``body`` is what counts."""


class Registry:
    """The observers of this process, in the order of their definition; of those with one identity the newest alone.

    A factory, a fixture, a notebook, a module that is loaded again define an observer again, and both would send each
    event to the same groups. They are held weakly: consumers that a test defines must end with the test.

    Attributes:
        version: Rises with each change, so that compiled routes are made anew.
        without_triggers: The observers of models on other databases, which no listener serves; held weakly too.
    """

    def __init__(self) -> None:
        self._observers: list[weakref.ref[Any]] = []
        # The garbage collector may let go of an observer at any moment, also while its thread holds the lock.
        self._lock = threading.RLock()
        self.version = 0
        self._newest: tuple[int, dict[str, weakref.ref[Any]]] = (0, {})
        self.without_triggers: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, observer: Observed) -> None:
        """Remember an observer."""
        reference = weakref.ref(observer, self._forget)
        with self._lock:
            # A new list, as in _forget, which may come in between: what it has let go of by then is skipped.
            self._observers = [*self._observers, reference]
            self.version += 1

    def renamed(self) -> None:
        """Note that the identity of an observer has changed, as it does when its class is made."""
        with self._lock:
            self.version += 1

    def _forget(self, reference: "weakref.ref[Any]") -> None:
        with self._lock:
            self._observers = [known for known in self._observers if known is not reference]
            self.version += 1

    def __iter__(self) -> Iterator[Observed]:
        for reference in self._by_address().values():
            if (observer := reference()) is not None:
                yield observer

    def addresses(self) -> list[str]:
        """Of all observers in this process."""
        return list(self._by_address())

    def at(self, address: str) -> Observed | None:
        """The newest observer with an address; None where there is none in this process."""
        reference = self._by_address().get(address)
        return None if reference is None else reference()

    def _by_address(self) -> "dict[str, weakref.ref[Any]]":
        version, found = self._newest
        if version != self.version:
            with self._lock:
                version, known = self.version, list(self._observers)
            living = [(reference, observer) for reference in known if (observer := reference()) is not None]
            found = {observer.address: reference for reference, observer in living}
            self._newest = version, found
        return found

    def on(self, *aliases: str) -> list[Observed]:
        """The observers whose model lives in, or is written to, the database that has these aliases."""
        return [
            observer
            for observer in self
            if router.db_for_write(observer.model_cls) in aliases
            or any(lives_on(observer.model_cls, alias) for alias in aliases)
        ]

    def problems(self) -> list[str]:
        """What ``OBSERVE`` and ``EXCLUDE`` name that does not exist; one sentence each."""
        found = []
        settings = get_settings()
        for setting, labels in (("OBSERVE", settings.OBSERVE), ("EXCLUDE", settings.EXCLUDE)):
            for label in labels:
                try:
                    for model in named_by(label) if setting == "OBSERVE" else [model_of(label, setting)]:
                        excluded_columns(model)
                except ConfigurationError as error:
                    found.append(str(error))
        return found

    def aliases(self) -> list[str]:
        """The PostgreSQL databases that observed models are written to."""
        return sorted({router.db_for_write(observer.model_cls) for observer in self})

    def tables(self, alias: str) -> dict[str, tuple[str, ...]]:
        """The tables of database ``alias`` that want triggers.

        Returns:
            ``db_table`` to the columns that must not leave it.

        Raises:
            ConfigurationError: ``OBSERVE`` or ``EXCLUDE`` name something that does not exist.
        """
        return {model._meta.db_table: excluded_columns(model) for model in self.models(alias)}

    def models(self, alias: str) -> list[type[Model]]:
        """The models whose own tables in database ``alias`` want triggers.

        Raises:
            ConfigurationError: ``OBSERVE`` names something that does not exist.
        """
        here = [models for model, models in self.observed() if lives_on(model, alias)]
        return list(dict.fromkeys(chain(*here)))

    def observed(self) -> list[tuple[type[Model], list[type[Model]]]]:
        """Each model of an observer or of ``OBSERVE``, with those whose own tables want triggers for it.

        Raises:
            ConfigurationError: ``OBSERVE`` names something that does not exist.
        """
        named = map(named_by, get_settings().OBSERVE)
        return [
            *((observer.model_cls, list(observed_tables(observer))) for observer in self),
            *((models[0], models) for models in named),
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Relationship:
    """A relation of a model whose rows are in another table, from the side of the model that ``many_to_many`` is for.

    Attributes:
        name: The field, or the accessor of the reverse side.
        through: The model of the join table.
        owner_key: The field of the join table that names the owner, the side that ``name`` is on: a foreign key, or
            the object id of a generic one.
        owner_type: The foreign key of the join table to the content type of a generic one's owner; None elsewhere.
    """

    name: str
    through: type[Model]
    owner_key: str
    owner_type: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Watch:
    """Rows of another table that bodies of a model show.

    Attributes:
        path: The relations that lead there from the model, with two underscores between them.
        model: Whose own table has the rows.
        entry: What of ``OBSERVE`` brings that table.
        attname: The attribute of a row that says which rows of the observed model it belongs to.
        lookup: What finds these by its value.
        fields: An update counts that changes one of these; None for any.
        comes_and_goes: Whether a row counts that is inserted or deleted.
    """

    path: str
    model: type[Model]
    entry: str
    attname: str
    lookup: str
    fields: frozenset[str] | None = None
    comes_and_goes: bool = False


def relationships_of(model: type[Model], names: bool | Iterable[str]) -> list[Relationship]:
    """The relations of a model whose join tables an observer watches.

    Args:
        model: The owner.
        names: True for the many-to-many fields that it declares or inherits, as in DCRF; or the names of fields (also
            of generic relations), and of the accessors that other models' fields give it.

    Raises:
        ObserverError: There is no relation of that name, or its join table does not say how it names the owner.
    """
    if isinstance(names, bool):
        return [_relationship(model, field) for field in model._meta.many_to_many] if names else []
    named = {
        **{field.name: field for field in model._meta.private_fields if hasattr(field, "object_id_field_name")},
        **{accessor: relation for relation in model._meta.related_objects if (accessor := _accessor(relation))},
        **{field.name: field for field in model._meta.many_to_many},
    }
    names = list(names)
    if unknown := [name for name in names if name not in named]:
        raise ObserverError(
            f"{model._meta.label} has no relation {unknown[0]!r} that many_to_many can watch; it has "
            f"{', '.join(sorted(named)) or 'none'}."
        )
    return [_relationship(model, named[name]) for name in names]


def _accessor(relation: ForeignObjectRel) -> str | None:
    """The accessor of the rows that another model's field relates to an instance; None where there is none."""
    match relation:
        case OneToOneRel():
            return None
        case ManyToOneRel() | ManyToManyRel(field=ManyToManyField(), hidden=False):
            return relation.get_accessor_name()
    return None


def _relationship(model: type[Model], field: Any) -> Relationship:
    through: Any = getattr(field, "through", None) or getattr(field.remote_field, "through", None)
    rows: Any = field.related_model
    if isinstance(field, ManyToManyField):
        return Relationship(field.name, through, field.m2m_field_name())
    if isinstance(field, ManyToManyRel):
        return Relationship(str(field.get_accessor_name()), through, field.field.m2m_reverse_field_name())
    if isinstance(field, ManyToOneRel):
        return Relationship(str(field.get_accessor_name()), rows, field.field.name)
    if object_id := getattr(field, "object_id_field_name", None):  # a generic relation
        return Relationship(field.name, rows, object_id, field.content_type_field_name)
    if through is not None:  # a package's, with a join table that names the owner in one way or the other
        owners = {parent._meta.concrete_model for parent in (model, *model._meta.get_parent_list())}
        foreign = [key for key in through._meta.fields if key.is_relation]
        keys = [key.name for key in foreign if key.related_model._meta.concrete_model in owners]
        generic = [key for key in through._meta.private_fields if hasattr(key, "fk_field")]
        if len(keys) == 1:
            return Relationship(field.name, through, keys[0])
        if not keys and len(generic) == 1:
            return Relationship(field.name, through, generic[0].fk_field, generic[0].ct_field)
    raise ObserverError(
        f"many_to_many cannot watch {model._meta.label}.{field.name}, a {type(field).__name__}: it has no join table "
        f"with exactly one foreign key, or one generic foreign key, to {model._meta.label}. Give the names of the "
        f"others instead: many_to_many=[…]."
    )


def parents_of(model: type[Model], paths: Iterable[str]) -> list[type[Model]]:
    """The models that paths of foreign keys lead through, and those that they inherit from.

    Args:
        model: Where the paths begin.
        paths: Names of foreign keys, with two underscores between them: ``"desk__place"``.

    Raises:
        ObserverError: A name is that of no foreign key.
    """
    found: dict[type[Model], None] = {}
    for path in paths:
        here = model
        for name in path.split("__"):
            fields = {
                field.name: field for field in here._meta.concrete_fields if field.many_to_one or field.one_to_one
            }
            if name not in fields:
                has = f"it has {', '.join(fields)}" if fields else "it has none"
                raise ObserverError(f"parents has {path!r}, and {here._meta.label} has no foreign key {name!r}; {has}.")
            here = cast(type[Model], fields[name].related_model)
            found |= dict.fromkeys(family_of(here))
    return list(found)


def observed_tables(observer: Observed) -> dict[type[Model], str]:
    """The models whose own tables an observer needs triggers on, each with the entry of ``OBSERVE`` that brings it."""
    label = observer.model_cls._meta.label
    joins = {relationship.through: f"{label}.{relationship.name}" for relationship in observer.relationships}
    further = {watch.model: watch.entry for watch in observer.watches}
    further |= {parent: parent._meta.label for parent in observer.parents}
    return further | dict.fromkeys(observer.models, label) | joins


def named_by(entry: str) -> list[type[Model]]:
    """The models whose own tables an entry of ``OBSERVE`` brings.

    ``"app.Model"`` brings the tables that have the model's columns, ``"app.Model.name"`` that of a relation besides, by
    a name that ``many_to_many`` of an observer takes. The first brings no join tables, as an observer does not without
    ``many_to_many``: each write to them would pay for their triggers.

    Raises:
        ConfigurationError: There is no such model, or it has no such relation.
    """
    app_label, model_name, *names = entry.split(".")
    model = model_of(f"{app_label}.{model_name}", "OBSERVE")
    try:
        relationships = relationships_of(model, names)
    except ObserverError as error:
        raise ConfigurationError(f"DJCRF_PG['OBSERVE'] names {entry!r}: {error}") from error
    return [*family_of(model), *(relationship.through for relationship in relationships)]


def family_of(model: type[Model]) -> list[type[Model]]:
    """The model and, for multi-table inheritance, the models whose tables hold the rest of its columns."""
    concrete = model._meta.concrete_model or model
    parents = [parent for parent in concrete._meta.get_parent_list() if not parent._meta.proxy]
    return [model, *parents]


def own_columns(model: type[Model]) -> "dict[str, Field[Any, Any]]":
    """The columns of the model's own table (those of its parents are in theirs), with their fields."""
    concrete = model._meta.concrete_model or model
    return {field.column: field for field in concrete._meta.local_concrete_fields if field.column}


def is_postgresql(model: type[Model]) -> bool:
    """Whether a model's rows are written to PostgreSQL."""
    return connections[router.db_for_write(model)].vendor == "postgresql"


def is_elsewhere_on_purpose(model: type[Model]) -> bool:
    """Whether a router keeps a model off PostgreSQL in a project that has it: such a one has Django's signals."""
    named = router.db_for_write(model) != DEFAULT_DB_ALIAS
    return named and any(connections[alias].vendor == "postgresql" for alias in connections)


def why_not_here(model: type[Model]) -> str:
    """Say of a model that is not on PostgreSQL where it is, and what to do."""
    alias = router.db_for_write(model)
    return (
        f"{model._meta.label} is in database {alias!r}, which is {connections[alias].display_name}, and triggers of "
        f"djcrf_pg are for PostgreSQL. Set DATABASES[{alias!r}]['ENGINE'] to django.db.backends.postgresql."
    )


def lives_on(model: type[Model], alias: str) -> bool:
    """Whether ``migrate`` makes the model's table in database ``alias``, and that is PostgreSQL."""
    return connections[alias].vendor == "postgresql" and router.allow_migrate_model(alias, model)


def alias_of(model: type[Model], aliases: Sequence[str]) -> str:
    """The alias that instances of a model come from, in a database that has these aliases.

    It is the one that the model is written to; the first, for a model that is written to another database.
    """
    written = router.db_for_write(model)
    return written if written in aliases else aliases[0]


def model_of(label: str, setting: str) -> type[Model]:
    """The model with a label such as ``"app.Model"`` that a setting names.

    Raises:
        ConfigurationError: There is no such model, or it is swapped out and has no table.
    """
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise ConfigurationError(f"DJCRF_PG[{setting!r}] names {label!r}: {error}") from error
    if swapped := model._meta.swapped:
        raise ConfigurationError(
            f"DJCRF_PG[{setting!r}] names {label!r}, which has no table: it is swapped out for {swapped!r} "
            f"({model._meta.swappable}). Name that one."
        )
    return model


def excluded_columns(model: type[Model]) -> tuple[str, ...]:
    """The columns of a model's own table that never leave it, from ``EXCLUDE``.

    They belong to the table: what is said of a model holds for its proxies, and for unmanaged models on its table. The
    password of the user model is excluded unless ``EXCLUDE`` has an entry for the model that declares it.

    Raises:
        ConfigurationError: ``EXCLUDE`` names a field that does not exist.
    """
    table = model._meta.db_table
    columns: set[str] = set()
    told = False
    for label, names in get_settings().EXCLUDE.items():
        named = model_of(label, "EXCLUDE")
        if named._meta.db_table == table:
            told = True
            columns |= _columns_of(named, names)
    if not told:
        password = password_of_the_user_model()
        if password is not None and password.column and password.model._meta.db_table == table:
            columns.add(password.column)
    return tuple(sorted(columns))


def _columns_of(model: type[Model], names: Iterable[str]) -> set[str]:
    columns = {field.name: column for column, field in own_columns(model).items()}
    if unknown := [name for name in names if name not in columns and name not in columns.values()]:
        raise ConfigurationError(
            f"DJCRF_PG['EXCLUDE'][{model._meta.label!r}] names {unknown[0]!r}, which is no field of its table; "
            f"it has {', '.join(columns)}."
        )
    excluded = {columns.get(name, name) for name in names}
    if keys := [field.name for field in model._meta.pk_fields if field.column in excluded]:
        raise ConfigurationError(
            f"DJCRF_PG['EXCLUDE'][{model._meta.label!r}] names {keys[0]!r}, its primary key, without which no event "
            f"could say which row it is of. Take it out."
        )
    return excluded


def password_of_the_user_model() -> "Field[Any, Any] | None":
    """The field, whose ``model`` may be one that the user model inherits from; None where there is none."""
    try:
        field = apps.get_model(settings.AUTH_USER_MODEL)._meta.get_field("password")
    except (LookupError, ValueError, FieldDoesNotExist):
        return None
    return field if isinstance(field, Field) else None


registry = Registry()

#: What observers may keep for the length of one batch of the listener; None outside of one.
BATCH: ContextVar[dict[Any, Any] | None] = ContextVar("djcrf_pg.batch", default=None)
