"""Shadow mode: DCRF's signals deliver as they always did, and what triggers would send otherwise is found."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any

import pytest

from tests.acceptance.board import Board
from tests.processes import wait_until
from tests.project import Project
from tests.servers import REDIS, AsgiServer, ManagePy

CONSUMERS = """
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import ModelObserver, model_observer
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from rest_framework.serializers import CharField, ModelSerializer, SerializerMethodField

from djcrf_pg.shadow import comparison
from shelf.models import Author, Book

comparison.PATIENCE, comparison.PAUSE = 0.3, 0.05


class BookSerializer(ModelSerializer):
    class Meta:
        model = Book
        fields = ["id", "title"]


class OpenSerializer(ModelSerializer):
    renamed = CharField(source="secret")
    said = SerializerMethodField()

    class Meta:
        model = Book
        fields = ["id", "secret", "renamed", "said"]

    def get_said(self, book):
        return f"the secret is {book.secret}"


class ShelfConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.all()
    serializer_class = BookSerializer

    @model_observer(Book, serializer_class=BookSerializer)
    async def books(self, message, action, subscribing_request_ids=(), **kwargs):
        await self.send_json({"action": action, "body": message, "to": list(subscribing_request_ids)})

    @books.groups_for_signal
    def books(self, instance, **kwargs):
        yield f"letter-{instance.title[0]}"

    @books.groups_for_consumer
    def books(self, letter="a", **kwargs):
        yield f"letter-{letter}"

    @model_observer(Book, serializer_class=OpenSerializer, many_to_many=True)
    async def details(self, message, **kwargs):
        ...

    @details.groups
    def details(self, instance=None, **kwargs):
        yield "all"

    @model_observer(Author)
    def authors(self, message, **kwargs):
        ...

    @action()
    async def follow(self, request_id, **kwargs):
        await self.books.subscribe(request_id=request_id)
        return {}, 201

    @action()
    async def run(self, code, **kwargs):
        await sync_to_async(exec)(code, globals())
        return {}, 200
"""

#: With no observer that triggers refuse.
GOOD = CONSUMERS.replace("    def authors(", "    async def authors(")

ASGI = """
import django
django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from shelf.consumers import ShelfConsumer

application = ProtocolTypeRouter({"websocket": URLRouter([path("ws/shelf/", ShelfConsumer.as_asgi())])})
"""

WRITTEN = "SELECT count(*) FROM djcrf_pg_shadow_message WHERE by_signals"

SHADOW = {"SHADOW": True, "EXCLUDE": {"shelf.Book": ["secret"]}}
#: The same project out of shadow mode.
SERVED = {**SHADOW, "SHADOW": False}
BOOKS, DETAILS, INSTANCES = (
    f"shelf.consumers.ShelfConsumer.{name}" for name in ("books", "details", "handle_instance_change")
)


class Shelf:
    """A project in shadow mode, whose consumer runs code in the server's process."""

    def __init__(self, project: Project, board: Board, server: AsgiServer) -> None:
        self.project = project
        self.board = board
        self.server = server

    def run(self, code: str) -> None:
        """Run code where the signals are connected and the consumers subscribed."""
        reply = self.board.call("run", code=dedent(code))
        assert reply["response_status"] == 200, reply

    def event(self) -> dict[str, Any]:
        """The next event that the client receives."""
        return self.board.runner.run(self.board.client.event())

    def manage(self, *arguments: str) -> str:
        """What a command says."""
        return self.project.manage(*arguments, settings=SHADOW).stdout

    def results(self, observer: str = BOOKS) -> dict[tuple[str, str], int]:
        """How often what was found of an observer, by kind and what it is about."""
        rows = self.project.rows("SELECT observer, kind, what, times FROM djcrf_pg_shadow_result")
        return {(kind, what): times for label, kind, what, times in rows if label == observer}

    def find(self, expected: dict[tuple[str, str], int], observer: str = BOOKS) -> None:
        """Wait until this was found of an observer and nothing is left to compare; it has to be all that was."""
        waiting = "SELECT count(*) FROM djcrf_pg_shadow_message WHERE NOT compared"
        wait_until(lambda: self.results(observer) == expected and self.project.rows(waiting) == [(0,)])


