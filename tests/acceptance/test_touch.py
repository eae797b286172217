"""``djcrf_pg.touch``: which events a client receives."""

from collections.abc import Callable

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

import djcrf_pg
from tests.acceptance.board import Board
from tests.acceptance.rows import Interrupted, row, task
from tests.acceptance.test_models import Zoo, zoo
from tests.servers import AsgiServer, PgParams
from tests.testapp.models import Document, Label, Remote, Task
from tests.zoo.models import Amphibian, Car, FastCar, Membership, Person, Seat, Swimmer, Taxi, Team

__all__ = ["zoo"]


def test_a_touched_row_is_an_update_of_the_row_as_it_is_in_the_database(board: Board):
    touched = task(points=1)
    board.subscribe("full", "by_status")
    touched.points, touched.status = 99, "done"
    with djcrf_pg.context(reason="a message came"):
        djcrf_pg.touch(touched)
    touched.points, touched.status = 1, "todo"
    (message,) = board.messages("full")
    assert (message["action"], message["body"], message["changed"]) == ("update", row(touched), [])
    assert message["context"] == {"reason": "a message came"}


def test_it_has_its_place_in_the_transaction_and_goes_with_it(board: Board):
    first, second = Task.objects.bulk_create([Task(title="a"), Task(title="b")])
    board.subscribe("tasks")
    with transaction.atomic():
        before = task("before")
        djcrf_pg.touch(second)
        after = task("after")
        djcrf_pg.touch(first)
    assert board.told("tasks") == [
        ("create", {"pk": before.pk}),
        ("update", {"pk": second.pk}),
        ("create", {"pk": after.pk}),
        ("update", {"pk": first.pk}),
    ]
    with pytest.raises(Interrupted), transaction.atomic():
        djcrf_pg.touch(first)
        raise Interrupted
    assert board.told("tasks") == []


def test_what_the_transaction_does_to_the_row_and_a_touch_are_one_event(board: Board):
    touched = task()
    board.subscribe("full", "tasks")
    with transaction.atomic():
        djcrf_pg.touch(touched)
        Task.objects.update(points=1)
        djcrf_pg.touch(touched)
    (message,) = board.messages("full")
    assert (message["action"], message["body"]["points"], message["changed"]) == ("update", 1, ["points"])
    with transaction.atomic():
        Task.objects.filter(pk=touched.pk).update(points=2)
        djcrf_pg.touch(touched)
        Task.objects.filter(pk=touched.pk).update(points=1)
    ((action, body),) = board.told("full")
    assert (action, body["points"]) == ("update", 1), "a change and its undoing are nothing, but a touch is an event"
    with transaction.atomic():
        made = task("made")
        djcrf_pg.touch(made)
        gone = task("gone")
        djcrf_pg.touch(gone)
        gone.delete()
        djcrf_pg.touch(touched)
        touched.delete()
    assert [(action, body["title"]) for action, body in board.told("full")] == [("create", "made"), ("delete", "a")]


def test_a_queryset_is_touched_in_its_order_and_each_row_once(board: Board):
    tasks = Task.objects.bulk_create([Task(title=f"t{number}", points=number) for number in range(5)])
    labels = Label.objects.bulk_create([Label(name="x"), Label(name="y")])
    for each in tasks[1:]:
        each.labels.set(labels)
    board.subscribe("tasks")
    djcrf_pg.touch(Task.objects.filter(labels__name__in="xy").order_by("-points")[:3])
    assert board.told("tasks") == [("update", {"pk": each.pk}) for each in (tasks[4], tasks[3])]
    djcrf_pg.touch(Task.objects.filter(labels__name__in="xy").order_by("-points").distinct()[:3])
    assert board.told("tasks") == [("update", {"pk": each.pk}) for each in (tasks[4], tasks[3], tasks[2])]
    djcrf_pg.touch(Task.objects.none())
    assert board.told("tasks") == []


def test_no_touch_waits_for_a_writer_or_shows_what_was_before_him(board: Board, test_pg: PgParams):
    touched = task()
    board.subscribe("full")
    update = "UPDATE testapp_task SET points = %s WHERE id = %s"
    with psycopg.connect(test_pg.dsn()) as other:
        other.execute(update, [1, touched.pk])
        djcrf_pg.touch(touched)
        assert [body["points"] for _, body in board.told("full")] == [0]
        other.commit()
        assert [body["points"] for _, body in board.told("full")] == [1]
        with transaction.atomic():
            djcrf_pg.touch(touched)
            # Does not wait either, and is told before the touch commits.
            other.execute(update, [2, touched.pk])
            other.commit()
            assert board.runner.run(board.client.events(1))[0]["body"]["points"] == 2
    assert [body["points"] for _, body in board.told("full")] == [2], "the touch shows the row as it is now"


def test_a_row_that_is_gone_is_no_event(board: Board, test_pg: PgParams):
    touched = task()
    board.subscribe("full", "tasks")
    with psycopg.connect(test_pg.dsn()) as other, transaction.atomic():
        djcrf_pg.touch(touched)
        other.execute("DELETE FROM testapp_task WHERE id = %s", [touched.pk])
        other.commit()
        deletes = board.runner.run(board.client.events(2))
        assert {message["action"] for message in deletes} == {"delete"}
    djcrf_pg.touch(touched)
    assert (board.told("full"), board.told("tasks")) == ([], [])


