"""Observers whose bodies show related rows, and are told when these change."""

from typing import Any

from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from rest_framework.serializers import CharField, ModelSerializer, Serializer, SerializerMethodField, SlugRelatedField

from tests.testapp.models import Project, Task
from tests.zoo import models as zoo


class NameSerializer(Serializer[Any]):
    """The name of whatever has one."""

    name = CharField()


class CardSerializer(ModelSerializer[Task]):
    """A task with what stands behind its keys; not the status."""

    project = NameSerializer()
    labels = SlugRelatedField("name", many=True, read_only=True)

    class Meta:
        model = Task
        fields = ("id", "title", "project", "labels")


class ProgrammeSerializer(ModelSerializer[Project]):
    """Three steps from a project to the names of labels."""

    tasks = CardSerializer(many=True, read_only=True)

    class Meta:
        model = Project
        fields = ("id", "tasks")


class CountSerializer(ModelSerializer[Task]):
    """Shows what cannot be read off it."""

    of = SerializerMethodField()

    class Meta:
        model = Task
        fields = ("id", "of")

    def get_of(self, task: Task) -> int:
        """The tasks of its project."""
        return 0 if task.project is None else task.project.tasks.count()


class FleetSerializer(ModelSerializer[zoo.Person]):
    """What is behind is in two tables, of which one inherits from the other."""

    cars = SlugRelatedField("seats", many=True, read_only=True)
    invited_to = NameSerializer(many=True)

    class Meta:
        model = zoo.Person
        fields = ("id", "cars", "invited_to")


class VisaSerializer(ModelSerializer[zoo.Passport]):
    """A one-to-one relation that is the key, and a relation to a model with a text key behind it."""

    texts = NameSerializer(many=True, source="owner.texts")

    class Meta:
        model = zoo.Passport
        fields = ("pk", "texts")


class TravellerSerializer(ModelSerializer[zoo.Unique]):
    """The same relation from the other side."""

    passport = CharField(source="passport.name", default=None)

    class Meta:
        model = zoo.Unique
        fields = ("id", "passport")


class CarSerializer(ModelSerializer[zoo.FastCar]):
    """A row of two tables, as a proxy."""

    drivers = NameSerializer(many=True)

    class Meta:
        model = zoo.FastCar
        fields = ("pk", "drivers")


class RelatedConsumer(GenericAsyncAPIConsumer):
    """Subscribes by name."""

    async def tell(self, name: str, message: Any, observer: Any = None, **kwargs: Any) -> None:
        """Send what the handler was given."""
        await self.send_json({"observer": name, "body": message, **kwargs})

    @model_observer(Task, serializer_class=CardSerializer, related=True)
    async def cards(self, message: Any, **kwargs: Any) -> None:
        """A foreign key and many labels, in the groups of their status."""
        await self.tell("cards", message, **kwargs)

    @cards.groups_for_signal
    def cards(self, instance: Task, **kwargs: Any):
        yield f"status__{instance.status}"

    @cards.groups_for_consumer
    def cards(self, status: str = "todo", **kwargs: Any):
        yield f"status__{status}"

    @model_observer(Project, serializer_class=ProgrammeSerializer, related=True)
    async def programme(self, message: Any, **kwargs: Any) -> None:
        """A reverse foreign key, and what is behind it."""
        await self.tell("programme", message, **kwargs)

    @model_observer(Task, serializer_class=CountSerializer, related=["project__tasks"], fields=["title"])
    async def counts(self, message: Any, **kwargs: Any) -> None:
        """Named relations, of which nothing is known; and of the task itself only one field."""
        await self.tell("counts", message, **kwargs)

    @model_observer(zoo.Person, serializer_class=FleetSerializer, related=True)
    async def fleet(self, message: Any, **kwargs: Any) -> None:
        """Inheritance, and a join table of its own."""
        await self.tell("fleet", message, **kwargs)

    @model_observer(zoo.Passport, serializer_class=VisaSerializer, related=True)
    async def visas(self, message: Any, **kwargs: Any) -> None:
        """One to one."""
        await self.tell("visas", message, **kwargs)

    @model_observer(zoo.Unique, serializer_class=TravellerSerializer, related=True)
    async def travellers(self, message: Any, **kwargs: Any) -> None:
        """One to one, the other way."""
        await self.tell("travellers", message, **kwargs)

    @model_observer(zoo.FastCar, serializer_class=CarSerializer, related=True)
    async def cars(self, message: Any, **kwargs: Any) -> None:
        """The rows of a child."""
        await self.tell("cars", message, **kwargs)

    @action()
    async def subscribe(
        self, name: str, request_id: Any = None, since: str | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], int]:
        """Subscribe to the observer ``name``; the reply has a cursor."""
        kwargs.pop("action", None)
        cursor = await getattr(self, name).current_cursor()
        await getattr(self, name).subscribe(request_id=request_id, since=since, **kwargs)
        return {"cursor": cursor}, 201


class CardConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Single cards."""

    queryset = Task.objects.all()
    serializer_class = CardSerializer
    observer_related = True


class NamedCardConsumer(CardConsumer):
    """Only what it names."""

    observer_related = ("labels",)


CONSUMERS = {"related": RelatedConsumer, "card": CardConsumer, "named_card": NamedCardConsumer}
