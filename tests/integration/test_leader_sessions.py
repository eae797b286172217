"""What a database or its text does to the leader's session, and what a frozen server does to the gate's."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg as driver
import psycopg
import pytest
from django.db import connections
from psycopg import sql

from djcrf_pg.changelog.change import UNORDERED, UNWRITABLE
from djcrf_pg.changelog.cursor import BEGINNING, Position
from djcrf_pg.changelog.reader import ChangeLog, Connection
from djcrf_pg.delivery.layer import channel_layer
from djcrf_pg.delivery.streams import Streams
from djcrf_pg.listener import connection as connecting
from djcrf_pg.listener import session as sessions
from djcrf_pg.listener.connection import connect
from djcrf_pg.listener.gate import Gate
from djcrf_pg.listener.service import Listener
from djcrf_pg.listener.session import Session
from djcrf_pg.observations import ConnectionFailed, LayerFailed, Leading, Observation, add_sink
from tests.faults import Faults
from tests.processes import until
from tests.proxy import Proxy
from tests.servers import ManagePy, PgParams, app_env, disconnect_all

pytestmark = pytest.mark.django_db


@pytest.fixture
def limits(db: None, test_pg: PgParams) -> Iterator[dict[str, str]]:
    """Settings of the database; those that the test puts in are taken out after it."""
    given: dict[str, str] = {}
    yield given
    with test_pg.connect() as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(test_pg.dbname)))
    with test_pg.connect() as admin:
        admin.execute("DELETE FROM testapp_project; TRUNCATE djcrf_pg_change, djcrf_pg_cursor")


def limit(server: PgParams, **settings: str) -> None:
    """Set what every new session of the database begins with."""
    with server.connect() as admin:
        for name, value in settings.items():
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(server.dbname), sql.Identifier(name), sql.Literal(value)
                )
            )


async def test_no_transaction_timeout_of_a_database_ends_a_long_wait(limits: dict[str, str], test_pg: PgParams) -> None:
    connection = await connect("default", "test")
    version = connection.get_server_version()
    await connection.close()
    if version < (17,):
        pytest.skip("PostgreSQL has transaction_timeout since 17")
    limit(test_pg, transaction_timeout="500ms")
    connection = await connect("default", "test")
    await connection.execute("SELECT pg_sleep(1)")
    await connection.close()


async def test_an_error_ends_no_session_of_ours_where_a_database_says_so(
    limits: dict[str, str], test_pg: PgParams
) -> None:
    limit(test_pg, exit_on_error="on")
    connection = await connect("default", "test")
    with pytest.raises(driver.DivisionByZeroError):
        await connection.execute("SELECT 1 / 0")
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


@pytest.mark.parametrize("ours", [None, "64kB"], ids=["pinned", "from-the-options"])
async def test_a_window_is_read_without_temporary_files(
    ours: str | None, limits: dict[str, str], test_pg: PgParams
) -> None:
    with test_pg.connect() as writer:
        writer.execute("TRUNCATE djcrf_pg_change")
        writer.execute(
            "INSERT INTO testapp_project (name) SELECT repeat('x', 50) || i FROM generate_series(1, 5000) AS i"
        )
    limit(test_pg, temp_file_limit="0", work_mem="64kB")
    connection = await connect("default", "test")
    if ours is not None:
        await connection.execute(f"SET work_mem = '{ours}'")
    log = await ChangeLog.open(connection)
    position, read = Position(BEGINNING), list[int]()
    while True:
        piece = await log.read(position, 700, 1_000_000)
        read += [change.id for change in piece.changes]
        position = piece.position
        if position.target is None:
            break
    await connection.close()
    assert len(read) == 5000
    assert read == sorted(set(read))


@pytest.fixture
async def asking(faults: Faults, role: PgParams) -> AsyncIterator[Connection]:
    """A connection of a role whose questions may be made to fail."""
    connection = await driver.connect(
        host=role.host, port=role.port, user=role.user, password=role.password, database=role.dbname
    )
    yield connection
    await connection.close()


async def test_where_nobody_knows_what_former_pieces_had_the_rest_has_no_order(
    asking: Connection, faults: Faults, test_pg: PgParams
) -> None:
    """A former leader has read rows that a trigger's statement wrote; this one cannot ask which these were."""
    log = await ChangeLog.open(asking)
    start = (await log.read(Position(BEGINNING), 1000)).position
    with test_pg.connect() as writer:
        insert = "INSERT INTO testapp_project (name) SELECT 'p' || i FROM generate_series(1, 3) AS i"
        writer.execute(insert)
        writer.execute("UPDATE djcrf_pg_change SET depth = 2 WHERE new->>'name' ~ '^p'")
        writer.execute(insert)
    piece = await log.read(start, 2)
    faults.make("%max(depth)%", "out_of_memory")
    with pytest.raises(driver.OutOfMemoryError):
        await (await ChangeLog.open(asking)).read(piece.position, 100)
    faults.make("%max(depth)%", "data_corrupted")
    rest = await (await ChangeLog.open(asking)).read(piece.position, 100)
    assert [change.op for change in rest.changes] == [UNORDERED, UNORDERED]
    assert rest.position.target is None


