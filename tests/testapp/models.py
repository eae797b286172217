"""Models with what the tests need: a cascade, an m2m, a UUID key, awkward columns."""

import uuid

from django.db import models


class Project(models.Model):
    """Deleting one deletes its tasks."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Label(models.Model):
    """The other side of the many-to-many relation."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    """What most tests write to."""

    project = models.ForeignKey(Project, models.CASCADE, null=True, related_name="tasks")
    title = models.CharField(max_length=100, unique=True)
    status = models.CharField(max_length=20, default="todo")
    points = models.IntegerField(default=0)
    body = models.TextField(default="", blank=True)
    labels = models.ManyToManyField(Label, related_name="tasks")

    def __str__(self) -> str:
        return self.title


class Document(models.Model):
    """Has its key before it is inserted."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    title = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.title


class Awkward(models.Model):
    """Its columns have the names that SQL and trigger functions would rather have for themselves."""

    n = models.IntegerField(default=1)
    o = models.IntegerField(default=2)
    old = models.CharField(max_length=20, default="before")
    new = models.CharField(max_length=20, default="after")
    row = models.IntegerField(default=3)
    select = models.IntegerField(default=4)
    tg_relid = models.IntegerField(default=5)
    changed = models.IntegerField(default=6)
    image = models.IntegerField(default=7)
    strange = models.CharField(max_length=20, default="", db_column="It's a Strange Column")
    text = models.TextField(default="")

    def __str__(self) -> str:
        return f"awkward {self.pk}"


class Note(models.Model):
    """Lives in SQLite, see the router."""

    text = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text


class Remote(models.Model):
    """Lives in the second database, see the router."""

    text = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text


class Unheard(models.Model):
    """No observer names it, and neither does the setting OBSERVE."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name
