"""A change of a row that a body shows is an update of the row whose body it is."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, models, transaction

from tests.acceptance.board import Board
from tests.acceptance.test_limits import resync
from tests.client import Message
from tests.servers import AsgiServer
from tests.testapp.models import Label, Project, Task
from tests.zoo import models as zoo

_numbers = itertools.count(1)


class Shown(Board):
    """What the observers of related rows tell."""

    def make_fence(self, name: str, number: int) -> Any:
        """Write one more row of the observer's model."""
        match name:
            case "cards" | "counts":
                return Task.objects.create(title=f"fence {next(_numbers)}")
            case "programme":
                return Project.objects.create(name="fence")
            case "fleet":
                return zoo.Person.objects.create()
            case "visas":
                return zoo.Passport.objects.create(owner=zoo.Unique.objects.create())
            case "travellers":
                return zoo.Unique.objects.create()
        return zoo.Car.objects.create()

    def changed(self, name: str) -> list[tuple[str, Any, list[str]]]:
        """The actions, the keys, and what has changed."""
        return [
            (message["action"], next(iter(message["body"].values())), message["changed"])
            for message in self.messages(name)
        ]


@pytest.fixture
def shown(transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]) -> Shown:
    """A client of the shared server."""
    board = open_board(asgi_server, "related")
    return Shown(board.runner, board.client)


@pytest.fixture
def card(transactional_db: None) -> Task:
    """A task with a project and two labels."""
    task = Task.objects.create(title="card", project=Project.objects.create(name="p"))
    task.labels.set([Label.objects.create(name="a"), Label.objects.create(name="b")])
    return task


def test_a_row_behind_a_foreign_key_and_one_behind_a_join_table(shown: Shown, card: Task) -> None:
    shown.subscribe("cards")
    Project.objects.update(name="q")
    Label.objects.filter(name="a").update(name="c")
    first, second = shown.messages("cards")
    assert (first["action"], first["changed"], first["body"]["project"]) == ("update", ["project"], {"name": "q"})
    assert (second["action"], second["changed"], sorted(second["body"]["labels"])) == ("update", ["labels"], ["b", "c"])
    card.labels.clear()
    (third,) = shown.messages("cards")
    assert (third["changed"], third["body"]["labels"]) == (["labels"], [])


def test_what_no_body_shows_is_no_event(shown: Shown, card: Task) -> None:
    shown.subscribe("programme")
    Task.objects.update(status="doing", points=3, body="what the programme does not show")
    Task.objects.update(title=models.F("title"))  # and what changes nothing
    other = Label.objects.create(name="of nothing")
    other.delete()
    assert shown.changed("programme") == []


def test_many_rows_of_a_transaction_are_one_update_of_each_row(shown: Shown, card: Task) -> None:
    other = Task.objects.create(title="other")
    other.labels.set(Label.objects.all())
    shown.subscribe("cards")
    with transaction.atomic():
        Label.objects.update(name="d")
        Project.objects.update(name="r")
        card.labels.remove(Label.objects.first())
        Label.objects.update(name="e")
    found = {(action, pk): sorted(changed) for action, pk, changed in shown.changed("cards")}
    assert found == {("update", card.pk): ["labels", "project"], ("update", other.pk): ["labels"]}


def test_a_row_that_changed_itself_has_one_event(shown: Shown, card: Task) -> None:
    shown.subscribe("cards")
    with transaction.atomic():
        Label.objects.update(name="d")
        Task.objects.update(title="renamed")
        new = Task.objects.create(title="new", project=card.project)
        Project.objects.update(name="s")
    found = {(action, pk): sorted(changed) for action, pk, changed in shown.changed("cards")}
    assert found.keys() == {("update", card.pk), ("create", new.pk)}
    assert found["update", card.pk] == ["labels", "project", "title"]
    with transaction.atomic():
        Label.objects.update(name="f")
        Task.objects.filter(pk=new.pk).delete()
        Task.objects.filter(pk=card.pk).delete()
    assert sorted(action for action, *_ in shown.changed("cards")) == ["delete", "delete"]


def test_a_chain_of_three(shown: Shown, card: Task) -> None:
    programme = card.project
    assert programme is not None
    shown.subscribe("programme")
    Label.objects.filter(name="a").update(name="c")
    assert shown.changed("programme") == [("update", programme.pk, ["tasks__labels"])]
    card.labels.clear()
    assert shown.changed("programme") == [("update", programme.pk, ["tasks__labels"])]
    Task.objects.update(title="renamed")
    assert shown.changed("programme") == [("update", programme.pk, ["tasks"])]
    Project.objects.update(name="what each task shows")
    (told,) = shown.messages("programme")
    assert set(told["changed"]) == {"name", "tasks__project"}


def test_a_reverse_foreign_key(shown: Shown, card: Task) -> None:
    source = card.project
    target = Project.objects.create(name="target")
    assert source is not None
    shown.subscribe("programme")
    second = Task.objects.create(title="second", project=source)
    assert shown.changed("programme") == [("update", source.pk, ["tasks"])]
    Task.objects.filter(pk=second.pk).update(project=target)
    assert sorted(shown.changed("programme")) == sorted(
        [("update", source.pk, ["tasks"]), ("update", target.pk, ["tasks"])]
    )
    second.delete()
    assert shown.changed("programme") == [("update", target.pk, ["tasks"])]
    source.delete()  # and its tasks with it
    assert [(action, pk) for action, pk, _ in shown.changed("programme")] == [("delete", card.project_id)]


