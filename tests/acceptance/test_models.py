"""Every kind of model: what its observers hear, and with which instances."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, transaction

from tests.acceptance.board import Board, Told
from tests.client import Message
from tests.servers import AsgiServer
from tests.zoo import models
from tests.zoo.models import (
    Amphibian,
    Car,
    Elsewhere,
    Measure,
    Person,
    Seat,
    Swimmer,
    Taxi,
    Team,
    Text,
    Unique,
    Vehicle,
)


class Zoo(Board):
    """A client of the zoo consumer."""

    FENCES: ClassVar[dict[str, type[Any]]] = {
        "text": Text,
        "unique": Unique,
        "seat": Seat,
        "measure": Measure,
        "team": Team,
        "inviting": Team,
        "user": User,
        "elsewhere": Elsewhere,
        "contenttype": ContentType,
        "fastcar": Car,
        **{name: getattr(models, name.title()) for name in ("vehicle", "car", "taxi", "amphibian", "passport")},
    }

    def make_fence(self, name: str, number: int) -> Any:
        """One more row of the observer's model."""
        model = self.FENCES.get(name, Person)
        key = 1_000_000 + number
        match name:
            case "text":
                return Text.objects.create(code=f"fence {key}")
            case "thing":
                return models.Thing.objects.create(pk=key, name=f"fence {key}")
            case "unique":
                return Unique.objects.create()
            case "passport":
                return models.Passport.objects.create(owner=Unique.objects.create())
            case "seat":
                return Seat.objects.create(hall="fence", number=key)
            case "measure":
                return Measure.objects.create(id=key, year=2500, kind="a")
            case "user":
                return User.objects.create(pk=key, username=f"fence {key}")
            case "contenttype":
                return ContentType.objects.create(pk=key, app_label="fence", model=str(key))
        return model.objects.create(pk=key)

    def is_fence(self, fence: Any, message: Message) -> bool:
        """Whether a message tells of the fence."""
        body = message.get("body", {})
        values = body["row"].values() if "row" in body else body.values()
        keys = fence.pk if isinstance(fence.pk, tuple) else (fence.pk,)
        return {str(key) for key in keys} <= {str(value) for value in values}

    def heard(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """Actions and rows."""
        return [(message["action"], message["body"]["row"]) for message in self.messages(name)]

    def actions(self, name: str) -> list[str]:
        """Actions alone."""
        return [action for action, _ in self.told(name)]


@pytest.fixture
def zoo(transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]) -> Zoo:
    """A client of the zoo consumer, subscribed to nothing yet."""
    board = open_board(asgi_server, "zoo")
    return Zoo(board.runner, board.client)


