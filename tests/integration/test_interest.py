"""Which groups the processes have: how they publish it, and that it is there whenever a leader needs it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from djcrf_pg import sql as files
from djcrf_pg.changelog.cursor import Position
from djcrf_pg.changelog.reader import ChangeLog
from djcrf_pg.delivery.interest import CHUNK
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener import gate as gates
from djcrf_pg.listener.gate import HOLDER_CLASS_ID, Gate
from tests.processes import until
from tests.servers import PgParams

pytestmark = pytest.mark.django_db(transaction=True)

BITS = {1, 2, CHUNK, 65_535}


@pytest.fixture
def admin(test_pg: PgParams, db: None) -> Iterator[psycopg.Connection[Any]]:
    """A session of a superuser; nothing is published before, nor after."""
    with test_pg.connect() as session:
        session.execute("DELETE FROM djcrf_pg_interest")
        yield session
        session.execute("DELETE FROM djcrf_pg_interest")


@pytest.fixture
async def gate(admin: psycopg.Connection[Any]) -> AsyncIterator[Gate]:
    """A gate, closed at the end."""
    gate = Gate("default")
    yield gate
    await gate.close()


def published(admin: psycopg.Connection[Any], where: str = "true") -> set[int]:
    """The bits that somebody has published."""
    rows = admin.execute(f"SELECT chunk, bits::text FROM djcrf_pg_interest WHERE {where}").fetchall()  # type: ignore[arg-type]
    return {chunk * CHUNK + place for chunk, text in rows for place, bit in enumerate(text) if bit == "1"}


def holders(admin: psycopg.Connection[Any]) -> set[int]:
    """Who has published something."""
    return {holder for (holder,) in admin.execute("SELECT DISTINCT holder FROM djcrf_pg_interest")}


def living(admin: psycopg.Connection[Any]) -> set[int]:
    """Whose session lives."""
    found = admin.execute("SELECT objid::int8 FROM pg_locks WHERE classid = %s", [HOLDER_CLASS_ID])
    return {holder for (holder,) in found}


def version(admin: psycopg.Connection[Any]) -> int:
    """How often something was published."""
    row = admin.execute("SELECT last_value FROM djcrf_pg_interest_version").fetchone()
    assert row is not None
    return int(row[0])


async def end_session(admin: psycopg.Connection[Any], gate: Gate) -> None:
    """End the gate's session in the server."""
    session = gate._session
    assert session is not None
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", [session.pid])
    await until(session.is_closed)


async def test_a_probe_publishes_what_is_new_before_it_takes_its_snapshot(
    gate: Gate, admin: psycopg.Connection[Any]
) -> None:
    before = version(admin)
    probe = await gate.probe((), BITS)
    assert probe.migrated
    assert published(admin) == BITS
    assert version(admin) == before + 1
    row = admin.execute("SELECT max(xmin::text::bigint) FROM djcrf_pg_interest").fetchone()
    assert row is not None
    assert probe.moment.snapshot.sees(row[0])
    # What is published is not written again.
    await gate.probe((), {1, 2})
    await gate.probe(())
    assert version(admin) == before + 1
    await gate.probe((), {3})
    assert published(admin) == BITS | {3}
    assert len(holders(admin)) == 1


async def test_who_asks_at_the_same_time_is_published_at_once(gate: Gate, admin: psycopg.Connection[Any]) -> None:
    await gate.probe(())
    before = version(admin)
    await asyncio.gather(*(gate.probe((), {bit}) for bit in range(0, 60_000, 100)))
    assert published(admin) == set(range(0, 60_000, 100))
    assert version(admin) <= before + 2


