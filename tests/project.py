"""A Django project of a test's own, in a folder and a database that end with it."""

import os
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Self

from psycopg import sql

from tests.servers import ManagePy, PgParams, app_env, disconnect_all

SETTINGS = """
from tests.testapp.settings import CHANNEL_LAYERS, DATABASES, DEFAULT_AUTO_FIELD, LOGGING, SECRET_KEY, USE_TZ
from tests.testapp import settings as base

DATABASES = {"default": DATABASES["default"]}
DJCRF_PG = getattr(base, "DJCRF_PG", {})
INSTALLED_APPS = [
    "django.contrib.contenttypes", "django.contrib.auth", "channels", "rest_framework", "djangochannelsrestframework",
    "djcrf_pg", "shelf",
]
"""

MODELS = """
from django.db import models

class Author(models.Model):
    name = models.CharField(max_length=100)

class Book(models.Model):
    title = models.CharField(max_length=100)
    secret = models.CharField(max_length=100, default="")
    authors = models.ManyToManyField(Author)
"""

CONSUMERS = """
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import Book

class BookConsumer(GenericAsyncAPIConsumer):
    @model_observer(Book, many_to_many=True)
    async def books(self, message, **kwargs):
        ...
"""

INITIAL = """
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel("Author", [
            ("id", models.BigAutoField(primary_key=True, serialize=False)),
            ("name", models.CharField(max_length=100)),
        ]),
        migrations.CreateModel("Book", [
            ("id", models.BigAutoField(primary_key=True, serialize=False)),
            ("title", models.CharField(max_length=100)),
            ("secret", models.CharField(max_length=100, default="")),
            ("authors", models.ManyToManyField("shelf.author")),
        ]),
    ]
"""


class Project:
    """A project with the app ``shelf`` (authors, books, a join table, an observer of books), nothing migrated.

    Args:
        folder: Where its modules go.
        server: The server that its database is made on.
        dbname: The database; one of that name is dropped first.

    Attributes:
        settings: The module of its settings.
    """

    settings = "shelf_settings"

    def __init__(self, folder: Path, server: PgParams, dbname: str) -> None:
        self.folder = folder
        self.server = server
        self.pg = server.database(dbname)

    def __enter__(self) -> Self:
        create_database(self.server, self.pg.dbname)
        self.write("shelf_settings.py", SETTINGS)
        self.write("shelf/__init__.py", "")
        self.write("shelf/models.py", MODELS)
        self.write("shelf/consumers.py", CONSUMERS)
        self.write("shelf/migrations/__init__.py", "")
        self.write("shelf/migrations/0001_initial.py", INITIAL)
        return self

    def __exit__(self, *exception: object) -> None:
        drop_database(self.server, self.pg.dbname)

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def env(self, settings: Mapping[str, Any] | None = None) -> dict[str, str | None]:
        """The environment of its processes; ``settings`` is ``DJCRF_PG``."""
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        # Modules are rewritten within the second that a cache file's time stamp counts.
        more = {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": self.settings, "PYTHONDONTWRITEBYTECODE": "1"}
        return app_env(dbname=self.pg.dbname, settings=settings, env=more)

    def manage(
        self, *arguments: str, settings: Mapping[str, Any] | None = None, check: bool = True
    ) -> CompletedProcess[str]:
        """Run a management command to its end."""
        return ManagePy.run(*arguments, env=self.env(settings), check=check)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run SQL in the project's database."""
        with self.pg.connect() as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def triggers(self) -> set[tuple[str, str]]:
        """Our triggers as the catalog has them: table and name."""
        return {
            (table, name)
            for table, name in self.rows(
                "SELECT tgrelid::regclass::text, tgname FROM pg_trigger "
                "WHERE tgname LIKE 'djcrf%' AND tgname NOT LIKE '%replicated%' AND NOT tgisinternal"
            )
        }


def create_database(server: PgParams, dbname: str) -> None:
    """Make an empty database."""
    drop_database(server, dbname)
    with server.connect("postgres") as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(dbname)))


def drop_database(server: PgParams, dbname: str) -> None:
    """Drop a database, whoever is connected to it."""
    disconnect_all(server, dbname)
    with server.connect("postgres") as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(dbname)))
