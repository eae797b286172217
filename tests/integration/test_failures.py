"""Failures in the database: what is kept of them, and the rows that are to be sent again."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asyncpg import InsufficientPrivilegeError
from django.db import connection

from djcrf_pg.changelog.reader import Connection
from djcrf_pg.delivery.hub import Hub
from djcrf_pg.listener.connection import connect
from djcrf_pg.listener.failures import Asked, again, failed_within, record
from djcrf_pg.listener.gate import Gate
from djcrf_pg.listener.replay import Replays
from djcrf_pg.observer import model_observer
from djcrf_pg.routing.failed import FAILED, Failure
from tests.testapp.models import Task

pytestmark = pytest.mark.django_db


UNTIL_IT_WAITS = """
DO $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'djcrf_pg_failure'::regclass AND NOT granted) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$
"""


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """The handler of an observer."""


@pytest.fixture
async def asyncpg(db: None) -> AsyncIterator[Connection]:
    """A connection as the listener has it; what the test has written goes with it."""
    session = await connect("default", "test")
    yield session
    await session.execute("TRUNCATE djcrf_pg_failure")
    await session.close()


async def test_a_key_that_is_too_long_for_an_index_is_not_kept(asyncpg: Connection) -> None:
    observer = model_observer(Task)(handler)
    keys = [f'["{secrets.token_hex(4_000)}"]', '["1"]']
    failures = [Failure.of(observer, "handler", key, number, ValueError("no")) for number, key in enumerate(keys)]
    await record(asyncpg, failures, told=True)
    rows = await asyncpg.fetch("SELECT pk, times FROM djcrf_pg_failure ORDER BY pk")
    assert [tuple(row) for row in rows] == [("", 1), ('["1"]', 1)]


async def test_what_fails_while_failures_are_recorded_is_recorded_next(asyncpg: Connection) -> None:
    observer, gate = model_observer(Task)(handler), Gate("default")
    hub = Hub(gate, Replays("default"), lambda *_: True)
    first, second = (Failure.of(observer, "handler", f'["{number}"]', number, ValueError("no")) for number in range(2))
    await asyncpg.execute("BEGIN; LOCK TABLE djcrf_pg_failure")
    hub.record([first])
    recording = asyncio.create_task(hub._mind_the_database())
    async with asyncio.timeout(30):
        await asyncpg.execute(UNTIL_IT_WAITS)
    hub.record([second])
    await asyncpg.execute("COMMIT")
    await recording
    await hub._mind_the_database()
    await gate.close()
    assert [row["pk"] for row in await asyncpg.fetch("SELECT pk FROM djcrf_pg_failure ORDER BY pk")] == [
        '["0"]',
        '["1"]',
    ]


async def test_a_role_that_may_not_know_what_has_failed_does_not_take_it_that_nothing_has(asyncpg: Connection) -> None:
    assert await failed_within(asyncpg, 60.0) == frozenset()
    await asyncpg.execute("SET ROLE pg_monitor")
    try:
        with pytest.raises(InsufficientPrivilegeError):
            await failed_within(asyncpg, 60.0)
    finally:
        await asyncpg.execute("RESET ROLE")


def test_a_row_that_cannot_be_loaded_again_is_a_resync(caplog: pytest.LogCaptureFixture) -> None:
    observer = model_observer(Task)(handler)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE testapp_task RENAME TO gone")
    (occurrence,) = again([Asked(1, observer, '["7"]', 3)], ["default"])
    assert (occurrence.resync, occurrence.change.id) == (FAILED, 3)
    assert 'testapp.Task ["7"], which is to be sent again' in caplog.text
