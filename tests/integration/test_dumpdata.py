"""``dumpdata``, ``loaddata``, ``flush`` and the serialized database of test runs: the log stays out of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from djcrf_pg.models import Change, Failure
from tests.integration.log import sql
from tests.testapp.models import Project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def rows() -> None:
    """A row of each of our tables, and one that is logged."""
    sql("INSERT INTO djcrf_pg_cursor (name, snapshot, term) VALUES ('leader', '1:1:', 1) ON CONFLICT DO NOTHING")
    now = timezone.now()
    Failure.objects.create(address="a", part="p", key="k", change_id=1, error="", first_at=now, last_at=now)
    Project.objects.create(name="dumped")


def dumped(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def inserts() -> list[str]:
    """The projects whose inserts are logged."""
    found = Change.objects.filter(op="I").order_by("id").iterator()
    return [change.new["name"] for change in found if change.relation == "testapp_project"]


@pytest.mark.parametrize("options", [{}, {"use_base_manager": True}, {"use_natural_foreign_keys": True}])
def test_a_dump_of_all_data_has_nothing_of_the_log_and_can_be_loaded(options: dict[str, bool], tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    call_command("dumpdata", output=str(path), verbosity=0, **options)
    assert {row["model"] for row in dumped(path)} >= {"testapp.project"}
    assert not [row for row in dumped(path) if row["model"].startswith("djcrf_pg.")]
    call_command("flush", interactive=False, inhibit_post_migrate=True, verbosity=0)
    assert not Failure.objects.exists()
    assert inserts() == []
    call_command("loaddata", str(path), verbosity=0)
    assert Project.objects.get().name == "dumped"
    # It is logged once, as what it is: written here and now.
    assert inserts() == ["dumped"]


def test_the_serialized_database_of_test_runs_has_nothing_of_the_log() -> None:
    text = connection.creation.serialize_db_to_string()
    assert "testapp.project" in text
    assert "djcrf_pg." not in text
    call_command("flush", interactive=False, inhibit_post_migrate=True, verbosity=0)
    connection.creation.deserialize_db_from_string(text)
    assert Project.objects.get().name == "dumped"


def test_other_queries_answer_as_those_of_any_model() -> None:
    assert inserts() == ["dumped"]
    assert Change._default_manager.count() == Change._base_manager.count() == Change.objects.count() > 0
    change = Change.objects.latest("id")
    change.refresh_from_db()
    assert list(Change._default_manager.filter(pk=change.pk)) == [change]
    failure = Failure.objects.get()
    failure.retry = True
    failure.save()
    assert Failure.objects.filter(retry=True).exists()
    failure.delete()
    assert not Failure.objects.exists()
