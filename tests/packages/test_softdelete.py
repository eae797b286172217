"""django-safedelete hides rows from Django, and the events of a hidden row are as true as any."""

from collections.abc import Callable

from safedelete.config import DELETED_VISIBLE

from tests.packages.softdelete.models import Article, Review, Tag
from tests.subscriber import Subscriber


def test_the_owner_of_a_join_row_is_told_though_it_is_hidden(subscriber: Callable[..., Subscriber]) -> None:
    article, tag = Article.objects.create(name="a"), Tag.objects.create(name="t")
    article.tags.add(tag)
    article.delete()
    client = subscriber("softdelete")
    client.subscribe("articles")
    tag.delete()
    (event,) = client.events(1)
    assert (event["action"], event["changed"]) == ("update", ["tags"])
    assert event["body"] == {"name": "a", "hidden": True}


def test_the_part_of_a_parent_is_told_though_it_is_hidden(subscriber: Callable[..., Subscriber]) -> None:
    review = Review.objects.create(name="a", stars=1)
    review.delete()
    client = subscriber("softdelete")
    client.subscribe("reviews")
    Review.all_objects.all(force_visibility=DELETED_VISIBLE).update(stars=2)
    (event,) = client.events(1)
    assert (event["action"], event["body"]) == ("update", {"name": "a", "stars": 2})
    Article.all_objects.all(force_visibility=DELETED_VISIBLE).update(name="b")
    (event,) = client.events(1)
    assert (event["action"], event["body"]) == ("update", {"name": "b", "stars": 2})