@contextmanager
def serving(
    project: Project, open_board: Callable[..., Board], settings: Any = None, redis: str | None = None
) -> Iterator[Shelf]:
    with AsgiServer({**project.env(settings or SHADOW), REDIS: redis}, application="shelf_asgi:application") as server:
        board = open_board(server, "shelf")
        assert board.call("follow", request_id="books")["response_status"] == 201
        yield Shelf(project, board, server)


def prepare(project: Project) -> Project:
    """Have a project be in shadow mode, and migrate it."""
    project.write("shelf/consumers.py", CONSUMERS)
    project.write("shelf_asgi.py", ASGI)
    project.manage("migrate", "--verbosity", "0", settings=SHADOW)
    return project


@pytest.fixture
def shadowed(project: Project) -> Project:
    """A project in shadow mode; nothing serves it yet."""
    return prepare(project)


@pytest.fixture
def shelf(shadowed: Project, open_board: Callable[..., Board]) -> Iterator[Shelf]:
    with serving(shadowed, open_board) as shelf:
        yield shelf


def test_signals_deliver_as_before_and_what_they_miss_is_found(shelf: Shelf) -> None:
    shelf.run("Book.objects.create(title='alpha')")
    event = shelf.event()
    assert (event["action"], event["body"]["title"], event["to"]) == ("create", "alpha", ["books"])
    shelf.find({("equal", ""): 1})
    shelf.run("Book.objects.bulk_create([Book(title='amber'), Book(title='azure')])")
    shelf.run("Book.objects.filter(title='alpha').update(title='arrow')")
    shelf.find({("equal", ""): 1, ("missed", "create"): 2, ("missed", "update"): 1})
    shelf.run("Book.objects.create(title='after')")
    # Nothing of the triggers' has reached the client.
    assert shelf.event()["body"]["title"] == "after"


def test_what_differs_is_found_with_both_sides(shelf: Shelf) -> None:
    shelf.run("Book.objects.create(title='alpha')")
    shelf.run(
        """
        one, stale = Book.objects.get(), Book.objects.get()
        Book.objects.update(title='apple')
        stale.save(update_fields=['secret'])
        """
    )
    # A group that a row leaves receives it as it was; DCRF sends it as it has become.
    shelf.run("book = Book.objects.get(); book.title = 'berry'; book.save()")
    shelf.find(
        {
            ("equal", ""): 1,
            ("missed", "update"): 1,
            ("different", "update: title"): 1,
            ("different", "delete: title"): 1,
        }
    )
    found = {
        each["what"]: each
        for each in json.loads(shelf.manage("djcrf_pg", "shadow", "--json"))["results"]
        if each["observer"] == BOOKS
    }
    (sample,) = found["update: title"]["samples"]
    # The groups as the code has them, not as the layer takes them.
    assert sample["signals"] == {"update": [["letter-a"], {"id": 1, "title": "alpha"}]}
    assert sample["triggers"] == {"update": [["letter-a"], {"id": 1, "title": "apple"}]}
    assert json.loads(sample["pk"]) == ["1"]
    assert sample["origin"].keys() == {"change", "transaction", "context", "at", "process"}


def test_events_show_rows_as_they_were_also_where_a_field_of_them_is_loaded_now(
    shadowed: Project, open_board: Callable[..., Board], redis_url: str
) -> None:
    with serving(shadowed, open_board, {**SHADOW, "EMBEDDED": False}, redis_url) as shelf:
        shelf.run("Book.objects.create(title='alpha'); Book.objects.update(title='berry')")
        with ManagePy("djcrf_pg", "listen", env={**shadowed.env(SHADOW), REDIS: redis_url}):
            # The second one loads its secret, and DCRF asks for the groups of each instance that is made.
            shelf.find({("equal", ""): 1, ("missed", "create, delete"): 1})
        rows = shadowed.rows("SELECT origin FROM djcrf_pg_shadow_message WHERE NOT by_signals AND parts LIKE '%alpha%'")
        assert sorted(json.loads(origin)["groups"].popitem()[1] for (origin,) in rows) == ["letter-a", "letter-b"]


def test_what_signals_alone_send_is_found(shelf: Shelf) -> None:
    shelf.run(
        """
        with transaction.atomic():
            book = Book.objects.create(title='alpha')
            Book.objects.get().delete()
        """
    )
    shelf.find({("extra", "create"): 1, ("extra", "delete"): 1})


