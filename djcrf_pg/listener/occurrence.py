"""A change as one observer is told of it, and where its events go."""

import dataclasses
from typing import NamedTuple

from django.db.models import Model

from djcrf_pg.changelog.net import RowChange
from djcrf_pg.listener.numbering import Control
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


class Destination(NamedTuple):
    """Where messages go.

    Attributes:
        group: The channel-layer group.
        control: That of all subscribers of the observer, and what selects the consumer's handler.
        resync: Whether the group is that of all subscribers, which has to hear last.
    """

    group: str
    control: Control
    resync: bool = False


@dataclasses.dataclass(slots=True)
class Bundle:
    """Encoded events, in order.

    Attributes:
        last: The change of the last one.
        events: The events.
    """

    last: RowChange
    events: list[str] = dataclasses.field(default_factory=list)

    @property
    def xid(self) -> int:
        """The transaction of the last one."""
        return self.last.xid

    @property
    def at(self) -> str:
        """When that was written, ISO 8601."""
        return self.last.at.isoformat()


#: What goes to each destination.
Outgoing = dict[Destination, Bundle]
