"""A client that loses its connection every second, while leaders are killed, has the table in the end.

``DJCRF_PG_TEST_LONG=1`` (``make long``) goes on for the five minutes that the documentation names.
"""

import asyncio
import json
import math
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, transaction
from django.db.models import F
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.test_cluster import LEADS, STANDS_BY
from tests.processes import TIMEOUT, meanwhile, until
from tests.servers import AsgiServer, ManagePy
from tests.testapp.consumers import TaskSerializer
from tests.testapp.models import Task

pytestmark = [pytest.mark.slow, pytest.mark.processes]

LONG = os.environ.get("DJCRF_PG_TEST_LONG") == "1"

#: Windows are read in pieces, and events travel in several messages, so there is a middle to be cut off in.
SETTINGS = {"EMBEDDED": False, "BATCH_SIZE": 40, "ENVELOPE_EVENTS": 10}

#: Seconds that it goes on, from one cut of the connection to the next, and from one kill of a leader to the next.
LENGTH, CUT, KILL = (300.0 if LONG else 20.0), 1.0, 7.0

#: Seconds in which a leader may send again what the one that was killed had sent.
AGAIN = 3.0

WRITERS = 3
STATUSES = ("todo", "doing", "done")
NUMBERS = count()

#: What the client follows, as the arguments of the action.
FOLLOWED: dict[str, dict[str, str]] = {"table": {}, "lane": {"status": "todo"}}

Rows = dict[int, dict[str, Any]]


class Copy:
    """What a page shows of a list.

    Attributes:
        rows: What it shows.
        cursor: Of the last event in it.
        wrong: Events that cannot be, with the copy as it was: a row that comes twice, that goes without having been
            there, or that becomes what it was before.
        again: Events that had come before.
    """

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.cursor: str | None = None
        self.wrong: list[tuple[float, str]] = []
        self.again: list[float] = []
        self._heard: set[tuple[int, str, int]] = set()

    def load(self, data: dict[str, Any]) -> None:
        """Begin anew."""
        self.rows = {task["id"]: task for task in data["tasks"]}
        self.cursor = data["cursor"]

    def fold(self, event: dict[str, Any]) -> bool:
        """Take in an event; whether it had come before."""
        action, task = event["action"], event["task"]
        has, now = self.rows.get(task["id"]), time.monotonic()
        heard = (event["change_id"], action, task["id"])
        if came_before := heard in self._heard:
            self.again.append(now)
        self._heard.add(heard)
        # Every update adds to the points.
        is_older = has is not None and action == "update" and task["points"] <= has["points"]
        if (has is None) is not (action == "create") or is_older:
            self.wrong.append((now, f"{action} of {task}, change {event['change_id']}, where the copy has {has}"))
        if action == "delete":
            self.rows.pop(task["id"], None)
        else:
            self.rows[task["id"]] = task
        self.cursor = event["cursor"]
        return came_before


class Page:
    """The page of the documentation: one connection, and another one whenever it ends.

    Attributes:
        copies: What it shows of each list that it follows.
        counts: What has happened.
        patience: So many events that come again are taken until it is cut off among them.
    """

    def __init__(self, url: str) -> None:
        self.copies = {of: Copy() for of in FOLLOWED}
        self.counts: Counter[str] = Counter()
        self._url = url
        self._some = random.Random(0)
        self._connection: ClientConnection | None = None

    async def run(self) -> None:
        """Follow, until cancelled."""
        while True:
            self.patience = self._some.randrange(1, 30)  # a new leader may send again what another one had sent
            async with connect(self._url, max_size=None, open_timeout=TIMEOUT, close_timeout=0.1) as self._connection:
                with suppress(ConnectionClosed):
                    for of, arguments in FOLLOWED.items():
                        call = {"action": "follow", "of": of, "since": self.copies[of].cursor, "request_id": of}
                        await self._connection.send(json.dumps({**call, **arguments}))
                    async for text in self._connection:
                        if not self._take(json.loads(text)):
                            break
            self._connection = None

    def cut(self) -> None:
        """End the connection, as a phone does in a tunnel: what is on its way is lost."""
        if self._connection is not None:
            with suppress(OSError):  # it has ended already
                self._connection.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                self.counts["cuts"] += 1

    def _take(self, message: dict[str, Any]) -> bool:
        """Whether to go on with the connection."""
        if (of := message.get("of")) is not None:
            self.counts["events"] += 1
            if self.copies[of].fold(message):
                self.patience -= 1
                if not self.patience:
                    self.cut()
                    return False
            return True
        if message["action"] == "follow" and message["response_status"] == 503:
            self.counts["nobody led"] += 1
            return False
        assert (message["action"], message["response_status"]) == ("follow", 200), f"to be loaded again: {message}"
        copy, data = self.copies[message["request_id"]], message["data"]
        assert (data["tasks"] is None) is (copy.cursor is not None), "only the first time is a list"
        if data["tasks"] is None:
            self.counts["resumed"] += 1
        else:
            self.counts["loaded"] += 1
            copy.load(data)
        return True


