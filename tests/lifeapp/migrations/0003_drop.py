from django.db import migrations

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0002_add")]

    operations = [
        migrations.RemoveField("Thing", "note"),
        mark(3, "Thing"),
    ]
