"""A change as one observer is told of it."""

import dataclasses

from django.db.models import Model

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.registry import Observed


@dataclasses.dataclass(slots=True)
class Occurrence:
    """What happened to one instance, or to a whole table.

    Attributes:
        change: Where it stands in the log.
        observer: Who hears of it.
        old: The instance before; None for a create.
        new: The instance after; None for a delete.
        changed: Names of the fields that differ, and of the many-to-many relations that were touched.
        resync: Why the subscribers have to load again; None where the instances tell.
        again: Whether somebody wants it sent again, whatever has changed.
    """

    change: RowChange
    observer: Observed
    old: Model | None = None
    new: Model | None = None
    changed: list[str] = dataclasses.field(default_factory=list)
    resync: str | None = None
    again: bool = False
