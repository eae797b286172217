"""Trimming within a bound of time; what replication and dumps of data must leave alone."""

from django.db import migrations, models

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0004_look")]

    operations = [
        RunSQLFile("0005_forwards.sql", "0005_backwards.sql"),
        *(
            operation
            for name in ("change", "cursor", "failure")
            for operation in (
                migrations.AlterModelManagers(name, managers=[("undumped", models.Manager())]),
                migrations.AlterModelOptions(
                    name, options={"base_manager_name": "undumped", "default_manager_name": "undumped"}
                ),
            )
        ),
    ]
