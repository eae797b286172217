from django.db import migrations

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0003_drop")]

    operations = [
        migrations.RenameField("Thing", "title", "label"),
        mark(4, "Thing"),
    ]
