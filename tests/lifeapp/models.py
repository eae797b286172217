"""The model as it is in the end."""

import os

from django.db import models


class Item(models.Model):
    """What each column holds follows from ``n``, so that any image of a row can be checked on its own."""

    n = models.IntegerField()
    label = models.CharField(max_length=100)
    amount = models.CharField(max_length=40)
    left = models.CharField(max_length=100, db_column="side_b")
    right = models.CharField(max_length=100, db_column="side_a")
    extra = models.CharField(max_length=100, default="added")
    revision = models.IntegerField(default=0)

    class Meta:
        # An older version of the code is one that names the table otherwise.
        db_table = os.environ.get("LIFEAPP_TABLE", "lifeapp_stock")

    def __str__(self) -> str:
        return self.label
