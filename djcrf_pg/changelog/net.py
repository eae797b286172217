"""The net effect of a transaction on each row: one change per row, as readers of committed data see it."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Any

Image = dict[str, Any]
Key = Hashable


@dataclasses.dataclass(slots=True)
class RowChange:
    """A change with its images parsed.

    ``old`` and ``new`` are the row before and after; both None is a row that came and went, or a TRUNCATE when
    ``truncated`` says so.
    """

    id: int
    xid: int
    relation: int
    old: Image | None
    new: Image | None
    context: str | None
    at: datetime
    truncated: bool = False


def net(changes: Iterable[RowChange], key_of: Callable[[int, Image], Key]) -> list[RowChange]:
    """Fold the changes of each transaction into one for each row.

    create + update = create, update + delete = delete, create + delete = nothing, delete + create = update. A
    changed key is a delete of the old row and a create of the new one. A TRUNCATE takes what the transaction had
    done to the table before it.

    Args:
        changes: In the order of their ids.
        key_of: The primary key in an image of a relation.

    Returns:
        The net changes, each at the place of the row's first change and with the last one's images' effect.
    """
    rows: dict[tuple[int, int, Key], RowChange] = {}
    for change in changes:
        if change.truncated:
            for place in [place for place in rows if place[:2] == (change.xid, change.relation)]:
                del rows[place]
            rows[change.xid, change.relation, None] = change
            continue
        keys = [None if image is None else key_of(change.relation, image) for image in (change.old, change.new)]
        before, after = keys
        if before is not None and after is not None and before != after:
            _fold(rows, before, dataclasses.replace(change, new=None))
            _fold(rows, after, dataclasses.replace(change, old=None))
        else:
            _fold(rows, before if before is not None else after, change)
    return [row for row in rows.values() if row.old is not None or row.new is not None or row.truncated]


def _fold(rows: dict[tuple[int, int, Key], RowChange], key: Key, change: RowChange) -> None:
    place = (change.xid, change.relation, key)
    row = rows.get(place)
    if row is None:
        rows[place] = change
        return
    row.context, row.at = change.context, change.at
    if change.new is None and row.old is None and row.new is not None and row.new != change.old:
        # Keys swapped by one statement: what goes is the row that was here before it, not the one that the
        # same statement has just put here.
        row.old = change.old
        return
    if row.old is None and row.new is None:
        row.old = change.old
    row.new = change.new