def test_options_of_an_observer_that_leave_out_updates_do_not_leave_out_touches(zoo: Zoo):
    person = Person.objects.create()
    zoo.subscribe("some_fields", "unchanged", "every")
    person.save()
    djcrf_pg.touch(person)
    assert zoo.actions("some_fields") == zoo.actions("unchanged") == ["update"]
    assert zoo.actions("every") == ["update", "update"]
    with transaction.atomic():
        Person.objects.filter(pk=person.pk).update(name="not among the fields")
        djcrf_pg.touch(person)
        djcrf_pg.touch(person)
    assert zoo.actions("some_fields") == ["update"]
    assert zoo.actions("every") == ["update"] * 3


def test_groups_are_those_of_the_row(board: Board, open_board: Callable[..., Board], asgi_server: AsgiServer):
    done = open_board(asgi_server)
    touched = task(status="todo")
    board.subscribe("by_status", status="todo")
    done.subscribe("by_status", status="done")
    djcrf_pg.touch(touched)
    assert board.told("by_status") == [("update", {"id": touched.pk, "status": "todo", "said": "update"})]
    with transaction.atomic():
        djcrf_pg.touch(touched)
        Task.objects.update(status="done")
    assert board.told("by_status") == [("delete", {"id": touched.pk, "status": "todo", "said": "delete"})]
    (event,) = done.events(1)
    assert (event["action"], event["body"]["status"]) == ("create", "done")


def test_inheritance_touches_the_parents_rows_and_a_proxy_is_its_model(zoo: Zoo):
    taxi = Taxi.objects.create(name="t", licence="L")
    zoo.subscribe("vehicle", "car", "taxi", "fastcar")
    djcrf_pg.touch(taxi)
    assert zoo.actions("vehicle") == zoo.actions("car") == zoo.actions("fastcar") == ["update"]
    ((action, row),) = zoo.heard("taxi")
    assert (action, row["name"], row["licence"]) == ("update", "t", "L")
    djcrf_pg.touch(FastCar.objects.all())
    # The grandchild has a part of its row there.
    assert zoo.actions("vehicle") == zoo.actions("car") == zoo.actions("taxi") == ["update"]
    with transaction.atomic():
        Car.objects.filter(pk=taxi.pk).update(seats=9)
        djcrf_pg.touch(taxi)
    ((action, row),) = zoo.heard("taxi")
    assert (action, row["seats"]) == ("update", 9)
    with transaction.atomic():
        djcrf_pg.touch(taxi)
        taxi.delete()
    assert zoo.actions("taxi") == ["delete"]


def test_parents_with_keys_of_their_own_and_composite_keys(zoo: Zoo):
    Swimmer.objects.create()
    frog = Amphibian.objects.create(pk=1_000, swimmer_id=2_000, name="frog", depth=1)
    seats = Seat.objects.bulk_create([Seat(hall="A", number=number) for number in range(3)])
    zoo.subscribe("amphibian", "seat")
    djcrf_pg.touch(frog)
    ((action, row),) = zoo.heard("amphibian")
    assert (action, row["name"], row["depth"]) == ("update", "frog", 1)
    djcrf_pg.touch(seats[0])
    djcrf_pg.touch(Seat.objects.filter(number__gt=0).order_by("-number"))
    assert [(action, row["number"]) for action, row in zoo.heard("seat")] == [("update", n) for n in (0, 2, 1)]


def test_a_join_row_is_touched_for_its_own_observers_alone(zoo: Zoo):
    member = Membership.objects.create(team=Team.objects.create(), person=Person.objects.create())
    zoo.subscribe("team")
    djcrf_pg.touch(member)
    assert zoo.actions("team") == []


def test_uuids_and_excluded_fields(board: Board):
    document = Document.objects.create(title="a")
    board.subscribe("documents")
    djcrf_pg.touch(document)
    djcrf_pg.touch(Document(pk=document.pk))
    assert board.told("documents") == [("update", {"pk": str(document.pk)})] * 2


@pytest.mark.django_db(transaction=True, databases=["default", "second"])
def test_another_database(asgi_server: AsgiServer, open_board: Callable[..., Board]):
    board = open_board(asgi_server)
    remote = Remote.objects.create(text="there")
    board.subscribe("remotes")
    djcrf_pg.touch(remote)
    djcrf_pg.touch(Remote.objects.all())
    djcrf_pg.touch(Remote.objects.using("default").none(), using="second")
    assert board.told("remotes") == [("update", {"pk": remote.pk})] * 2


def test_from_a_thread_of_an_event_loop(board: Board):
    touched = task()
    board.subscribe("tasks")

    async def work() -> None:
        await sync_to_async(djcrf_pg.touch)(touched)
        await sync_to_async(connections.close_all)()

    board.runner.run(work())
    assert board.told("tasks") == [("update", {"pk": touched.pk})]


def test_a_trigger_of_the_project_touches(board: Board, test_pg: PgParams):
    touched = task()
    board.subscribe("full")
    with psycopg.connect(test_pg.dsn(), autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION touch_tasks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM djcrf_pg_touch('testapp_task', NEW.task_id); RETURN NULL; END $$; "
            "CREATE TRIGGER touch_tasks AFTER INSERT ON testapp_task_labels FOR EACH ROW EXECUTE FUNCTION touch_tasks()"
        )
        try:
            touched.labels.set(Label.objects.bulk_create([Label(name="x"), Label(name="y")]))
        finally:
            admin.execute("DROP FUNCTION touch_tasks() CASCADE")
    assert board.told("full") == [("update", row(touched))]
