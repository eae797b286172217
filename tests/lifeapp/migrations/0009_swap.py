from django.db import migrations, models

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0008_db_column")]

    operations = [
        migrations.AlterField("Item", "left", models.CharField(max_length=100, db_column="side_c")),
        migrations.AlterField("Item", "right", models.CharField(max_length=100, db_column="side_a")),
        migrations.AlterField("Item", "left", models.CharField(max_length=100, db_column="side_b")),
        mark(9, "Item"),
    ]
