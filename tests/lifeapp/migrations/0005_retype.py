from django.db import migrations, models

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0004_rename_column")]

    operations = [
        migrations.AlterField("Thing", "amount", models.CharField(max_length=40)),
        mark(5, "Thing"),
    ]