def test_what_is_rolled_back_is_nothing_to_either(shelf: Shelf) -> None:
    shelf.run(
        """
        class Undo(Exception):
            pass
        try:
            with transaction.atomic():
                Book.objects.create(title='alpha')
                raise Undo
        except Undo:
            Book.objects.create(title='amber')
        """
    )
    shelf.find({("equal", ""): 1})


def test_a_receiver_that_is_called_by_hand_is_what_it_will_be(shelf: Shelf) -> None:
    shelf.run("Book.objects.bulk_create([Book(title='alpha')])")
    shelf.find({("missed", "create"): 1})
    shelf.run("ShelfConsumer.books.post_save_receiver(Book.objects.get(), created=False)")
    shelf.find({("missed", "create"): 1, ("equal", ""): 1})


def test_relations_and_instances_are_compared_too(shelf: Shelf) -> None:
    shelf.run("book = Book.objects.create(title='alpha'); author = Author.objects.create(name='Ada')")
    assert shelf.board.call("subscribe_instance", pk=1, request_id="one")["response_status"] == 201
    shelf.run("Book.objects.get().authors.add(Author.objects.get())")
    shelf.find({("equal", ""): 2}, DETAILS)
    # Django sends no signal of a join table whose row goes with the other side.
    shelf.run("Author.objects.get().delete()")
    shelf.find({("equal", ""): 2, ("missed", "update"): 1}, DETAILS)
    shelf.run("Book.objects.get().delete()")
    shelf.find({("equal", ""): 2}, INSTANCES)
    # 'create' comes as event of books; then of the instance that is gone.
    assert [shelf.event()["action"] for _ in range(3)] == ["create", "delete", "delete"]


def test_what_is_excluded_is_kept_nowhere(shelf: Shelf) -> None:
    shelf.run("Book.objects.create(title='alpha', secret='hunter2')")
    shelf.find({("equal", ""): 1}, DETAILS)
    shelf.run("Book.objects.update(secret='hunter3')")
    shelf.find({("equal", ""): 1, ("missed", "update"): 1}, DETAILS)
    kept = shelf.project.rows(
        "SELECT parts FROM djcrf_pg_shadow_message UNION SELECT samples FROM djcrf_pg_shadow_result"
    )
    assert "(left out)" in str(kept)
    assert "hunter" not in str(kept)


def test_the_project_s_connection_makes_no_query_for_it(shelf: Shelf) -> None:
    shelf.run(
        """
        from django.test.utils import CaptureQueriesContext
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            book = Book.objects.create(title='alpha')
            book.save()
        assert [query['sql'].split()[0] for query in queries] == ['BEGIN', 'INSERT', 'UPDATE', 'COMMIT'], list(queries)
        """
    )
    shelf.find({("equal", ""): 1})


def test_other_processes_are_compared_where_they_have_the_consumers(shelf: Shelf) -> None:
    shelf.manage(
        "shell",
        "-v",
        "0",
        "-c",
        "import shelf.consumers; from shelf.models import Book; Book.objects.create(title='alpha')",
    )
    shelf.find({("equal", ""): 1})
    shelf.manage("shell", "-v", "0", "-c", "from shelf.models import Book; Book.objects.create(title='amber')")
    shelf.find({("equal", ""): 1, ("missed", "create"): 1})


def test_a_leader_that_follows_another_takes_nothing_for_a_difference(
    shadowed: Project, open_board: Callable[..., Board], redis_url: str
) -> None:
    written = 0
    for _ in range(2):
        with serving(shadowed, open_board) as shelf:
            shelf.run("for number in range(200): Book.objects.create(title=f'a{number}')")
            written += 3 * 200
            # What a process has not written when it is killed nobody can know of.
            wait_until(lambda written=written: shadowed.rows(WRITTEN) == [(written,)])
            shelf.server.kill()
    with serving(shadowed, open_board) as shelf:
        shelf.find({("equal", ""): 400})


