"""The objects that triggers need, where the migrations alone do not make them what they should be."""

from typing import Any

from django.apps import apps
from django.db import connections, transaction
from django.db.migrations.loader import MigrationLoader

from djcrf_pg import sql
from djcrf_pg.capture import catalog
from djcrf_pg.capture.install import INSTALL_LOCK
from djcrf_pg.capture.operations import RunSQLFile
from djcrf_pg.conf import get_settings

#: The numbers of the migrations that run SQL files.
_FILES = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0009")

#: What the doorbell flag says where nobody must ever ring; see the SQL file.
_NEVER = 2


def prepare(alias: str) -> None:
    """Make the functions where migrations are switched off, and hand on the settings that writers go by.

    Those are the caps of the log, and whether to ring the doorbell at all.

    Args:
        alias: The database.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql" or (schema := catalog.schema_of_log(connection)) is None:
        return
    if MigrationLoader.migrations_module("djcrf_pg")[0] is None and not _has_functions(connection, schema):
        # `pytest --no-migrations`: Django has made the tables from the models, without the rest.
        with connection.schema_editor() as editor:
            for table in {model._meta.db_table for model in apps.get_app_config("djcrf_pg").get_models()}:
                editor.execute(f"DROP TABLE {schema}{connection.ops.quote_name(table)}")
            for number in _FILES:
                files = RunSQLFile(f"{number}_forwards.sql", f"{number}_backwards.sql")
                files.database_forwards("djcrf_pg", editor, None, None)
    _set_flag(connection, schema)
    _set_caps(connection, schema)


def look(alias: str) -> None:
    """Log a resync of each table whose rows may have changed without a trigger, or were not captured; see the SQL file.

    Args:
        alias: The database.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql" or (schema := catalog.schema_of_log(connection)) is None:
        return
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        # A database may be migrated to an earlier state of the app.
        cursor.execute("SELECT to_regprocedure(%s) IS NOT NULL", [f"{schema}djcrf_pg_look_v1()"])
        if cursor.fetchone()[0]:
            # It would not look beside whoever installs triggers, nor beside the leader that looks just now.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [INSTALL_LOCK])
            cursor.execute(f"SELECT {schema}djcrf_pg_look_v1()")


def _has_functions(connection: Any, schema: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regproc(%s) IS NOT NULL", [f"{schema}djcrf_pg_capture_insert_v1"])
        return bool(cursor.fetchone()[0])


def _set_flag(connection: Any, schema: str) -> None:
    """Two-phase commit fails after NOTIFY, also before any listener has set the flag."""
    mode = get_settings().NOTIFY
    with connection.cursor() as cursor:
        cursor.execute(sql.texts("djcrf_pg", "log.sql")["prepares"])
        (prepares,) = cursor.fetchone()
        never = mode == "never" or (mode == "auto" and prepares)
        cursor.execute(f"SELECT last_value FROM {schema}djcrf_pg_listener_awake")
        (flag,) = cursor.fetchone()
        if never != (flag == _NEVER):
            cursor.execute("SELECT setval(%s, %s)", [f"{schema}djcrf_pg_listener_awake", _NEVER if never else 0])
        cursor.execute(sql.set_rings(schema, mode in ("elide", "always")))


def _set_caps(connection: Any, schema: str) -> None:
    settings = get_settings()
    with connection.cursor() as cursor:
        cursor.execute(sql.set_caps(schema, settings.LOG_MAX_AGE, settings.LOG_MAX_ROWS, settings.LOG_MAX_BYTES))
