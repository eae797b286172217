"""Everything that migrations do to an observed table while others write to it: no write fails, no image is wrong.

The writers lock the table against DDL for the length of a transaction, look up what its columns are called now (by
``attnum``, which no rename changes), and write. Each value follows from the row's ``n``, so an image can be checked
without knowing what else went on.

A subscriber hears it all live, as in a rolling deploy: from a server whose code is that of before the migrations, then
from one whose code is ahead of them.
"""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import psycopg
import pytest
from django.db.migrations.loader import MigrationLoader
from django.db.models import Model
from django.test import modify_settings
from psycopg import sql

from djcrf_pg.changelog.change import Change
from djcrf_pg.changelog.cursor import BEGINNING, Position
from djcrf_pg.changelog.decode import Hydrator, Relation, StaleRelation, parser, relations_of
from djcrf_pg.changelog.reader import ChangeLog
from tests.client import Client, Message
from tests.processes import wait_until
from tests.project import create_database, drop_database
from tests.servers import AsgiServer, ManagePy, PgParams, app_env

pytestmark = pytest.mark.processes

#: Each step, and what the table is called after it.
STEPS = {
    "0001_initial": "lifeapp_thing",
    "0002_add": "lifeapp_thing",
    "0003_drop": "lifeapp_thing",
    "0004_rename_column": "lifeapp_thing",
    "0005_retype": "lifeapp_thing",
    "0006_rename_model": "lifeapp_item",
    "0007_rename_table": "lifeapp_stock",
    "0008_db_column": "lifeapp_stock",
    "0009_swap": "lifeapp_stock",
    "0010_data": "lifeapp_stock",
}
SWAP = 9

#: The steps during which a server has the code of before them, and those that the code of another is ahead of. Before
#: the table has its last name, the new code finds none.
OLD_CODE, NEW_CODE = list(STEPS)[1:7], list(STEPS)[7:]

TOLD = {"I": "create", "U": "update", "D": "delete"}

SQUASHED = "tests.lifeapp.squashed.migrations"

#: What a row holds, by the number of the column.
COLUMNS = {2: "{}", 3: "label {}", 4: "{}", 5: "note {}", 6: "left {}", 7: "right {}", 8: None, 9: "extra {}"}

#: What a field holds, given n; the amount is a number at first.
FIELDS = {
    "title": {"label {}"},
    "label": {"label {}"},
    "note": {"note {}"},
    "left": {"left {}"},
    "right": {"right {}"},
    "extra": {"extra {}", "added"},
    "amount": {"{}"},
}

_numbers = itertools.count(1)


class Writer(threading.Thread):
    """Inserts, updates and deletes rows of its own, a row for each transaction, until told to stop."""

    def __init__(self, pg: PgParams, oid: int) -> None:
        super().__init__()
        self.pg, self.oid = pg, oid
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.written: Counter[str] = Counter()

    def run(self) -> None:
        """Write; what fails ends it and is kept."""
        try:
            with psycopg.connect(self.pg.dsn(), autocommit=True) as connection:
                while not self.done.is_set():
                    n = next(_numbers)
                    self.transact(connection, "I", n)
                    self.transact(connection, "U", n)
                    if n % 3 == 0:
                        self.transact(connection, "D", n)
        except BaseException as error:
            self.error = error

    def transact(self, connection: psycopg.Connection[Any], op: str, n: int) -> None:
        """Write one row in a transaction. The name of the table may change before it is locked: then try again."""
        while True:
            (name,) = connection.execute("SELECT relname FROM pg_class WHERE oid = %s", [self.oid]).fetchone() or ("",)
            try:
                with connection.transaction():
                    table = sql.Identifier(name)
                    connection.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(table))
                    connection.execute(*self.statement(connection, table, op, n))
            except psycopg.errors.UndefinedTable as error:
                if error.diag.context:  # it comes from inside a function: ours
                    raise
            else:
                self.written[op] += 1
                return

    def statement(
        self, connection: psycopg.Connection[Any], table: sql.Identifier, op: str, n: int
    ) -> tuple[sql.Composed, list[Any]]:
        """The statement, with the names that the columns have now."""
        rows = connection.execute(
            "SELECT attnum, attname FROM pg_attribute WHERE attrelid = %s AND attnum > 1 AND NOT attisdropped",
            [self.oid],
        ).fetchall()
        names = {number: sql.Identifier(name) for number, name in rows}
        key, revision = names[2], names[8]
        if op == "D":
            return sql.SQL("DELETE FROM {} WHERE {} = %s").format(table, key), [n]
        if op == "U":
            return sql.SQL("UPDATE {} SET {r} = {r} + 1 WHERE {} = %s").format(table, key, r=revision), [n]
        columns, values = sql.SQL(", ").join(names.values()), sql.SQL(", ").join([sql.Placeholder()] * len(names))
        contents = [(COLUMNS[number] or "0").format(n) for number in names]
        return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(table, columns, values), contents


