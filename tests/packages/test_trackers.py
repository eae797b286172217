"""Models that read their own fields while an instance is made: no event becomes a resync over it."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from tests.packages.trackers.models import Account, Badge, Card, Label, Loaded, Savings, Ticket
from tests.subscriber import Subscriber

Open = Callable[..., Subscriber]


def told(client: Subscriber, count: int) -> list[tuple[Any, Any]]:
    """The next events: what each is, and its body."""
    return [(event["action"], event.get("body")) for event in client.events(count)]


@pytest.mark.parametrize(("name", "model", "field"), [("tickets", Ticket, "title"), ("badges", Badge, "text")])
def test_an_observer_of_keys_alone_hears_of_a_model_that_tracks_its_fields(
    subscriber: Open, name: str, model: Any, field: str
) -> None:
    client = subscriber("trackers")
    client.subscribe(name)
    instance = model.objects.create(**{field: "a"})
    pk = instance.pk
    setattr(instance, field, "b")
    instance.save()
    instance.delete()
    assert told(client, 3) == [(action, {"pk": pk}) for action in ("create", "update", "delete")]


def test_a_tracker_that_asks_for_many_to_many_relations_asks(subscriber: Open) -> None:
    client = subscriber("trackers")
    client.subscribe("cards")
    card = Card.objects.create(title="a")
    pk = card.pk
    card.labels.add(Label.objects.create(name="red"))
    events = told(client, 2)
    card.delete()
    assert events + told(client, 1) == [(action, {"pk": pk}) for action in ("create", "update", "delete")]


def test_its_query_is_tried_again_when_the_database_is_gone(subscriber: Open, psql: Callable[..., str]) -> None:
    client = subscriber("trackers")
    client.subscribe("cards")
    card = Card.objects.create(title="a")
    assert told(client, 1) == [("create", {"pk": card.pk})]
    ended = psql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND query LIKE '%INNER JOIN \"trackers_card_labels\"%'"
    )
    assert int(ended) >= 1
    connection.close()
    Card.objects.update(title="b")
    assert told(client, 1) == [("update", {"pk": card.pk})]


def test_an_old_instance_is_made_where_its_code_may_query(subscriber: Open) -> None:
    client = subscriber("trackers")
    client.subscribe("cards_old")
    card = Card.objects.create(title="a")
    Card.objects.update(title="b")
    card.delete()
    assert told(client, 3) == [("create", None), ("update", "a"), ("delete", "b")]


def test_excluded_fields_have_their_default_meanwhile_and_are_deferred(subscriber: Open) -> None:
    client = subscriber("trackers")
    client.subscribe("accounts")
    account = Account.objects.create(name="a", pin="1234")
    Account.objects.update(name="b")
    account.labels.add(Label.objects.create(name="red"))
    events = told(client, 3)
    account.delete()
    assert events + told(client, 1) == [
        (action, {"began": [name, ""], "deferred": ["pin"]})
        for action, name in (("create", "a"), ("update", "b"), ("update", "b"), ("delete", "b"))
    ]


def test_so_have_those_of_the_old_instance(subscriber: Open) -> None:
    client = subscriber("trackers")
    client.subscribe("accounts_old")
    account = Account.objects.create(name="a", pin="1234")
    Account.objects.update(name="b")
    account.delete()
    assert told(client, 3) == [
        ("create", None),
        *((action, {"began": [name, ""], "deferred": ["pin"]}) for action, name in (("update", "a"), ("delete", "b"))),
    ]


def test_so_have_those_of_a_parent(subscriber: Open) -> None:
    client = subscriber("trackers")
    client.subscribe("savings")
    savings = Savings.objects.create(name="a", pin="1234", rate=1)
    events = told(client, 1)
    Savings.objects.update(rate=2)
    events += told(client, 1)  # of whose parent's row it is told as it is then
    Account.objects.update(name="b")
    events += told(client, 1)
    savings.delete()
    assert events + told(client, 1) == [
        (action, {"began": [name, ""], "deferred": ["pin"], "rate": rate})
        for action, name, rate in (("create", "a", 1), ("update", "a", 2), ("update", "b", 2), ("delete", "b", 2))
    ]


def test_code_that_knows_of_deferred_fields_sees_them_deferred(subscriber: Open) -> None:
    client = subscriber("trackers")
    client.subscribe("loaded")
    one = Loaded.objects.create(text="a", hidden="secret")
    pk = one.pk
    one.delete()
    assert told(client, 2) == [(action, {"id": pk, "text": "a"}) for action in ("create", "delete")]