def write(some: random.Random) -> None:
    """Change something, as a program might: rows come, change, go to another group, and are deleted."""
    with transaction.atomic():
        for _ in range(some.randrange(1, 4)):
            pks = list(Task.objects.order_by("pk").values_list("pk", flat=True))
            few = Task.objects.filter(pk__in=some.sample(pks, min(len(pks), some.randrange(1, 8))))
            match some.choice("iummbd" if len(pks) < 300 else "uumbdd"):
                case "i":
                    Task.objects.bulk_create(
                        Task(title=f"task {next(NUMBERS)}", status=some.choice(STATUSES)) for _ in range(5)
                    )
                case "u":
                    few.update(points=F("points") + 1)
                case "m":
                    few.update(status=some.choice(STATUSES), points=F("points") + 1)
                case "b":
                    Task.objects.filter(pk__gte=some.choice(pks or [0])).update(points=F("points") + 1)
                case "d":
                    few.delete()
        if some.random() < 0.1:
            transaction.set_rollback(True)


@contextmanager
def writers() -> Iterator[Counter[str]]:
    """Write during the block, from several threads; their transactions are counted."""
    counts: Counter[str] = Counter()

    def work(done: threading.Event, seed: int) -> None:
        some = random.Random(seed)
        try:
            while not done.wait(0.02):
                with suppress(OperationalError):  # a deadlock with another one
                    write(some)
                    counts[f"writer {seed}"] += 1
        finally:
            connections.close_all()

    with ExitStack() as stack:
        for seed in range(WRITERS):
            stack.enter_context(meanwhile(lambda done, seed=seed: work(done, seed)))
        yield counts


class Listeners:
    """Two listeners, of which one leads.

    Attributes:
        kills: When a leader was killed, and when the other one led.
    """

    def __init__(self, start: Callable[[], ManagePy]) -> None:
        self.kills: list[tuple[float, float]] = []
        self._leader = start()
        self._leader.wait_for(LEADS)
        self._standby = start()
        self._standby.wait_for(STANDS_BY)

    async def kill(self) -> None:
        """Kill the one that leads, and start it again when the other one does."""
        standby, before = self._standby, self._standby.position
        killed = time.monotonic()
        self.kills.append((killed, math.inf))
        self._leader.kill()
        await standby.until(LEADS, after=before)
        self.kills[-1] = (killed, time.monotonic())
        self._leader, self._standby = standby, self._leader
        before = self._standby.position
        self._standby.start()
        await self._standby.until(STANDS_BY, after=before)

    def may_repeat(self, at: float) -> bool:
        """Whether what came then may have been sent again by a leader that had just begun."""
        return any(killed <= at <= led + AGAIN for killed, led in self.kills)


