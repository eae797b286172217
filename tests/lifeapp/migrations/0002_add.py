from django.db import migrations, models

from tests.lifeapp.marks import mark


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0001_initial")]

    operations = [
        migrations.AddField("Thing", "extra", models.CharField(max_length=100, default="added")),
        mark(2, "Thing"),
    ]
