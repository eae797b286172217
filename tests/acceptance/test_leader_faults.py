"""Errors that the server answers the leader with: no event is held up, and what cannot be read is a resync."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from djcrf_pg.listener.doorbell import CHANNEL, RETRY
from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS
from tests.client import Message
from tests.faults import Faults
from tests.processes import wait_until
from tests.servers import DSN, AsgiServer, ManagePy, PgParams
from tests.testapp.models import Awkward, Project, Task

pytestmark = pytest.mark.processes

#: Questions of the leader, by what only they have.
READ, IMAGES = "%WITH piece%", "%unnest($1::text[]::xid8[]%"

#: Errors: a limit of the role, damage, a full disk, no memory, and one that nobody foresaw.
LIMIT, DAMAGE, DISK_FULL, NO_MEMORY, OTHER = "53400", "XX001", "53100", "53200", "P0001"


@pytest.fixture
def board(
    transactional_db: None,
    redis_url: str,
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
) -> Board:
    """A client of a server without a listener of its own."""
    return open_board(start_asgi_server(redis=redis_url, settings={"EMBEDDED": False}))


@pytest.fixture
def leader(
    faults: Faults, role: PgParams, redis_url: str, start_command: Callable[..., ManagePy]
) -> Callable[..., ManagePy]:
    """Starts a listener as a role whose questions may be made to fail, and returns when it leads."""

    def start(**settings: Any) -> ManagePy:
        env = {DSN: role.dsn("postgres")}
        arguments = ("djcrf_pg", "listen", "--database", "default")
        process = start_command(*arguments, redis=redis_url, env=env, settings=settings)
        process.wait_for(LEADS)
        return process

    return start


def make_tasks(first: int, count: int) -> list[tuple[str, Any]]:
    """Tasks in one transaction, and what is told of them."""
    keys = range(first, first + count)
    Task.objects.bulk_create(Task(pk=pk, title=f"task {pk}") for pk in keys)
    return [("create", {"pk": pk}) for pk in keys]


def resync(board: Board, name: str) -> Message:
    """The next resync of an observer."""
    found = board.runner.run(
        board.client.until(lambda message: message.get("action") == "resync" and message["request_id"] == name, 60)
    )
    data: Message = found["data"]
    return data


def test_what_fails_beside_reading_holds_no_event_up(
    faults: Faults, leader: Callable[..., ManagePy], board: Board
) -> None:
    process = leader(BATCH_SIZE=20, MASS_CHANGE=10_000)
    board.subscribe("tasks", "moody")
    # Of a window that is cut: whether a transaction is a crowd, and the keys of all that is left.
    for first, question in ((100, "%HAVING count(*)%"), (200, "%DECLARE %")):
        faults.make(question, LIMIT)
        expected = make_tasks(first, 50)
        assert board.told("tasks") == expected
        assert faults.met, question
    # What user code failed on: that its subscribers know, the row itself, and that it was sent again.
    faults.make("%UPDATE djcrf_pg_failure SET told%", DISK_FULL)
    Task.objects.create(pk=300, title="raise in serializer")
    assert resync(board, "moody")["reason"] == "failed"
    wait_until(lambda: faults.met)
    faults.make("%INSERT INTO djcrf_pg_failure%", DISK_FULL)
    Task.objects.filter(pk=300).update(points=1)
    wait_until(lambda: faults.met)
    process.wait_for("failures of observers are not recorded .a fault")
    Task.objects.filter(pk=300).update(title="fixed")
    for question in ("%SELECT id, address, pk%", "%DELETE FROM djcrf_pg_failure%"):
        faults.make(question, DAMAGE)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE djcrf_pg_failure SET retry = true")
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, RETRY])
        wait_until(lambda: faults.met, message=f"no {question}")
    faults.clear()
    expected = make_tasks(400, 50)
    assert board.told("tasks")[-50:] == expected
    assert "next try in" not in process.output


def test_a_row_that_the_server_cannot_give_is_a_resync_and_the_others_are_told(
    faults: Faults, leader: Callable[..., ManagePy], board: Board
) -> None:
    process = leader(BATCH_SIZE=20)
    board.subscribe("tasks", "awkward")
    faults.make("%op::text AS op%", DAMAGE, relation="testapp_awkward")
    Awkward.objects.create(pk=1)
    expected = make_tasks(1, 30)
    Awkward.objects.create(pk=2)
    assert resync(board, "awkward") == {"reason": "unreadable", "model": "testapp.Awkward"}
    assert board.told("tasks") == expected
    faults.clear()
    assert board.told("awkward") == []
    assert "next try in" not in process.output


def test_a_want_of_memory_that_passes_has_nobody_load_again(
    faults: Faults, leader: Callable[..., ManagePy], board: Board
) -> None:
    process = leader()
    board.subscribe("tasks")
    faults.make("%op::text AS op%", NO_MEMORY)
    expected = make_tasks(1, 1)
    process.wait_for("a fault of.*next try in")
    wait_until(lambda: faults.met > 6)
    faults.clear()
    assert board.told("tasks") == expected
    assert not [message for message in board.client.received if message.get("action") == "resync"]


@pytest.mark.slow
def test_what_fails_again_and_again_is_a_resync_of_the_tables_concerned(
    faults: Faults, leader: Callable[..., ManagePy], board: Board
) -> None:
    process = leader()
    board.subscribe("tasks", "projects", "awkward")
    faults.make(READ, OTHER, relation="testapp_awkward")
    Awkward.objects.create(pk=1)
    Task.objects.create(pk=1, title="beside it")
    for name, model in (("awkward", "testapp.Awkward"), ("tasks", "testapp.Task")):
        assert resync(board, name) == {"reason": "unreadable", "model": model}
    faults.clear()
    process.wait_for(
        r"has failed at the same changes 7 times in a row .*BoardConsumer.awkward.* receive a resync: .*a fault of"
    )
    assert board.told("tasks") == board.told("awkward") == board.told("projects") == []
    assert not board.client.take(lambda message: message.get("request_id") == "projects")
    expected = make_tasks(2, 3)
    assert board.told("tasks") == expected


@pytest.mark.slow
def test_what_was_read_of_a_window_before_it_fails_is_told(
    faults: Faults, leader: Callable[..., ManagePy], board: Board
) -> None:
    leader(BATCH_SIZE=20)
    board.subscribe("tasks", "awkward", "projects")
    faults.make(IMAGES, OTHER, relation="testapp_awkward")
    with transaction.atomic():
        Project.objects.create(pk=1, name="in the first piece")
        expected = make_tasks(1, 45)
        Awkward.objects.create(pk=1)
        make_tasks(46, 5)
    for name, model in (("awkward", "testapp.Awkward"), ("tasks", "testapp.Task")):
        assert resync(board, name) == {"reason": "unreadable", "model": model}
    faults.clear()
    assert board.told("tasks") == expected[:39]
    assert board.told("projects") == [("create", {"pk": 1})]
    assert board.told("awkward") == []
    assert not board.client.take(lambda message: message.get("action") == "resync")


@pytest.mark.slow
def test_where_no_change_can_be_read_everybody_loads_again(
    role: PgParams, test_pg: PgParams, leader: Callable[..., ManagePy], board: Board
) -> None:
    leader()
    board.subscribe("tasks", "projects")
    with test_pg.connect() as admin:
        admin.execute(f"REVOKE SELECT ON djcrf_pg_change FROM {role.user}".encode())
        Project.objects.create(pk=1, name="unread")
        for name, model in (("tasks", "testapp.Task"), ("projects", "testapp.Project")):
            assert resync(board, name) == {"reason": "unreadable", "model": model}
        admin.execute(f"GRANT SELECT ON djcrf_pg_change TO {role.user}".encode())
    expected = make_tasks(1, 3)
    assert board.told("tasks") == expected
    assert board.told("projects") == []
