"""``ObserverModelInstanceMixin``: the model that a consumer class observes."""

from typing import Any

import pytest
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from rest_framework.serializers import ModelSerializer

from djcrf_pg.observer import ModelObserver, model_observer
from djcrf_pg.observer.generics import ObserverModelInstanceMixin
from djcrf_pg.registry import registry
from tests.testapp.models import Label, Project, Task


class Base(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Names no model."""


class TaskSerializer(ModelSerializer[Task]):
    """Names one."""

    class Meta:
        model = Task
        fields = ("id",)


class OfTasks:
    """A mixin that names one."""

    queryset = Task.objects.all()


class ByQueryset(Base):
    queryset = Task.objects.all()


class ByManager(Base):
    queryset = Task.objects


class BySerializer(Base):
    serializer_class = TaskSerializer


class ByMixin(OfTasks, Base):
    pass


class ByBoth(Base):
    """The queryset is what instances are."""

    queryset = Label.objects.all()
    serializer_class = TaskSerializer


def model_of(consumer: Any) -> Any:
    observer = consumer.handle_instance_change
    assert isinstance(observer, ModelObserver)
    assert observer in list(registry)
    return observer.model_cls


@pytest.mark.parametrize("consumer", [ByQueryset, ByManager, BySerializer, ByMixin])
def test_the_model_is_that_of_the_queryset_or_the_serializer(consumer: Any) -> None:
    assert model_of(consumer) is Task
    assert model_of(ByBoth) is Label


def test_a_class_that_derives_has_the_observer_of_its_own_model_and_relations() -> None:
    class Same(ByQueryset):
        pass

    class Other(ByQueryset):
        queryset = Project.objects.all()

    class More(ByQueryset):
        observer_many_to_many_relationships = ("labels",)

    class Most(More):
        queryset = Task.objects.filter(points=1)

    assert Same.handle_instance_change is ByQueryset.handle_instance_change
    assert model_of(Other) is Project
    assert model_of(ByQueryset) is Task
    assert ByQueryset.handle_instance_change.relationships == []
    for consumer in (More, Most):
        assert [relationship.name for relationship in consumer.handle_instance_change.relationships] == ["labels"]
    assert len({each.handle_instance_change.message_type for each in (Same, Other, More, Most)}) == 1


def test_a_handler_of_its_own_stays() -> None:
    class Own(OfTasks, Base):
        @model_observer(Project)
        async def handle_instance_change(self, message: Any, **kwargs: Any) -> None: ...

    assert model_of(Own) is Project