async def every(seconds: float, work: Callable[[], Any]) -> None:
    """Do it again and again, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        if asyncio.iscoroutine(doing := work()):
            await doing


def rows_of(arguments: dict[str, str]) -> Rows:
    """What a page should show."""
    return {task["id"]: dict(task) for task in TaskSerializer(Task.objects.filter(**arguments), many=True).data}


async def test_a_client_that_is_cut_off_every_second_has_the_table_without_a_resync(
    transactional_db: None,
    redis_url: str,
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
) -> None:
    listeners = Listeners(lambda: start_command("djcrf_pg", "listen", redis=redis_url, settings=SETTINGS))
    server = start_asgi_server(redis=redis_url, settings=SETTINGS)
    page = Page(server.consumer_url("roaming"))
    following = asyncio.create_task(page.run())
    with writers() as written:
        await until(lambda: following.done() or page.counts["loaded"] == len(FOLLOWED))
        disturbing = [asyncio.create_task(every(CUT, page.cut)), asyncio.create_task(every(KILL, listeners.kill))]
        await asyncio.wait([following, *disturbing], timeout=LENGTH, return_when=asyncio.FIRST_COMPLETED)
        for task in disturbing:
            assert not task.done(), task.exception()
            task.cancel()
        await asyncio.gather(*disturbing, return_exceptions=True)
    last = await Task.objects.acreate(title="last", status=FOLLOWED["lane"]["status"])
    try:
        await until(lambda: following.done() or all(last.pk in copy.rows for copy in page.copies.values()))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        again = {of: len(copy.again) for of, copy in page.copies.items()}
        wrong = {of: len(copy.wrong) for of, copy in page.copies.items()}
        print(
            f"{dict(page.counts)}, {len(listeners.kills)} leaders killed, {written.total()} transactions, "
            f"{again} came again, {wrong} of them contradicted"
        )
    assert following.cancelled(), following.exception()
    for of, arguments in FOLLOWED.items():
        copy = page.copies[of]
        assert copy.rows == await sync_to_async(rows_of)(arguments)
        # After a killed leader what it had told may come again; folded once more, it is the same.
        assert not [text for at, text in copy.wrong if not listeners.may_repeat(at)]
        assert not [at for at in copy.again if not listeners.may_repeat(at)]
    assert page.counts["resumed"] > len(FOLLOWED) * LENGTH / CUT / 4, "it was hardly ever there"
    assert len(listeners.kills) >= LENGTH / KILL / 2


async def test_who_is_cut_off_in_what_comes_again_is_told_of_what_has_gone(
    transactional_db: None,
    redis_url: str,
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
) -> None:
    settings = {"EMBEDDED": False, "BATCH_SIZE": 3, "ENVELOPE_EVENTS": 1}
    leader = start_command("djcrf_pg", "listen", redis=redis_url, settings=settings)
    leader.wait_for(LEADS)
    standby = start_command("djcrf_pg", "listen", redis=redis_url, settings=settings)
    standby.wait_for(STANDS_BY)
    page = Page(start_asgi_server(redis=redis_url, settings=settings).consumer_url("roaming"))
    following = asyncio.create_task(page.run())
    copy = page.copies["table"]

    async def has(task: Task) -> None:
        await until(lambda: following.done() or task.pk in copy.rows)

    try:
        await until(lambda: page.counts["loaded"] == len(FOLLOWED))
        page.patience = 1
        standby.send_signal(signal.SIGSTOP)  # it is to lead when the row has gone
        await has(await Task.objects.acreate(title="first"))  # the leader saves where it is, and not at once again
        await Task.objects.abulk_create(Task(title=f"task {number}") for number in range(3))
        gone = await Task.objects.acreate(title="gone")
        await has(gone)
        leader.kill()
        await Task.objects.filter(pk=gone.pk).adelete()
        standby.send_signal(signal.SIGCONT)
        await has(await Task.objects.acreate(title="last"))
    finally:
        standby.send_signal(signal.SIGCONT)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert following.cancelled(), following.exception()
    assert page.counts["cuts"] == 1, "nothing came again, so this shows nothing"
    assert copy.rows == await sync_to_async(rows_of)({})
