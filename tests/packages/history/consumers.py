"""Observes the model and its history."""

from typing import Any

from djangochannelsrestframework.observer import model_observer

from tests.packages.consumers import TellingConsumer
from tests.packages.history.models import Poll


class PollConsumer(TellingConsumer):
    """Polls, and the rows of their history."""

    @model_observer(Poll)
    async def polls(self, message: Any, **kwargs: Any) -> None:
        """The model."""
        await self.tell("polls", message, **kwargs)

    @model_observer(Poll.history.model)
    async def records(self, message: Any, **kwargs: Any) -> None:
        """Its history."""
        await self.tell("records", message, **kwargs)


CONSUMERS = {"polls": PollConsumer}
