from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    replaces = [
        ("lifeapp", "0001_initial"),
        ("lifeapp", "0002_add"),
        ("lifeapp", "0003_drop"),
        ("lifeapp", "0004_rename_column"),
        ("lifeapp", "0005_retype"),
        ("lifeapp", "0006_rename_model"),
        ("lifeapp", "0007_rename_table"),
        ("lifeapp", "0008_db_column"),
        ("lifeapp", "0009_swap"),
        ("lifeapp", "0010_data"),
    ]

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Item",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("n", models.IntegerField()),
                ("label", models.CharField(max_length=100)),
                ("amount", models.CharField(max_length=40)),
                ("left", models.CharField(max_length=100, db_column="side_b")),
                ("right", models.CharField(max_length=100, db_column="side_a")),
                ("revision", models.IntegerField(default=0)),
                ("extra", models.CharField(max_length=100, default="added")),
            ],
            options={"db_table": "lifeapp_stock"},
        ),
    ]
