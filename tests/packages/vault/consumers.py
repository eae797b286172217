"""Observers whose bodies say what is deferred, and what reading it gives."""

from typing import Any

from django.db.models import Model
from djangochannelsrestframework.observer import model_observer

from tests.packages.consumers import TellingConsumer
from tests.packages.vault.models import Note, Patient, SealedNote


def look(instance: Model, *names: str) -> dict[str, Any]:
    """What is deferred, and then the fields' values."""
    deferred = sorted(instance.get_deferred_fields())
    return {"deferred": deferred, **{name: getattr(instance, name) for name in names}}


class VaultConsumer(TellingConsumer):
    """See the module."""

    @model_observer(Note, many_to_many=True)
    async def notes(self, message: Any, **kwargs: Any) -> None:
        """A model with two of them."""
        await self.tell("notes", message, **kwargs)

    @notes.serializer
    def notes(self, instance: Note, action: Any, **kwargs: Any) -> Any:
        """See above."""
        names = ["title"] if action.value == "delete" else ["title", "backwards", "shouted"]
        return look(instance, *names)

    @model_observer(SealedNote)
    async def sealed(self, message: Any, **kwargs: Any) -> None:
        """A model whose parent has them."""
        await self.tell("sealed", message, **kwargs)

    @sealed.serializer
    def sealed(self, instance: SealedNote, action: Any, changed: Any, **kwargs: Any) -> Any:
        """See above, and what has changed."""
        return {**look(instance, "title", "seal"), "changed": changed}

    @model_observer(Patient)
    async def patients(self, message: Any, **kwargs: Any) -> None:
        """A model with an encrypted one."""
        await self.tell("patients", message, **kwargs)

    @patients.serializer
    def patients(self, instance: Patient, action: Any, **kwargs: Any) -> Any:
        """See above."""
        return look(instance, "name", *([] if action.value == "delete" else ["diagnosis"]))


CONSUMERS = {"vault": VaultConsumer}
