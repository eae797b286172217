from django.db import migrations
from django.db.models import F

from tests.lifeapp.marks import mark


def forwards(apps, schema_editor):
    apps.get_model("lifeapp", "Item").objects.update(revision=F("revision") + 1)


class Migration(migrations.Migration):
    dependencies = [("lifeapp", "0009_swap")]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop), mark(10, "Item")]
