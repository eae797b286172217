"""One row of the change log, as it was read."""

from datetime import datetime
from typing import NamedTuple


class Change(NamedTuple):
    """What a statement did to one row.

    Attributes:
        id: Rises with every change; for one row, in the order of the commits.
        xid: The transaction, as ``xid8``.
        relation: The oid of the table.
        op: ``I``, ``U``, ``D``, ``T`` (TRUNCATE) or ``R`` (a row whose image could not be written).
        old: The row before, as JSON text; None for inserts.
        new: The row after, as JSON text; None for deletes.
        context: What the writer said of itself, or None.
        at: When the statement wrote the row.
    """

    id: int
    xid: int
    relation: int
    op: str
    old: str | None
    new: str | None
    context: str | None
    at: datetime