@contextmanager
def writing(pg: PgParams, oid: int) -> Iterator[list[Writer]]:
    """Writers that write as long as the block lasts, without an error."""
    writers = [Writer(pg, oid) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.done.set()
        for writer in writers:
            writer.join()
    assert [writer.error for writer in writers] == [None] * len(writers)


class Subscriber(threading.Thread):
    """A client of a server with the code of a time, which keeps what it is told.

    Use as a context manager; it is subscribed when the block begins.
    """

    def __init__(self, pg: PgParams, code: str) -> None:
        super().__init__()
        # A layer that is full drops messages, which is not what is tested here.
        layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 10**6}}}
        env = {"DJANGO_SETTINGS_MODULE": "tests.lifeapp.settings", "LIFEAPP_CODE": code}
        self.server = AsgiServer(
            app_env(dbname=pg.dbname, layers=layers, env=env), application="tests.lifeapp.asgi:application"
        )
        self.pg, self.code = pg, code
        self.told: list[Message] = []
        self.first = self.heard = 0
        self.subscribed, self.done = threading.Event(), threading.Event()

    def __enter__(self) -> "Subscriber":
        self.server.start()
        self.start()
        wait_until(lambda: self.subscribed.is_set() or not self.is_alive())
        with self.pg.connect() as connection:
            (self.first,) = connection.execute("SELECT coalesce(max(id), 0) FROM djcrf_pg_change").fetchone() or (0,)
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.join()
        self.server.stop()

    def run(self) -> None:
        """Listen until told to stop."""
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        client = await Client.open(self.server.consumer_url("items"))
        assert (await client.call("subscribe"))["response_status"] == 201
        self.subscribed.set()
        while not self.done.is_set():
            self.told += await client.drain(0.05)
            client.received.clear()
        await client.close()

    def interrupt(self) -> None:
        """End the session of the listener; it takes the lead again in another one."""
        position = self.server.position
        with self.pg.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'djcrf_pg leader%'"
            )
        self.server.wait_for("leads", after=position)

    def hear(self, n: int) -> None:
        """Wait for the row of that number; rows are told in the order of their writing."""
        wait_until(
            lambda: any(message["row"].get("n") == n for message in self.told[-100:]),
            message=lambda: f"of n = {n} nothing came; the last: {self.told[-3:]}\n{self.server.tail()}",
        )


def all_have_written(writers: list[Writer]) -> None:
    """Wait until each has written some more."""
    goals = {writer: writer.written.total() + 20 for writer in writers}

    def reached() -> bool:
        for writer in writers:
            if writer.error is not None:
                raise writer.error
        return all(writer.written.total() >= goal for writer, goal in goals.items())

    wait_until(reached)


@pytest.fixture
def life(pg: PgParams) -> Iterator[PgParams]:
    """A database of the test's own, empty."""
    create_database(pg, "djcrf_pg_life")
    yield pg.database("djcrf_pg_life")
    drop_database(pg, "djcrf_pg_life")


def migrate(pg: PgParams, *target: str, table: str = "lifeapp_stock", migrations: str | None = None) -> str:
    """Run migrate in a process of its own, with the code of that time; returns what it says."""
    env = {"DJANGO_SETTINGS_MODULE": "tests.lifeapp.settings", "LIFEAPP_TABLE": table, "LIFEAPP_MIGRATIONS": migrations}
    return ManagePy.run("migrate", *target, env=app_env(dbname=pg.dbname, env=env)).stdout


