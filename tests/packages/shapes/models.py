"""A polymorphic family."""

from django.db import models
from polymorphic.models import PolymorphicModel


class Colour(models.Model):
    """Something that a shape has."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Shape(PolymorphicModel):
    """The base, of which a query makes circles and squares."""

    name = models.CharField(max_length=100)
    colours = models.ManyToManyField(Colour)

    def __str__(self) -> str:
        return self.name


class Circle(Shape):
    """A child."""

    radius = models.IntegerField()


class Square(Shape):
    """Another."""

    side = models.IntegerField()
