"""The function that finds changes which fire no trigger, and what it remembers of tables."""

from django.db import migrations

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0003_touch")]

    operations = [RunSQLFile("0004_forwards.sql", "0004_backwards.sql")]
