"""Models whose instances remember how they began."""

from typing import Any

from dirtyfields import DirtyFieldsMixin
from django.db import models
from django.db.models.signals import post_init
from django.dispatch import receiver
from model_utils import FieldTracker


class Label(models.Model):
    """Something that a card has."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Ticket(models.Model):
    """Tracked by django-model-utils, the foreign key by its name."""

    title = models.CharField(max_length=100)
    label = models.ForeignKey(Label, models.CASCADE, null=True)
    tracker = FieldTracker(fields=["title", "label"])

    def __str__(self) -> str:
        return self.title


class Card(DirtyFieldsMixin, models.Model):
    """Tracked by django-dirtyfields, which also asks for the labels of each new instance."""

    title = models.CharField(max_length=100)
    labels = models.ManyToManyField(Label)
    ENABLE_M2M_CHECK = True

    def __str__(self) -> str:
        return self.title


class Account(models.Model):
    """Remembers two fields, as many projects do by hand; ``pin`` is excluded."""

    name = models.CharField(max_length=100)
    pin = models.CharField(max_length=100)
    labels = models.ManyToManyField(Label)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.began = (self.name, self.pin)

    def __str__(self) -> str:
        return self.name


class Savings(Account):
    """Its parent remembers; the row of a saving and that of its account are one instance."""

    rate = models.IntegerField(default=0)


class Badge(models.Model):
    """A receiver remembers one field."""

    text = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text


@receiver(post_init, sender=Badge)
def remember(instance: Badge, **kwargs: Any) -> None:
    """Keep the text that the instance began with."""
    instance.began = instance.text


class Loaded(models.Model):
    """Remembers what Django loaded, as Django's documentation shows."""

    text = models.CharField(max_length=100)
    hidden = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def from_db(cls, db: str, field_names: Any, values: Any) -> "Loaded":
        """Keep what is loaded."""
        instance = super().from_db(db, field_names, values)
        instance.loaded = dict(zip(field_names, values, strict=True))
        return instance
