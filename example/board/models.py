"""Tasks with labels, and a grid of cells.

The defaults are also in the database (`db_default`), so that a short `INSERT` typed in psql is enough.
"""

from django.db import models
from django.db.models.functions import Now

GRID_SIDE = 100
"""Width and height of the grid of cells: 100 by 100 makes the 10 000 rows of the bulk statements."""


class Label(models.Model):
    """A coloured label, attached to any number of tasks."""

    name = models.CharField(max_length=30, unique=True)
    hue = models.PositiveSmallIntegerField(db_default=210, help_text="Degrees on the colour wheel.")

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    """A card of the board."""

    class Status(models.TextChoices):
        """The columns of the board, from left to right."""

        TODO = "todo", "To do"
        DOING = "doing", "Doing"
        DONE = "done", "Done"

    title = models.CharField(max_length=120)
    status = models.CharField(max_length=5, choices=Status.choices, db_default=Status.TODO)
    points = models.PositiveIntegerField(db_default=1)
    labels = models.ManyToManyField(Label, related_name="tasks", blank=True)
    updated_at = models.DateTimeField(auto_now=True, db_default=Now())

    class Meta:
        # The page shows the latest change of a column on top.
        ordering = ("-updated_at", "-id")

    def __str__(self) -> str:
        return self.title


class Cell(models.Model):
    """One of 10 000 rows that the bulk statements write; the page draws them as pixels."""

    x = models.PositiveSmallIntegerField()
    y = models.PositiveSmallIntegerField()
    value = models.PositiveSmallIntegerField(db_default=0, help_text="0 to 255.")

    class Meta:
        ordering = ("y", "x")
        constraints = (models.UniqueConstraint(fields=("y", "x"), name="board_cell_position"),)

    def __str__(self) -> str:
        return f"({self.x}, {self.y})"
