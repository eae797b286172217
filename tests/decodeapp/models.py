"""As many types of field as a model can have."""

import json
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.contrib.postgres import fields as pg
from django.db import models
from django.db.models.functions import Lower

if TYPE_CHECKING:
    Field = models.Field[Any, Any]
else:
    Field = models.Field


class ExactDecoder(json.JSONDecoder):
    """Reads numbers as Decimals, so that a float on the way would show."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(parse_float=Decimal, parse_int=Decimal, **kwargs)


@dataclass(frozen=True)
class Point:
    """What `PointField` makes of a text."""

    x: int
    y: int


class PointField(Field):
    """A field with a Python type of its own, in a column of type text."""

    def db_type(self, connection: Any) -> str:
        return "text"

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Point | None:
        """Make the Python value of the column's."""
        if value is None:
            return None
        x, y = value.split(",")
        return Point(int(x), int(y))

    def get_prep_value(self, value: Point | None) -> str | None:
        """Make the column's value."""
        return None if value is None else f"{value.x},{value.y}"


class Target(models.Model):
    """What foreign keys refer to."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    code = models.CharField(max_length=50, unique=True)

    def __str__(self) -> str:
        return self.code


class Everything(models.Model):
    """Every column may be null, but for those that are generated."""

    small = models.SmallIntegerField(null=True)
    integer = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    positive = models.PositiveBigIntegerField(null=True)
    boolean = models.BooleanField(null=True)
    decimal = models.DecimalField(null=True, max_digits=60, decimal_places=30)
    double = models.FloatField(null=True)

    char = models.CharField(null=True, max_length=50)  # noqa: DJ001
    text = models.TextField(null=True)  # noqa: DJ001
    slug = models.SlugField(null=True)  # noqa: DJ001
    strange = models.TextField(null=True, db_column="It's a Strange Column")  # noqa: DJ001
    file = models.FileField(null=True)
    url = models.URLField(null=True)  # noqa: DJ001
    address = models.GenericIPAddressField(null=True)
    uuid = models.UUIDField(null=True)
    binary = models.BinaryField(null=True)
    point = PointField(null=True)

    stamp = models.DateTimeField(null=True)
    date = models.DateField(null=True)
    time = models.TimeField(null=True)
    duration = models.DurationField(null=True)

    data = models.JSONField(null=True)
    exact = models.JSONField(null=True, decoder=ExactDecoder)

    target = models.ForeignKey(Target, models.CASCADE, null=True, related_name="+")
    by_code = models.ForeignKey(Target, models.CASCADE, null=True, to_field="code", related_name="+")
    parent = models.ForeignKey("self", models.CASCADE, null=True, db_column="PARENT")

    integers = pg.ArrayField(models.BigIntegerField(null=True), null=True)
    texts = pg.ArrayField(models.TextField(null=True), null=True)
    stamps = pg.ArrayField(models.DateTimeField(null=True), null=True)
    decimals = pg.ArrayField(pg.ArrayField(models.DecimalField(max_digits=40, decimal_places=20), size=2), null=True)
    durations = pg.ArrayField(models.DurationField(), null=True)
    doubles = pg.ArrayField(models.FloatField(), null=True)
    uuids = pg.ArrayField(models.UUIDField(), null=True)
    binaries = pg.ArrayField(models.BinaryField(), null=True)
    addresses = pg.ArrayField(models.GenericIPAddressField(), null=True)
    points = pg.ArrayField(PointField(), null=True)

    documents = pg.ArrayField(models.JSONField(), null=True)
    pages = pg.ArrayField(pg.ArrayField(models.JSONField(decoder=ExactDecoder), size=2), null=True)

    integer_range = pg.IntegerRangeField(null=True)
    big_range = pg.BigIntegerRangeField(null=True)
    decimal_range = pg.DecimalRangeField(null=True)
    stamp_range = pg.DateTimeRangeField(null=True)
    date_range = pg.DateRangeField(null=True)
    ranges = pg.ArrayField(pg.IntegerRangeField(), null=True)

    lower = models.GeneratedField(expression=Lower("char"), output_field=models.TextField(), db_persist=True)

    def __str__(self) -> str:
        return f"everything {self.pk}"


class EverythingProxy(Everything):
    """Lives in the same table."""

    class Meta:
        proxy = True

    def __str__(self) -> str:
        return f"proxy of {super().__str__()}"
