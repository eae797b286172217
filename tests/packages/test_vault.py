"""Fields whose SELECT is SQL are deferred: the log has what is stored, and reading one gives what the ORM gives."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import connection, models
from django.test.utils import isolate_apps

from djcrf_pg.exceptions import ObserverError
from djcrf_pg.observer import model_observer
from tests.packages.vault.models import Mark, Note, Patient, ReversedField, SealedNote
from tests.subscriber import Subscriber

Open = Callable[..., Subscriber]


def told(client: Subscriber, count: int) -> list[tuple[Any, Any]]:
    """The next events: what each is, and its body."""
    return [(event["action"], event.get("body")) for event in client.events(count)]


def test_they_are_deferred_and_reading_one_gives_what_the_orm_gives(subscriber: Open) -> None:
    client = subscriber("vault")
    client.subscribe("notes")
    note = Note.objects.create(title="a", backwards="forwards", shouted="quiet")
    note.marks.add(Mark.objects.create(name="m"))
    events = told(client, 2)
    note.delete()
    events += told(client, 1)
    deferred = {"deferred": ["backwards", "shouted"], "title": "a"}
    read = {**deferred, "backwards": "forwards", "shouted": "QUIET"}
    assert events == [("create", read), ("update", read), ("delete", deferred)]


def test_so_are_those_of_a_parent_whichever_rows_were_written(subscriber: Open) -> None:
    client = subscriber("vault")
    client.subscribe("sealed")
    SealedNote.objects.create(title="a", backwards="forwards", shouted="quiet", seal="one")
    events = told(client, 1)
    SealedNote.objects.update(seal="two")
    events += told(client, 1)
    Note.objects.update(title="b", backwards="further")
    events += told(client, 1)
    assert events == [
        (action, {"deferred": ["backwards", "shouted"], "title": title, "seal": seal, "changed": changed})
        for action, title, seal, changed in (
            ("create", "a", "one", []),
            ("update", "a", "two", ["seal"]),
            ("update", "b", "two", ["title", "backwards"]),
        )
    ]


@pytest.mark.django_db(transaction=True)
def test_status_says_why_and_shows_no_key(run_command: Callable[..., str]) -> None:
    output = run_command("djcrf_pg", "status")
    assert (
        "Note: default: public.vault_patient, field diagnosis: deferred on instances; a query selects it as SQL of "
        "TextPGPSymmetricKeyField, and the log has what is stored."
    ) in output
    assert settings.PGCRYPTO_KEY not in output
    deferred = {line["table"]: line["deferred"] for line in json.loads(run_command("djcrf_pg", "status", "--json"))}
    assert deferred["public.vault_note"] == {"backwards": "ReversedField", "shouted": "ShoutedField"}
    assert deferred["public.vault_patient"] == {"diagnosis": "TextPGPSymmetricKeyField"}
    assert deferred["public.vault_note_marks"] == {}


@isolate_apps("tests.packages.vault")
def test_a_key_whose_select_is_sql_is_refused_by_name() -> None:
    class Backwards(models.Model):  # noqa: DJ008
        code = ReversedField(primary_key=True)

        class Meta:
            app_label = "vault"

    async def handler(self: Any, message: Any, **kwargs: Any) -> None: ...

    with pytest.raises(ObserverError, match=r"primary key 'code' of vault\.Backwards as SQL of ReversedField"):
        model_observer(Backwards)(handler)


@pytest.fixture
def _pgcrypto(transactional_db: None) -> Iterator[None]:
    """The extension; the test is skipped where the server does not have it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pgcrypto'")
        if cursor.fetchone() is None:
            pytest.skip("the server has no pgcrypto")
        cursor.execute("CREATE EXTENSION pgcrypto")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP EXTENSION pgcrypto")


@pytest.mark.skipif(
    django.VERSION >= (6, 1),
    reason="django-pgcrypto-fields 2.6 encrypts nothing under Django 6.1, which asks its get_placeholder() no more",
)
@pytest.mark.extensions
@pytest.mark.usefixtures("_pgcrypto")
def test_a_field_that_is_encrypted_in_the_database_is_read_decrypted(subscriber: Open) -> None:
    client = subscriber("vault")
    client.subscribe("patients")
    patient = Patient.objects.create(name="a", diagnosis="well")
    events = told(client, 1)
    Patient.objects.update(name="b")
    events += told(client, 1)
    patient.delete()
    events += told(client, 1)
    assert events == [
        ("create", {"deferred": ["diagnosis"], "name": "a", "diagnosis": "well"}),
        ("update", {"deferred": ["diagnosis"], "name": "b", "diagnosis": "well"}),
        ("delete", {"deferred": ["diagnosis"], "name": "b"}),
    ]
