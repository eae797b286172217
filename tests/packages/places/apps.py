"""Where the types come from."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import pre_migrate


class PlacesConfig(AppConfig):
    """Makes the extension of rasters, which Django leaves to the project; it makes PostGIS itself."""

    name = "tests.packages.places"

    def ready(self) -> None:
        """Have it made before the tables."""
        pre_migrate.connect(_make_extension, sender=self)


def _make_extension(using: str, **kwargs: Any) -> None:
    connection: Any = connections[using]
    with connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS postgis_raster")
    # What the connection knows of the type is that there is none.
    connection.register_geometry_adapters(connection.connection, True)