@pytest.mark.parametrize("code", ["configuration_limit_exceeded", "program_limit_exceeded", "data_corrupted"])
async def test_a_window_that_the_server_cannot_keep_is_read_all_the_same(
    code: str, asking: Connection, faults: Faults, test_pg: PgParams
) -> None:
    log = await ChangeLog.open(asking)
    position = (await log.read(Position(BEGINNING), 1000)).position
    with test_pg.connect() as writer:
        writer.execute("INSERT INTO testapp_project (name) SELECT 'p' || i FROM generate_series(1, 10) AS i")
    faults.make("%DECLARE %", code)
    read: list[str] = []
    while True:
        piece = await log.read(position, 3)
        read += [change.op for change in piece.changes]
        position = piece.position
        if position.target is None:
            break
    assert read == ["I"] * 10
    assert faults.met


@pytest.fixture(params=["SQL_ASCII", "WIN1252"])
async def encoded(
    request: pytest.FixtureRequest, db: None, test_pg: PgParams
) -> AsyncIterator[tuple[PgParams, Connection]]:
    """A migrated database in another encoding, and a connection as the leader has it."""
    server = test_pg.database(f"djcrf_pg_{request.param.lower()}")
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'")
    drop = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(server.dbname))
    with test_pg.connect("postgres") as admin:
        admin.execute(drop)
        admin.execute(create.format(sql.Identifier(server.dbname), sql.Literal(request.param)))
        ManagePy.run("migrate", "--verbosity", "0", env=app_env(dbname=server.dbname))
        connection = await driver.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            database=server.dbname,
            password=server.password or None,
        )
        yield server, connection
        await connection.close()
        disconnect_all(server, server.dbname)
        admin.execute(drop)


@pytest.mark.slow
async def test_a_byte_that_is_no_text_makes_its_row_unreadable_and_no_other(
    encoded: tuple[PgParams, Connection],
) -> None:
    server, connection = encoded
    encoding = await connection.fetchval("SHOW server_encoding")
    log = await ChangeLog.open(connection)
    start = (await log.read(Position(BEGINNING), 1000)).position
    with psycopg.connect(server.dsn(), autocommit=True) as writer:
        writer.execute(f"SET client_encoding = '{encoding}'".encode())
        for value in (b"before", b"b\\x81d", b"after"):
            writer.execute(b"INSERT INTO testapp_project (name) VALUES (E'" + value + b"')")
    changes, position = [], start
    while True:
        piece = await log.read(position, 1000)
        changes += piece.changes
        position = piece.position
        if position.target is None:
            break
    assert [change.op for change in changes] == ["I", UNWRITABLE, "I"]
    assert [bool(change.new) for change in changes] == [True, False, True]
    assert (await log.read(position, 1000)).changes == []


