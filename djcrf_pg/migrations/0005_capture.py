"""Capture functions that the writer does not notice."""

from django.db import migrations

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0003_touch")]

    operations = [RunSQLFile("0005_forwards.sql", "0005_backwards.sql")]
