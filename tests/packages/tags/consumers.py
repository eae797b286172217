"""Observers of the relations."""

from typing import Any

from djangochannelsrestframework.observer import model_observer

from tests.packages.consumers import TellingConsumer
from tests.packages.tags.models import Article, Comment, Page, Photo, Review


class TagConsumer(TellingConsumer):
    """Articles with all of their relations and with none, and the other models."""

    @model_observer(Article, many_to_many=True)
    async def articles(self, message: Any, **kwargs: Any) -> None:
        """Everything that is many-to-many."""
        await self.tell("articles", message, **kwargs)

    @articles.serializer
    def articles(self, instance: Article, action: Any, **kwargs: Any) -> Any:
        return {"title": instance.title, "tags": sorted(instance.tags.names())}

    @model_observer(Article)
    async def rows(self, message: Any, **kwargs: Any) -> None:
        """The rows alone."""
        await self.tell("rows", message, **kwargs)

    @model_observer(Article, many_to_many=["remarks", "comments"])
    async def discussed(self, message: Any, **kwargs: Any) -> None:
        """A generic relation, and the foreign key of another model."""
        await self.tell("discussed", message, **kwargs)

    @model_observer(Review, many_to_many=["tags"])
    async def reviews(self, message: Any, **kwargs: Any) -> None:
        """Inherited tags."""
        await self.tell("reviews", message, **kwargs)

    @model_observer(Comment, many_to_many=True)
    async def comments(self, message: Any, **kwargs: Any) -> None:
        """The same table as the tags of articles."""
        await self.tell("comments", message, **kwargs)

    @model_observer(Page, many_to_many=True)
    async def pages(self, message: Any, **kwargs: Any) -> None:
        """Keys that are UUIDs."""
        await self.tell("pages", message, **kwargs)

    @model_observer(Photo, many_to_many=True)
    async def photos(self, message: Any, **kwargs: Any) -> None:
        """A table of tags with a foreign key."""
        await self.tell("photos", message, **kwargs)


CONSUMERS = {"tags": TagConsumer}
