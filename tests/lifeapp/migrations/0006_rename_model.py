from django.db import migrations

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0005_retype")]

    operations = [
        migrations.RenameModel("Thing", "Item"),
        mark(6, "Item"),
    ]
