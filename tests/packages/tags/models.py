"""Models whose relations are kept in tables of several shapes."""

import uuid

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from sortedm2m.fields import SortedManyToManyField
from taggit.managers import TaggableManager
from taggit.models import GenericUUIDTaggedItemBase, TaggedItemBase


class Topic(models.Model):
    """The other side of relations that are ManyToManyFields."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Remark(models.Model):
    """Belongs to a row of any model, whose key it keeps as text."""

    text = models.CharField(max_length=100)
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.CharField(max_length=100)
    owner = GenericForeignKey()

    def __str__(self) -> str:
        return self.text


class Article(models.Model):
    """Tags beside an ordinary many-to-many relation, and one that keeps an order."""

    title = models.CharField(max_length=100)
    tags = TaggableManager()
    topics = models.ManyToManyField(Topic, related_name="articles")
    chapters = SortedManyToManyField(Topic, related_name="chapter_of")
    remarks = GenericRelation(Remark)

    def __str__(self) -> str:
        return self.title


class Review(Article):
    """Inherits the tags; its content type is its own."""

    stars = models.IntegerField(default=0)


class Comment(models.Model):
    """Has tags in the same table as articles, and belongs to one."""

    article = models.ForeignKey(Article, models.CASCADE, related_name="comments")
    tags = TaggableManager()

    def __str__(self) -> str:
        return f"comment {self.pk}"


class PageTag(GenericUUIDTaggedItemBase, TaggedItemBase):
    """Tags of models whose keys are UUIDs."""


class Page(models.Model):
    """A UUID as key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tags = TaggableManager(through=PageTag)

    def __str__(self) -> str:
        return f"page {self.pk}"


class PhotoTag(TaggedItemBase):
    """Tags of one model, by a foreign key."""

    content_object = models.ForeignKey("Photo", models.CASCADE)


class Photo(models.Model):
    """Tags in a table of their own."""

    tags = TaggableManager(through=PhotoTag)

    def __str__(self) -> str:
        return f"photo {self.pk}"
