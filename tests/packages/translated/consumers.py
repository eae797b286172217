"""Observers with and without the translations."""

from typing import Any

from djangochannelsrestframework.observer import model_observer

from tests.packages.consumers import TellingConsumer
from tests.packages.translated.models import Dish, Word


class TranslatedConsumer(TellingConsumer):
    """Sends names in two languages."""

    @model_observer(Dish)
    async def dishes(self, message: Any, **kwargs: Any) -> None:
        """The rows of the model alone."""
        await self.tell("dishes", message, **kwargs)

    @dishes.serializer
    def dishes(self, instance: Dish, action: Any, **kwargs: Any) -> Any:
        return {t.language_code: t.name for t in instance.translations.all()}

    @model_observer(Word)
    async def words(self, message: Any, **kwargs: Any) -> None:
        """The rows of a model that has nothing but a key."""
        await self.tell("words", message, **kwargs)

    @model_observer(Word, many_to_many=["translations"])
    async def texts(self, message: Any, **kwargs: Any) -> None:
        """With its translations."""
        await self.tell("texts", message, **kwargs)

    @texts.serializer
    def texts(self, instance: Word, action: Any, **kwargs: Any) -> Any:
        return {t.language_code: t.text for t in instance.translations.all()}


CONSUMERS = {"translated": TranslatedConsumer}
