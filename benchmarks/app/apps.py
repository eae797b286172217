"""Registers what django-pgpubsub needs, where it is installed."""

from importlib.util import find_spec

from django.apps import AppConfig


class BenchConfig(AppConfig):
    """The application."""

    name = "benchmarks.app"
    label = "bench"

    def ready(self) -> None:
        """Import the listeners, as django-pgpubsub's documentation asks for."""
        if find_spec("pgpubsub"):
            from benchmarks.app import listeners  # noqa: F401
