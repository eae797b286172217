from django.db import migrations, models

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0007_rename_table")]

    operations = [
        migrations.AlterField("Item", "label", models.CharField(max_length=100, db_column="caption")),
        migrations.AlterField("Item", "label", models.CharField(max_length=100)),
        mark(8, "Item"),
    ]
