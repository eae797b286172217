"""A model with a history."""

from django.db import models
from simple_history.models import HistoricalRecords


class Poll(models.Model):
    """A row of it in another table for each save."""

    question = models.CharField(max_length=100)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.question
