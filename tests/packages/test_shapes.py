"""django-polymorphic: the instances of all events have the class of the observed model."""

from collections.abc import Callable
from typing import Any

from tests.packages.shapes.models import Circle, Colour, Shape, Square
from tests.subscriber import Subscriber


def told(client: Subscriber, count: int) -> list[tuple[Any, ...]]:
    """The next events: the action, what has changed, and the body's values."""
    return [(event["action"], event["changed"], *event["body"].values()) for event in client.events(count)]


def test_the_base_hears_of_its_rows_and_join_rows_with_instances_of_one_class(
    subscriber: Callable[..., Subscriber],
) -> None:
    client = subscriber("shapes")
    client.subscribe("shapes")
    square = Square.objects.create(name="a", side=1)
    square.colours.add(Colour.objects.create(name="red"))
    events = told(client, 2)
    Shape.objects.update(name="b")
    assert events + told(client, 1) == [
        ("create", [], "Shape", "a"),
        ("update", ["colours"], "Shape", "a"),
        ("update", ["name"], "Shape", "b"),
    ]


def test_a_child_hears_of_all_its_tables_and_of_no_other_child(subscriber: Callable[..., Subscriber]) -> None:
    client = subscriber("shapes")
    client.subscribe("circles")
    Square.objects.create(name="a", side=1)
    circle = Circle.objects.create(name="a", radius=1)
    events = told(client, 1)
    circle.colours.add(Colour.objects.create(name="red"))
    events += told(client, 1)
    Circle.objects.filter(pk=circle.pk).update(radius=2)
    events += told(client, 1)
    Shape.objects.update(name="b")
    events += told(client, 1)
    circle.delete()
    assert events + told(client, 1) == [
        ("create", [], "Circle", "a", 1),
        ("update", ["colours"], "Circle", "a", 1),
        ("update", ["radius"], "Circle", "a", 2),
        ("update", ["name"], "Circle", "b", 2),
        ("delete", [], "Circle", "b", 2),
    ]
