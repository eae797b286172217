"""The rows whose bodies show something that the transactions of a batch have changed; and those that are too many.

A row that everybody refers to is no event for everybody: beyond ``RELATED_LIMIT`` rows of an observer that a
transaction would bring updates of, it is one resync. What counts is rows, not the ways on which they are reached.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from django.db.models import Model

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.conf import get_settings
from djcrf_pg.instances import count_related, find_related
from djcrf_pg.registry import Observed, alias_of
from djcrf_pg.routing.routes import Link

#: So many times the limit is read by one query for all transactions of a batch; beyond it each has its own.
_SHARE = 4

#: A model, and what finds rows of it by a value that related rows have.
Lookup = tuple[type[Model], str]

_Key = TypeVar("_Key", bound=Hashable)


class Place(NamedTuple):
    """What a transaction has done to related rows of one kind.

    Attributes:
        link: The kind.
        value: What finds the rows that they belong to.
        xid: The transaction.
    """

    link: Link
    value: Any
    xid: int

    @property
    def lookup(self) -> Lookup:
        """What the rows are found by."""
        return self.link.observer.model_cls, self.link.owner_field

    @property
    def owners(self) -> Lookup:
        """What the rows are loaded by: their keys, where these have been found."""
        return self.link.observer.model_cls, self.link.owner_field if self.link.watch is None else "pk"


class Crowd(NamedTuple):
    """A transaction that concerns too many rows of an observer.

    Attributes:
        observer: The observer.
        place: One of the things it has done.
        size: The number of rows.
    """

    observer: Observed
    place: Place
    size: int


def concerned(
    aliases: Sequence[str], places: Mapping[Place, RowChange]
) -> tuple[dict[Place, Collection[Any]], list[Crowd]]:
    """Find the rows that related ones belong to, as things are now.

    Args:
        aliases: Those that the database has; the listener's first.
        places: What was done to related rows.

    Returns:
        The keys of the rows, for each place; and the transactions that concern too many.
    """
    limit = get_settings().RELATED_LIMIT
    shared: dict[Lookup, dict[Any, list[Any]] | None] = {}
    for lookup, places_of_all in _grouped(places, lambda place: place.lookup).items():
        transactions = len({place.xid for place in places_of_all})
        shared[lookup] = _find(aliases, lookup, places_of_all, limit * min(transactions, _SHARE))
    found: dict[Place, Collection[Any]] = {}
    crowds = []
    for (observer, _), mine in _grouped(places, lambda place: (place.link.observer, place.xid)).items():
        by_lookup = _grouped(mine, lambda place: place.lookup)
        if any(shared[lookup] is None for lookup in by_lookup):
            model = observer.model_cls
            values = {name: {place.value for place in theirs} for (_, name), theirs in by_lookup.items()}
            count = count_related(model, alias_of(model, aliases), values)
            if count <= limit:
                its = {lookup: _find(aliases, lookup, theirs) or {} for lookup, theirs in by_lookup.items()}
        else:
            its = {lookup: shared[lookup] or {} for lookup in by_lookup}
            count = len({pk for place in mine for pk in its[place.lookup].get(place.value, ())})
        if count > limit:
            crowds.append(Crowd(observer, mine[0], count))
        else:
            found |= {place: its[place.lookup].get(place.value, ()) for place in mine}
    return found, crowds


def _find(
    aliases: Sequence[str], lookup: Lookup, places: Iterable[Place], most: int | None = None
) -> dict[Any, list[Any]] | None:
    """The keys of the rows by the value that finds them; None where there are more."""
    model, name = lookup
    values = {place.value for place in places}
    pairs = find_related(model, alias_of(model, aliases), name, values, most)
    if most is not None and len(pairs) > most:
        return None
    found: dict[Any, list[Any]] = {}
    for value, pk in pairs:
        found.setdefault(value, []).append(pk)
    # What PostgreSQL calls equal may differ, as texts do whose case does not count: the rows are then those of any.
    others = [pk for value in found.keys() - values for pk in found[value]]
    return {value: list(dict.fromkeys([*found.get(value, ()), *others])) for value in values} if others else found


def _grouped(places: Iterable[Place], key: Callable[[Place], _Key]) -> dict[_Key, list[Place]]:
    groups: dict[_Key, list[Place]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return groups
