"""The net effect of a transaction on each row: one change per row, as readers of committed data see it."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

#: Reasons of a resync: the table was emptied; a row that the log or we could not read; changes that the log lost
#: before they were read; more rows in a transaction than MASS_CHANGE; rows whose order the log does not say; a
#: transaction with related rows of more than RELATED_LIMIT rows.
TRUNCATE, UNREADABLE, OVERFLOW = "truncate", "unreadable", "overflow"
MASS_CHANGE, UNORDERED, RELATED = "mass_change", "unordered", "related"

Image = dict[str, Any]
Key = Hashable


@dataclasses.dataclass(slots=True)
class RowChange:
    """A change with its images parsed.

    ``old`` and ``new`` are the row before and after; both None is a row that came and went, or what cannot be sent
    row by row when ``resync`` says why; ``count`` is then the number of rows, if it is known. ``writer`` is the
    transaction that wrote last, where several count as one. ``touched`` rows are sent
    though nothing has changed; one that was touched and nothing else has its key for both images.
    """

    id: int
    xid: int
    relation: int
    old: Image | None
    new: Image | None
    context: str | None
    at: datetime
    resync: str | None = None
    count: int | None = None
    touched: bool = False
    writer: int | None = None

    @property
    def is_as_it_was(self) -> bool:
        """Whether the row was touched, and the transaction has changed nothing of it."""
        return self.touched and self.old == self.new


def net(changes: Iterable[RowChange], key_of: Callable[[int, Image], Key]) -> list[RowChange]:
    """Fold the changes of each transaction into one for each row.

    create + update = create, update + delete = delete, create + delete = nothing, delete + create = update, a change
    and its undoing = nothing. A changed key is a delete of the old row and a create of the new one. A TRUNCATE takes
    what the transaction had done to the table before it. A touch is part of what else the transaction did to the row,
    and an update where that is nothing.

    The order of the log is not always the order of a row's changes: a statement of a user's AFTER trigger is logged
    before the statement that fired it, and a statement that swaps two keys is logged row by row. But each change leads
    from an image to another, so together they are a path, and its ends do not depend on the order. Of a path that
    ends where it began they do, and the log does not say which of its images was stored; but then nothing came of it.

    Args:
        changes: In the order of their ids.
        key_of: The primary key in an image of a relation.

    Returns:
        The net changes, each at the place of the row's first change.
    """
    rows: dict[tuple[int, int, Key], list[RowChange]] = {}
    for change in changes:
        if change.resync is not None:
            if change.resync == TRUNCATE:
                for place in [place for place in rows if place[:2] == (change.xid, change.relation)]:
                    del rows[place]
            rows.setdefault((change.xid, change.relation, None), [change])
            continue
        for key, part in by_key(change, key_of):
            rows.setdefault((change.xid, change.relation, key), []).append(part)
    found = (path[0] if len(path) == 1 else _ends(path) for path in rows.values())
    return [row for row in found if row.old is not None or row.new is not None or row.resync]


def set_aside_unordered(
    changes: Iterable[RowChange], key_of: Callable[[int, Image], Key], deferrable: Collection[int], *, cut: bool
) -> None:
    """Make changes a resync whose order the log does not say, because the primary key is deferrable.

    Whoever inserts a key then does not wait for the transaction that deletes it until its own commit, so the ids of the
    two say nothing. Only this is in doubt: a key that one transaction makes, with a lower id than that of another's
    delete. The delete may be of the row that was made, or of the one before it. The other way round is certain: who
    deletes what another made has waited for it, so a delete with a lower id was first.

    Args:
        changes: In the order of their ids; those in doubt become a resync.
        key_of: The primary key in an image of a relation.
        deferrable: The relations with such a key.
        cut: They are a piece of a window: who made a key that is deleted may stand in another piece.
    """
    makers: dict[tuple[int, Key], list[RowChange]] = {}
    for change in changes:
        if change.relation not in deferrable or change.resync is not None or change.touched:
            continue
        doubtful: list[RowChange] = []
        for key, part in by_key(change, key_of):
            place = (change.relation, key)
            if part.new is None:
                others = [maker for maker in makers.get(place, ()) if maker.xid != change.xid]
                if others or cut:
                    doubtful += [*others, change]
            elif part.old is None:
                makers.setdefault(place, []).append(change)
        for each in doubtful:
            each.old, each.new, each.resync = None, None, UNORDERED


def by_key(change: RowChange, key_of: Callable[[int, Image], Key]) -> Sequence[tuple[Key, RowChange]]:
    """A change with the key of its row; a changed key is a delete of the old row and a create of the new one."""
    old, new = change.old, change.new
    before = None if old is None else key_of(change.relation, old)
    after = None if new is None else key_of(change.relation, new)
    if old is None or new is None or before == after:
        return ((after if old is None else before, change),)
    return (before, dataclasses.replace(change, new=None)), (after, dataclasses.replace(change, old=None))


def _ends(whole: list[RowChange]) -> RowChange:
    first, last = whole[0], whole[-1]
    path = [change for change in whole if not change.touched]
    if touched := len(path) < len(whole):
        # They lead nowhere, and have no image.
        path = path or [last]
    old, new = path[0].old, path[-1].new
    if any(earlier.new != later.old for earlier, later in pairwise(path)):
        starts = Counter(_text(change.old) for change in path)
        ends = Counter(_text(change.new) for change in path)
        start, end = starts - ends, ends - starts
        if not start and not end:
            new = old
        # More than one of either is no path: the table was altered between two changes, say.
        if start.total() == end.total() == 1:
            old = next(change.old for change in path if _text(change.old) in start)
            new = next(change.new for change in path if _text(change.new) in end)
    if old == new and not touched and any(change.new != new for change in path):
        old = new = None
    return dataclasses.replace(
        first, old=old, new=new, context=last.context, at=last.at, touched=touched, writer=last.writer
    )


def _text(image: Image | None) -> str:
    return json.dumps(image, sort_keys=True, default=str)
