"""An observer for each model of the zoo, and some with options."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer

from djcrf_pg.observer import ModelObserver, model_observer
from tests.zoo import models


def row(instance: Model) -> dict[str, Any]:
    """The loaded fields of an instance, without asking the database for others."""
    return {
        field.attname: instance.__dict__[field.attname]
        for field in instance._meta.concrete_fields
        if field.attname in instance.__dict__
    }


def observing(name: str, model: type[Model], **options: Any) -> ModelObserver:
    """An observer as a consumer class would define it: the handler sends what it is given."""

    async def handler(self: Any, message: Any, observer: Any = None, **kwargs: Any) -> None:
        await self.send_json({"observer": name, "body": message, **kwargs})

    handler.__name__ = name
    observer = model_observer(model, **options)(handler)

    def serialize(self: Any, instance: Model, action: Any, old_instance: Any, **kwargs: Any) -> dict[str, Any]:
        kwargs["committed_at"] = kwargs["committed_at"].isoformat()
        old = old_instance and row(old_instance)
        return {"row": row(instance), "type": type(instance).__name__, "old": old, **kwargs}

    observer.serializer(serialize)
    return observer


class ZooConsumer(GenericAsyncAPIConsumer):
    """Subscribes by name."""

    vehicle = observing("vehicle", models.Vehicle)
    car = observing("car", models.Car)
    fastcar = observing("fastcar", models.FastCar)
    taxi = observing("taxi", models.Taxi)
    amphibian = observing("amphibian", models.Amphibian)
    text = observing("text", models.Text, many_to_many=["uniques"])
    unique = observing("unique", models.Unique, many_to_many=True)
    passport = observing("passport", models.Passport)
    seat = observing("seat", models.Seat)
    person = observing("person", models.Person, many_to_many=True)
    followed = observing("followed", models.Person, many_to_many=["followers"])
    invited = observing("invited", models.Person, many_to_many=["invited_to"])
    team = observing("team", models.Team, many_to_many=["members"])
    inviting = observing("inviting", models.Team, many_to_many=["inviters"])
    elsewhere = observing("elsewhere", models.Elsewhere)
    thing = observing("thing", models.Thing)
    measure = observing("measure", models.Measure)
    user = observing("user", get_user_model(), many_to_many=True)
    contenttype = observing("contenttype", ContentType)

    some_fields = observing("some_fields", models.Person, many_to_many=["friends"], fields=["points", "friends"])
    unchanged = observing("unchanged", models.Person, skip_unchanged=True)
    every = observing("every", models.Person, every_change=True)

    @model_observer(models.Person)
    async def named_old(self, message: Any, action: str, old_instance: models.Person | None, **kwargs: Any) -> None:
        """A handler that names ``old_instance``."""
        old = None if old_instance is None else [type(old_instance).__name__, row(old_instance)]
        await self.send_json({"observer": "named_old", "action": action, "old": old, "body": message})

    @model_observer(models.Person)
    async def few(
        self, message: Any, action: str, observer: Any, message_type: str, group: str, subscribing_request_ids: Any
    ) -> None:
        """A handler that takes what DCRF gives and nothing else."""
        await self.send_json({"observer": "few", "action": action, "body": message})

    @model_observer(models.Person)
    async def own_resync(self, message: Any, action: str, **kwargs: Any) -> None:
        """Has a resync handler."""
        await self.send_json({"observer": "own_resync", "action": action, "body": message})

    @own_resync.resync
    async def own_resync(self, reason: str, subscribing_request_ids: Any, **kwargs: Any) -> None:
        kwargs.pop("observer")
        ids = list(subscribing_request_ids)
        await self.send_json({"observer": "own_resync", "action": "resync", "reason": reason, "ids": ids, **kwargs})

    @action()
    async def subscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """Subscribe to the observer ``name``."""
        await getattr(self, name).subscribe(request_id=request_id)
        return None, 201

    @action()
    async def unsubscribe(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[None, int]:
        """End it."""
        await getattr(self, name).unsubscribe(request_id=request_id)
        return None, 204


CONSUMERS = {"zoo": ZooConsumer}
