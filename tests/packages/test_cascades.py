"""``on_delete`` in the database: Django sends no signals for what it deletes and updates."""

from collections.abc import Callable
from typing import Any

import django
import pytest
from django.db import models
from django.db.models.signals import post_delete, post_save
from django.test.utils import isolate_apps

from tests.packages.cascades.models import Author, Book, Loan, Page
from tests.subscriber import Subscriber

pytestmark = pytest.mark.skipif(
    django.VERSION < (6, 1), reason="on_delete=DB_CASCADE and DB_SET_NULL came with Django 6.1"
)


def test_what_the_database_deletes_and_updates_is_captured_though_no_signal_is_sent(
    subscriber: Callable[..., Subscriber],
) -> None:
    author = Author.objects.create(name="a")
    book = Book.objects.create(author=author)
    page, loan = Page.objects.create(book=book), Loan.objects.create(book=book)
    keys = {"authors": author.pk, "books": book.pk, "pages": page.pk, "loans": loan.pk}
    client = subscriber("cascades")
    client.subscribe("authors", "books", "pages", "loans")
    signalled = []

    def receive(sender: type[models.Model], **kwargs: Any) -> None:
        signalled.append(sender)

    for signal in (post_delete, post_save):
        signal.connect(receive)
    try:
        author.delete()
    finally:
        for signal in (post_delete, post_save):
            signal.disconnect(receive)
    assert signalled == [Author]
    events = {event["observer"]: (event["action"], event["body"]["pk"], event["changed"]) for event in client.events(4)}
    assert events == {
        "authors": ("delete", keys["authors"], []),
        "books": ("delete", keys["books"], []),
        "pages": ("delete", keys["pages"], []),
        "loans": ("update", keys["loans"], ["book"]),
    }


@isolate_apps("tests.packages.cascades")
def test_django_refuses_a_chain_that_is_only_in_part_the_database_s() -> None:
    class Note(models.Model):
        page = models.ForeignKey(Page, models.CASCADE)

        class Meta:
            app_label = "cascades"

        def __str__(self) -> str:
            return "a note"

    class Shelf(models.Model):
        books = models.ManyToManyField(Book)

        class Meta:
            app_label = "cascades"

        def __str__(self) -> str:
            return "a shelf"

    for model in (Note, Shelf):
        assert "fields.E323" in {error.id for error in model.check(databases=["default"])}
