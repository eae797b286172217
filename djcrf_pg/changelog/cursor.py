"""Positions in the change log.

Ids are given at insert and transactions commit in any order, so ``id > last_seen`` skips rows. A position is
a snapshot: exactly the set of transactions whose changes were seen (PostgreSQL manual, 9.27.5 "Transaction ID
and Snapshot Information Functions").
"""

import dataclasses
import re
from typing import NamedTuple, Self

_SNAPSHOT = re.compile(r"(\d+):(\d+):((?:\d+(?:,\d+)*)?)")


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A ``pg_snapshot``.

    Attributes:
        xmin: Every transaction below this one had ended.
        xmax: No transaction from this one on had ended.
        xip: The transactions between that were in progress.
    """

    xmin: int
    xmax: int
    xip: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PostgreSQL's text form ``xmin:xmax:xip,…``.

        Raises:
            ValueError: The text is no snapshot.
        """
        match = _SNAPSHOT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:100]!r} is no pg_snapshot; one looks like '10:20:10,14'")
        xip = frozenset(map(int, match[3].split(","))) if match[3] else frozenset()
        return cls(int(match[1]), int(match[2]), xip)

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.xip)))}"

    def sees(self, xid: int) -> bool:
        """Whether a transaction that has committed by now had committed when the snapshot was taken."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.xip)


#: The position before every change.
BEGINNING = Snapshot(1, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Position:
    """How far the log was read.

    A window that is larger than a batch is read in pieces up to a fixed ``target``.

    Attributes:
        last: Everything in this snapshot was read.
        target: The snapshot being read towards, in the middle of a window.
        after_id: In the middle of a window, the id of the last change read.
    """

    last: Snapshot
    target: Snapshot | None = None
    after_id: int | None = None


class Span(NamedTuple):
    """A part of the log whose events are made together.

    Attributes:
        last: What of the log is not in it: everything in this snapshot.
        target: What is: everything else in this one. None for nothing at all.
        start: And whose id is greater than this one.
        end: And not greater than this one, unless it is None.
        netted: Whether all of it is one transaction to those who receive it; else each of its transactions is one.
    """

    last: Snapshot
    target: Snapshot | None = None
    start: int = 0
    end: int | None = None
    netted: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it, as :meth:`before` makes it."""
        return self.target is None or self.start == self.end

    @classmethod
    def between(cls, begin: Position, end: Position) -> Self:
        """That of a read.

        Args:
            begin: Where it went on.
            end: Where the next one goes on.
        """
        if end.target is None:
            return cls(begin.last, end.last, begin.after_id or 0)
        return cls(end.last, end.target, begin.after_id or 0, end.after_id)

    @classmethod
    def before(cls, position: Position) -> Self:
        """An empty one, behind everything that is before a position."""
        after = position.after_id or 0
        return cls(position.last, position.target, after, after)