async def test_what_is_not_retained_is_cleared_unless_it_is_on_its_way(
    gate: Gate, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await gate.retain(set())
    assert gate.number == 0  # nothing to say
    await gate.probe((), BITS)
    await gate.retain(set())
    assert published(admin) == BITS
    monkeypatch.setattr("djcrf_pg.delivery.interest._LINGER", 0.0)
    await asyncio.gather(gate.retain({1}), gate.probe((), {1, 4}))
    assert published(admin) == {1, 4}
    await gate.retain({1})
    assert published(admin) == {1}
    await gate.probe((), {2})
    assert published(admin) == {1, 2}


async def test_a_session_that_ends_is_no_gap(gate: Gate, admin: psycopg.Connection[Any]) -> None:
    await gate.probe((), BITS)
    (former,) = holders(admin)
    await end_session(admin, gate)
    assert published(admin) == BITS
    assert await gate.renew()
    assert published(admin, f"holder <> {former}") == BITS
    # The same where a subscription comes first.
    await end_session(admin, gate)
    await gate.probe((), {7})
    assert published(admin) == BITS | {7}
    assert await gate.renew()


async def test_rows_that_were_pruned_while_there_was_no_session_are_a_gap(
    gate: Gate, admin: psycopg.Connection[Any]
) -> None:
    await gate.probe((), BITS)
    await end_session(admin, gate)
    admin.execute("DELETE FROM djcrf_pg_interest WHERE chunk = 1")
    await gate.probe((), {7})
    assert published(admin) == BITS | {7}
    assert not await gate.renew()
    assert await gate.renew()


CLEARED = "UPDATE djcrf_pg_interest SET bits = repeat('0', 1024)::bit(1024)"


@pytest.mark.parametrize("gone", ["DELETE FROM djcrf_pg_interest", CLEARED])
async def test_rows_that_were_pruned_under_a_living_session_are_a_gap(
    gone: str, gate: Gate, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await gate.probe((), BITS)
    assert await gate.renew()
    admin.execute(gone)  # type: ignore[arg-type]
    assert await gate.renew()  # asked a moment ago
    monkeypatch.setattr(gates, "_CONFIRM", 0.0)
    before = version(admin)
    assert not await gate.renew()
    assert published(admin) == BITS
    assert version(admin) == before + 1
    assert await gate.renew()


async def test_each_gate_has_rows_and_a_lock_of_its_own(gate: Gate, admin: psycopg.Connection[Any]) -> None:
    other = Gate("default")
    await gate.probe((), {1})
    await other.probe((), {1, 2})
    locks = {
        holder for (holder,) in admin.execute("SELECT objid::int8 FROM pg_locks WHERE classid = %s", [HOLDER_CLASS_ID])
    }
    assert len(locks) == 2
    assert holders(admin) == locks
    before = version(admin)
    await other.close()
    assert published(admin) == {1}
    assert version(admin) == before + 1
    await until(
        lambda: len(admin.execute("SELECT 1 FROM pg_locks WHERE classid = %s", [HOLDER_CLASS_ID]).fetchall()) == 1
    )


async def test_without_the_table_a_probe_says_that_it_is_not_migrated(
    gate: Gate, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("ALTER TABLE djcrf_pg_interest RENAME TO elsewhere")
    try:
        assert not (await gate.probe((), BITS)).migrated
        assert not (await gate.probe(())).migrated
    finally:
        admin.execute("ALTER TABLE elsewhere RENAME TO djcrf_pg_interest")
    assert (await gate.probe((), {1})).migrated
    assert published(admin) == {1}


async def test_a_role_without_the_right_is_told_which(gate: Gate, admin: psycopg.Connection[Any]) -> None:
    admin.execute("CREATE ROLE djcrf_deaf")
    try:
        await gate.probe(())
        assert gate._session is not None
        await gate._session.execute("SET SESSION AUTHORIZATION djcrf_deaf")
        with pytest.raises(ConfigurationError, match="GRANT SELECT, INSERT, UPDATE ON djcrf_pg_interest TO"):
            await gate.probe((), BITS)
    finally:
        await gate.close()
        admin.execute("DROP ROLE djcrf_deaf")


async def test_an_old_snapshot_does_not_make_the_rows_long_to_read(
    gate: Gate, admin: psycopg.Connection[Any], test_pg: PgParams
) -> None:
    admin.execute("TRUNCATE djcrf_pg_interest")  # what other tests have left is in its blocks too
    with test_pg.connect() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1")
        for bit in range(1_000):
            await gate.probe((), {bit * 64 + bit % 64})
        plan = admin.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT chunk, bit_or(bits) FROM djcrf_pg_interest GROUP BY chunk"
        ).fetchone()
        assert plan is not None
        # A row for each subscription, not all that the process has each time.
        assert plan[0][0]["Plan"]["Shared Hit Blocks"] + plan[0][0]["Plan"]["Shared Read Blocks"] <= 60


def test_a_role_may_do_what_it_may_do_with_failures(admin: psycopg.Connection[Any]) -> None:
    backwards, forwards = (
        files.render(files.load("djcrf_pg.capture", f"0007_{way}.sql"), schema="public.")
        for way in ("backwards", "forwards")
    )
    with admin.transaction(force_rollback=True):
        admin.execute("CREATE ROLE djcrf_web; CREATE ROLE djcrf_other; GRANT SELECT ON djcrf_pg_cursor TO djcrf_other")
        admin.execute("GRANT SELECT, INSERT, UPDATE ON djcrf_pg_failure TO djcrf_web")
        admin.execute(backwards)  # type: ignore[arg-type]
        admin.execute(forwards)  # type: ignore[arg-type]
        for role, rights in (("djcrf_web", (True, False, True)), ("djcrf_other", (False, False, False))):
            found = admin.execute(
                "SELECT has_table_privilege(%(role)s, 'djcrf_pg_interest', 'INSERT'),"
                "       has_table_privilege(%(role)s, 'djcrf_pg_interest', 'DELETE'),"
                "       has_sequence_privilege(%(role)s, 'djcrf_pg_interest_version', 'USAGE')",
                {"role": role},
            ).fetchone()
            assert found == rights


async def test_a_log_without_the_right_or_the_table_has_no_version(gate: Gate, admin: psycopg.Connection[Any]) -> None:
    await gate.probe(())
    assert gate._session is not None
    log = ChangeLog(gate._session, "public.")
    position = Position(await log.now())
    assert (await log.read(position, 10)).interest == version(admin)
    admin.execute("ALTER SEQUENCE djcrf_pg_interest_version RENAME TO elsewhere")
    try:
        assert (await log.read(position, 10)).interest is None
    finally:
        admin.execute("ALTER SEQUENCE elsewhere RENAME TO djcrf_pg_interest_version")
    admin.execute("CREATE ROLE djcrf_deaf; GRANT SELECT ON djcrf_pg_change TO djcrf_deaf")
    try:
        await gate._session.execute("SET SESSION AUTHORIZATION djcrf_deaf")
        assert (await log.read(position, 10)).interest is None
        admin.execute("GRANT SELECT ON djcrf_pg_interest TO djcrf_deaf")
        assert (await log.read(position, 10)).interest is None
        admin.execute("GRANT SELECT ON SEQUENCE djcrf_pg_interest_version TO djcrf_deaf")
        assert (await log.read(position, 10)).interest == version(admin)
    finally:
        await gate.close()
        admin.execute("DROP OWNED BY djcrf_deaf; DROP ROLE djcrf_deaf")