async def connect(pg: PgParams) -> "asyncpg.Connection[Any]":
    """A connection as the listener's."""
    place = {"host": pg.host, "port": pg.port, "user": pg.user, "database": pg.dbname}
    return await asyncpg.connect(**place, password=pg.password or None)


async def relation_of(pg: PgParams, oid: int) -> Relation:
    """The table as the catalog has it now."""
    connection = await connect(pg)
    try:
        log = await ChangeLog.open(connection)
        return relations_of(await log.relations([oid]))[oid]
    finally:
        await connection.close()


async def read_all(pg: PgParams) -> list[Change]:
    """The whole log, in pieces as a listener reads it."""
    connection = await connect(pg)
    try:
        log, position, found = await ChangeLog.open(connection), Position(BEGINNING), []
        while (piece := await log.read(position, 1000)).changes:
            found += piece.changes
            position = piece.position
        return found
    finally:
        await connection.close()


def write_one(pg: PgParams, oid: int, writers: list[Writer]) -> int:
    """Write one more row, and return its number."""
    writers.append(Writer(pg, oid))
    with pg.connect() as connection:
        writers[-1].transact(connection, "I", n := next(_numbers))
    return n


def models() -> list[type[Model]]:
    """The model as it was after each step."""
    with modify_settings(INSTALLED_APPS={"append": "tests.lifeapp"}):
        loader = MigrationLoader(None)
        states = [loader.project_state(("lifeapp", step)) for step in STEPS]
        return [state.apps.get_model("lifeapp", "Item" if "item" in _names(state) else "Thing") for state in states]


def _names(state: Any) -> set[str]:
    return {name for app, name in state.models if app == "lifeapp"}


def wrong(values: dict[str, Any], *, but: tuple[str, ...] = ()) -> list[str]:
    """The fields of a row whose value is not the one that follows from its number."""
    n = values["n"]
    return [
        f"{name} = {values[name]!r} where n = {n}"
        for name, templates in FIELDS.items()
        if name in values
        and name not in but
        and str(values[name]) not in {template.format(n) for template in templates}
    ]


def by_row(told: Iterable[tuple[int, str, int]]) -> dict[int, list[tuple[str, int]]]:
    """What was done to each row, in order."""
    found: dict[int, list[tuple[str, int]]] = {}
    for n, change, id in told:
        found.setdefault(n, []).append((change, id))
    return found


def hydrate(hydrator: Hydrator, image: dict[str, Any]) -> Model:
    """What the listener does: strictly first, and where the image does not fit the catalog, leniently."""
    try:
        return hydrator.instance(image)
    except StaleRelation:
        return hydrator.instance(image, lenient=True)


