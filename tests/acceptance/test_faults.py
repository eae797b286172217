"""Faults, while others write: a committed change is delivered, or the subscriber is told to load again."""

from django.db import connection

from djcrf_pg.listener.election import CLASS_ID
from tests.acceptance.board import Board
from tests.acceptance.test_cluster import created, writing
from tests.processes import wait_until
from tests.servers import AsgiServer, PgParams
from tests.testapp.models import Task


def test_the_listener_s_session_is_terminated_again_and_again(board: Board, test_pg: PgParams):
    board.subscribe("tasks")
    with writing(test_pg, 1) as written, test_pg.connect() as admin:
        for _ in range(5):
            reached = len(written) + 30
            wait_until(lambda reached=reached: len(written) >= reached)
            leader = admin.execute(_LEADER).fetchone()
            assert admin.execute("SELECT pg_terminate_backend(%s)", leader).fetchone() == (True,)
            wait_until(lambda leader=leader: admin.execute(_LEADER).fetchone() not in (None, leader))
        reached = len(written) + 30
        wait_until(lambda: len(written) >= reached)
    arrived = created(board)
    assert sorted(set(arrived)) == written
    assert list(dict.fromkeys(arrived)) == written


# Listeners and gates hold other locks of this kind.
_LEADER = (
    f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = {CLASS_ID}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def test_a_row_that_cannot_be_read_is_a_resync_and_the_others_go_on(board: Board):
    board.subscribe("tasks")
    board.subscribe("by_status", status="todo")
    with connection.cursor() as cursor:
        for image in ("[1]", '{"id": [1], "title": {}}', '{"id": ' + "[" * 3000 + "]" * 3000 + "}"):
            cursor.execute(
                "INSERT INTO djcrf_pg_change (relation, op, new) VALUES ('testapp_task', 'I', %s::json)", [image]
            )
        cursor.execute("INSERT INTO djcrf_pg_change (relation, op) VALUES ('testapp_task', 'R')")
    task = Task.objects.create(title="a good one")
    told = board.told("tasks")
    assert told[-1] == ("create", {"pk": task.pk})
    # Resyncs come after the rows of their batch, so the fence says nothing of them.
    for name in ("tasks", "by_status"):
        resync = board.runner.run(
            board.client.until(lambda m, name=name: m.get("action") == "resync" and m["request_id"] == name)
        )
        assert resync["data"]["reason"] == "unreadable"


def test_a_handler_a_serializer_and_groups_that_raise_harm_nobody_else(board: Board):
    board.subscribe("tasks")
    board.subscribe("moody")
    first = Task.objects.create(title="first")
    for trouble in ("raise in groups", "raise in serializer", "raise in handler"):
        Task.objects.create(title=trouble)
    last = Task.objects.create(title="last")
    assert len(board.told("tasks")) == 5
    assert [(action, body["pk"]) for action, body in board.told("moody")] == [
        ("create", first.pk),
        ("create", last.pk),
    ]


def test_a_subscription_without_a_request_id_ends_without_one(board: Board):
    board.call("subscribe", name="tasks", request_id=None)
    task = Task.objects.create(title="heard")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
    board.call("unsubscribe", name="tasks", request_id=None)
    Task.objects.create(title="not heard")
    board.subscribe("full")
    assert board.told("full") == []
    assert board.client.take(lambda message: message.get("observer") == "tasks") == []


def test_a_leader_that_another_has_overtaken_begins_again_with_a_new_term(board: Board, asgi_server: AsgiServer):
    board.subscribe("tasks")
    first = Task.objects.create(title="first")
    assert board.told("tasks") == [("create", {"pk": first.pk})]
    before = asgi_server.position
    with connection.cursor() as cursor:

        def overtake() -> tuple[int] | None:
            cursor.execute("UPDATE djcrf_pg_cursor SET term = term + 10 RETURNING term")
            return cursor.fetchone()

        # The flush before the test has taken the cursor away; with its next save the leader makes it again.
        (term,) = wait_until(overtake)
    task = Task.objects.create(title="a")
    newer = asgi_server.wait_for(r"leads \(term (\d+)\)", after=before)
    assert int(newer[1]) > term
    assert "another listener leads; next try in" in asgi_server.output[before:]
    assert ("create", {"pk": task.pk}) in board.told("tasks")
