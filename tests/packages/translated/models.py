"""Models with translations."""

from django.db import models
from parler.models import TranslatableModel, TranslatedFields


class Dish(TranslatableModel):
    """Has a column of its own."""

    price = models.IntegerField(default=0)
    translations = TranslatedFields(name=models.CharField(max_length=100))

    def __str__(self) -> str:
        return f"dish {self.pk}"


class Word(TranslatableModel):
    """Everything but the key is translated."""

    translations = TranslatedFields(text=models.CharField(max_length=100))

    def __str__(self) -> str:
        return f"word {self.pk}"
