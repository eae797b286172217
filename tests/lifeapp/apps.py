"""The app."""

from django.apps import AppConfig


class LifeConfig(AppConfig):
    """Its table is observed by the setting OBSERVE, see `settings`."""

    name = "tests.lifeapp"
    label = "lifeapp"
