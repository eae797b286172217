"""The change log, its cursor and the failures as Django models, for ``flush``, the ORM and the curious.

The listener does not use them: it reads over its own asyncpg connection. The tables are made by the migrations' SQL
files.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models

if TYPE_CHECKING:
    _Field = models.Field[Any, Any]
else:
    _Field = models.Field


class _PgTypeField(_Field):
    """A column of a PostgreSQL type that Django has no field for."""

    pg_type: ClassVar[str]

    def db_type(self, connection: Any) -> str:
        return self.pg_type


class XidField(_PgTypeField):
    """``xid8``: a transaction id that never wraps (PostgreSQL manual, 9.27.5)."""

    pg_type = "xid8"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> int | None:
        """Return the id as an int, which the driver gives as text."""
        return None if value is None else int(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Give the driver text, for no integer type compares with ``xid8``."""
        return None if value is None else str(value)


class RegclassField(_PgTypeField):
    """``regclass``: the oid of a table, which the driver gives as its name (PostgreSQL manual, 8.19)."""

    pg_type = "regclass"


class OpField(_PgTypeField):
    """The one-byte type ``"char"`` (PostgreSQL manual, 8.3)."""

    pg_type = '"char"'


class SnapshotField(_PgTypeField):
    """``pg_snapshot`` in its text form ``xmin:xmax:xip,…``."""

    pg_type = "pg_snapshot"


class PlainJSONField(_PgTypeField):
    """``json`` as the driver reads it."""

    pg_type = "json"


class _StaysHere(models.QuerySet[Any]):
    """What dumps of data are made with: they iterate, and that yields nothing."""

    def iterator(self, chunk_size: int | None = None) -> Iterator[Any]:
        """Yield nothing."""
        return iter(())


class _Local(models.Model):
    """What belongs to this database at this time, and to no dump of its data: ``dumpdata``, ``serialized_rollback``.

    Both iterate over the default or the base manager. So ``iterator()`` yields nothing there, but whatever else Django
    asks of these managers is answered; ``objects`` is as always.
    """

    undumped = models.Manager.from_queryset(_StaysHere)()
    objects: models.Manager[Any] = models.Manager()

    class Meta:
        abstract = True
        base_manager_name = "undumped"
        default_manager_name = "undumped"


class Change(_Local):
    """One row of one statement: what the triggers wrote. Rows are never changed, only pruned."""

    pk = models.CompositePrimaryKey("xid", "id")
    id = models.BigIntegerField()
    xid = XidField()
    relation = RegclassField()
    op = OpField()
    depth = models.SmallIntegerField(default=0)
    old = PlainJSONField(null=True)
    new = PlainJSONField(null=True)
    context = models.TextField(null=True)  # noqa: DJ001 - NULL says that the writer set none
    at = models.DateTimeField()

    class Meta(_Local.Meta):
        db_table = "djcrf_pg_change"

    def __str__(self) -> str:
        return f"{self.op} {self.id} of {self.relation} in transaction {self.xid}"


class Cursor(_Local):
    """How far the leader has sent: see :mod:`djcrf_pg.changelog.cursor`."""

    name = models.TextField(primary_key=True)
    snapshot = SnapshotField()
    target = SnapshotField(null=True)
    after_id = models.BigIntegerField(null=True)
    term = models.BigIntegerField()
    saved_at = models.DateTimeField()

    class Meta(_Local.Meta):
        db_table = "djcrf_pg_cursor"

    def __str__(self) -> str:
        return f"{self.name}: term {self.term} at {self.snapshot}"


class ChangeLog(Cursor):
    """What the pages in Django's admin belong to, with the permissions for them; it has no rows of its own."""

    class Meta(_Local.Meta):
        proxy = True
        verbose_name = verbose_name_plural = "change log"
        default_permissions = ("view",)
        permissions: ClassVar = [("install_triggers", "Can install triggers")]


class Failure(_Local):
    """A row that an observer's groups, serializer or handler failed on: see :mod:`djcrf_pg.listener.failures`."""

    id = models.BigAutoField(primary_key=True)
    observer = models.TextField()
    address = models.TextField()
    part = models.TextField()
    model = models.TextField()
    key = models.TextField(db_column="pk")
    change_id = models.BigIntegerField()
    error = models.TextField()
    traceback = models.TextField()
    times = models.BigIntegerField(default=1)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    told = models.BooleanField(default=False)
    retry = models.BooleanField(default=False)

    class Meta(_Local.Meta):
        db_table = "djcrf_pg_failure"

    def __str__(self) -> str:
        return f"{self.observer}: {self.part} of {self.model} {self.key or '(more)'}: {self.error}"


class ShadowResult(_Local):
    """What a comparison of signals and triggers has found, and how often: see :mod:`djcrf_pg.shadow`."""

    id = models.BigAutoField(primary_key=True)
    observer = models.TextField()
    address = models.TextField()
    model = models.TextField()
    kind = models.TextField()
    what = models.TextField()
    times = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    samples = models.TextField()

    class Meta(_Local.Meta):
        db_table = "djcrf_pg_shadow_result"

    def __str__(self) -> str:
        return f"{self.observer}: {self.kind} {self.what}, {self.times} times"
