"""Multi-table inheritance: the rows of several tables are one instance.

A transaction that writes to some of them is one event of the child: an update of the parent's row alone is an update of
the child, a delete of all the rows is one delete. What the transaction did not write is loaded as it is now.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db.models import Model

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.instances import as_of_now, make
from djcrf_pg.registry import Observed, alias_of, own_columns
from djcrf_pg.routing.routes import Occurrence

Values = dict[str, Any]

#: From the row of a table to the attributes that it holds, before and after, and the names of the fields that differ.
Read = Callable[[type[Model], RowChange], tuple[Values | None, Values | None, list[str]]]

#: A model and a key in its own table.
_Key = tuple[type[Model], Any]


@dataclasses.dataclass(slots=True)
class _Family:
    """What one transaction did to the rows of one instance, by the model whose own table holds them."""

    change: RowChange
    again: bool = False
    old: dict[type[Model], Values] = dataclasses.field(default_factory=dict)
    new: dict[type[Model], Values] = dataclasses.field(default_factory=dict)
    changed: list[str] = dataclasses.field(default_factory=list)


class Heirs:
    """Collects the changes of the tables of models that inherit, and makes them whole.

    Args:
        aliases: Those that the database has; the listener's first.
        read: Reads a row.
    """

    def __init__(self, aliases: Sequence[str], read: Read) -> None:
        self._aliases = aliases
        self._read = read
        self._families: dict[tuple[int, Observed, _Key], _Family] = {}

    def add(self, observer: Observed, model: type[Model], row: RowChange) -> None:
        """Take in a row of the table of ``model``, which is the observed model or one that it inherits from."""
        old, new, changed = self._read(model, row)
        for values, side in ((old, "old"), (new, "new")):
            if values is not None:
                key = (model, values[model._meta.pk.attname])
                family = self._families.setdefault((row.xid, observer, key), _Family(row))
                family.again |= row.touched
                if not row.is_as_it_was:
                    getattr(family, side)[model] = values
                    if values is new:
                        family.changed += changed

    @property
    def observers(self) -> set[Observed]:
        """Those that it has rows for."""
        return {observer for _, observer, _ in self._families}

    def occurrences(self) -> Iterator[Occurrence]:
        """Yield one occurrence for each instance and transaction."""
        by_observer: dict[Observed, dict[tuple[int, _Key], _Family]] = {}
        for (xid, observer, key), family in self._families.items():
            by_observer.setdefault(observer, {})[xid, key] = family
        for observer, families in by_observer.items():
            yield from self._of(observer, families)

    def _of(self, observer: Observed, families: dict[tuple[int, _Key], _Family]) -> Iterator[Occurrence]:
        current = _Current(observer, alias_of(observer.model_cls, self._aliases), [key for _, key in families])
        current.follow(families.values())
        merged: dict[tuple[int, Any], _Family] = {}
        for (xid, key), family in families.items():
            known = merged.setdefault((xid, current.pk_for(key)), family)
            if known is not family:
                known.old |= family.old
                known.new |= family.new
                known.changed += family.changed
                known.again |= family.again
                known.change = min(known.change, family.change, key=lambda change: change.id)
        current.load_parents(merged)
        for (_, pk), family in merged.items():
            if occurrence := self._occurrence(observer, family, pk, current):
                yield occurrence

    def _occurrence(self, observer: Observed, family: _Family, pk: Any, current: "_Current") -> Occurrence | None:
        own = observer.model_cls
        touched = own in family.old or own in family.new
        rest = current.values(pk)
        if rest is None:
            if not touched:
                return None  # The row of a parent without this child, or of one that is gone by now.
            rest = current.left(pk)
        old = self._whole(own, family.old, rest) if own in family.old or not touched else None
        new = self._whole(own, family.new, rest) if own in family.new or not touched else None
        changed = family.changed if old and new else []
        return Occurrence(family.change, observer, old, new, changed, again=family.again)

    def _whole(self, model: type[Model], parts: dict[type[Model], Values], rest: Values) -> Model:
        values = dict(rest)
        for written, part in parts.items():
            # What the log does not have of a row that was written is deferred: as it is now, it may be another value.
            for field in own_columns(written).values():
                values.pop(field.attname, None)
            values |= part
        names = [field.attname for field in model._meta.concrete_fields if field.attname in values]
        return make(model, alias_of(model, self._aliases), {name: values[name] for name in names})


class _Current:
    """The instances as they are now, for the rows that a transaction did not write."""

    def __init__(self, observer: Observed, alias: str, keys: Iterable[_Key]) -> None:
        self._own = observer.model_cls
        self._alias = alias
        concrete = self._own._meta.concrete_model or self._own
        self._links = {parent: link.attname for parent, link in concrete._meta.parents.items() if link}
        self._pks: dict[_Key, Any] = {}
        self._values: dict[Any, Values] = {}
        self._left: dict[Any, Values] = {}
        wanted: dict[str, set[Any]] = {}
        for model, key in keys:
            wanted.setdefault(model._meta.pk.attname, set()).add(key)
        for name, values in wanted.items():
            for _, found in as_of_now(self._own, alias, name, values):
                pk = found[self._own._meta.pk.attname]
                self._values[pk] = found
                for model in observer.models:
                    self._pks[model, found[model._meta.pk.attname]] = pk

    def follow(self, families: Iterable[_Family]) -> None:
        """Learn from the rows of children, which may be gone by now, which rows of parents are theirs."""
        for family in families:
            for parts in (family.old, family.new):
                own = parts.get(self._own, {})
                for parent, link in self._links.items():
                    if link in own:
                        self._pks.setdefault((parent, own[link]), own[self._own._meta.pk.attname])

    def load_parents(self, families: Mapping[tuple[int, Any], _Family]) -> None:
        """Load the parents that a child has left behind: ``delete(keep_parents=True)``.

        Args:
            families: By transaction and the child's key.
        """
        wanted: dict[type[Model], dict[Any, Any]] = {}
        for (_, pk), family in families.items():
            parts = family.new | family.old
            if self._own in parts and pk not in self._values:
                known = {name: value for part in parts.values() for name, value in part.items()}
                for parent, link in self._links.items():
                    if parent not in parts and link in known:
                        wanted.setdefault(parent, {})[known[link]] = pk
        for parent, children in wanted.items():
            for key, found in as_of_now(parent, self._alias, parent._meta.pk.attname, children):
                self._left.setdefault(children[key], {}).update(found)

    def pk_for(self, key: _Key) -> Any:
        """The key of the child, for a key of one of its tables.

        They are the same, unless the child inherits from several models.
        """
        return self._pks.get(key, key[1])

    def values(self, pk: Any) -> Values | None:
        """The attributes of an instance, None when there is none."""
        return self._values.get(pk)

    def left(self, pk: Any) -> Values:
        """Those of the parents of an instance that is gone, as far as they are still there."""
        return self._left.get(pk, {})
