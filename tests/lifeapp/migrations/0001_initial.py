from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Thing",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("n", models.IntegerField()),
                ("title", models.CharField(max_length=100)),
                ("amount", models.IntegerField()),
                ("note", models.CharField(max_length=100)),
                ("left", models.CharField(max_length=100, db_column="side_a")),
                ("right", models.CharField(max_length=100, db_column="side_b")),
                ("revision", models.IntegerField(default=0)),
            ],
        ),
    ]
