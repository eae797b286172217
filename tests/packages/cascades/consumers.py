"""An observer of each link of the chain."""

from typing import Any

from djangochannelsrestframework.observer import model_observer

from tests.packages.cascades.models import Author, Book, Loan, Page
from tests.packages.consumers import TellingConsumer


class CascadeConsumer(TellingConsumer):
    """Keys alone."""

    @model_observer(Author)
    async def authors(self, message: Any, **kwargs: Any) -> None:
        """What the application deletes."""
        await self.tell("authors", message, **kwargs)

    @model_observer(Book)
    async def books(self, message: Any, **kwargs: Any) -> None:
        """What the database deletes with it."""
        await self.tell("books", message, **kwargs)

    @model_observer(Page)
    async def pages(self, message: Any, **kwargs: Any) -> None:
        """And with that."""
        await self.tell("pages", message, **kwargs)

    @model_observer(Loan)
    async def loans(self, message: Any, **kwargs: Any) -> None:
        """What the database updates."""
        await self.tell("loans", message, **kwargs)


CONSUMERS = {"cascades": CascadeConsumer}
