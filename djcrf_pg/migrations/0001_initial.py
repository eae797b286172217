"""The change log, its cursor, the doorbell and the capture functions."""

from django.db import migrations, models

import djcrf_pg.models
from djcrf_pg.capture.operations import RunSQLFile


class Migration(migrations.Migration):
    """Frozen once released: the SQL files carry the migration's number."""

    initial = True

    dependencies = []

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[RunSQLFile("0001_forwards.sql", "0001_backwards.sql")],
            state_operations=[
                migrations.CreateModel(
                    name="Change",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "xid",
                                "id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("id", models.BigIntegerField()),
                        ("xid", djcrf_pg.models.XidField()),
                        ("relation", djcrf_pg.models.RegclassField()),
                        ("op", djcrf_pg.models.OpField()),
                        ("depth", models.SmallIntegerField(default=0)),
                        ("old", djcrf_pg.models.PlainJSONField(null=True)),
                        ("new", djcrf_pg.models.PlainJSONField(null=True)),
                        ("context", models.TextField(null=True)),
                        ("at", models.DateTimeField()),
                    ],
                    options={"db_table": "djcrf_pg_change"},
                ),
                migrations.CreateModel(
                    name="Cursor",
                    fields=[
                        ("name", models.TextField(primary_key=True, serialize=False)),
                        ("snapshot", djcrf_pg.models.SnapshotField()),
                        ("target", djcrf_pg.models.SnapshotField(null=True)),
                        ("after_id", models.BigIntegerField(null=True)),
                        ("term", models.BigIntegerField()),
                        ("saved_at", models.DateTimeField()),
                    ],
                    options={"db_table": "djcrf_pg_cursor"},
                ),
            ],
        ),
    ]
