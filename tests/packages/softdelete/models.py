"""Models whose rows are hidden and not deleted."""

from django.db import models
from safedelete.models import SafeDeleteModel


class Tag(models.Model):
    """Something that an article has."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Article(SafeDeleteModel):
    """A hidden one is hidden from Django too."""

    name = models.CharField(max_length=100)
    tags = models.ManyToManyField(Tag)

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return self.name


class Review(Article):
    """The row of a review and that of its article are one instance."""

    stars = models.IntegerField(default=0)

    class Meta:
        base_manager_name = "objects"
