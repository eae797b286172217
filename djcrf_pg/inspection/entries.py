"""A change of the log as people know it: with the names of model and fields, and without what must not be seen."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self

from djcrf_pg.changelog.change import MASS, OVERFLOWN, TRUNCATED, UNORDERED, UNWRITABLE, Change
from djcrf_pg.changelog.image import parse
from djcrf_pg.changelog.net import Image
from djcrf_pg.inspection.tables import Table

_ACTIONS = {
    "I": "create",
    "U": "update",
    "D": "delete",
    TRUNCATED: "truncate",
    UNWRITABLE: "unreadable",
    OVERFLOWN: "overflow",
    MASS: "mass_change",
    UNORDERED: "unordered",
}


class Key(NamedTuple):
    """Where a change stands in the log's index. Its text form is ``transaction.id``."""

    xid: int
    id: int

    def __str__(self) -> str:
        return f"{self.xid}.{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form.

        Raises:
            ValueError: It is none.
        """
        xid, dot, id = text.partition(".")
        if not (dot and _is_number(xid) and _is_number(id)):
            raise ValueError(f"{text[:60]!r} is no key of a change; one looks like 771.26341208")
        return cls(int(xid), int(id))


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One change of the log.

    Attributes:
        id: The change's; what events call ``change_id``.
        xid: The transaction.
        table: The table, qualified and quoted; of a partition, the partitioned one.
        model: The label of the model whose own table it is; None where no app here has one.
        pk: The key, the parts of a composite one with commas between; None where it is of no single row. Of a row
            whose key was changed, the new one.
        action: ``create``, ``update``, ``delete``, ``touch``; or what stands for rows that are not sent: ``truncate``,
            ``unreadable``, ``overflow``, ``unseen`` (a change that fired no trigger), ``mass_change``, ``unordered``.
        old: The values before, by field; of an update, of those fields that differ.
        new: The values after, in the same way. Excluded columns are in neither.
        context: What the writer said of itself: JSON data, or the text where it is no JSON.
        at: When the statement wrote the row.
        part: The partition, or the table that inherits, that the row is in; None where that is ``table``.
        former_pk: Of a row whose key was changed, the old one; else None.
    """

    id: int
    xid: int
    table: str
    model: str | None
    pk: str | None
    action: str
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    context: Any
    at: datetime
    part: str | None = None
    former_pk: str | None = None

    @property
    def key(self) -> Key:
        """Where it stands."""
        return Key(self.xid, self.id)

    @property
    def changed(self) -> list[str]:
        """The fields that differ, in the order of the columns."""
        return list({**self.old, **self.new})

    @classmethod
    def of(cls, change: Change, table: Table) -> Self:
        """Describe a change as it was read.

        Args:
            change: The change.
            table: Its table.
        """
        action = _ACTIONS.get(change.op, change.op)
        if change.is_touch:
            action = "touch"
        elif change.is_of_a_look:
            action = "unseen"
        try:
            whole = [{} if image is None else parse(image) for image in (change.old, change.new)]
        except (ValueError, TypeError, RecursionError):
            action, whole = "unreadable", [{}, {}]
        keys = [_key_text(table, image) for image in whole if image]
        old, new = map(table.seen, whole)
        if old and new:
            differ = [column for column in old | new if old.get(column) != new.get(column)]
            old, new = ({column: image[column] for column in differ if column in image} for image in (old, new))
        before, after = (
            {table.fields.get(column, column): value for column, value in image.items()} for image in (old, new)
        )
        return cls(
            id=change.id,
            xid=change.xid,
            table=table.name,
            model=table.label,
            pk=keys[-1] if keys else None,
            action=action,
            old=before,
            new=after,
            context=_context(change.context),
            at=change.at,
            part=table.part,
            former_pk=keys[0] if len(set(keys)) > 1 else None,
        )


def _key_text(table: Table, image: Image) -> str | None:
    key = table.key_of(image) if table.is_known else None
    return None if key is None else ",".join(map(str, key))


def _context(text: str | None) -> Any:
    """What a writer said of itself: JSON as a rule, but it may be anything."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
