"""The permissions for the pages in Django's admin; nothing in the database but these."""

import django.db.models.manager
from django.db import migrations


class Migration(migrations.Migration):
    """Frozen once released."""

    dependencies = [("djcrf_pg", "0007_interest")]

    operations = [
        migrations.CreateModel(
            name="ChangeLog",
            fields=[],
            options={
                "verbose_name": "change log",
                "verbose_name_plural": "change log",
                "permissions": [("install_triggers", "Can install triggers")],
                "abstract": False,
                "proxy": True,
                "default_permissions": ("view",),
                "base_manager_name": "undumped",
                "default_manager_name": "undumped",
                "indexes": [],
                "constraints": [],
            },
            bases=("djcrf_pg.cursor",),
            managers=[("undumped", django.db.models.manager.Manager())],
        ),
    ]
