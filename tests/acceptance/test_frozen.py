"""Leaders that are neither dead nor alive: frozen sockets and stopped processes."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from channels_redis.core import RedisChannelLayer
from psycopg import RawCursor

from djcrf_pg import sql
from djcrf_pg.delivery.protocol import stream_of
from djcrf_pg.listener.election import CLASS_ID
from tests.acceptance.test_cluster import LEADS, STANDS_BY, created, writing
from tests.acceptance.wire import forged, history_of
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.servers import DSN, AsgiServer, ManagePy, PgParams
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

pytestmark = pytest.mark.processes

#: What the documentation promises, and what a busy machine may add to it.
NOTICED, FENCED, GRACE = 15.0, 10.0, 5.0


@pytest.fixture
def proxy(test_pg: PgParams) -> Iterator[Proxy]:
    """What stands between one listener and the server."""
    with Proxy(test_pg) as proxy:
        yield proxy


@pytest.fixture
def listen(redis_url: str, start_command: Callable[..., ManagePy]) -> Callable[..., ManagePy]:
    """Starts ``manage.py djcrf_pg listen``."""

    def start(server: PgParams | None = None, state: str = LEADS) -> ManagePy:
        env = None if server is None else {DSN: server.dsn("postgres")}
        listener = start_command("djcrf_pg", "listen", redis=redis_url, env=env)
        listener.wait_for(state)
        return listener

    return start


@pytest.fixture
def serve(redis_url: str, start_asgi_server: Callable[..., AsgiServer]) -> AsgiServer:
    """An ASGI server without a listener of its own."""
    return start_asgi_server(redis=redis_url, settings={"EMBEDDED": False})


@pytest.mark.slow
def test_a_frozen_socket_is_noticed_by_the_leader_itself(transactional_db, proxy, listen, serve, open_board):
    leader = listen(proxy.params)
    board = open_board(serve)
    board.subscribe("tasks")
    before = Task.objects.create(title="before")
    assert created(board) == [before.pk]
    proxy.freeze_present()
    frozen, start = leader.position, time.monotonic()
    after = Task.objects.create(title="after")
    leader.wait_for("the server does not answer", after=frozen, timeout=NOTICED + GRACE)
    leader.wait_for(LEADS, after=frozen, timeout=GRACE)
    assert time.monotonic() - start < NOTICED + GRACE
    assert after.pk in created(board)


@pytest.mark.slow
def test_a_standby_takes_over_from_a_leader_whose_socket_is_frozen(
    transactional_db, proxy, listen, serve, open_board, test_pg
):
    leader = listen(proxy.params)
    standby = listen(state=STANDS_BY)
    board = open_board(serve)
    board.subscribe("tasks")
    with writing(test_pg, 1, pause=0.01) as written:
        wait_until(lambda: len(written) >= 100)
        proxy.freeze()
        frozen = len(written)
        standby.wait_for("does nothing about unread changes", timeout=FENCED + GRACE)
        standby.wait_for(LEADS)
        wait_until(lambda: len(written) >= frozen + 100)
    arrived = created(board)
    assert sorted(set(arrived)) == written
    assert list(dict.fromkeys(arrived)) == written
    # The former leader comes back, and does not lead.
    thawed = leader.position
    proxy.thaw()
    leader.wait_for(STANDS_BY, after=thawed)


@pytest.mark.slow
def test_a_stopped_leader_is_fenced_and_disturbs_nobody_when_it_continues(
    transactional_db, listen, serve, open_board, test_pg
):
    leader, standby = listen(), listen(state=STANDS_BY)
    board = open_board(serve)
    board.subscribe("full")
    row = Task.objects.create(title="row", points=0)

    def write(number: int) -> None:
        Task.objects.filter(pk=row.pk).update(points=number)

    write(1)
    board.told("full")
    leader.send_signal(signal.SIGSTOP)
    try:
        for number in range(2, 100):
            write(number)
        standby.wait_for("does nothing about unread changes", timeout=FENCED + GRACE)
        standby.wait_for(LEADS)
        write(100)
        points = [body["points"] for _, body in board.told("full")]
        assert list(dict.fromkeys(points))[-99:] == list(range(2, 101))
        stopped = leader.position
    finally:
        leader.send_signal(signal.SIGCONT)
    leader.wait_for(STANDS_BY, after=stopped)
    assert board.told("full") == []


@pytest.mark.slow
def test_a_leader_that_stopped_in_the_middle_of_a_question_is_fenced(transactional_db, listen, test_pg):
    statements = sql.queries("djcrf_pg.listener", "session.sql")
    with closing(test_pg.connect()) as leader, test_pg.connect() as admin:
        leader.execute("SELECT pg_advisory_lock(%s, 'djcrf_pg_change'::regclass::oid::int8::bit(32)::int)", [CLASS_ID])
        # A question whose end the server still waits for, as when a driver is stopped between Parse and Execute.
        leader.pgconn.enter_pipeline_mode()
        leader.pgconn.send_query_params(b"SELECT 1", [])
        leader.pgconn.send_flush_request()
        leader.pgconn.flush()
        look = "SELECT state, wait_event FROM pg_stat_activity WHERE pid = %s"
        pid = leader.pgconn.backend_pid
        wait_until(lambda: admin.execute(look, [pid]).fetchone() == ("active", "ClientRead"))
        assert RawCursor(admin).execute(statements["at_work"], [pid]).fetchone() == (False,)
        standby = listen(state=STANDS_BY)
        Task.objects.create(title="unread")
        standby.wait_for("does nothing about unread changes", timeout=FENCED + GRACE)
        standby.wait_for(LEADS)


@pytest.mark.slow
def test_an_idle_leader_is_left_alone(transactional_db, listen, serve, open_board, test_pg):
    leader, standby = listen(), listen(state=STANDS_BY)
    board = open_board(serve)
    board.subscribe("tasks")
    with test_pg.connect() as admin:
        look = "SELECT query_start FROM pg_stat_activity WHERE wait_event = 'advisory'"
        for number in range(3):
            last = admin.execute(look).fetchone()
            task = Task.objects.create(title=f"now and then {number}")
            assert created(board) == [task.pk]
            wait_until(lambda last=last: admin.execute(look).fetchone() not in (last, None))
    assert "does nothing" not in standby.output
    assert leader.output.count("'default' leads") == 1


@pytest.mark.slow
def test_a_leader_whose_serializers_take_long_is_left_alone(transactional_db, listen, serve, open_board, test_pg):
    leader, standby = listen(), listen(state=STANDS_BY)
    board = open_board(serve)
    board.subscribe("asking")
    look = "SELECT query_start FROM pg_stat_activity WHERE wait_event = 'advisory'"
    with psycopg.connect(test_pg.dsn()) as locker, test_pg.connect() as admin:
        # Its serializer counts labels, and has to wait.
        locker.execute("LOCK TABLE testapp_task_labels IN ACCESS EXCLUSIVE MODE")
        task = Task.objects.create(title="ask")
        for _ in range(3):
            last = admin.execute(look).fetchone()
            wait_until(lambda last=last: admin.execute(look).fetchone() not in (last, None))
        locker.rollback()
    found = board.runner.run(board.client.until(lambda message: message.get("observer") == "asking"))
    assert found["body"] == {"pk": task.pk, "labels": 0}
    assert "does nothing" not in standby.output
    assert leader.output.count("'default' leads") == 1


async def test_what_an_older_term_still_sends_is_dropped(
    transactional_db, redis_url, listen, start_asgi_server, connect, test_pg
):
    term = int(listen().wait_for(LEADS + r" \(term (\d+)\)")[1])
    server = start_asgi_server(redis=redis_url, settings={"EMBEDDED": False})
    client = await connect(server, "board")
    reply = await client.call("subscribe", name="tasks", request_id="tasks")
    history, observer, layer = history_of(test_pg), BoardConsumer.tasks.address, RedisChannelLayer(hosts=[redis_url])
    stream = history.group(stream_of(observer))
    for number in range(1, 4):
        await layer.group_send(stream, forged(history, term - 1, observer, *reply["data"]["groups"], {"pk": -number}))
        task = await Task.objects.acreate(title=f"row {number}")
        assert (await client.event())["body"] == {"pk": task.pk}
    await layer.flush()
    await layer.close_pools()
