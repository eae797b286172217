"""However much a layer drops, each subscription is told each change since it began: once, in order, and no resync."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

import psycopg
import pytest

from tests.acceptance.test_cluster import LEADS
from tests.acceptance.test_losses import INSERT, LOSSY, REPLAYED
from tests.client import Client
from tests.processes import meanwhile, until
from tests.servers import AsgiServer, ManagePy, PgParams

pytestmark = [pytest.mark.processes, pytest.mark.slow]

CORE = "channels_redis.core.RedisChannelLayer"

#: Transactions that are written behind the last subscription.
MORE = 300

#: What a subscription is told of a row: its status, the action, and its key.
Told = tuple[str, str, int]


class Writer:
    """Writes rows of two statuses, and notes what is to be told of each transaction.

    Attributes:
        told: By transaction, in their order.
        begun: So many have begun.
    """

    def __init__(self, pg: PgParams, seed: int) -> None:
        self.told: list[list[Told]] = []
        self.begun = 0
        self._pg = pg
        self._random = random.Random(seed)
        self._rows: dict[int, str] = {}
        self._last = 0

    def work(self, done: Any) -> None:
        """Write until told to stop."""
        with psycopg.connect(self._pg.dsn(), autocommit=True) as connection:
            while not done.wait(self._random.choice([0, 0.002, 0.01, 0.05])):
                self.begun += 1
                with connection.transaction():
                    told = self._write(connection)
                self.told.append(told)

    def _write(self, connection: Any) -> list[Told]:
        """One or several rows, each once."""
        kind, count = self._random.random(), self._random.choice([1, 1, 1, 5, 20])
        if kind < 0.5 or len(self._rows) < 50:
            first, self._last = self._last + 1, self._last + count
            for pk in range(first, self._last + 1):
                connection.execute(INSERT, [pk, f"w{pk}"])
                self._rows[pk] = "todo"
            return [("todo", "create", pk) for pk in range(first, self._last + 1)]
        told: list[Told] = []
        for pk in self._random.sample(list(self._rows)[-200:], count):
            former, status = self._rows[pk], self._random.choice(["todo", "done"])
            if kind > 0.93:
                connection.execute("DELETE FROM testapp_task WHERE id = %s", [pk])
                del self._rows[pk]
                told.append((former, "delete", pk))
                continue
            connection.execute("UPDATE testapp_task SET status = %s, points = points + 1 WHERE id = %s", [status, pk])
            self._rows[pk] = status
            is_moved = status != former
            told += [(former, "delete", pk), (status, "create", pk)] if is_moved else [(status, "update", pk)]
        return told


class Follower:
    """A client that subscribes to statuses at different moments, each for good."""

    def __init__(self, client: Client, writer: Writer) -> None:
        self.client = client
        self._writer = writer
        #: Status to the transactions that had been committed before, and that had begun when it was there.
        self._since: dict[str, tuple[int, int]] = {}

    async def subscribe(self, status: str) -> None:
        """Subscribe to one more."""
        before = len(self._writer.told)
        await self.client.call("subscribe", name="by_status", status=status, request_id=status)
        self._since[status] = before, self._writer.begun

    def told(self, status: str) -> list[Told]:
        """What it was told of a status."""
        bodies = [message["body"] for message in self.client.received if message.get("observer") == "by_status"]
        return [(status, body["said"], body["id"]) for body in bodies if body["status"] == status]

    def check(self) -> None:
        """See that this is what was written since, from some moment between call and reply on."""
        assert not [message for message in self.client.received if message.get("action") == "resync"]
        for status, (before, begun) in self._since.items():
            all_of_it = [[each for each in told if each[0] == status] for told in self._writer.told[before:]]
            told = self.told(status)
            starts = [list(chain(*all_of_it[number:])) for number in range(begun - before + 1)]
            assert told in starts, "nothing is missing, nothing comes twice, and all is in order"


async def churn(client: Client) -> None:
    """Come and go, until cancelled."""
    number = 0
    while True:
        number += 1
        await client.call("subscribe", name="by_status", status="done", request_id=number)
        await client.call("unsubscribe", name="by_status", status="done", request_id=number)


@pytest.mark.parametrize(("share", "capacity"), [(0.15, 100), (0.5, 100), (0.15, 5)])
async def test_each_change_is_told_once_and_in_order_whatever_is_dropped(
    share: float,
    capacity: int,
    transactional_db: None,
    redis_url: str,
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
    connect: Callable[..., Awaitable[Client]],
    test_pg: PgParams,
) -> None:
    config = {"hosts": [redis_url], "capacity": capacity}
    lossy = {"default": {"BACKEND": LOSSY, "CONFIG": {**config, "share": share}}}
    start_command("djcrf_pg", "listen", layers=lossy, settings={"ENVELOPE_EVENTS": 3}).wait_for(LEADS)
    server = start_asgi_server(layers={"default": {"BACKEND": CORE, "CONFIG": config}}, settings={"EMBEDDED": False})
    writer = Writer(test_pg, 14)
    followers = [Follower(await connect(server, "board"), writer) for _ in range(4)]
    churning = asyncio.create_task(churn(await connect(server, "board")))
    with meanwhile(writer.work):
        for number, status in enumerate(["todo", "done"] * 2 + ["done", "todo"] * 2):
            await until(lambda number=number: len(writer.told) > 40 * number)
            await followers[number % 4].subscribe(status)
        await until(lambda: len(writer.told) > 280 + MORE)
    churning.cancel()
    await asyncio.gather(churning, return_exceptions=True)
    with psycopg.connect(test_pg.dsn(), autocommit=True) as connection:
        for pk, status in ((100_001, "todo"), (100_002, "done")):
            connection.execute(INSERT.replace("'todo'", "%s"), [pk, f"last {status}", status])
            writer.told.append([(status, "create", pk)])
    for follower in followers:
        for pk in (100_001, 100_002):
            await follower.client.until(lambda message, pk=pk: message.get("body", {}).get("id") == pk)
        follower.check()
    server.wait_for(REPLAYED)
