"""Which groups the processes have subscribers of."""

from django.db import migrations

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0006_capture")]

    operations = [RunSQLFile("0007_forwards.sql", "0007_backwards.sql")]
