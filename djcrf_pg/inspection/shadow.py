"""What shadow mode has found: for the command and the admin."""

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from django.apps import apps

from djcrf_pg.capture.install import has_table
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.inspection.log import reading
from djcrf_pg.models import ShadowResult
from djcrf_pg.shadow.differences import DIFFERENT, EQUAL, EXTRA, FAILED, MISSED
from djcrf_pg.shadow.excluded import LEFT_OUT, Hidden, hidden

#: What a role needs in order to look at the results.
RIGHTS = "GRANT SELECT ON djcrf_pg_shadow_result TO {role};"

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
        return SAYS.get(self.kind, self.kind)  # newer code may have recorded another


def found(alias: str) -> list[Found]:
    """What was compared in a database, observer by observer.

    Raises:
        NotMigrated: The change log is of an older version.
        InspectionError: The role lacks a right.
    """
    summary = found_without_samples(alias)
    texts = samples(alias, summary)
    return [each._replace(samples=texts[id]) for id, each in summary.items()]


def found_without_samples(alias: str) -> dict[int, Found]:
    """As :func:`found`, by what :func:`samples` takes: the samples are most of what there is to read.

    Raises:
        NotMigrated: The change log is of an older version.
        InspectionError: The role lacks a right.
    """
    if not has_table(alias, ShadowResult._meta.db_table):
        return {}
    with reading(alias, RIGHTS):
        rows = list(ShadowResult.objects.using(alias).defer("samples"))
    order = {kind: place for place, kind in enumerate(SAYS)}
    rows.sort(key=lambda row: (row.observer, order.get(row.kind, -1), -row.times, row.what))
    return {
        row.id: Found(row.observer, row.model, row.kind, row.what, row.times, row.first_at, row.last_at, [])
        for row in rows
    }


def samples(alias: str, ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
    """The samples of some results, without the values of columns that are excluded now.

    Args:
        alias: The Django database alias.
        ids: The keys of :func:`found_without_samples`.

    Raises:
        InspectionError: The role lacks a right.
    """
    wanted = list(ids)
    if not wanted:
        return {}
    with reading(alias, RIGHTS):
        rows = list(ShadowResult.objects.using(alias).filter(id__in=wanted).only("model", "samples"))
    texts = {row.id: [_seen(json.loads(line), row.model) for line in row.samples.splitlines()] for row in rows}
    return {id: texts.get(id, []) for id in wanted}  # one that was forgotten meanwhile has none


def has_results(alias: str) -> bool:
    """Whether anything was compared in a database.

    Raises:
        NotMigrated: The change log is of an older version.
        InspectionError: The role lacks a right.
    """
    if not has_table(alias, ShadowResult._meta.db_table):
        return False
    with reading(alias, RIGHTS):
        return ShadowResult.objects.using(alias).exists()


def _seen(sample: dict[str, Any], label: str) -> dict[str, Any]:
    """What may be seen of a sample, which may be older than what is excluded now."""
    left: Hidden | None = None
    with suppress(LookupError, ValueError, ConfigurationError):  # nobody knows
        apps.get_model(label)
        left = hidden()
    for side in ("signals", "triggers"):
        for action, (groups, *body) in (sample.get(side) or {}).items():
            shown = [LEFT_OUT if left is None else left.without(each) for each in body]
            sample[side][action] = [groups, *shown]
    return sample


def forget(alias: str) -> int:
    """Forget what was compared; how many results that were.

    Raises:
        NotMigrated: The change log is of an older version.
    """
    return ShadowResult.objects.using(alias).all().delete()[0] if has_table(alias, ShadowResult._meta.db_table) else 0
