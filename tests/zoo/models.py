"""One model of each kind."""

import uuid

from django.contrib.auth.models import Group
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Named(models.Model):
    """An abstract parent."""

    name = models.CharField(max_length=100, default="")
    points = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.pk}"


class Vehicle(Named):
    """The root of a multi-table inheritance."""


class Car(Vehicle):
    """A child table."""

    seats = models.IntegerField(default=4)


class Taxi(Car):
    """A grandchild."""

    licence = models.CharField(max_length=20, default="")


class Swimmer(models.Model):
    """A second parent, with a key of its own name."""

    swimmer_id = models.AutoField(primary_key=True)
    depth = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"swimmer {self.pk}"


class Amphibian(Vehicle, Swimmer):
    """Inherits from two tables, whose keys differ."""

    gills = models.BooleanField(default=True)


class FastCar(Car):
    """A proxy of a child."""

    class Meta:
        proxy = True


class Text(Named):
    """A text as key."""

    code = models.CharField(max_length=50, primary_key=True)


class Unique(Named):
    """A UUID as key, and a many-to-many to a model with a text key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    texts = models.ManyToManyField(Text, related_name="uniques")


class Passport(Named):
    """A foreign key as key."""

    owner = models.OneToOneField(Unique, models.CASCADE, primary_key=True)


class Seat(Named):
    """A composite key."""

    pk = models.CompositePrimaryKey("hall", "number")
    hall = models.CharField(max_length=10)
    number = models.IntegerField()


class Person(Named):
    """Relations to itself, symmetrical and not; and to a proxy."""

    friends = models.ManyToManyField("self")
    follows = models.ManyToManyField("self", symmetrical=False, related_name="followers")
    cars = models.ManyToManyField(FastCar, related_name="drivers")
    groups = models.ManyToManyField(Group, related_name="people")


class Team(Named):
    """Two relations through one table with a column of its own."""

    members = models.ManyToManyField(
        Person, through="Membership", through_fields=("team", "person"), related_name="teams"
    )
    inviters = models.ManyToManyField(
        Person, through="Membership", through_fields=("team", "inviter"), related_name="invited_to"
    )


class Membership(models.Model):
    """The explicit join table."""

    team = models.ForeignKey(Team, models.CASCADE)
    person = models.ForeignKey(Person, models.CASCADE, related_name="memberships")
    inviter = models.ForeignKey(Person, models.CASCADE, related_name="invitations", null=True)
    role = models.CharField(max_length=20, default="")

    def __str__(self) -> str:
        return f"membership {self.pk}"


class Thing(models.Model):
    """What the table of changes in the docs is about."""

    name = models.CharField(max_length=100, unique=True)
    points = models.IntegerField(default=0)
    parent = models.ForeignKey("self", models.DO_NOTHING, null=True, related_name="parts")

    def __str__(self) -> str:
        return self.name


class Elsewhere(Named):
    """A table in another schema."""

    class Meta:
        db_table = 'zoo_other"."else where'


class Measure(models.Model):
    """A partitioned table: by range, then by list. Its migration makes it so."""

    id = models.BigIntegerField()
    year = models.IntegerField()
    kind = models.CharField(max_length=10)
    value = models.IntegerField(default=0)
    pk = models.CompositePrimaryKey("id", "year", "kind")

    def __str__(self) -> str:
        return f"measure {self.pk}"


class Mark(models.Model):
    """Belongs to a row of whatever model."""

    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.BigIntegerField()
    target = GenericForeignKey()

    def __str__(self) -> str:
        return f"mark {self.pk}"


class Loose(models.Model):
    """A foreign key to another field than the key, without a constraint; and generic relations."""

    thing = models.ForeignKey(Thing, models.DO_NOTHING, null=True, to_field="name", db_constraint=False)
    marks = GenericRelation(Mark)

    def __str__(self) -> str:
        return f"loose {self.pk}"
