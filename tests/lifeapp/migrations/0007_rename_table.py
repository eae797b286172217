from django.db import migrations

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0006_rename_model")]

    operations = [
        migrations.AlterModelTable("Item", "lifeapp_stock"),
        mark(7, "Item"),
    ]