@pytest.mark.slow
def test_migrations_under_full_load_fail_no_write_and_make_no_wrong_image(life: PgParams) -> None:
    migrate(life, "djcrf_pg")
    migrate(life, "lifeapp", "0001_initial", table="lifeapp_thing")
    with life.connect() as connection:
        (oid,) = connection.execute("SELECT 'lifeapp_thing'::regclass::oid").fetchone() or (0,)
    relations = [asyncio.run(relation_of(life, oid))]
    subscribers: list[Subscriber] = []
    writers: list[Writer] = []
    for code, steps in (("old", OLD_CODE), ("new", NEW_CODE)):
        with Subscriber(life, code) as subscriber:
            subscribers.append(subscriber)
            with writing(life, oid) as more:
                writers += more
                for step in steps:
                    all_have_written(more)
                    migrate(life, "lifeapp", step, table=STEPS[step])
                    relations.append(asyncio.run(relation_of(life, oid)))
                all_have_written(more)
            subscriber.hear(write_one(life, oid, writers))
            subscriber.heard = len(subscriber.told)
            if code == "old":
                # Whoever leads next has never seen the table by the name that it knows.
                subscriber.interrupt()
                write_one(life, oid, writers)
                wait_until(lambda told=subscriber.told: told[-1]["change"] == "resync")
    assert "No migrations to apply" in migrate(life, "lifeapp", migrations=SQUASHED)

    changes = asyncio.run(read_all(life))
    rows = [
        (change, [parser(relations[-1])(image) for image in (change.old, change.new) if image])
        for change in changes
        if change.relation == oid and change.op != "R"
    ]
    marks = {-images[0]["n"]: change.id for change, images in rows if images[0]["n"] < 0 and change.op == "I"}
    assert sorted(marks) == list(range(2, len(STEPS) + 1))

    # Every write is there once, and those of the data migration.
    written = sum((writer.written for writer in writers), Counter())
    told = Counter(change.op for change, images in rows if images[0]["n"] > 0)
    assert told["I"] == written["I"]
    assert told["D"] == written["D"]
    # Of the rows that nobody else touches, the data migration has updated each once.
    updated = Counter(images[0]["n"] for change, images in rows if change.op == "U" and images[0]["n"] < 0)
    assert updated == {-mark: 1 for mark in range(2, 10)}

    assert max(change.id for change in changes if change.relation == oid and change.op == "R") > marks[SWAP]

    hydrators = [Hydrator(model, relation, "default") for model, relation in zip(models(), relations, strict=True)]
    for change, images in rows:
        stage = sum(change.id >= at for at in marks.values())
        for image in images:
            # By the code and the catalog of its own time nothing is missing and nothing is wrong.
            then = hydrators[stage].instance(image)
            assert then.get_deferred_fields() == set(), (stage, image)
            assert wrong(vars(then)) == [], (stage, image)
            # A listener that lags, and has newer code by now, knows less and nothing false. Two columns that have
            # exchanged their names are the exception: nothing in an image says which is which, so a resync follows.
            swapped = ("left", "right") if change.id < marks[SWAP] else ()
            now = hydrate(hydrators[-1], image)
            assert wrong(vars(now), but=swapped) == [], (stage, image)

    # Each subscriber was told of each change once, those of a row in their order, and truly, as far as the code of its
    # server knows the table.
    for subscriber in subscribers:
        heard = [message for message in subscriber.told[: subscriber.heard] if message["change"] != "resync"]
        ids = range(subscriber.first + 1, heard[-1]["id"] + 1)
        logged = ((images[0]["n"], TOLD[change.op], change.id) for change, images in rows if change.id in ids)
        told = ((message["row"]["n"], message["change"], message["id"]) for message in heard)
        assert by_row(told) == by_row(logged)
        for message in heard:
            swapped = ("left", "right") if subscriber.code == "new" and message["id"] < marks[SWAP] else ()
            assert wrong(message["row"], but=swapped) == [], message
    old, new = (
        [message["row"].keys() for message in subscriber.told[: subscriber.heard] if message["change"] != "resync"][-1]
        for subscriber in subscribers
    )
    assert {"note", "title"}.isdisjoint(old)
    assert {"label", "left", "right", "extra"} <= new


def test_a_leader_with_newer_code_finds_the_table_once_it_has_its_name(life: PgParams) -> None:
    migrate(life, "djcrf_pg")
    migrate(life, "lifeapp", "0001_initial", table="lifeapp_thing")
    with life.connect() as connection:
        (oid,) = connection.execute("SELECT 'lifeapp_thing'::regclass::oid").fetchone() or (0,)
    subscriber = Subscriber(life, "new")
    with subscriber.server, asyncio.Runner() as runner:
        client = runner.run(Client.open(subscriber.server.consumer_url("items")))
        refused = runner.run(client.call("subscribe"))
        assert refused["response_status"] == 503
        write_one(life, oid, [])
        subscriber.server.wait_for("nobody here knows public.lifeapp_thing")
        migrate(life)
        assert runner.run(client.call("subscribe"))["response_status"] == 201
        n = write_one(life, oid, [])
        assert runner.run(client.event())["row"]["n"] == n
        runner.run(client.close())


def test_the_triggers_of_a_squashed_history_are_the_same(life: PgParams) -> None:
    migrate(life, migrations=SQUASHED)
    env = {"DJANGO_SETTINGS_MODULE": "tests.lifeapp.settings"}
    ManagePy.run("djcrf_pg", "status", "--check", env=app_env(dbname=life.dbname, env=env))
