"""What groups, serializers and handlers have failed on."""

from django.db import migrations, models

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[RunSQLFile("0002_forwards.sql", "0002_backwards.sql")],
            state_operations=[
                migrations.CreateModel(
                    name="Failure",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("observer", models.TextField()),
                        ("address", models.TextField()),
                        ("part", models.TextField()),
                        ("model", models.TextField()),
                        ("key", models.TextField(db_column="pk")),
                        ("change_id", models.BigIntegerField()),
                        ("error", models.TextField()),
                        ("traceback", models.TextField()),
                        ("times", models.BigIntegerField(default=1)),
                        ("first_at", models.DateTimeField()),
                        ("last_at", models.DateTimeField()),
                        ("told", models.BooleanField(default=False)),
                        ("retry", models.BooleanField(default=False)),
                    ],
                    options={"db_table": "djcrf_pg_failure"},
                ),
            ],
        ),
    ]
