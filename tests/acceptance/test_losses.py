"""Whatever drops messages, nobody holds an old row for long: what was dropped is read from the log, and no resync."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from redis import Redis

from djcrf_pg.delivery.protocol import BEAT, stream_of
from tests.acceptance.test_cluster import LEADS
from tests.acceptance.test_memberships import CORE, PUBSUB, layers, start_redis
from tests.acceptance.wire import history_of
from tests.client import Client
from tests.processes import meanwhile, until
from tests.project import create_database, drop_database
from tests.proxy import Proxy
from tests.servers import AsgiServer, ManagePy, PgParams, RedisSentinel, RedisServer, app_env
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Task

__all__ = ["start_redis"]

pytestmark = pytest.mark.processes

#: Seconds after which nobody may hold an old row, and in which the loss of one message is noticed on a quiet machine.
LONGEST = 12.0

#: What a process says that has read what was dropped.
REPLAYED = r"\d+ events are read from the log"

LOSSY = "tests.testapp.layers.LossyLayer"

INSERT = "INSERT INTO testapp_task (id, title, status, points, body) VALUES (%s, %s, 'todo', 0, '')"

Connect = Callable[..., Awaitable[Client]]


class Follower:
    """A client that loads again when it has to.

    Args:
        client: The client.
        written: Row to when it was committed.

    Attributes:
        delays: Row to the seconds until the client had it.
        resyncs: When they came.
    """

    def __init__(self, client: Client, written: dict[int, float]) -> None:
        self.client = client
        self.written = written
        self.delays: dict[int, float] = {}
        self.resyncs: list[float] = []
        self.task: asyncio.Task[None]

    async def run(self) -> None:
        """Follow, until cancelled."""
        while True:
            message = await self.client.event(timeout=600)
            now = time.monotonic()
            if message.get("action") == "resync":
                self.resyncs.append(now)
                for pk, at in list(self.written.items()):
                    self.delays.setdefault(pk, now - at)
            elif (pk := message["body"]["pk"]) not in self.delays:
                self.delays[pk] = now - self.written.get(pk, now)

    async def follow_anew(self, connect: Callable[[], Awaitable[Client]]) -> None:
        """Connect, subscribe and load again, as a client does whose socket was closed."""
        await until(lambda: self.task.done())
        assert "ConnectionClosed" in str(self.task.exception())
        self.client = await connect()
        await self.subscribe()
        loaded = time.monotonic()
        for pk, at in list(self.written.items()):
            self.delays.setdefault(pk, loaded - at)

    async def subscribe(self) -> None:
        """Subscribe, and follow."""
        reply = await self.client.call("subscribe", name="tasks", request_id="tasks")
        assert reply["response_status"] == 201
        self.task = asyncio.create_task(self.run())

    async def has(self, rows: list[int]) -> None:
        """Wait until it has these rows."""
        await until(lambda: self.delays.keys() >= set(rows))


@asynccontextmanager
async def following(client: Client, written: dict[int, float]) -> AsyncIterator[Follower]:
    """Subscribe, and follow during the block."""
    follower = Follower(client, written)
    await follower.subscribe()
    try:
        yield follower
    finally:
        follower.task.cancel()
        await asyncio.gather(follower.task, return_exceptions=True)


@contextmanager
def writing(pg: PgParams, written: dict[int, float], pause: float) -> Iterator[None]:
    """Write rows during the block, ``pause`` seconds apart, and note when each was committed."""

    def work(done: Any) -> None:
        with psycopg.connect(pg.dsn(), autocommit=True) as connection:
            while not done.wait(pause):
                pk = len(written) + 1
                connection.execute(INSERT, [pk, f"w{pk}"])
                written[pk] = time.monotonic()

    with meanwhile(work):
        yield


async def more(written: dict[int, float], count: int) -> list[int]:
    """Wait for so many more rows, and return those."""
    before = len(written)
    await until(lambda: len(written) >= before + count)
    return list(written)[before:]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.15])
async def test_a_layer_that_drops_a_part_of_all_leaves_nobody_with_an_old_row(
    share: float,
    transactional_db: None,
    redis_url: str,
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
    connect: Connect,
    test_pg: PgParams,
) -> None:
    lossy = {"BACKEND": LOSSY, "CONFIG": {"hosts": [redis_url], "share": share}}
    start_command("djcrf_pg", "listen", layers={"default": lossy}).wait_for(LEADS)
    server = start_asgi_server(redis=redis_url, settings={"EMBEDDED": False})
    written: dict[int, float] = {}
    async with (
        following(await connect(server, "board"), written) as first,
        following(await connect(server, "board"), written) as second,
    ):
        # Some are followed by others at once, and some are the last for a while.
        for pause in (0.01, 2.5, 0.05, 2.5):
            with writing(test_pg, written, pause):
                await more(written, 3 if pause > 1 else 150)
        for follower in (first, second):
            await follower.has(list(written))
            assert max(follower.delays.values()) < LONGEST
            assert not follower.resyncs
        assert re.search(REPLAYED, server.output), "nothing was dropped, so this shows nothing"


async def emptied(server: RedisServer, pg: PgParams) -> None:
    with Redis.from_url(server.url) as client:
        client.flushall()


async def restarted(server: RedisServer, pg: PgParams) -> None:
    server.terminate()
    server.start()


async def disconnected(server: RedisServer, pg: PgParams) -> None:
    """It is there again within milliseconds, and only numbers can show what was lost."""
    with Redis.from_url(server.url) as client:
        assert client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") > 0


async def evicted(server: RedisServer, pg: PgParams) -> None:
    """One group, as a ``maxmemory-policy`` does it."""
    group = history_of(pg).group(stream_of(BoardConsumer.tasks.address))
    with Redis.from_url(server.url) as client:
        assert client.delete(f"asgi:group:{group}") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "fault"),
    [(CORE, emptied), (CORE, evicted), (PUBSUB, emptied), (PUBSUB, restarted), (PUBSUB, disconnected)],
)
@pytest.mark.parametrize("pause", [0.005, 0.7], ids=["busy", "quiet"])
async def test_what_a_redis_forgets_is_read_from_the_log_within_seconds(
    backend: str,
    fault: Callable[[RedisServer, PgParams], Awaitable[None]],
    pause: float,
    transactional_db: None,
    start_redis: Callable[[], RedisServer],
    start_asgi_server: Callable[..., AsgiServer],
    connect: Connect,
    test_pg: PgParams,
) -> None:
    redis = start_redis()
    server = start_asgi_server(layers=layers(backend, redis))
    written: dict[int, float] = {}
    async with following(await connect(server, "board"), written) as follower:
        with writing(test_pg, written, pause):
            await follower.has(await more(written, 5))
            await asyncio.to_thread(asyncio.run, fault(redis, test_pg))
            await follower.has(await more(written, 5))
            await follower.has(await more(written, int(6 / pause)))
        assert max(follower.delays.values()) < LONGEST
        assert not follower.resyncs


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"prefix": "site"}, {"symmetric_encryption_keys": ["secret"]}])
async def test_two_hosts_that_are_emptied_one_after_the_other_lose_nothing_unnoticed(
    options: dict[str, Any],
    transactional_db: None,
    start_redis: Callable[[], RedisServer],
    start_asgi_server: Callable[..., AsgiServer],
    connect: Connect,
    test_pg: PgParams,
) -> None:
    hosts = [start_redis(), start_redis()]
    server = start_asgi_server(layers=layers(CORE, *hosts, **options))
    written: dict[int, float] = {}
    async with following(await connect(server, "board"), written) as follower:
        with writing(test_pg, written, 0.01):
            await follower.has(await more(written, 5))
            for host in hosts:
                await emptied(host, test_pg)
                await follower.has(await more(written, 500))
        assert max(follower.delays.values()) < LONGEST
        assert not follower.resyncs
    assert re.search(REPLAYED, server.output)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [CORE, PUBSUB])
async def test_connections_to_redis_that_freeze_are_replaced(
    backend: str,
    transactional_db: None,
    start_redis: Callable[[], RedisServer],
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
    connect: Connect,
    test_pg: PgParams,
) -> None:
    redis = start_redis()
    start_command("djcrf_pg", "listen", layers=layers(backend, redis)).wait_for(LEADS)
    with Proxy(replace(test_pg, host="127.0.0.1", port=redis.port)) as proxy:
        config = {"hosts": [f"redis://127.0.0.1:{proxy.params.port}/0"], "capacity": 10_000}
        layer = {"default": {"BACKEND": backend, "CONFIG": config}}
        server = start_asgi_server(layers=layer, settings={"EMBEDDED": False})
        written: dict[int, float] = {}
        async with following(await connect(server, "board"), written) as follower:
            with writing(test_pg, written, 0.05):
                await follower.has(await more(written, 5))
                proxy.freeze_present()
                await follower.has(await more(written, 100))
                await follower.has(await more(written, 100))
            assert max(follower.delays.values()) < LONGEST
            assert not follower.resyncs
        assert re.search(REPLAYED, server.output)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [CORE, PUBSUB])
async def test_a_master_that_sentinel_replaces_leaves_nobody_with_an_old_row(
    backend: str,
    transactional_db: None,
    start_redis: Callable[[], RedisServer],
    processes_stack: ExitStack,
    start_asgi_server: Callable[..., AsgiServer],
    connect: Connect,
    test_pg: PgParams,
) -> None:
    master = start_redis()
    processes_stack.enter_context(RedisServer(of=master))
    sentinel = processes_stack.enter_context(RedisSentinel(master))
    config = {"hosts": [sentinel.host], "capacity": 10_000}
    server = start_asgi_server(layers={"default": {"BACKEND": backend, "CONFIG": config}})
    written: dict[int, float] = {}
    async with following(await connect(server, "board"), written) as follower:
        with writing(test_pg, written, 0.01):
            await follower.has(await more(written, 20))
            assert not follower.resyncs
            master.kill()
            await sentinel.until(r"\+switch-master")
            if backend == CORE:  # Channels ends the consumers of a layer whose connection ends
                await follower.follow_anew(lambda: connect(server, "board"))
            await follower.has(await more(written, 20))
            await follower.has(await more(written, 300))
        assert max(follower.delays.values()) < LONGEST
        assert not follower.resyncs


async def test_leaving_and_rejoining_a_busy_group_is_no_resync(
    transactional_db: None,
    start_redis: Callable[[], RedisServer],
    start_asgi_server: Callable[..., AsgiServer],
    connect: Connect,
    test_pg: PgParams,
) -> None:
    server = start_asgi_server(layers=layers(CORE, start_redis()))
    client = await connect(server, "board")
    written: dict[int, float] = {}
    with writing(test_pg, written, 0.002):
        for number in range(20):
            await client.call("subscribe", name="tasks", request_id=number)
            await more(written, 20)
            await client.call("unsubscribe", name="tasks", request_id=number)
            await more(written, number % 3 * 20)
        await client.call("subscribe", name="tasks", request_id="last")
        last = await more(written, 50)
        await client.until(lambda message: message.get("body") == {"pk": last[-1]})
        # Heartbeats that name the rows come and find them all there.
        await more(written, 1_000)
    assert not client.take(lambda message: message.get("action") == "resync")


async def test_a_dropped_message_is_read_from_the_log_for_those_that_it_was_for(
    transactional_db: None,
    redis_url: str,
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
    connect: Connect,
) -> None:
    lossy = {"BACKEND": LOSSY, "CONFIG": {"hosts": [redis_url]}}
    start_command("djcrf_pg", "listen", layers={"default": lossy}).wait_for(LEADS)
    server = start_asgi_server(redis=redis_url, settings={"EMBEDDED": False})
    concerned, early = await connect(server, "board"), await connect(server, "board")
    assert stream_of(BoardConsumer.full.address) != stream_of(BoardConsumer.projects.address)
    await concerned.call("subscribe", name="full", request_id="full")
    await early.call("subscribe", name="projects", request_id="projects")
    lost = await Task.objects.acreate(title="lose me")
    dropped = time.monotonic()
    late = await connect(server, "board")
    await late.call("subscribe", name="full", request_id="late")  # its snapshot has the row
    await concerned.until(lambda m: m.get("body", {}).get("id") == lost.pk)
    assert time.monotonic() - dropped < 5.0, "three seconds, and what a busy machine adds"
    clients, rows = (concerned, late, early), [lost.pk]
    for number in range(5):
        task = await Task.objects.acreate(title=f"later {number}")
        rows.append(task.pk)
        for client in (concerned, late):
            await client.until(lambda m, pk=task.pk: m.get("body", {}).get("id") == pk)
        await asyncio.sleep(BEAT)
    came = [[m for m in client.received if "response_status" not in m or m["action"] == "resync"] for client in clients]
    assert [[m.get("body", {}).get("id", m) for m in each] for each in came] == [rows, rows[1:], []]


@pytest.fixture
def other_site(pg: PgParams) -> Iterator[PgParams]:
    """A database beside the test's, with the test application's tables."""
    create_database(pg, "djcrf_other_site")
    ManagePy.run("migrate", "--verbosity", "0", env=app_env(dbname="djcrf_other_site"))
    yield pg.database("djcrf_other_site")
    drop_database(pg, "djcrf_other_site")


async def test_two_sites_on_one_redis_receive_their_own(
    transactional_db: None,
    redis_url: str,
    processes_stack: ExitStack,
    connect: Connect,
    test_pg: PgParams,
    other_site: PgParams,
) -> None:
    sites = (test_pg, other_site)
    clients = []
    for site in sites:
        env = app_env(dbname=site.dbname, redis=redis_url)
        clients.append(await connect(processes_stack.enter_context(AsgiServer(env)), "board"))
        await clients[-1].call("subscribe", name="tasks", request_id="tasks")
    for pk in range(1, 9):
        for number, site in enumerate(sites):
            with site.connect() as connection:
                connection.execute(INSERT, [10 * pk + number, f"row {pk}"])
    for number, client in enumerate(clients):
        events = await client.events(8)
        assert [event["body"]["pk"] for event in events] == [10 * pk + number for pk in range(1, 9)]


async def test_a_consumer_of_another_layer_receives_its_events(
    transactional_db: None, redis_url: str, start_asgi_server: Callable[..., AsgiServer], connect: Connect
) -> None:
    elsewhere = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    default = {"BACKEND": CORE, "CONFIG": {"hosts": [redis_url]}}
    server = start_asgi_server(layers={"default": default, "elsewhere": elsewhere})
    client = await connect(server, "elsewhere")
    reply = await client.call("subscribe", name="tasks", request_id="tasks")
    assert reply["response_status"] == 201
    task = await Task.objects.acreate(title="there")
    assert (await client.event())["body"] == {"pk": task.pk}