def test_named_relations_are_told_whatever_fields_says(shown: Shown, card: Task) -> None:
    shown.subscribe("counts")
    Task.objects.filter(pk=card.pk).update(points=5)
    found = shown.messages("counts")
    assert [message["changed"] for message in found] == [["points", "project__tasks"]]
    Task.objects.create(title="one more", project=card.project)
    bodies = {message["body"]["id"]: message["body"]["of"] for message in shown.messages("counts")}
    assert bodies[card.pk] == 2
    Task.objects.filter(project=None).update(points=6)
    assert shown.changed("counts") == [], "a field that is not named"


def test_groups_are_those_of_the_row_itself(shown: Shown, card: Task) -> None:
    hidden = Task.objects.create(title="hidden", status="secret", project=card.project)
    shown.subscribe("cards", status="todo")
    Project.objects.update(name="q")
    assert [pk for _, pk, _ in shown.changed("cards")] == [card.pk]
    assert hidden.pk != card.pk


def test_what_was_missed_is_replayed(shown: Shown, card: Task) -> None:
    cursor = shown.call("subscribe", name="programme", request_id=1)["data"]["cursor"]
    for name in "xyz":
        Label.objects.update(name=name)
        assert len(shown.messages("programme")) == 1
    shown.call("subscribe", name="programme", request_id="again", since=cursor)
    found = shown.runner.run(shown.client.until(lambda m: m.get("subscribing_request_ids") == ["again"]))
    assert (found["action"], found["body"]["id"]) == ("update", card.project_id)
    assert found["body"]["tasks"][0]["labels"] == ["z", "z"]


def test_an_emptied_table_is_a_resync(shown: Shown, card: Task) -> None:
    shown.subscribe("cards", "counts")
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE testapp_label CASCADE")
    assert resync(shown, "cards")["reason"] == "truncate"


def test_tables_that_inherit_and_join_tables_with_columns(shown: Shown) -> None:
    person, team = zoo.Person.objects.create(), zoo.Team.objects.create()
    taxi = zoo.Taxi.objects.create(seats=4)
    shown.subscribe("fleet")
    person.cars.add(taxi.pk)
    assert shown.changed("fleet") == [("update", person.pk, ["cars"])]
    membership = zoo.Membership.objects.create(team=team, person=person, inviter=person)
    assert shown.changed("fleet") == [("update", person.pk, ["invited_to"])]
    zoo.Vehicle.objects.update(name="not shown")
    zoo.Taxi.objects.update(licence="not shown either")
    membership.role = "nor this"
    membership.save()
    assert shown.changed("fleet") == []
    zoo.Car.objects.update(seats=5)
    zoo.Team.objects.update(name="named")
    assert [changed for _, _, changed in shown.changed("fleet")] == [["cars"], ["invited_to"]]
    zoo.Membership.objects.update(inviter=None)
    assert shown.changed("fleet") == [("update", person.pk, ["invited_to"])]


def test_one_to_one_relations_and_keys_of_other_types(shown: Shown) -> None:
    unique = zoo.Unique.objects.create()
    text = zoo.Text.objects.create(code="a", name="before")
    shown.subscribe("travellers")
    passport = zoo.Passport.objects.create(owner=unique, name="p")
    shown.subscribe("visas")
    unique.texts.add(text)
    zoo.Text.objects.update(name="after")
    zoo.Unique.objects.update(points=1)
    found = shown.messages("visas")
    assert [message["changed"] for message in found] == [["owner__texts"], ["owner__texts"]]
    assert found[-1]["body"]["texts"] == [{"name": "after"}]
    passport.name = "q"
    passport.save()
    assert shown.messages("travellers")[-1]["body"]["passport"] == "q"
    passport.delete()
    (told,) = shown.messages("travellers")
    assert (told["changed"], told["body"]["passport"]) == (["passport"], None)


def test_a_row_of_two_tables_shows_related_rows(shown: Shown) -> None:
    car = zoo.Car.objects.create()
    person = zoo.Person.objects.create(name="before")
    person.cars.add(car.pk)
    shown.subscribe("cars")
    zoo.Person.objects.update(name="after")
    (told,) = shown.messages("cars")
    assert (told["body"]["pk"], told["changed"], told["body"]["drivers"]) == (car.pk, ["drivers"], [{"name": "after"}])


class TestInstances:
    """``observer_related`` of the mixin."""

    def told(self, board: Board) -> Message:
        return board.runner.run(board.client.event())

    @pytest.mark.parametrize("consumer", ["card", "named_card"])
    def test_the_instance_is_told_again(
        self, transactional_db: None, asgi_server: AsgiServer, open_board: Any, card: Task, consumer: str
    ) -> None:
        board = open_board(asgi_server, consumer)
        reply = board.call("subscribe_instance", pk=card.pk, request_id="one")
        assert reply["response_status"] == 201, reply
        Project.objects.update(name="q")
        if consumer == "card":
            told = self.told(board)
            assert (told["action"], told["data"]["project"]) == ("update", {"name": "q"})
        Label.objects.filter(name="a").update(name="c")
        told = self.told(board)
        assert (told["action"], sorted(told["data"]["labels"])) == ("update", ["b", "c"])
        Task.objects.filter(pk=card.pk).update(title="fence")
        assert self.told(board)["data"]["title"] == "fence"
