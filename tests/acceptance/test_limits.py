"""What is too much to be told row by row is told as a resync: a log over its caps, crowds, cut transactions."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS
from tests.client import Message
from tests.servers import AsgiServer, ManagePy, PgParams
from tests.testapp.models import Awkward, Label, Project, Task

pytestmark = pytest.mark.processes

ENTRIES = "INSERT INTO testapp_task (id, title, status, points, body) SELECT i, 't' || i, 'todo', 0, '' FROM "


@pytest.fixture
def board(transactional_db: None, redis_url: str, start_asgi_server: Callable[..., AsgiServer], open_board) -> Board:
    """A client of a server without a listener of its own."""
    return open_board(start_asgi_server(redis=redis_url, settings={"EMBEDDED": False}))


@pytest.fixture
def listen(redis_url: str, start_command: Callable[..., ManagePy]) -> Callable[..., ManagePy]:
    """Starts a listener with settings, and returns when it leads."""

    def start(**settings: Any) -> ManagePy:
        leader = start_command("djcrf_pg", "listen", redis=redis_url, settings=settings)
        leader.wait_for(LEADS)
        return leader

    return start


def write(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def resync(board: Board, name: str) -> Message:
    """The next resync of an observer."""
    found = board.runner.run(
        board.client.until(lambda message: message.get("action") == "resync" and message["request_id"] == name)
    )
    assert found["response_status"] == 205
    return found["data"]


def told(board: Board, name: str) -> list[tuple[str, int]]:
    """What was told row by row."""
    return [(action, body["pk"]) for action, body in board.told(name)]


def test_what_the_log_lost_is_a_resync_and_the_rest_is_told(board: Board, listen: Callable[..., ManagePy]) -> None:
    leader = listen(LOG_MAX_ROWS=2_000)
    board.subscribe("tasks", "projects")
    board.subscribe("by_status", status="elsewhere")
    leader.terminate()
    for first in range(0, 8_000, 500):
        write(f"{ENTRIES} generate_series({first + 1}, {first + 500}) AS i")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM djcrf_pg_change")
        assert cursor.fetchone()[0] < 4_500
    last = Task.objects.create(pk=50_000, title="last")
    listen(LOG_MAX_ROWS=2_000)
    for name in ("tasks", "by_status"):
        assert resync(board, name) == {"reason": "overflow", "model": "testapp.Task"}
    assert told(board, "tasks")[-1] == ("create", last.pk)
    assert board.told("projects") == []


@pytest.mark.parametrize("batch", [10_000, 50], ids=["whole", "cut"])
def test_a_crowd_is_one_resync_with_its_number(board: Board, listen: Callable[..., ManagePy], batch: int) -> None:
    listen(MASS_CHANGE=100, BATCH_SIZE=batch)
    board.subscribe("tasks")
    with transaction.atomic():
        write(f"{ENTRIES} generate_series(1, 60) AS i")
        write("UPDATE testapp_task SET points = 1")
        write(f"{ENTRIES} generate_series(61, 130) AS i")
    assert resync(board, "tasks") == {"reason": "mass_change", "model": "testapp.Task", "count": 190}
    assert told(board, "tasks") == []
    write("UPDATE testapp_task SET points = 2 WHERE id <= 100")
    assert told(board, "tasks") == [("update", pk) for pk in range(1, 101)]


@pytest.fixture
def rewriting(transactional_db: None) -> Iterator[None]:
    """A trigger that writes each updated row again, before the statement that fired it is logged."""
    write(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE testapp_task SET points = -NEW.points WHERE id = NEW.id; RETURN NULL; END $$;"
        "CREATE TRIGGER aaa AFTER UPDATE ON testapp_task FOR EACH ROW WHEN (pg_trigger_depth() = 0) "
        "EXECUTE FUNCTION again()"
    )
    yield
    write("DROP FUNCTION again() CASCADE")


def test_a_trigger_s_rows_and_its_statement_s_in_two_pieces_are_a_resync(
    rewriting: None, board: Board, listen: Callable[..., ManagePy]
) -> None:
    write(f"{ENTRIES} generate_series(1, 30) AS i")
    listen(BATCH_SIZE=10)
    board.subscribe("full")
    write("UPDATE testapp_task SET points = 5")
    assert resync(board, "full") == {"reason": "unordered", "model": "testapp.Task"}
    # In one piece the images tell the order.
    write("UPDATE testapp_task SET points = 7 WHERE id = 1")
    assert board.told("full")[-1][1]["points"] == -7


@pytest.fixture
def deferrable(transactional_db: None) -> Iterator[None]:
    """The key of a table is checked when a transaction ends."""
    key = "ALTER TABLE testapp_awkward DROP CONSTRAINT testapp_awkward_pkey, ADD PRIMARY KEY (id)"
    write(f"{key} DEFERRABLE INITIALLY DEFERRED")
    yield
    write("DELETE FROM testapp_awkward")
    write(key)


def test_a_row_made_before_another_transaction_deleted_its_key_is_a_resync(
    deferrable: None, board: Board, listen: Callable[..., ManagePy], test_pg: PgParams
) -> None:
    """The log has the insert first, and the delete committed first."""
    row = Awkward.objects.create(text="before")
    leader = listen()
    board.subscribe("awkward")
    leader.terminate()
    with psycopg.connect(test_pg.dsn()) as maker, psycopg.connect(test_pg.dsn()) as deleter:
        maker.execute("INSERT INTO testapp_awkward SELECT * FROM testapp_awkward WHERE id = %s", [row.pk])
        deleter.execute("DELETE FROM testapp_awkward WHERE id = %s", [row.pk])
        deleter.commit()
        maker.commit()
    other = Awkward.objects.create(text="other")
    listen()
    assert resync(board, "awkward") == {"reason": "unordered", "model": "testapp.Awkward"}
    assert [(action, body["id"]) for action, body in board.told("awkward")] == [("create", other.pk)]


def test_a_context_that_is_too_long_is_left_out_and_said(
    board: Board, listen: Callable[..., ManagePy], test_pg: PgParams
) -> None:
    leader = listen()
    board.subscribe("tasks")
    with test_pg.connect() as writer:
        writer.execute("SELECT set_config('djcrf_pg.context', jsonb_build_object('a', repeat('x', 8192))::text, false)")
        writer.execute(f"{ENTRIES} generate_series(1, 3) AS i")
    assert told(board, "tasks") == [("create", pk) for pk in range(1, 4)]
    leader.wait_for("changes of public.testapp_task carry no context")
    assert leader.output.count("carry no context") == 1


def tasks(count: int, name: str) -> Project:
    """A project with so many tasks of a status."""
    project = Project.objects.create(name=name)
    Task.objects.bulk_create(Task(title=f"{name} {number}", project=project, status=name) for number in range(count))
    return project


class TestRelated:
    """More rows than RELATED_LIMIT that related ones bring updates of."""

    @pytest.fixture
    def cards(
        self,
        transactional_db: None,
        redis_url: str,
        start_asgi_server: Callable[..., AsgiServer],
        open_board: Callable[..., Board],
        listen: Callable[..., ManagePy],
    ) -> Board:
        """A client whose listener has a small limit."""
        board = open_board(start_asgi_server(redis=redis_url, settings={"EMBEDDED": False}), "related")
        listen(RELATED_LIMIT=10)
        return board

    def told(self, board: Board) -> int:
        """How many events there were, up to one more task of the status that is subscribed to."""
        Task.objects.create(title="fence", status="few")
        count = 0
        while board.runner.run(board.client.event())["body"]["title"] != "fence":
            count += 1
        Task.objects.filter(title="fence").delete()
        board.runner.run(board.client.event())
        return count

    def test_a_crowd_is_a_resync_with_the_count(self, cards: Board) -> None:
        crowd, few = tasks(11, "crowd"), tasks(10, "few")
        cards.subscribe("cards", status="few")
        Project.objects.filter(pk=few.pk).update(name="x")
        assert self.told(cards) == 10
        Project.objects.filter(pk=crowd.pk).update(name="y")
        assert resync(cards, "cards") == {"reason": "related", "model": "testapp.Task", "count": 11}
        assert self.told(cards) == 0

    def test_rows_count_once_however_they_are_reached(self, cards: Board) -> None:
        project = tasks(10, "few")
        labels = Label.objects.bulk_create(Label(name=f"label {number}") for number in range(8))
        for task in project.tasks.all():
            task.labels.set(labels)
        cards.subscribe("cards", status="few")
        with transaction.atomic():
            Label.objects.update(name="x")
            Project.objects.update(name="y")
        assert self.told(cards) == 10

    def test_the_crowd_of_one_transaction_is_not_that_of_others(self, cards: Board) -> None:
        few, crowd = tasks(2, "few"), tasks(60, "crowd")
        cards.subscribe("cards", status="few")
        with connection.cursor() as cursor:
            for project in (few, crowd, few):
                cursor.execute("UPDATE testapp_project SET name = name || 'z' WHERE id = %s", [project.pk])
        assert resync(cards, "cards")["count"] == 60
        assert self.told(cards) == 4
