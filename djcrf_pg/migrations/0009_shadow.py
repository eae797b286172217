"""What shadow mode compares, and what came of it."""

import django.db.models.manager
from django.db import migrations, models

from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    dependencies = [("djcrf_pg", "0008_changelog")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[RunSQLFile("0009_forwards.sql", "0009_backwards.sql")],
            state_operations=[
                migrations.CreateModel(
                    name="ShadowResult",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("observer", models.TextField()),
                        ("address", models.TextField()),
                        ("model", models.TextField()),
                        ("kind", models.TextField()),
                        ("what", models.TextField()),
                        ("times", models.BigIntegerField()),
                        ("first_at", models.DateTimeField()),
                        ("last_at", models.DateTimeField()),
                        ("samples", models.TextField()),
                    ],
                    options={
                        "db_table": "djcrf_pg_shadow_result",
                        "abstract": False,
                        "base_manager_name": "undumped",
                        "default_manager_name": "undumped",
                    },
                    managers=[("undumped", django.db.models.manager.Manager())],
                ),
            ],
        ),
    ]
