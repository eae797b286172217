"""Observers of the trackers: nobody but the models' own code looks at the instances, but for those named ``…_old``."""

from typing import Any

from djangochannelsrestframework.observer import model_observer

from tests.packages.consumers import TellingConsumer
from tests.packages.trackers.models import Account, Badge, Card, Loaded, Savings, Ticket


class TrackersConsumer(TellingConsumer):
    """An observer for each model."""

    @model_observer(Ticket)
    async def tickets(self, message: Any, **kwargs: Any) -> None:
        """The key alone."""
        await self.tell("tickets", message, **kwargs)

    @model_observer(Card, many_to_many=True)
    async def cards(self, message: Any, **kwargs: Any) -> None:
        """The key alone."""
        await self.tell("cards", message, **kwargs)

    @model_observer(Card)
    async def cards_old(self, message: Any, old_instance: Any, **kwargs: Any) -> None:
        """How it was, in this process."""
        await self.tell("cards_old", old_instance and old_instance.title, **kwargs)

    @model_observer(Badge)
    async def badges(self, message: Any, **kwargs: Any) -> None:
        """The key alone."""
        await self.tell("badges", message, **kwargs)

    @model_observer(Account, many_to_many=True)
    async def accounts(self, message: Any, **kwargs: Any) -> None:
        """What the instance remembers, and what is deferred."""
        await self.tell("accounts", message, **kwargs)

    @accounts.serializer
    def accounts(self, instance: Account, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return {"began": instance.began, "deferred": sorted(instance.get_deferred_fields())}

    @model_observer(Account)
    async def accounts_old(self, message: Any, old_instance: Any, **kwargs: Any) -> None:
        """How it was, in this process."""
        body = old_instance and {
            "began": old_instance.began,
            "deferred": sorted(old_instance.get_deferred_fields()),
        }
        await self.tell("accounts_old", body, **kwargs)

    @model_observer(Savings)
    async def savings(self, message: Any, **kwargs: Any) -> None:
        """What the instance remembers, and what is deferred."""
        await self.tell("savings", message, **kwargs)

    @savings.serializer
    def savings(self, instance: Savings, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return {"began": instance.began, "deferred": sorted(instance.get_deferred_fields()), "rate": instance.rate}

    @model_observer(Loaded)
    async def loaded(self, message: Any, **kwargs: Any) -> None:
        """What was loaded."""
        await self.tell("loaded", message, **kwargs)

    @loaded.serializer
    def loaded(self, instance: Loaded, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return instance.loaded


CONSUMERS = {"trackers": TrackersConsumer}
