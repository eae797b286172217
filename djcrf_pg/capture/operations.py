"""The migration operation that runs one of our SQL files."""

from typing import Any

from django.db import router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation

from djcrf_pg import sql


def migration_schema(schema_editor: BaseDatabaseSchemaEditor) -> str:
    """The schema that unqualified CREATE statements go to, quoted and with its dot.

    PostgreSQL manual, 5.10.3 "The Schema Search Path": the first existing schema of ``search_path``.
    """
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        (schema,) = cursor.fetchone()
    return f"{connection.ops.quote_name(schema)}."


class RunSQLFile(Operation):
    """Run a file of ``djcrf_pg/capture/sql`` on PostgreSQL; do nothing on another vendor, or where a router says no.

    Args:
        forwards: The file to run when migrating forwards.
        backwards: The file that undoes it.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, forwards: str, backwards: str) -> None:
        self.forwards = forwards
        self.backwards = backwards

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no state: the models are declared beside this operation."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Run the forwards file."""
        self._run(self.forwards, app_label, schema_editor)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Run the backwards file."""
        self._run(self.backwards, app_label, schema_editor)

    def describe(self) -> str:
        """Say what the operation does, for ``migrate --plan``."""
        return f"Run {self.forwards}"

    def _run(self, name: str, app_label: str, schema_editor: BaseDatabaseSchemaEditor) -> None:
        connection = schema_editor.connection
        if connection.vendor != "postgresql" or not router.allow_migrate(connection.alias, app_label):
            return
        text = sql.load("djcrf_pg.capture", name)
        schema_editor.execute(sql.render(text, schema=migration_schema(schema_editor)), params=None)