@pytest.mark.parametrize("fault", ["rights", "unmigrated"])
def test_where_nothing_can_be_kept_signals_deliver_all_the_same(
    shadowed: Project, open_board: Callable[..., Board], fault: str
) -> None:
    if fault == "unmigrated":
        shadowed.manage("migrate", "djcrf_pg", "0008", "--verbosity", "0", settings=SHADOW)
    else:
        shadowed.rows("CREATE RULE nobody AS ON INSERT TO djcrf_pg_shadow_message DO INSTEAD SELECT 1/0")
    with serving(shadowed, open_board) as shelf:
        shelf.run("Book.objects.create(title='alpha')")
        assert shelf.event()["body"]["title"] == "alpha"
        shelf.server.wait_for("shadow: what is to be compared cannot be kept in database 'default'")
        shelf.server.wait_for(r"shadow: \d messages of signals could not be noted in database 'default'")
        shelf.run("Book.objects.create(title='amber')")
        assert shelf.event()["body"]["title"] == "amber"


def test_the_command_says_what_differs_what_is_not_compared_and_begins_anew(shelf: Shelf) -> None:
    assert "Nothing was compared yet" in shelf.manage("djcrf_pg", "shadow")
    shelf.run("Book.objects.create(title='alpha')")
    shelf.run("Book.objects.update(title='amber')")
    shelf.find({("equal", ""): 1, ("missed", "update"): 1})
    said = shelf.manage("djcrf_pg", "shadow")
    assert f"{BOOKS}, shelf.Book: 1 equal\n  missed by signals: update (1 in all), last at " in said
    assert 'triggers {"update": [["' in said
    assert "Not compared, for triggers would not serve them:\n  shelf.consumers.ShelfConsumer.authors: " in said
    assert "is not asynchronous" in said
    assert "forgotten" in shelf.manage("djcrf_pg", "shadow", "--reset")
    assert shelf.results() == {}


def test_a_project_moves_and_goes_back(shadowed: Project, open_board: Callable[..., Board]) -> None:
    shadowed.write("shelf/consumers.py", GOOD)
    for settings, bulk in ((SHADOW, False), (SERVED, True), (SHADOW, False)):
        with serving(shadowed, open_board, settings) as shelf:
            shelf.run("Book.objects.bulk_create([Book(title='a, by bulk')])")
            shelf.run("Book.objects.create(title='a, by save')")
            if bulk:
                assert shelf.event()["body"]["title"] == "a, by bulk"
            assert shelf.event()["body"]["title"] == "a, by save"


def test_checks_status_and_explain_say_that_it_is_on(shelf: Shelf) -> None:
    checked = shelf.project.manage("check", settings=SHADOW).stderr
    assert "(djcrf_pg.W047) Shadow mode does not compare shelf.consumers.ShelfConsumer.authors, for triggers" in checked
    assert "shadow mode is on" in shelf.manage("djcrf_pg", "status")
    shelf.run("Book.objects.create(title='alpha')")
    ((change,),) = shelf.project.rows("SELECT id FROM djcrf_pg_change")
    assert "shadow mode is on: Django's signals deliver" in shelf.manage("djcrf_pg", "explain", str(change))


def test_what_would_be_an_error_is_none_in_shadow_mode(shadowed: Project, open_board: Callable[..., Board]) -> None:
    half = """
    @model_observer(Book)
    async def half(self, message, **kwargs):
        ...

    @half.groups_for_signal
    def half(self, instance, **kwargs):
        yield "half"
"""
    shadowed.write(
        "shelf/consumers.py", GOOD.replace("    @model_observer(Author)", f"{half}\n    @model_observer(Author)")
    )
    assert "(djcrf_pg.W047) Shadow mode does not compare" in shadowed.manage("check", settings=SHADOW).stderr
    shadowed.manage("migrate", "--verbosity", "0", settings=SHADOW)
    with serving(shadowed, open_board) as shelf:
        shelf.run("Book.objects.create(title='alpha')")
        assert shelf.event()["body"]["title"] == "alpha"
    checked = shadowed.manage("check", settings=SERVED, check=False)
    assert (checked.returncode, "(djcrf_pg.E022)" in checked.stderr) == (1, True)


def test_beside_each_other_old_clients_receive_what_old_processes_send_and_new_ones_everything(
    shadowed: Project, open_board: Callable[..., Board], redis_url: str
) -> None:
    shadowed.write("shelf/consumers.py", GOOD)
    with (
        serving(shadowed, open_board, SHADOW, redis_url) as old,
        serving(shadowed, open_board, SERVED, redis_url) as new,
    ):
        new.run("Book.objects.create(title='a, by new')")
        assert new.event()["body"]["title"] == "a, by new"
        old.run("Book.objects.create(title='a, by old')")
        assert old.event()["body"]["title"] == "a, by old"
        assert [new.event()["body"]["title"] for _ in range(2)] == ["a, by old"] * 2


