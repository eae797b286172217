"""What shadow mode has found: for the command and the admin."""

import json
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connections

from djcrf_pg.capture.install import log_schema
from djcrf_pg.diagnosis import without_tables
from djcrf_pg.exceptions import NotMigrated
from djcrf_pg.models import ShadowResult
from djcrf_pg.shadow.differences import DIFFERENT, EQUAL, EXTRA, FAILED, MISSED

#: The kinds as people read them, those first that a project looks at first.
SAYS = {
    FAILED: "fails with triggers",
    DIFFERENT: "different",
    MISSED: "missed by signals",
    EXTRA: "sent by signals alone",
    EQUAL: "equal",
}


class Found(NamedTuple):
    """A result of an observer.

    Attributes:
        observer: Where it is defined.
        model: The label of its model.
        kind: One of :data:`SAYS`.
        what: The actions, or what differs.
        times: How often.
        first_at: When it was found first.
        last_at: And last.
        samples: The last few, the newest first: ``pk``, the messages of ``signals`` and ``triggers``, and ``origin``.
    """

    observer: str
    model: str
    kind: str
    what: str
    times: int
    first_at: datetime
    last_at: datetime
    samples: list[dict[str, Any]]

    @property
    def is_difference(self) -> bool:
        """Whether signals and triggers would not have sent the same."""
        return self.kind != EQUAL

    @property
    def says(self) -> str:
        """The kind as people read it."""
        return SAYS[self.kind]


def found(alias: str) -> list[Found]:
    """What was compared in a database, observer by observer.

    Raises:
        NotMigrated: The change log is of an older version.
    """
    if not _has_table(alias):
        return []
    rows = [
        Found(
            row.observer,
            row.model,
            row.kind,
            row.what,
            row.times,
            row.first_at,
            row.last_at,
            [json.loads(line) for line in row.samples.splitlines()],
        )
        for row in ShadowResult.objects.using(alias)
    ]
    order = list(SAYS)
    return sorted(rows, key=lambda each: (each.observer, order.index(each.kind), -each.times, each.what))


def forget(alias: str) -> int:
    """Forget what was compared; how many results that were.

    Raises:
        NotMigrated: The change log is of an older version.
    """
    return ShadowResult.objects.using(alias).all().delete()[0] if _has_table(alias) else 0


def _has_table(alias: str) -> bool:
    if log_schema(alias) is None:
        return False
    if ShadowResult._meta.db_table not in connections[alias].introspection.table_names():
        raise NotMigrated(without_tables(alias, [ShadowResult._meta.db_table]))
    return True
