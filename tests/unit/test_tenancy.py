"""Which backends have a schema for each tenant: read from their code, whatever they are called."""

from functools import wraps
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite
from django_tenants.postgresql_backend.base import DatabaseWrapper as DjangoTenants

from djcrf_pg.capture.tenancy import switches_schemas


class InItsCursor(DatabaseWrapper):
    """The shape of tutorials: whatever schema the thread is in."""

    schema = "public"

    def _cursor(self, name: Any = None) -> Any:
        cursor = super()._cursor(name)
        cursor.execute(f"SET search_path TO {self.schema}, public")
        return cursor


class Inherits(InItsCursor):
    """One that a project makes of another."""


class InAMethod(DatabaseWrapper):
    """The shape of django-pgschemas."""

    def _point(self, cursor: Any) -> None:
        def point() -> None:
            cursor.execute("SET SEARCH_PATH = %s", ["tenant"])

        point()

    def create_cursor(self, name: Any = None) -> Any:
        cursor = super().create_cursor(name)
        self._point(cursor)
        return cursor


def set_search_path(cursor: Any) -> None:
    """A function of a module."""


def timed(method: Any) -> Any:
    """A decorator that somebody puts around everything."""

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return run


class ByAFunction(DatabaseWrapper):
    """One that calls what sets it, behind a decorator."""

    @timed
    def cursor(self) -> Any:
        cursor = super().cursor()
        set_search_path(cursor)
        return cursor


@pytest.mark.parametrize("wrapper", [DjangoTenants, InItsCursor, Inherits, InAMethod, ByAFunction])
def test_a_backend_that_sets_the_search_path_with_each_cursor_switches_schemas(wrapper: type[DatabaseWrapper]) -> None:
    assert switches_schemas(wrapper)


class Once(DatabaseWrapper):
    """One schema, set where a connection begins."""

    def init_connection_state(self) -> None:
        super().init_connection_state()
        with self.cursor() as cursor:
            cursor.execute("SET search_path TO app")


class Counting(DatabaseWrapper):
    """Cursors of its own, for another reason."""

    def create_cursor(self, name: Any = None) -> Any:
        """Count the cursors."""
        self.cursors = getattr(self, "cursors", 0) + 1
        return super().create_cursor(name)


@pytest.mark.parametrize("wrapper", [DatabaseWrapper, SQLite, Once, Counting])
def test_any_other_backend_does_not(wrapper: type[BaseDatabaseWrapper]) -> None:
    assert not switches_schemas(wrapper)
