"""Observers of articles, by the join table too, and of what inherits from them."""

from typing import Any

from djangochannelsrestframework.observer import model_observer
from rest_framework.serializers import ModelSerializer

from tests.packages.consumers import TellingConsumer
from tests.packages.softdelete.models import Article, Review


class ReviewSerializer(ModelSerializer[Review]):
    """Fields of both tables."""

    class Meta:
        model = Review
        fields = ("name", "stars")


class SoftDeleteConsumer(TellingConsumer):
    """See the module."""

    @model_observer(Article, many_to_many=True)
    async def articles(self, message: Any, **kwargs: Any) -> None:
        """The name, and whether it is hidden."""
        await self.tell("articles", message, **kwargs)

    @articles.serializer
    def articles(self, instance: Article, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return {"name": instance.name, "hidden": instance.deleted is not None}

    @model_observer(Review, serializer_class=ReviewSerializer)
    async def reviews(self, message: Any, **kwargs: Any) -> None:
        """Fields of both tables."""
        await self.tell("reviews", message, **kwargs)


CONSUMERS = {"softdelete": SoftDeleteConsumer}