@pytest.fixture
def proxy(transactional_db: None, test_pg: PgParams, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What our new connections go through, and where nobody waits for long."""
    with Proxy(test_pg) as proxy:
        monkeypatch.setitem(connections["default"].settings_dict, "HOST", proxy.params.host)
        monkeypatch.setitem(connections["default"].settings_dict, "PORT", str(proxy.params.port))
        monkeypatch.setattr(connecting, "_PATIENCE", 0.5)
        monkeypatch.setattr(sessions, "PATIENCE", 0.5)
        monkeypatch.setattr(sessions, "_CHECK", 0.5)
        yield proxy


async def until_no_session_is_left(proxy: Proxy, server: PgParams) -> None:
    """Wait until the server, which hears again what was said, has ended all of our sessions: their clients have."""
    proxy.thaw()
    query = "SELECT array_agg(application_name) FROM pg_stat_activity WHERE application_name LIKE 'djcrf_pg %'"
    with server.connect() as admin:
        await until(
            lambda: admin.execute(query).fetchone() == (None,), message=lambda: str(admin.execute(query).fetchone())
        )


#: What a client says while it connects: who it is; which process answers; the settings; the process again.
STEPS = [(b"application_name", 1), (b"pg_backend_pid", 1), (b"set_config", 1), (b"pg_backend_pid", 2)]


@pytest.mark.parametrize(("words", "times"), STEPS, ids=["startup", "pooler", "settings", "session"])
async def test_a_session_that_cannot_be_opened_leaves_no_connection(
    words: bytes, times: int, proxy: Proxy, test_pg: PgParams
) -> None:
    proxy.freeze_at(words, times)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await Session.open("default", "test")
    assert proxy.is_frozen
    await until_no_session_is_left(proxy, test_pg)


@pytest.mark.parametrize(("words", "times"), STEPS, ids=["startup", "pooler", "settings", "session"])
async def test_opening_a_session_that_is_cancelled_leaves_no_connection(
    words: bytes, times: int, proxy: Proxy, test_pg: PgParams
) -> None:
    proxy.freeze_at(words, times)
    opening = asyncio.ensure_future(Session.open("default", "test"))
    await until(lambda: proxy.is_frozen)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until_no_session_is_left(proxy, test_pg)


async def test_an_answer_that_is_lost_leaves_neither_the_session_nor_the_one_that_asked_after_it(
    proxy: Proxy, test_pg: PgParams
) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    session = await Session.open("default", "test")
    proxy.freeze_at(b"SELECT 1")
    with pytest.raises(ConnectionError, match="the server does not answer"):
        async with asyncio.timeout(20):
            await session.fetchval("SELECT 1")
    assert session.is_closed()
    # One to ask whether it works, and one to end it.
    assert proxy.taken == 3
    await until_no_session_is_left(proxy, test_pg)
    gc.collect()
    assert reported == []


async def test_who_asks_a_gate_at_the_same_time_shares_its_session(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_PATIENCE", 10.0)
    gate = Gate("default")
    proxy.freeze_at(b"application_name")
    waiting = [asyncio.ensure_future(work) for work in (gate.probe(()), gate.renew(), gate.end_sessions([]))]
    await until(lambda: proxy.is_frozen)
    waiting.append(asyncio.ensure_future(gate.probe(())))
    await asyncio.sleep(0)
    proxy.thaw()
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    assert (proxy.taken, gate.number) == (1, 1)
    await gate.close()


async def test_a_gate_that_is_closed_leaves_no_question_and_no_session(
    proxy: Proxy, test_pg: PgParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_PATIENCE", 10.0)
    gate = Gate("default")
    proxy.freeze_at(b"application_name")
    waiting = [asyncio.ensure_future(gate.probe(())) for _ in range(2)]
    await until(lambda: proxy.is_frozen)
    waiting.append(asyncio.ensure_future(gate.probe(())))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await gate.close()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError] * 3
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("djcrf_pg gate")]
    with pytest.raises(ConnectionError):
        await gate.probe(())
    assert proxy.taken == 1
    await until_no_session_is_left(proxy, test_pg)


async def test_a_leader_whose_heartbeats_end_says_so_and_begins_anew(
    limits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = Streams.run, 0

    async def fail_once(streams: Streams) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("stream")
        await run(streams)

    monkeypatch.setattr(Streams, "run", fail_once)
    told: list[Observation] = []
    remove = add_sink(lambda observation, error: told.append(observation))
    listener = Listener("default")
    running = asyncio.create_task(listener.run())
    try:
        await until(lambda: calls == 2)
    finally:
        remove()
        listener.stop()
        await running
    kinds = [one for one in told if isinstance(one, Leading | ConnectionFailed)]
    assert [type(one) for one in kinds] == [Leading, ConnectionFailed, Leading]
    assert isinstance(kinds[1], ConnectionFailed)
    assert kinds[1].error == "'stream'"


async def test_while_the_layer_takes_no_heartbeats_an_idle_leader_tries_no_more_often_than_it_says(
    limits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(layer: object, group: str, message: dict[str, object]) -> None:
        raise ConnectionError("down")

    monkeypatch.setattr(type(channel_layer()), "group_send", fail)
    failed: list[float] = []
    remove = add_sink(lambda one, error: failed.append(time.monotonic()) if isinstance(one, LayerFailed) else None)
    listener = Listener("default")
    running = asyncio.create_task(listener.run())
    try:
        await until(lambda: len(failed) >= 9)
    finally:
        remove()
        listener.stop()
        await running
    # Each second that of the rhythm and that of a save; and three when the term begins.
    assert failed[8] - failed[2] > 2


async def test_what_keeps_a_listener_from_leading_is_said_until_it_leads(
    limits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever subscribes while it tries again is told the cause."""
    take, said = ChangeLog.take, list[str | None]()

    async def refuse(log: ChangeLog) -> Any:
        if len(said) == 3:
            return await take(log)
        said.append(listener.error)
        raise ValueError("refused")

    monkeypatch.setattr(ChangeLog, "take", refuse)
    listener = Listener("default")
    running = asyncio.create_task(listener.run())
    try:
        await until(lambda: listener.leads)
        assert listener.error is None
    finally:
        listener.stop()
        await running
    assert said == [None, "refused", "refused"]
