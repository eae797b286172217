"""One row of the change log, as it was read."""

from datetime import datetime
from typing import NamedTuple

#: What stands in ``op`` where it is of no single row: a TRUNCATE; a row whose image could not be written; changes that
#: were deleted before they were read, because the log was over its cap; more rows in a transaction than MASS_CHANGE;
#: rows of a transaction whose order the log does not say.
TRUNCATED, UNWRITABLE, OVERFLOWN, MASS, UNORDERED = "T", "R", "O", "M", "N"


class Change(NamedTuple):
    """What a statement did to one row.

    Attributes:
        id: Rises with every change; for one row, in the order of the commits.
        xid: The transaction, as ``xid8``.
        relation: The oid of the table.
        op: ``I``, ``U``, ``D``, or what stands for changes that are not told row by row: :data:`TRUNCATED` and others.
        depth: Of the statement in triggers: 1 for one of the client's, 0 for what no trigger has logged.
        old: The row before, as JSON text; None for inserts.
        new: The row after, as JSON text; None for deletes.
        context: What the writer said of itself, or None.
        at: When the statement wrote the row.
        rows: For :data:`MASS`, how many.
        writer: The transaction, where several count as one that ``xid`` stands for.
    """

    id: int
    xid: int
    relation: int
    op: str
    depth: int
    old: str | None
    new: str | None
    context: str | None
    at: datetime
    rows: int | None = None
    writer: int | None = None

    @property
    def is_touch(self) -> bool:
        """Whether it only says that the row be sent again; both images are the row's key."""
        return self.op == "U" and self.depth == 0

    @property
    def is_of_a_look(self) -> bool:
        """Whether no statement has logged it, but a look at the catalog: the table's rows may be others than before."""
        return self.op == UNWRITABLE and self.depth == 0
