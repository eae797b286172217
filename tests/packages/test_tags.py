"""What ``_meta.many_to_many`` has beside ManyToManyFields, and what is kept like it."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from taggit.models import TaggedItem

from tests.packages.tags.models import Article, Comment, Page, Photo, PhotoTag, Remark, Review, Topic
from tests.subscriber import Subscriber


@pytest.fixture
def client(subscriber: Callable[..., Subscriber]) -> Subscriber:
    """A client of the consumer."""
    return subscriber("tags")


def told(client: Subscriber) -> tuple[str, str, Any, list[str]]:
    """The next event."""
    (event,) = client.events(1)
    return event["observer"], event["action"], event["body"], event["changed"]


def test_tags_are_relations_beside_many_to_many_fields(client: Subscriber) -> None:
    article, topic = Article.objects.create(title="a"), Topic.objects.create(name="t")
    client.subscribe("articles")
    with transaction.atomic():
        article.tags.add("new", "long")
    assert told(client) == ("articles", "update", {"title": "a", "tags": ["long", "new"]}, ["tags"])
    article.topics.add(topic)
    assert told(client)[3] == ["topics"]
    article.chapters.set([topic])
    assert told(client)[3] == ["chapters"]
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM taggit_taggeditem WHERE tag_id = (SELECT id FROM taggit_tag WHERE name = 'long')")
    assert told(client) == ("articles", "update", {"title": "a", "tags": ["new"]}, ["tags"])
    with transaction.atomic():
        article.tags.clear()
        Article.objects.update(title="b")
    assert told(client) == ("articles", "update", {"title": "b", "tags": []}, ["title", "tags"])


def test_an_observer_of_rows_alone_is_unaffected_by_them(client: Subscriber) -> None:
    article = Article.objects.create(title="a")
    client.subscribe("rows", "articles")
    article.tags.add("new")
    assert told(client)[0] == "articles"
    Article.objects.update(title="b")
    first, second = sorted([told(client), told(client)])
    assert first == ("articles", "update", {"title": "b", "tags": ["new"]}, ["title"])
    assert second == ("rows", "update", {"pk": article.pk}, ["title"])


def test_a_tagged_row_of_another_model_is_not_the_one_with_its_key(client: Subscriber) -> None:
    article = Article.objects.create(pk=7, title="a")
    comment = Comment.objects.create(pk=7, article=article)
    client.subscribe("articles", "comments")
    comment.tags.add("new")
    assert told(client) == ("comments", "update", {"pk": 7}, ["tags"])
    article.tags.add("new")
    assert told(client)[0] == "articles"
    # A content type whose model is gone from the code belongs to nobody; what had the row before has it no more.
    gone = ContentType.objects.create(app_label="tags", model="gone")
    TaggedItem.objects.filter(content_type__model="article").update(content_type=gone)
    assert told(client)[0] == "articles"


def test_inherited_tags_belong_to_the_child_and_are_news_of_its_parent(client: Subscriber) -> None:
    article, review = Article.objects.create(title="a"), Review.objects.create(title="r")
    client.subscribe("articles", "reviews")
    article.tags.add("new")
    assert told(client) == ("articles", "update", {"title": "a", "tags": ["new"]}, ["tags"])
    review.tags.add("new")
    found = {event[0]: event for event in (told(client), told(client))}
    assert found["reviews"] == ("reviews", "update", {"pk": review.pk}, ["tags"])
    assert found["articles"][2]["title"] == "r"


def test_tags_of_uuid_keys_and_in_a_table_of_their_own(client: Subscriber) -> None:
    page, photo = Page.objects.create(), Photo.objects.create()
    client.subscribe("pages", "photos")
    page.tags.add("new")
    assert told(client) == ("pages", "update", {"pk": str(page.pk)}, ["tags"])
    photo.tags.add("new")
    assert told(client) == ("photos", "update", {"pk": photo.pk}, ["tags"])
    PhotoTag.objects.all().delete()
    assert told(client) == ("photos", "update", {"pk": photo.pk}, ["tags"])


def test_generic_relations_and_foreign_keys_by_name(client: Subscriber) -> None:
    article, other = Article.objects.create(title="a"), Article.objects.create(title="b")
    topic = Topic.objects.create(pk=article.pk, name="t")
    client.subscribe("discussed")
    Remark.objects.create(owner=topic, text="not of an article")
    remark = Remark.objects.create(owner=article, text="x")
    assert told(client) == ("discussed", "update", {"pk": article.pk}, ["remarks"])
    Remark.objects.filter(pk=remark.pk).update(object_id=other.pk)
    assert sorted(told(client)[2]["pk"] for _ in range(2)) == sorted([article.pk, other.pk])
    Comment.objects.create(article=article)
    assert told(client) == ("discussed", "update", {"pk": article.pk}, ["comments"])
    pk = article.pk
    article.delete()  # the comment goes with it
    assert told(client) == ("discussed", "delete", {"pk": pk}, [])
