"""Trimming within a bound of time, and keys for replication."""

from django.db import migrations

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0004_look")]

    operations = [RunSQLFile("0005_forwards.sql", "0005_backwards.sql")]
