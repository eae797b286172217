"""The board application."""

from django.apps import AppConfig


class BoardConfig(AppConfig):
    """A board of tasks with labels, and a grid of 10 000 rows for the bulk statements."""

    name = "board"
