"""A row that goes with its parents: groups and serializers find those as they were."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Model

import djcrf_pg
from djcrf_pg.conf import get_settings
from djcrf_pg.models import Failure
from tests.packages.furniture.consumers import ReadingConsumer
from tests.packages.furniture.models import Desk, Guarded, Owner, Place, Reading
from tests.subscriber import Subscriber


@pytest.fixture
def furnished(transactional_db: None) -> tuple[Place, list[Reading]]:
    """Two readings at a desk in a room of a city."""
    city = Place.objects.create(name="city")
    desk = Desk.objects.create(label="oak", place=Place.objects.create(name="room", around=city))
    # What a listener says of these later would find them gone.
    with djcrf_pg.suspend(Reading):
        return city, [Reading.objects.create(desk=desk) for _ in range(2)]


def by_the_orm(city: Place) -> None:
    """Django deletes row by row, the children first."""
    city.delete()


def by_sql(city: Place) -> None:
    """Somebody else does it, the parents last."""
    with transaction.atomic(), connection.cursor() as cursor:
        for table in ("reading", "desk", "furniture"):
            cursor.execute(f"DELETE FROM furniture_{table}")
        cursor.execute("DELETE FROM furniture_place WHERE around_id IS NOT NULL")
        cursor.execute("DELETE FROM furniture_place")


def after_a_change(city: Place) -> None:
    """What the transaction made of them before is nothing that anybody saw."""
    with transaction.atomic():
        Place.objects.update(name="renamed")
        by_sql(city)


@pytest.mark.parametrize("delete", [by_the_orm, by_sql, after_a_change])
def test_deleted_parents_are_found_several_levels_deep(
    delete: Callable[[Place], None], furnished: tuple[Place, list[Reading]], subscriber: Callable[..., Subscriber]
) -> None:
    city, readings = furnished
    client = subscriber("readings")
    client.subscribe("deep", "nested")
    ids = [reading.pk for reading in readings]
    delete(city)
    events = client.events(4)
    assert {event["action"] for event in events} == {"delete"}
    told = {name: [event["body"] for event in events if event["observer"] == name] for name in ("deep", "nested")}
    assert told == {
        "deep": [{"id": pk, "desk": "oak", "place": "room"} for pk in ids],
        "nested": [{"id": pk, "desk": {"label": "oak", "place": {"name": "room"}}} for pk in ids],
    }
    assert not Failure.objects.exists()


def test_a_parent_that_the_row_was_taken_from_before_it_was_deleted_is_found(
    furnished: tuple[Place, list[Reading]], subscriber: Callable[..., Subscriber]
) -> None:
    city, readings = furnished
    client = subscriber("readings")
    client.subscribe("deep")
    with transaction.atomic():
        Reading.objects.update(desk=None)
        city.delete()
    events = client.events(2)
    assert [(event["action"], event["body"]["id"]) for event in events] == [
        ("delete", reading.pk) for reading in readings
    ]


def test_a_parent_whose_table_has_no_triggers_has_its_key(subscriber: Callable[..., Subscriber]) -> None:
    owner = Owner.objects.create(name="somebody")
    reading = Reading.objects.create(owner=owner)
    client = subscriber("readings")
    client.subscribe("owned")
    key, pk = owner.pk, reading.pk
    owner.delete()
    (event,) = client.events(1)
    assert (event["action"], event["body"]) == ("delete", {"id": pk, "owner": key})


def test_what_is_still_missing_is_a_resync_and_the_failure_says_what_to_add(
    subscriber: Callable[..., Subscriber],
) -> None:
    owner = Owner.objects.create(name="somebody")
    Reading.objects.create(owner=owner)
    client = subscriber("readings")
    client.subscribe("named")
    owner.delete()
    (event,) = client.events(1)
    assert (event["action"], event["data"]["reason"]) == ("resync", "failed")
    failure = Failure.objects.get()
    assert "@model_observer(Reading, parents=['owner'])" in failure.traceback
    assert "manage.py migrate" in failure.traceback


def test_parents_need_the_triggers_of_their_tables() -> None:
    tables: dict[str, Any] = vars(ReadingConsumer)["deep"].tables
    assert set(tables) == {f"furniture_{name}" for name in ("reading", "desk", "furniture", "place")}


def test_a_row_of_another_transaction_is_not_taken_for_the_parent(
    furnished: tuple[Place, list[Reading]], subscriber: Callable[..., Subscriber]
) -> None:
    """The desk is there: what another transaction deletes meanwhile says nothing of it."""
    _, (reading, other) = furnished
    client = subscriber("readings")
    client.subscribe("deep")
    Model.delete(reading)
    Desk.objects.create(label="pine", place=Place.objects.create(name="hall")).delete()
    other.delete()
    assert [event["body"]["desk"] for event in client.events(2)] == ["oak", "oak"]


@pytest.mark.parametrize("delete", [by_the_orm, by_sql, after_a_change])
def test_parents_are_found_in_other_pieces_of_a_window(
    delete: Callable[[Place], None], transactional_db: None, subscriber: Callable[..., Subscriber]
) -> None:
    """One transaction deletes more than a read takes, and the parents are in the last read, or in the first."""
    city = Place.objects.create(name="city")
    desks = [
        Desk.objects.create(label=f"oak {number}", place=Place.objects.create(name=f"room {number}", around=city))
        for number in range(3)
    ]
    many = get_settings().BATCH_SIZE + 10
    with djcrf_pg.suspend(Reading):
        ids = [reading.pk for reading in Reading.objects.bulk_create(Reading(desk=desks[n % 3]) for n in range(many))]
    client = subscriber("readings")
    client.subscribe("deep")
    delete(city)
    events = client.events(many)
    assert [(event["action"], event["body"]) for event in events] == [
        ("delete", {"id": pk, "desk": f"oak {place % 3}", "place": f"room {place % 3}"}) for place, pk in enumerate(ids)
    ]
    assert not Failure.objects.exists()


def test_a_parent_whose_model_refuses_it_is_missing_alone(subscriber: Callable[..., Subscriber]) -> None:
    sound, spoiled = Guarded.objects.create(), Guarded.objects.create()
    with djcrf_pg.suspend(Reading):
        readings = [Reading.objects.create(guarded=guarded) for guarded in (sound, spoiled)]
    Guarded.objects.filter(pk=spoiled.pk).update(spoiled=True)
    ids = [reading.pk for reading in readings]
    client = subscriber("readings")
    client.subscribe("guarded")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM furniture_reading")
        cursor.execute("DELETE FROM furniture_guarded")
    assert [(event["action"], event["body"]) for event in client.events(2)] == [
        ("delete", {"id": ids[0], "guarded": False}),
        ("delete", {"id": ids[1], "guarded": "missing"}),
    ]