def test_what_a_leader_out_of_shadow_mode_has_read_is_no_difference(
    shadowed: Project, open_board: Callable[..., Board], redis_url: str
) -> None:
    shadowed.write("shelf/consumers.py", GOOD)
    with (
        serving(shadowed, open_board, SERVED, redis_url) as new,
        serving(shadowed, open_board, SHADOW, redis_url) as old,
    ):
        old.run("Book.objects.create(title='alpha')")
        assert new.event()["body"]["title"] == "alpha"
        wait_until(lambda: shadowed.rows(WRITTEN) == [(3,)])
    with serving(shadowed, open_board) as shelf:
        shelf.run("Book.objects.create(title='amber')")
        shelf.find({("equal", ""): 1})


def test_thousands_of_messages_that_come_at_once_are_all_matched(shelf: Shelf) -> None:
    shelf.run("Book.objects.create(title='alpha')")
    shelf.find({("equal", ""): 1})
    shelf.project.rows(
        "INSERT INTO djcrf_pg_shadow_message (name, address, pk, digest, parts, origin, by_signals)"
        " SELECT message.name || '.' || number || signals, address, number::text, digest, parts, origin, signals"
        " FROM djcrf_pg_shadow_message AS message, generate_series(1, 6000) AS number,"
        " unnest('{t,f}'::bool[]) AS signals"
        f" WHERE address IN (SELECT address FROM djcrf_pg_shadow_result WHERE observer = '{BOOKS}') AND by_signals"
    )
    shelf.find({("equal", ""): 6001})


def test_a_project_s_pool_is_the_project_s(project: Project) -> None:
    project.write("shelf/consumers.py", CONSUMERS)
    pool = '{"min_size": 1, "max_size": 1, "timeout": 0.5}'
    project.write("pooled.py", f"from shelf_settings import *\nDATABASES['default']['OPTIONS']['pool'] = {pool}")
    project.manage("migrate", "--verbosity", "0", settings=SHADOW)
    project.settings = "pooled"
    code = """
    import shelf.consumers
    from django.db import connection
    from shelf.models import Book
    Book.objects.create(title='alpha')
    connection.close()
    from time import monotonic
    end = monotonic() + 10
    while monotonic() < end:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM djcrf_pg_shadow_message")
            count, = cursor.fetchone()
        connection.close()
        if count == 3:
            break
    assert count == 3, count
    """
    project.manage("shell", "-v", "0", "-c", dedent(code), settings=SHADOW)


def test_a_process_of_multiprocessing_writes_before_it_ends(shadowed: Project) -> None:
    code = """
    import multiprocessing
    import shelf.consumers
    from shelf.models import Book

    def work():
        for _ in range(50):
            Book.objects.create(title='alpha')

    process = multiprocessing.get_context('fork').Process(target=work)
    process.start()
    process.join()
    """
    shadowed.write("forks.py", dedent(code))
    shadowed.manage("shell", "-v", "0", "-c", "import forks", settings=SHADOW)
    assert shadowed.rows(WRITTEN) == [(150,)]


def test_what_signals_have_sent_hours_before_a_leader_came_is_no_difference(
    shadowed: Project, open_board: Callable[..., Board]
) -> None:
    save = "import shelf.consumers; from shelf.models import Book; Book.objects.create(title='{}')"
    with serving(shadowed, open_board) as shelf:
        shelf.run("Book.objects.create(title='alpha')")
        shelf.find({("equal", ""): 1})
    for title, age in (("amber", "7 hours"), ("azure", "2 hours"), ("anise", "0")):
        shelf.manage("shell", "-v", "0", "-c", save.format(title))
        shadowed.rows(f"UPDATE djcrf_pg_shadow_message SET at = at - interval '{age}' WHERE NOT compared")
        shadowed.rows(
            f"UPDATE djcrf_pg_change SET at = at - interval '{age}' WHERE id = (SELECT max(id) FROM djcrf_pg_change)"
        )
    with serving(shadowed, open_board) as shelf:
        shelf.run("Book.objects.create(title='after')")
        shelf.find({("equal", ""): 4})
