"""django-parler writes a model's row, and then its translations, in transactions of their own unless there is one."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from tests.packages.translated.models import Dish, Word
from tests.subscriber import Subscriber


@pytest.fixture
def client(subscriber: Callable[..., Subscriber]) -> Subscriber:
    """A client of the consumer."""
    return subscriber("translated")


def told(client: Subscriber) -> tuple[str, str, Any, list[str]]:
    """The next event."""
    (event,) = client.events(1)
    return event["observer"], event["action"], event["body"], event["changed"]


def translate(instance: Dish | Word, field: str, text: str) -> None:
    """What a form for another language does."""
    instance.set_current_language("de")
    setattr(instance, field, text)
    instance.save()


def test_a_save_of_translations_alone_is_an_update_where_it_writes_the_row(client: Subscriber) -> None:
    dish = Dish.objects.create(name="soup")
    client.subscribe("dishes")
    with transaction.atomic():
        translate(dish, "name", "Suppe")
    assert told(client) == ("dishes", "update", {"en-us": "soup", "de": "Suppe"}, [])


def test_a_model_that_is_nothing_but_translations_is_heard_by_their_name(client: Subscriber) -> None:
    word = Word.objects.create(text="one")
    client.subscribe("words", "texts")
    with transaction.atomic():
        translate(word, "text", "eins")
    assert told(client) == ("texts", "update", {"en-us": "one", "de": "eins"}, ["translations"])
    # Django has nothing to write to the row, so its observer has no event; the next one is of another row.
    other = Word.objects.create()
    first, second = sorted([told(client), told(client)])
    assert (first[1], first[2]) == ("create", {})
    assert second == ("words", "create", {"pk": other.pk}, [])


def test_translations_by_name_come_with_the_row_and_without_it(client: Subscriber) -> None:
    client.subscribe("texts")
    with transaction.atomic():
        word = Word.objects.create(text="one")
    assert told(client) == ("texts", "create", {"en-us": "one"}, ["translations"])
    Word.translations.rel.related_model.objects.update(text="two")
    assert told(client) == ("texts", "update", {"en-us": "two"}, ["translations"])
    translate(word, "text", "zwei")  # in no transaction: the row first, unchanged and not written, then the translation
    assert told(client) == ("texts", "update", {"en-us": "two", "de": "zwei"}, ["translations"])
    word.delete()
    assert told(client)[1] == "delete"
