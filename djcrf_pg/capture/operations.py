"""Migration operations: one runs a SQL file of ours, the other alters the triggers of a model's table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import router, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.models import Model

from djcrf_pg import sql
from djcrf_pg.capture import catalog
from djcrf_pg.capture.tenancy import refusal
from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import ConfigurationError, InstallError


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
        # Backwards some of them lock observed tables.
        with _lock_timeout(schema_editor):
            schema_editor.execute(sql.render(text, schema=migration_schema(schema_editor)), params=None)


#: The name of a trigger to the statements that make it as it should be.
Definitions = Mapping[str, Sequence[str]]


class AlterTriggers(Operation):
    """Bring triggers of a model's table, and of its partitions, from one state to another.

    ``manage.py djcrf_pg makemigrations`` writes it. The SQL is spelled out and so stays what it was when it was
    written, whatever later versions of djcrf_pg would install; it calls functions whose names carry a version, and
    those that a migration may name are not dropped. Two places are filled in when it runs, the same as in our SQL
    files: ``table``, what the model's table is called at that point of the migrations, and ``schema``, where the
    change log and its functions are.

    It does nothing on another vendor, and where routers keep the model away.

    Args:
        model_name: The model, of the app whose migration this is.
        new: The triggers that are there afterwards, those that it leaves alone excepted.
        old: The same before it: those that are not in ``new`` are dropped. Backwards the two change places.
        field_name: A many-to-many field of the model, when its join table is meant.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(
        self, model_name: str, new: Definitions, old: Definitions | None = None, field_name: str | None = None
    ) -> None:
        self.model_name = model_name
        self.new = new
        self.old = old or {}
        self.field_name = field_name

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no state: Django's models know of no triggers."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Bring the triggers to the new state."""
        self._run(app_label, schema_editor, to_state, self.old, self.new)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Bring the triggers to the old state."""
        self._run(app_label, schema_editor, to_state, self.new, self.old)

    def describe(self) -> str:
        """Say what the operation does, for ``migrate --plan``."""
        verb = "Alter" if self.new and self.old else "Create" if self.new else "Drop"
        return f"{verb} djcrf_pg triggers on {self.model_name}{(self.field_name and f'.{self.field_name}') or ''}"

    def _run(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        state: Any,
        before: Definitions,
        after: Definitions,
    ) -> None:
        connection: Any = schema_editor.connection
        model: type[Model] = state.apps.get_model(app_label, self.model_name)
        if connection.vendor != "postgresql" or not self.allow_migrate_model(connection.alias, model):
            return
        if why := refusal(connection.alias):
            raise ConfigurationError(why)
        if self.field_name is not None:
            # A join table is made with its owner's, whatever routers say of it.
            model = model._meta.get_field(self.field_name).remote_field.through  # type: ignore[union-attr]
        table = connection.ops.quote_name(model._meta.db_table)
        # The functions are beside the log; only where SQL is collected for a database without one is it to be
        # guessed where that will be.
        schema = catalog.schema_of_log(connection) or migration_schema(schema_editor)
        if found := catalog.unfit(connection, [model._meta.db_table]):
            ((name, what), *_) = found.items()
            raise InstallError(f"{name} is {what}, and takes no triggers that see the changed rows.")
        members = [member.name for member in catalog.tables(connection, {model._meta.db_table: ()})] or [table]
        dropped = [
            f"DROP TRIGGER IF EXISTS {connection.ops.quote_name(name)} ON /* :table */"
            for name in before
            if name not in after
        ]
        statements = [*dropped, *(statement for made in after.values() for statement in made)]
        with _lock_timeout(schema_editor):
            for member in members:
                for statement in statements:
                    schema_editor.execute(sql.render(statement, table=member, schema=schema), params=None)


@contextmanager
def _lock_timeout(schema_editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """Wait no longer than ``LOCK_TIMEOUT`` for the table; the rest of the migration has what it had before."""
    if schema_editor.collect_sql:
        yield
        return
    connection: Any = schema_editor.connection
    set_timeout = "SELECT set_config('lock_timeout', %s, true)"
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        (before,) = cursor.fetchone()
        cursor.execute(set_timeout, [f"{int(get_settings().LOCK_TIMEOUT * 1000)}ms"])
        yield
        cursor.execute(set_timeout, [before])
