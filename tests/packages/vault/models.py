"""Fields whose SELECT is SQL."""

from typing import Any

from django.db import models
from django.db.models.expressions import Col
from pgcrypto.fields import TextPGPSymmetricKeyField


class ReversedCol(Col):
    """What is read of the column."""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Render it."""
        sql, params = super().as_sql(compiler, connection)
        return f"reverse({sql})", params


class ReversedField(models.TextField):
    """Stored backwards; ``get_col`` reads it forwards."""

    def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
        """How it is written."""
        return "reverse(%s)"

    def get_col(self, alias: str, output_field: Any = None) -> Col:
        """How it is read."""
        return ReversedCol(alias, self, output_field)


class ShoutedField(models.TextField):
    """Read in capitals, by ``select_format``, as the fields of PostGIS are read as bytes."""

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        """How it is read."""
        return f"upper({sql})", params


class PlainField(models.TextField):
    """Has both methods, and is read as it is stored."""

    def get_col(self, alias: str, output_field: Any = None) -> Col:
        """How it is read."""
        return super().get_col(alias, output_field)

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        """How it is read."""
        return f"{sql}", params


class Mark(models.Model):
    """Something that a note has."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Note(models.Model):
    """Has each kind of field."""

    title = PlainField()
    backwards = ReversedField()
    shouted = ShoutedField()
    marks = models.ManyToManyField(Mark)

    def __str__(self) -> str:
        return self.title


class SealedNote(Note):
    """Its parent has them."""

    seal = models.CharField(max_length=100)


class Patient(models.Model):
    """Has one that django-pgcrypto-fields encrypts."""

    name = models.CharField(max_length=100)
    diagnosis = TextPGPSymmetricKeyField()

    def __str__(self) -> str:
        return self.name
