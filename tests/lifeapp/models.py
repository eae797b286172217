"""The model as it is in the end; or as it was at first, where ``LIFEAPP_CODE`` is ``old``."""

import os

from django.db import models


class Base(models.Model):
    """What each column holds follows from ``n``, so that any image of a row can be checked on its own."""

    n = models.IntegerField()
    revision = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return str(self.n)


if os.environ.get("LIFEAPP_CODE") == "old":

    class Item(Base):
        """It was called Thing then, which is nothing to the database."""

        title = models.CharField(max_length=100)
        amount = models.IntegerField()
        note = models.CharField(max_length=100)
        left = models.CharField(max_length=100, db_column="side_a")
        right = models.CharField(max_length=100, db_column="side_b")

        class Meta:
            db_table = "lifeapp_thing"

else:

    class Item(Base):  # type: ignore[no-redef]
        """What all the migrations make of it."""

        label = models.CharField(max_length=100)
        amount = models.CharField(max_length=40)
        left = models.CharField(max_length=100, db_column="side_b")
        right = models.CharField(max_length=100, db_column="side_a")
        extra = models.CharField(max_length=100, default="added")

        class Meta:
            # An older version of the code is one that names the table otherwise.
            db_table = os.environ.get("LIFEAPP_TABLE", "lifeapp_stock")
