"""One table for each way to be observed: what is measured on one says nothing of another."""

import uuid

from django.db import models
from django.utils import timezone


class Row(models.Model):
    """The columns that all have: about 300 bytes."""

    title = models.CharField(max_length=100)
    body = models.TextField(default="")
    n = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=12, decimal_places=2, default=1)
    at = models.DateTimeField(default=timezone.now)
    flag = models.BooleanField(default=True)
    tag = models.UUIDField(default=uuid.uuid4)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.title


class Plain(Row):
    """Nobody observes it: the floor."""


class Captured(Row):
    """djcrf_pg, the body is the primary key."""


class Signalled(Row):
    """DCRF with Django's signals, the body is the primary key."""


class Notified(Row):
    """A hand-written trigger that puts the row into NOTIFY."""


class Published(Row):
    """django-pgpubsub."""


class Serialized(Row):
    """djcrf_pg with `serializer_class`."""


class Custom(Row):
    """djcrf_pg with a `serializer` that makes a dictionary."""


class Documented(Row):
    """djcrf_pg with a `serializer` that makes a DRF serializer for each instance, as DCRF documents it."""


class Grouped(Row):
    """djcrf_pg with `settings.BENCH_GROUPS` groups."""


class Crowded(Row):
    """djcrf_pg with `settings.BENCH_OBSERVERS` observers."""


class Resumed(Row):
    """djcrf_pg with `settings.BENCH_GROUPS` groups and a cursor with each event."""


class Followed(Row):
    """djcrf_pg with `serializer_class` and a cursor with each event."""


class Named(models.Model):
    """What a nested row contains."""

    name = models.CharField(max_length=100)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


class Author(Named):
    """What a nested row has one of."""


class Label(Named):
    """What a nested row has three of."""


class Nesting(Row):
    """A row whose body has others in it."""

    author = models.ForeignKey(Author, models.CASCADE, null=True, related_name="+")
    labels = models.ManyToManyField(Label, related_name="+")

    class Meta(Row.Meta):
        abstract = True


class Nested(Nesting):
    """djcrf_pg with a `serializer_class` that nests a foreign key and its many-to-many."""


class Lonely(Nesting):
    """The same with `prefetch=False`: each event makes its own queries."""


class Narrow(models.Model):
    """A row of about 50 bytes."""

    title = models.CharField(max_length=100)
    n = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.title


TABLES = (
    *(Plain, Captured, Signalled, Notified, Published, Serialized),
    *(Custom, Documented, Grouped, Crowded, Resumed, Followed, Nested, Lonely),
)
