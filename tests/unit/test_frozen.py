"""The triggers at the end of an app's migrations, whatever came between: renames, removals, and state alone."""

from pathlib import Path

import pytest
from django.db.migrations.loader import MigrationLoader
from django.test import override_settings

from djcrf_pg.management.frozen import Definitions, Place, installed

MIGRATION = """
from django.db import migrations
from django.db.migrations import SeparateDatabaseAndState
from django.db.models import AutoField, CharField, ManyToManyField

from djcrf_pg.capture.operations import AlterTriggers

INSERT, UPDATE = {{"djcrf_pg_insert": ["insert"]}}, {{"djcrf_pg_update": ["update"]}}


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Book", [("id", AutoField(primary_key=True)), ("shelves", ManyToManyField("self"))]),
        AlterTriggers("Book", {{**INSERT, **UPDATE}}),
        AlterTriggers("Book", INSERT, field_name="shelves"),
        {more}
    ]
"""

BOTH: Definitions = {"djcrf_pg_insert": ("insert",), "djcrf_pg_update": ("update",)}
INSERT: Definitions = {"djcrf_pg_insert": ("insert",)}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", {Place("book"): BOTH, Place("book", "shelves"): INSERT}),
        ("AlterTriggers('Book', {}, UPDATE)", {Place("book"): INSERT, Place("book", "shelves"): INSERT}),
        ("AlterTriggers('Book', {}, {**INSERT, **UPDATE})", {Place("book", "shelves"): INSERT}),
        (
            "AlterTriggers('book', {'djcrf_pg_insert': ['anew']}, INSERT)",
            {
                Place("book"): {"djcrf_pg_insert": ("anew",), "djcrf_pg_update": ("update",)},
                Place("book", "shelves"): INSERT,
            },
        ),
        ("migrations.RenameModel('Book', 'Tome')", {Place("tome"): BOTH, Place("tome", "shelves"): INSERT}),
        ("migrations.RenameField('Book', 'shelves', 'racks')", {Place("book"): BOTH, Place("book", "racks"): INSERT}),
        ("migrations.RenameField('Book', 'title', 'name')", {Place("book"): BOTH, Place("book", "shelves"): INSERT}),
        ("migrations.RemoveField('Book', 'shelves')", {Place("book"): BOTH}),
        ("migrations.DeleteModel('Book')", {}),
        # Renamed in the state alone, and triggers that are altered beside a change of the state.
        (
            "SeparateDatabaseAndState(state_operations=[migrations.RenameModel('Book', 'Tome')])",
            {Place("tome"): BOTH, Place("tome", "shelves"): INSERT},
        ),
        (
            "SeparateDatabaseAndState(database_operations=[AlterTriggers('Book', {}, {**INSERT, **UPDATE})])",
            {Place("book", "shelves"): INSERT},
        ),
    ],
)
def test_the_end_of_the_history(
    more: str, expected: dict[Place, Definitions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"frozen_{tmp_path.name}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / package / "0001_initial.py").write_text(MIGRATION.format(more=more))
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(MIGRATION_MODULES={"testapp": package}):
        assert installed(MigrationLoader(None), "testapp") == expected
