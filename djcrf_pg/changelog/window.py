"""What the pieces of one window have in common: transactions that are cut, and those that are too large to be sent.

The net effect of a transaction is found piece by piece. That is right where a row's changes are in the log in their
order, and they are, but for one case: a statement of a user's trigger is logged before the one that fired it. Within
a piece the images tell (:mod:`djcrf_pg.changelog.net`); where a piece ends between the two, they cannot.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from djcrf_pg.changelog.change import MASS, UNORDERED, Change

#: A transaction and a table.
Place = tuple[int, int]

#: So many places with statements of triggers are remembered; of older ones, only that there were some.
_MANY = 100_000


@dataclasses.dataclass(slots=True)
class Window:
    """The pieces of one window, in order.

    Attributes:
        mass: The number of rows of what is not told row by row because it is more than ``MASS_CHANGE``.
        nested: How deep in triggers the statements were that former pieces had.
    """

    mass: Mapping[Place, int] = dataclasses.field(default_factory=dict)
    nested: dict[Place, int] = dataclasses.field(default_factory=dict)
    _told: set[Place] = dataclasses.field(default_factory=set)
    _forgotten: int = 0

    def fold(self, changes: Sequence[Change]) -> list[Change]:
        """Take the next piece, and put one change in place of those that cannot be sent row by row.

        Args:
            changes: A piece as it was read.

        Returns:
            The piece as it is to be sent.
        """
        if not (self.mass or self.nested or self._forgotten):
            told = list(changes)
        else:
            told = [kept for change in changes if (kept := self._keep(change)) is not None]
        for change in changes:
            if change.depth > 1:
                place = (change.xid, change.relation)
                self.nested[place] = max(change.depth, self.nested.pop(place, 0))
        while len(self.nested) > _MANY:
            oldest = next(iter(self.nested))
            del self.nested[oldest]
            self.forget(oldest[0])
        return told

    def forget(self, xid: int) -> None:
        """Take it that each transaction up to this one had statements of triggers in former pieces."""
        self._forgotten = max(self._forgotten, xid)

    def _keep(self, change: Change) -> Change | None:
        place = (change.xid, change.relation)
        if place in self._told:
            return None
        if (rows := self.mass.get(place)) is not None:
            self._told.add(place)
            return change._replace(op=MASS, old=None, new=None, rows=rows)
        depth = self.nested.get(place, 0)
        if depth > change.depth > 0 or (not depth and 0 < change.xid <= self._forgotten):
            self._told.add(place)
            return change._replace(op=UNORDERED, old=None, new=None)
        return change


def crowds(changes: Sequence[Change], most: int) -> dict[Place, int]:
    """What has more than ``most`` rows in a window that is not cut."""
    if len(changes) <= most:
        return {}
    counts = Counter((change.xid, change.relation) for change in changes if change.old or change.new)
    return {place: count for place, count in counts.items() if count > most}
