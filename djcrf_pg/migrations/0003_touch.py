"""The functions that touch rows."""

from django.db import migrations

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0002_failure")]

    operations = [RunSQLFile("0003_forwards.sql", "0003_backwards.sql")]