def sql(statement: str, *parameters: Any) -> None:
    """Run a statement past the ORM."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


# -- keys ----------------------------------------------------------------------------------------------------


def test_text_uuid_foreign_and_composite_keys(zoo: Zoo):
    zoo.subscribe("text", "unique", "passport", "seat")
    Text.objects.create(code="ä'\"b", name="x")
    unique = Unique.objects.create(name="u")
    passport = models.Passport.objects.create(owner=unique, name="p")
    seat = Seat.objects.create(hall="A", number=1, points=1)
    Seat.objects.filter(pk=("A", 1)).update(points=2)
    seat.refresh_from_db()
    seat.delete()
    assert zoo.heard("text") == [("create", {"code": "ä'\"b", "name": "x", "points": 0})]
    assert zoo.heard("unique") == [("create", {"id": str(unique.pk), "name": "u", "points": 0})]
    assert zoo.heard("passport") == [("create", {"owner_id": str(passport.pk), "name": "p", "points": 0})]
    rows = [{"hall": "A", "number": 1, "name": "", "points": points} for points in (1, 2, 2)]
    assert zoo.heard("seat") == list(zip(["create", "update", "delete"], rows, strict=True))


def test_a_key_changed_by_an_update_takes_every_form(zoo: Zoo):
    Text.objects.create(code="a")
    Seat.objects.create(hall="A", number=1)
    Seat.objects.create(hall="A", number=2)
    zoo.subscribe("text", "seat")
    Text.objects.filter(pk="a").update(code="b")
    # Keys swapped by one statement: each row is an update, as one who looks before and after would see it.
    sql("ALTER TABLE zoo_seat DROP CONSTRAINT zoo_seat_pkey")
    try:
        sql("UPDATE zoo_seat SET number = 3 - number, points = number")
    finally:
        sql("ALTER TABLE zoo_seat ADD PRIMARY KEY (hall, number)")
    assert [(action, row["code"]) for action, row in zoo.heard("text")] == [("delete", "a"), ("create", "b")]
    assert sorted((action, row["number"], row["points"]) for action, row in zoo.heard("seat")) == [
        ("update", 1, 2),
        ("update", 2, 1),
    ]


# -- inheritance ---------------------------------------------------------------------------------------------


def test_a_child_is_one_event_with_all_its_columns(zoo: Zoo):
    zoo.subscribe("vehicle", "car", "fastcar")
    car = Car.objects.create(name="a", points=1, seats=5)
    whole = {"id": car.pk, "name": "a", "points": 1, "vehicle_ptr_id": car.pk, "seats": 5}
    assert zoo.heard("car") == [("create", whole)]
    (message,) = zoo.messages("fastcar")
    assert (message["action"], message["body"]["type"], message["body"]["row"]) == ("create", "FastCar", whole)
    assert zoo.heard("vehicle") == [("create", {"id": car.pk, "name": "a", "points": 1})]
    car.seats, car.name = 6, "b"
    car.save()
    (message,) = zoo.messages("car")
    assert (message["action"], message["body"]["row"]) == ("update", {**whole, "seats": 6, "name": "b"})
    assert (message["body"]["old"], sorted(message["changed"])) == (whole, ["name", "seats"])
    car.delete()
    assert zoo.heard("car") == [("delete", {**whole, "seats": 6, "name": "b"})]


def test_an_update_of_the_parent_s_row_alone_is_an_update_of_the_child(zoo: Zoo):
    taxi = Taxi.objects.create(name="a", licence="L", seats=7)
    Vehicle.objects.create(name="only a vehicle")
    zoo.subscribe("taxi", "car")
    whole = {
        "id": taxi.pk,
        "name": "a",
        "points": 3,
        "vehicle_ptr_id": taxi.pk,
        "seats": 7,
        "car_ptr_id": taxi.pk,
        "licence": "L",
    }
    Vehicle.objects.update(points=3)
    (message,) = zoo.messages("taxi")
    assert (message["action"], message["body"]["row"]) == ("update", whole)
    assert (message["body"]["old"], message["changed"]) == ({**whole, "points": 0}, ["points"])
    assert zoo.actions("car") == ["update"]
    sql("UPDATE zoo_car SET seats = 8")
    assert zoo.heard("taxi") == [("update", {**whole, "seats": 8})]
    sql("UPDATE zoo_taxi SET licence = 'M'")
    assert zoo.heard("taxi") == [("update", {**whole, "seats": 8, "licence": "M"})]


def test_a_child_that_is_gone_by_now_has_its_delete_alone(zoo: Zoo):
    taxi = Taxi.objects.create(name="a")
    zoo.subscribe("taxi")
    with transaction.atomic():
        Vehicle.objects.filter(pk=taxi.pk).update(points=1)
        taxi.delete()
    assert zoo.actions("taxi") == ["delete"]


def test_two_parents_with_keys_of_their_own(zoo: Zoo):
    for _ in range(3):
        Swimmer.objects.create()  # so that the keys differ
    frog = Amphibian.objects.create(name="frog", depth=1)
    assert frog.swimmer_ptr_id != frog.vehicle_ptr_id
    zoo.subscribe("amphibian")
    Swimmer.objects.filter(pk=frog.swimmer_ptr_id).update(depth=9)
    ((action, row),) = zoo.heard("amphibian")
    assert (action, row["depth"], row["name"], row["id"]) == ("update", 9, "frog", frog.pk)
    frog.gills, frog.depth, frog.name = False, 2, "toad"
    frog.save()
    ((action, row),) = zoo.heard("amphibian")
    assert (action, row["depth"], row["name"], row["gills"]) == ("update", 2, "toad", False)
    frog.delete()
    assert zoo.heard("amphibian") == [("delete", row)]


def test_a_child_deleted_without_its_parents_is_a_whole_delete_of_the_child_alone(zoo: Zoo):
    taxi, frog = Taxi.objects.create(name="a", licence="L", seats=7), Amphibian.objects.create(name="frog", depth=1)
    pk = taxi.pk
    whole = {"id": pk, "name": "a", "points": 0, "vehicle_ptr_id": pk, "seats": 7, "car_ptr_id": pk, "licence": "L"}
    zoo.subscribe("taxi", "car", "vehicle", "amphibian")
    taxi.delete(keep_parents=True)
    assert zoo.heard("taxi") == [("delete", whole)]
    del whole["car_ptr_id"], whole["licence"]
    # Django sends signals for the child alone, so in DCRF too the parents' observers are silent.
    assert (zoo.told("car"), zoo.told("vehicle")) == ([], [])
    with transaction.atomic():
        Car.objects.filter(pk=pk).update(name="b")
        Car.objects.get(pk=pk).delete(keep_parents=True)
    assert zoo.heard("car") == [("delete", {**whole, "name": "a"})]
    assert zoo.heard("vehicle") == [("update", {"id": pk, "name": "b", "points": 0})]
    sql("DELETE FROM zoo_amphibian")
    ((action, row),) = zoo.heard("amphibian")
    assert (action, row["id"], row["name"], row["depth"]) == ("delete", frog.pk, "frog", 1)


# -- many-to-many --------------------------------------------------------------------------------------------


def _keys(told: list[Told]) -> list[tuple[str, Any]]:
    return sorted((action, body["row"].get("id", body["row"].get("code"))) for action, body in told)


def test_relations_to_itself(zoo: Zoo):
    ann, bob, cid = Person.objects.bulk_create([Person(name=name) for name in ("ann", "bob", "cid")])
    zoo.subscribe("person", "followed")
    ann.friends.add(bob)  # symmetrical: both have one more friend
    assert _keys(zoo.told("person")) == [("update", ann.pk), ("update", bob.pk)]
    cid.follows.add(ann, bob)
    assert _keys(zoo.told("person")) == [("update", cid.pk)]
    assert _keys(zoo.told("followed")) == [("update", ann.pk), ("update", bob.pk)]
    pk = bob.pk
    bob.delete()
    assert _keys(zoo.told("person")) == [("delete", pk), ("update", ann.pk), ("update", cid.pk)]


def test_relations_to_a_proxy_and_to_a_third_party_model(zoo: Zoo):
    person = Person.objects.create()
    zoo.subscribe("person")
    car = Car.objects.create()
    person.cars.add(car.pk)
    (message,) = zoo.messages("person")
    assert (message["action"], message["changed"]) == ("update", ["cars"])
    group = Group.objects.create(name="g")
    person.groups.add(group)
    assert zoo.actions("person") == ["update"]
    group.delete()
    assert zoo.actions("person") == ["update"]


def test_relations_between_uuid_and_text_keys_from_both_sides(zoo: Zoo):
    unique, text = Unique.objects.create(), Text.objects.create(code="t")
    zoo.subscribe("unique", "text")
    unique.texts.add(text)
    assert _keys(zoo.told("unique")) == [("update", str(unique.pk))]
    assert _keys(zoo.told("text")) == [("update", "t")]
    text.uniques.clear()
    assert _keys(zoo.told("unique")) == [("update", str(unique.pk))]
    assert _keys(zoo.told("text")) == [("update", "t")]


def test_two_relations_through_one_table_with_columns_of_its_own(zoo: Zoo):
    ann, bob = Person.objects.bulk_create([Person(name="ann"), Person(name="bob")])
    team = Team.objects.create(name="t")
    zoo.subscribe("team", "inviting", "invited")
    membership = models.Membership.objects.create(team=team, person=ann, inviter=bob)
    assert [message["changed"] for message in zoo.messages("team")] == [["members"]]
    assert [message["changed"] for message in zoo.messages("inviting")] == [["inviters"]]
    assert _keys(zoo.told("invited")) == [("update", bob.pk)]
    models.Membership.objects.filter(pk=membership.pk).update(role="boss")
    assert _keys(zoo.told("team")) == [("update", team.pk)]
    assert _keys(zoo.told("invited")) == [("update", bob.pk)]
    models.Membership.objects.filter(pk=membership.pk).update(inviter=ann)
    assert _keys(zoo.told("invited")) == [("update", ann.pk), ("update", bob.pk)]


# -- other tables --------------------------------------------------------------------------------------------


def test_third_party_models_and_the_password_that_never_leaves(zoo: Zoo):
    zoo.subscribe("user", "contenttype")
    user = User.objects.create_user("ada", password="secret")
    ((action, row),) = zoo.heard("user")
    assert (action, row["username"]) == ("create", "ada")
    assert "password" not in row
    user.groups.add(Group.objects.create(name="g"))
    ((action, row),) = zoo.heard("user")  # loaded as it is now, and without the password too
    assert (action, "password" in row) == ("update", False)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM djcrf_pg_change WHERE new::text LIKE '%pbkdf2%' OR old::text LIKE '%pbkdf2%'"
        )
        assert cursor.fetchone() == (0,)
    kind = ContentType.objects.create(app_label="a", model="b")
    try:
        assert zoo.actions("contenttype") == ["create"]
    finally:
        kind.delete()


def test_a_table_in_another_schema(zoo: Zoo):
    zoo.subscribe("elsewhere")
    there = Elsewhere.objects.create(name="x")
    Elsewhere.objects.filter(pk=there.pk).update(points=1)
    assert [(action, row["points"]) for action, row in zoo.heard("elsewhere")] == [("create", 0), ("update", 1)]


def test_a_partitioned_table_by_its_root_and_by_its_partitions(zoo: Zoo):
    zoo.subscribe("measure")
    Measure.objects.bulk_create([Measure(id=1, year=1999, kind="a"), Measure(id=2, year=2001, kind="b")])
    assert sorted((a, r["id"]) for a, r in zoo.heard("measure")) == [("create", 1), ("create", 2)]
    sql("INSERT INTO zoo_measure_new_a (id, year, kind, value) VALUES (3, 2001, 'a', 0)")
    sql("UPDATE zoo_measure_new SET value = 5 WHERE id = 2")
    assert [(a, r["id"], r["value"]) for a, r in zoo.heard("measure")] == [("create", 3, 0), ("update", 2, 5)]
    # A row that moves to another partition has another key.
    sql("UPDATE zoo_measure SET year = 2002 WHERE id = 1")
    assert [(a, r["id"], r["year"]) for a, r in zoo.heard("measure")] == [("delete", 1, 1999), ("create", 1, 2002)]
    sql("UPDATE zoo_measure SET value = 7 WHERE id IN (1, 2, 3)")
    assert sorted((a, r["id"]) for a, r in zoo.heard("measure")) == [("update", 1), ("update", 2), ("update", 3)]


# -- what an observer is told beyond DCRF --------------------------------------------------------------------


def test_rows_of_a_table_that_inherits_are_rows_of_its_parent(zoo: Zoo):
    sql("CREATE TABLE zoo_heir (more json DEFAULT '{}') INHERITS (zoo_text)")
    sql("CREATE TABLE zoo_heir_of_heir () INHERITS (zoo_heir)")
    try:
        call_command("migrate", verbosity=0)
        zoo.subscribe("text")
        sql("INSERT INTO zoo_heir (code, name, points, more) VALUES ('a', '', 0, '[1]')")
        sql("INSERT INTO zoo_heir_of_heir (code, name, points) VALUES ('b', '', 0)")
        sql("DELETE FROM zoo_heir WHERE code = 'a'")
        sql("DELETE FROM zoo_text WHERE code = 'b'")
        assert [(action, row["code"]) for action, row in zoo.heard("text")] == [
            ("create", "a"),
            ("create", "b"),
            ("delete", "a"),
            ("delete", "b"),
        ]
        sql("INSERT INTO zoo_heir (code, name, points) VALUES ('c', '', 0)")
        sql("ALTER TABLE zoo_text ADD COLUMN later int")
        sql("INSERT INTO zoo_heir (code, name, points) VALUES ('d', '', 0)")
        assert [row["code"] for _, row in zoo.heard("text")] == ["c", "d"]
        sql("TRUNCATE zoo_heir")
        reply = zoo.runner.run(zoo.client.until(lambda m: m.get("action") == "resync"))
        assert (reply["request_id"], reply["data"]) == ("text", {"reason": "truncate", "model": "zoo.Text"})
    finally:
        sql("DROP TABLE zoo_heir CASCADE")
        sql("ALTER TABLE zoo_text DROP COLUMN IF EXISTS later")


def test_a_value_that_never_fits_is_deferred_and_costs_no_new_router_each_time(zoo: Zoo, asgi_server: AsgiServer):
    zoo.subscribe("user")
    before = asgi_server.position
    for number in (1, 2, 3):
        sql(
            "INSERT INTO auth_user (id, username, password, is_superuser, first_name, last_name, email, is_staff, "
            "is_active, date_joined) VALUES (%s, %s, '', false, '', '', '', false, false, 'infinity')",
            number,
            str(number),
        )
        ((action, row),) = zoo.heard("user")
        assert (action, row["id"], "date_joined" in row) == ("create", number, False)
    # Each router says so once.
    assert asgi_server.output[before:].count("auth.User.date_joined is deferred") == 1


def test_a_value_that_never_fits_hides_no_alteration_of_another_table(zoo: Zoo):
    Text.objects.create(code="a", points=1)
    zoo.subscribe("text", "user")
    Text.objects.filter(code="a").update(points=2)
    assert [row["points"] for _, row in zoo.heard("text")] == [2]
    try:
        with transaction.atomic():
            user = User.objects.create(username="u")
            sql("UPDATE auth_user SET date_joined = 'infinity'")
            sql("ALTER TABLE zoo_text ALTER points TYPE text USING 'x'")
            sql("DELETE FROM zoo_text")
        assert [(action, row["id"]) for action, row in zoo.heard("user")] == [("create", user.pk)]
        (row,) = [row for action, row in zoo.heard("text") if action == "delete"]
        assert row["points"] == "x"
    finally:
        sql("ALTER TABLE zoo_text ALTER points TYPE int USING 0")


def test_an_altered_root_is_read_anew_also_for_the_rows_of_its_partitions(zoo: Zoo):
    zoo.subscribe("measure")
    sql("INSERT INTO zoo_measure_new (id, year, kind, value) VALUES (1, 2001, 'a', 0)")
    assert [row["value"] for _, row in zoo.heard("measure")] == [0]
    try:
        sql("ALTER TABLE zoo_measure ALTER value TYPE jsonb USING '{}'")
        sql("UPDATE zoo_measure_new SET value = '{\"b\": 1}'")
        message = zoo.runner.run(zoo.client.event())
        assert message["body"]["row"]["value"] == '{"b": 1}'
    finally:
        sql("ALTER TABLE zoo_measure ALTER value TYPE int USING 0")


def test_changed_old_instance_context_committed_at_and_change_id(zoo: Zoo):
    person = Person.objects.create(name="ann", points=1)
    zoo.subscribe("person", "named_old", "few")
    with transaction.atomic():
        sql("SELECT set_config('djcrf_pg.context', '{\"user\": 7}', true)")
        Person.objects.filter(pk=person.pk).update(points=2, name="bea")
    (message,) = zoo.messages("person")
    old = {"id": person.pk, "name": "ann", "points": 1}
    assert sorted(message["changed"]) == ["name", "points"]
    assert message["context"] == {"user": 7}
    body = message["body"]
    assert (body["old"], body["context"], body["change_id"]) == (old, {"user": 7}, message["change_id"])
    assert body["committed_at"] == message["committed_at"]
    assert sorted(body["changed"]) == ["name", "points"]
    (message,) = zoo.messages("named_old")
    assert message["old"] == ["Person", old]
    (message,) = zoo.messages("few")
    assert message == {"observer": "few", "action": "update", "body": {"pk": person.pk}}


def test_a_context_that_is_no_json_is_nothing(zoo: Zoo):
    zoo.subscribe("person")
    with transaction.atomic():
        sql("SELECT set_config('djcrf_pg.context', '{not json', true)")
        Person.objects.create()
    (message,) = zoo.messages("person")
    assert (message["action"], message["context"]) == ("create", None)


def test_fields_skip_unchanged_and_every_change(zoo: Zoo):
    person, other = Person.objects.bulk_create([Person(name="a"), Person(name="b")])
    zoo.subscribe("some_fields", "unchanged", "every", "person")
    Person.objects.filter(pk=person.pk).update(name="c")
    assert zoo.actions("some_fields") == []
    assert zoo.actions("unchanged") == ["update"]
    Person.objects.filter(pk=person.pk).update(name="c")
    assert zoo.actions("unchanged") == []
    assert zoo.actions("person") == ["update", "update"]
    person.friends.add(other)
    assert zoo.actions("some_fields") == ["update", "update"]
    assert zoo.actions("every") == ["update", "update"]
    with transaction.atomic():
        for points in (1, 2):
            Person.objects.filter(pk=person.pk).update(points=points)
        Person.objects.create(name="short").delete()
    told = [(action, row["points"]) for action, row in zoo.heard("every")]
    assert told == [("update", 1), ("update", 2), ("create", 0), ("delete", 0)]
    assert zoo.actions("some_fields") == ["update"]


# -- resync --------------------------------------------------------------------------------------------------


def test_truncate_tells_every_subscriber_to_load_again(zoo: Zoo):
    zoo.subscribe("person", "own_resync")
    zoo.call("subscribe", name="person", request_id="again")
    Person.objects.create()
    with transaction.atomic():
        Person.objects.create(name="gone with it")
        sql("TRUNCATE zoo_person CASCADE")
        kept = Person.objects.create(name="after")
    replies = [zoo.runner.run(zoo.client.until(lambda m: m.get("action") == "resync" and "errors" in m)) for _ in "12"]
    assert sorted(str(reply.pop("request_id")) for reply in replies) == ["again", "person"]
    expected = {
        "action": "resync",
        "response_status": 205,
        "errors": [],
        "data": {"reason": "truncate", "model": "zoo.Person"},
    }
    assert replies == [expected, expected]
    own = zoo.runner.run(zoo.client.until(lambda m: m.get("observer") == "own_resync" and m["action"] == "resync"))
    assert (own["reason"], own["ids"], own["model"]) == ("truncate", ["own_resync"], "zoo.Person")
    names = [row["name"] for _, row in zoo.heard("person")]
    assert names[-1] == "after"
    assert "gone with it" not in names
    assert kept.pk


def test_truncate_reaches_owners_and_children_and_ends_with_the_subscription(zoo: Zoo):
    zoo.subscribe("team", "taxi")
    sql("TRUNCATE zoo_membership")
    reply = zoo.runner.run(zoo.client.until(lambda m: m.get("action") == "resync"))
    assert (reply["request_id"], reply["data"]["model"]) == ("team", "zoo.Team")
    zoo.call("unsubscribe", name="team", request_id="team")
    sql("TRUNCATE zoo_membership")
    sql("TRUNCATE zoo_vehicle CASCADE")
    reply = zoo.runner.run(zoo.client.until(lambda m: m.get("action") == "resync"))
    assert (reply["request_id"], reply["data"]["model"]) == ("taxi", "zoo.Taxi")
