"""Readings at desks in places, and who owns them."""

from typing import Any

from django.db import models


class Place(models.Model):
    """In another place, or in none."""

    name = models.CharField(max_length=20)
    around = models.ForeignKey("self", models.CASCADE, null=True)

    def __str__(self) -> str:
        return self.name


class Furniture(models.Model):
    """A parent by inheritance."""

    label = models.CharField(max_length=20)

    def __str__(self) -> str:
        return self.label


class Desk(Furniture):
    """Has the label in its parent's table."""

    place = models.ForeignKey(Place, models.CASCADE)


class Owner(models.Model):
    """Nobody observes it, and no observer names it."""

    name = models.CharField(max_length=20)

    def __str__(self) -> str:
        return self.name


class Guarded(models.Model):
    """Refuses to be made, once it is spoiled."""

    spoiled = models.BooleanField(default=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.spoiled:
            raise ValueError("spoiled")

    def __str__(self) -> str:
        return f"guarded {self.pk}"


class Reading(models.Model):
    """What is observed."""

    desk = models.ForeignKey(Desk, models.CASCADE, null=True)
    owner = models.ForeignKey(Owner, models.CASCADE, null=True)
    guarded = models.ForeignKey(Guarded, models.CASCADE, null=True)

    def __str__(self) -> str:
        return f"reading {self.pk}"
