"""Capture functions that the writer does not notice."""

from django.db import migrations

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0005_trim")]

    operations = [RunSQLFile("0006_forwards.sql", "0006_backwards.sql")]
