"""Windows between snapshots: each committed change is read once, in whatever order transactions end."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from djcrf_pg.changelog import reader as module
from djcrf_pg.changelog.change import MASS, UNORDERED, Change
from djcrf_pg.changelog.cursor import BEGINNING, Position, Snapshot
from djcrf_pg.changelog.decode import ColumnType, relations_of
from djcrf_pg.changelog.image import parse
from djcrf_pg.changelog.reader import ChangeLog, Connection, Piece
from djcrf_pg.exceptions import ConfigurationError, LeadershipLost, NotMigrated
from djcrf_pg.listener.connection import connect
from djcrf_pg.listener.parameters import asyncpg_arguments
from tests.servers import PgParams

# The tests write in sessions of their own; without the mark pytest-django makes no database.
pytestmark = pytest.mark.django_db

Session = psycopg.Connection[Any]
EVERYTHING = 1_000_000


@pytest.fixture
async def asyncpg(db: None, test_pg: PgParams) -> AsyncIterator[Connection]:
    """A connection as the listener has it; what the test has written goes with it."""
    connection = await connect("default", "test")
    yield connection
    await connection.execute("RESET ALL; DELETE FROM testapp_project; TRUNCATE djcrf_pg_change, djcrf_pg_cursor")
    await connection.close()


@pytest.fixture
async def log(asyncpg: Connection) -> ChangeLog:
    """The log; it has no cursor, and the doorbell is to be rung."""
    await asyncpg.execute("DELETE FROM djcrf_pg_cursor")
    log = await ChangeLog.open(asyncpg)
    await log.set_flag(0)
    return log


@pytest.fixture
async def now(log: ChangeLog) -> Position:
    """The position before the test has written anything."""
    return (await log.read(Position(BEGINNING), EVERYTHING)).position


@pytest.fixture
def session(test_pg: PgParams) -> Iterator[Callable[[], Session]]:
    """Opens sessions in which a transaction begins with the first statement."""
    with ExitStack() as stack:

        def open_session() -> Session:
            connection = psycopg.connect(test_pg.dsn())
            stack.callback(connection.close)
            return connection

        yield open_session


def write(session: Session, name: str) -> None:
    """Insert a row that can be told by its name."""
    session.execute("INSERT INTO testapp_project (name) VALUES (%s)", [name])


def commit(session: Session, *names: str) -> None:
    """Insert rows in a transaction of their own."""
    for name in names:
        write(session, name)
    session.commit()


def xid_of(session: Session) -> int:
    """The id of the session's transaction."""
    row = session.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    return int(row[0])


def names(changes: list[Change]) -> list[str]:
    """What was written, in the order in which it was read."""
    return [str(parse(change.new)["name"]) for change in changes if change.new]


async def read_all(log: ChangeLog, position: Position, limit: int) -> tuple[list[Piece], Position]:
    """Read until the window is at its end."""
    pieces = []
    while True:
        piece = await log.read(position, limit)
        pieces.append(piece)
        position = piece.position
        if position.target is None:
            return pieces, position


# -- windows -------------------------------------------------------------------------------------------------


async def test_transactions_that_commit_out_of_order_are_each_read_once(
    log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    first, second, third = session(), session(), session()
    write(first, "first")
    write(second, "second")
    write(third, "third")
    second.commit()
    piece = await log.read(now, EVERYTHING)
    assert names(piece.changes) == ["second"]
    third.rollback()
    first.commit()
    piece = await log.read(piece.position, EVERYTHING)
    assert names(piece.changes) == ["first"]
    piece = await log.read(piece.position, EVERYTHING)
    assert piece.changes == []


async def test_a_window_is_in_the_order_of_ids_whatever_the_order_of_transactions(
    log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    early, late = session(), session()
    assert xid_of(early) < xid_of(late)
    write(late, "1")
    write(early, "2")
    write(late, "3")
    late.commit()
    early.commit()
    piece = await log.read(now, EVERYTHING)
    assert names(piece.changes) == ["1", "2", "3"]
    assert [change.id for change in piece.changes] == sorted(change.id for change in piece.changes)


async def test_a_transaction_that_stays_open_delays_only_itself(
    log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    long, other = session(), session()
    write(long, "long")
    position = now
    for number in range(10):
        commit(other, f"short {number}")
        piece = await log.read(position, EVERYTHING)
        assert names(piece.changes) == [f"short {number}"]
        position = piece.position
    assert xid_of(long) in position.last.xip
    long.commit()
    piece = await log.read(position, EVERYTHING)
    assert names(piece.changes) == ["long"]
    assert (await log.read(piece.position, EVERYTHING)).changes == []


async def test_a_change_has_all_that_was_logged(log: ChangeLog, now: Position, session: Callable[[], Session]) -> None:
    writer = session()
    writer.execute("SET LOCAL djcrf_pg.context = 'who'")
    write(writer, "a")
    xid = xid_of(writer)
    writer.commit()
    (change,) = (await log.read(now, EVERYTHING)).changes
    assert (change.xid, change.op, change.old, change.context) == (xid, "I", None, "who")
    assert change.relation == (await log.oids(["testapp_project"]))["testapp_project"]
    assert change.at.tzinfo is not None


async def test_subtransactions_belong_to_their_transaction(
    log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    writer = session()
    write(writer, "a")
    with writer.transaction():
        write(writer, "b")
    with writer.transaction(force_rollback=True):
        write(writer, "c")
    assert (await log.read(now, EVERYTHING)).changes == []
    writer.commit()
    piece = await log.read(now, EVERYTHING)
    assert names(piece.changes) == ["a", "b"]
    assert len({change.xid for change in piece.changes}) == 1


@pytest.mark.parametrize("seed", range(8))
async def test_any_interleaving_of_writers_and_reads_gives_each_committed_change_once(
    seed: int, log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    dice = random.Random(seed)
    writers = {session(): list[str]() for _ in range(5)}
    committed: list[str] = []
    seen: list[str] = []
    position, count = now, 0
    for _ in range(120):
        writer = dice.choice(list(writers))
        match dice.choice(["write", "write", "write", "commit", "rollback", "read", "read"]):
            case "write":
                count += 1
                write(writer, str(count))
                writers[writer].append(str(count))
            case "commit":
                writer.commit()
                committed += writers[writer]
                writers[writer] = []
            case "rollback":
                writer.rollback()
                writers[writer] = []
            case "read":
                # Pieces are left in the middle of their window, and taken up from the text that is saved.
                piece = await log.read(position, dice.choice([1, 2, 3, 100]))
                seen += names(piece.changes)
                position = reopened(piece.position)
                assert set(seen) <= set(committed), "nothing that is not committed"
    for writer, written in writers.items():
        writer.commit()
        committed += written
    while True:
        piece = await log.read(position, 3)
        seen += names(piece.changes)
        position = piece.position
        if position.target is None and not piece.changes:
            break
    assert sorted(seen) == sorted(committed)


async def test_changes_of_one_row_are_read_in_the_order_of_their_commits(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    """The second writer has the older transaction id, and waits for the first one's row lock."""
    first, second = session(), session()
    commit(first, "0")
    assert xid_of(second) < xid_of(first)
    first.execute("UPDATE testapp_project SET name = '1'")
    pid = second.info.backend_pid
    waiting = asyncio.create_task(asyncio.to_thread(second.execute, "UPDATE testapp_project SET name = name || '2'"))
    async with asyncio.timeout(20):
        while not await asyncpg.fetchval("SELECT pg_sleep(0.005) IS NULL OR pg_blocking_pids($1) <> '{}'", pid):
            pass
    first.commit()
    await waiting
    second.commit()
    piece = await log.read(now, EVERYTHING)
    assert names(piece.changes) == ["0", "1", "12"]


# -- pieces --------------------------------------------------------------------------------------------------


def reopened(position: Position) -> Position:
    """The position after it was saved as text and loaded again."""
    target = position.target and Snapshot.parse(str(position.target))
    return Position(Snapshot.parse(str(position.last)), target, position.after_id)


async def test_a_window_is_read_in_pieces_up_to_a_fixed_target(
    log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    writer, late = session(), session()
    write(late, "late")
    commit(writer, *map(str, range(7)))
    first = await log.read(now, 3)
    assert names(first.changes) == ["0", "1", "2"]
    assert (first.position.last, first.position.after_id) == (now.last, first.changes[-1].id)
    commit(writer, "7")
    late.commit()
    second = await log.read(reopened(first.position), 3)
    assert names(second.changes) == ["3", "4", "5"]
    assert second.position.target == first.position.target
    third = await log.read(reopened(second.position), 3)
    assert names(third.changes) == ["6"], "what has committed since belongs to the next window"
    assert third.position == Position(first.position.target or now.last)
    assert names((await log.read(third.position, EVERYTHING)).changes) == ["late", "7"]


async def test_after_a_crash_the_rest_of_the_window_is_read_from_the_saved_cursor(
    log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    commit(session(), *map(str, range(7)))
    taken = await log.take()
    piece = await log.read(now, 3)
    await log.save(piece.position, taken.term)
    another = await connect("default", "test")
    try:
        successor = await ChangeLog.open(another)
        position = (await successor.take()).position
        assert position == piece.position
        pieces, _ = await read_all(successor, position, 100)
        assert names([change for piece in pieces for change in piece.changes]) == ["3", "4", "5", "6"]
    finally:
        await another.close()


async def test_a_window_that_is_taken_up_again_knows_what_its_former_pieces_had(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    """A piece has rows of a trigger's statement; after another leader took over come those of the one that fired it."""
    writer = session()
    commit(writer, *map(str, range(4)))
    await asyncpg.execute(
        "UPDATE djcrf_pg_change SET depth = CASE WHEN new->>'name' IN ('0', '1') THEN 2 ELSE 1 END, "
        "xid = pg_current_xact_id() WHERE relation = 'testapp_project'::regclass AND new->>'name' ~ '^[0-3]$'"
    )
    piece = await log.read(now, 2)
    assert [change.op for change in piece.changes] == ["I", "I"]
    another = await connect("default", "test")
    try:
        rest = await (await ChangeLog.open(another)).read(reopened(piece.position), 2)
    finally:
        await another.close()
    assert [change.op for change in rest.changes] == [UNORDERED]
    assert [change.op for change in (await log.read(piece.position, 2)).changes] == [UNORDERED]


@pytest.mark.parametrize("resumed", [False, True], ids=["", "resumed"])
@pytest.mark.parametrize("before", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("limit", [2, 100])
async def test_a_crowd_is_one_change_wherever_the_window_is_cut(
    limit: int, before: int, resumed: bool, log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    writer, other = session(), session()
    for number in range(before):
        commit(other, f"before {number}")
    for number in range(5):
        write(writer, f"crowd {number}")
    commit(other, "few")
    writer.commit()
    changes, position = [], now
    while True:
        piece = await log.read(position, limit, mass=4)
        changes += piece.changes
        position = piece.position
        if position.target is None:
            break
        if resumed:
            log = await ChangeLog.open(log.connection)
    assert [(change.op, change.rows) for change in changes] == [("I", None)] * before + [(MASS, 5), ("I", None)]
    assert names(changes) == [*(f"before {number}" for number in range(before)), "few"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 9])
async def test_a_window_as_large_as_its_pieces_ends_with_the_last_of_them(
    count: int, log: ChangeLog, now: Position, session: Callable[[], Session]
) -> None:
    commit(session(), *map(str, range(count)))
    pieces, _ = await read_all(log, now, 3)
    assert len(pieces) == max(1, -(-count // 3))
    assert names([change for piece in pieces for change in piece.changes]) == list(map(str, range(count)))


async def test_a_piece_is_cut_by_bytes_too_and_a_row_over_the_limit_travels_alone(
    log: ChangeLog, now: Position, session: Callable[[], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 60)
    writer = session()
    sizes = [1, 1, 1, 1, 90, 90, 1]
    commit(writer, *(str(number) + "x" * size for number, size in enumerate(sizes)))
    pieces, _ = await read_all(log, now, 100)
    assert [name[0] for piece in pieces for name in names(piece.changes)] == list("0123456")
    assert 2 < len(pieces) < 7
    assert all(piece.changes for piece in pieces)
    monkeypatch.setattr(module, "PIECE_BYTES", 1)
    pieces, _ = await read_all(log, now, 100)
    assert [len(piece.changes) for piece in pieces] == [1] * 7


# -- the cursor ----------------------------------------------------------------------------------------------


async def test_each_leadership_has_a_higher_term_and_the_first_begins_at_the_beginning(log: ChangeLog) -> None:
    first, second = await log.take(), await log.take()
    assert (first.position, first.reset) == (Position(BEGINNING), None)
    assert second.term > first.term


async def test_a_cursor_that_a_trigger_keeps_from_being_written_is_said(log: ChangeLog, asyncpg: Connection) -> None:
    await asyncpg.execute("SET session_replication_role = replica; SET application_name = 'somebody'")
    with pytest.raises(ConfigurationError, match="session_replication_role"):
        await log.take()
    await asyncpg.execute("SET application_name = 'djcrf_pg leader here'")
    assert (await log.take()).reset is None


@pytest.mark.parametrize(("target", "after_id"), [(None, None), ("3:9:3,5", 17)])
async def test_a_new_leader_goes_on_where_the_former_one_saved(
    target: str | None, after_id: int | None, log: ChangeLog
) -> None:
    position = Position(Snapshot.parse("3:7:3"), Snapshot.parse(target) if target else None, after_id)
    await log.save(position, (await log.take()).term)
    assert (await log.take()).position == position


async def test_an_older_term_can_save_no_more(log: ChangeLog) -> None:
    former, present = await log.take(), await log.take()
    position = Position(Snapshot.parse("3:7:3"))
    await log.save(position, present.term)
    with pytest.raises(LeadershipLost, match=f"term {former.term} is over"):
        await log.save(Position(Snapshot.parse("9:9:")), former.term)
    assert (await log.take()).position == position


async def test_a_cursor_that_is_gone_is_made_again(log: ChangeLog, asyncpg: Connection) -> None:
    taken = await log.take()
    await asyncpg.execute("TRUNCATE djcrf_pg_cursor")
    position = Position(Snapshot.parse("3:7:3"))
    await log.save(position, taken.term)
    assert (await log.take()).position == position


@pytest.mark.parametrize("column", ["snapshot", "target"])
async def test_a_cursor_from_the_future_is_reset_to_the_beginning_of_the_log(
    column: str, log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    """A dump was restored into another cluster, whose transaction ids are lower."""
    commit(session(), "kept")
    await log.take()
    await asyncpg.execute(f"UPDATE djcrf_pg_cursor SET {column} = '99999999:99999999:', after_id = 5")
    taken = await log.take()
    assert taken.position == Position(BEGINNING)
    assert taken.reset is not None
    assert "kept" in names((await log.read(taken.position, EVERYTHING)).changes)
    await log.save(now, taken.term)
    assert (await log.take()).reset is None


async def test_another_server_process_ends_the_reading(log: ChangeLog, asyncpg: Connection) -> None:
    """As behind a pooler in transaction mode that was not noticed."""
    position = (await log.read(Position(BEGINNING), EVERYTHING)).position
    await log.read(position, EVERYTHING)
    other = await connect("default", "test")
    try:
        log.connection = other
        with pytest.raises(ConnectionError, match=rf"answers in place of {asyncpg.get_server_pid()}: .*pooler"):
            await log.read(position, EVERYTHING)
    finally:
        await other.close()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("snapshot = '99999999:99999999:', target = '1:2:'", "future"),
        ("target = '1:2:1', after_id = 9223372036854775807", "has a target (1:2:1) that lies before it"),
        ("after_id = -9223372036854775808", None),
        ("term = 9223372036854775807", None),
        ("term = -9223372036854775808, saved_at = 'infinity'", None),
        ("snapshot = '1:9223372036854775807:'", "future"),
        ("snapshot = '1:1:'", None),
    ],
)
async def test_a_damaged_cursor_is_told_and_leaves_no_hole(
    damage: str, told: str | None, log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    await asyncpg.execute("TRUNCATE djcrf_pg_change")
    former = await log.take()
    await log.save(now, former.term)
    commit(session(), *"abc")
    await asyncpg.execute(f"UPDATE djcrf_pg_cursor SET {damage}")
    for _ in range(2):
        taken = await log.take()
        assert taken.term > former.term
        assert (told or "") in (taken.reset or "")
        assert (taken.reset is None) == (told is None)
        pieces, position = await read_all(log, taken.position, 2)
        seen = names([change for piece in pieces for change in piece.changes])
        assert seen[-3:] == ["a", "b", "c"]
        former = taken
    await log.save(position, taken.term)
    assert (await log.take()).position == position


async def test_rows_of_another_cluster_are_read_once(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    await log.save(now, (await log.take()).term)
    commit(session(), "ours")
    await asyncpg.execute(
        "INSERT INTO djcrf_pg_change (xid, relation, op, new) "
        "SELECT n::text::xid8, 'testapp_project'::regclass, 'I', json_build_object('name', 'theirs ' || n) "
        "FROM generate_series(99999990, 99999999) AS n"
    )
    piece = await log.read(now, EVERYTHING)
    assert names(piece.changes) == ["ours"], "their transactions have not begun here"
    taken = await log.take()
    await log.adopt()
    pieces, position = await read_all(log, taken.position, 4)
    seen = names([change for piece in pieces for change in piece.changes])
    assert sorted(seen) == sorted(["ours", *(f"theirs {n}" for n in range(99999990, 100000000))])
    await log.save(position, taken.term)
    again = await log.take()
    assert (await log.read(again.position, EVERYTHING)).changes == []


# -- the doorbell's flag -------------------------------------------------------------------------------------


async def flag(connection: Connection) -> int:
    """What a trigger would read."""
    value: int = await connection.fetchval("SELECT last_value FROM djcrf_pg_listener_awake")
    return value


@pytest.mark.parametrize("value", [0, 1, 2])
async def test_the_flag_is_what_it_was_set_to(value: int, log: ChangeLog, asyncpg: Connection) -> None:
    await log.set_flag(value)
    assert await flag(asyncpg) == value


async def test_falling_asleep_saves_the_cursor_and_shows_every_transaction_that_may_have_read_awake(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    taken = await log.take()
    await log.set_flag(1)
    writers = [session() for _ in range(3)]
    for writer in writers:
        write(writer, "while it was awake")
    xids = {xid_of(writer) for writer in writers}
    await log.fall_asleep(now, taken.term)
    assert await flag(asyncpg) == 0
    assert (await log.read(now, EVERYTHING)).snapshot.xip >= xids
    assert (await log.take()).position == now


async def test_who_has_an_xid_by_the_time_the_flag_is_set_is_in_progress_for_the_next_read(
    log: ChangeLog, now: Position, session: Callable[[], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`setval` takes an xid before it sets the value: a writer with the next one may still have read "awake"."""
    taken = await log.take()
    writer = session()
    set_flag = log.set_flag

    async def set_while_a_writer_writes(value: int) -> None:
        await set_flag(value)
        write(writer, "while the flag was set")

    monkeypatch.setattr(log, "set_flag", set_while_a_writer_writes)
    await log.fall_asleep(now, taken.term)
    assert xid_of(writer) in (await log.read(now, EVERYTHING)).snapshot.xip


async def test_a_sign_of_life_is_refused_to_an_older_term_alone(log: ChangeLog, asyncpg: Connection) -> None:
    former = await log.take()
    seen = await asyncpg.fetchval("SELECT saved_at FROM djcrf_pg_cursor")
    await log.beat(former.term)
    assert await asyncpg.fetchval("SELECT saved_at FROM djcrf_pg_cursor") > seen
    present = await log.take()
    with pytest.raises(LeadershipLost, match=f"term {former.term} is over"):
        await log.beat(former.term)
    # A flush of all tables is nobody's claim.
    await asyncpg.execute("DELETE FROM djcrf_pg_cursor")
    await log.beat(present.term)


async def test_who_leads_no_more_does_not_fall_asleep(log: ChangeLog, now: Position) -> None:
    former = await log.take()
    await log.take()
    with pytest.raises(LeadershipLost):
        await log.fall_asleep(now, former.term)


# -- retention -----------------------------------------------------------------------------------------------


async def left(connection: Connection) -> list[str]:
    """The names that are in the log."""
    rows = await connection.fetch("SELECT new->>'name' AS name FROM djcrf_pg_change WHERE op = 'I' ORDER BY id")
    return [row["name"] for row in rows]


async def pruned(log: ChangeLog, position: Position, keep: float = 0.0) -> None:
    """Prune until nothing is left to prune."""
    while await log.prune(position, keep, 2):
        pass


async def test_what_was_delivered_and_is_old_is_pruned_in_batches(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    await pruned(log, now)
    commit(session(), "a", "b", "c")
    position = (await log.read(now, EVERYTHING)).position
    assert await log.prune(position, 0.0, 2) == 2
    assert await left(asyncpg) == ["c"]
    assert await log.prune(position, 0.0, 2) == 1
    assert await log.prune(position, 0.0, 2) == 0


async def test_what_is_younger_than_the_retention_stays(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    await pruned(log, now)
    writer = session()
    commit(writer, "old")
    commit(writer, "young")
    await asyncpg.execute("UPDATE djcrf_pg_change SET at = at - interval '1 hour' WHERE new->>'name' = 'old'")
    position = (await log.read(now, EVERYTHING)).position
    await pruned(log, position, keep=1800.0)
    assert await left(asyncpg) == ["young"]


async def test_what_was_not_delivered_stays_however_old_it_is(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    commit(session(), *map(str, range(5)))
    piece = await log.read(now, 2)
    await pruned(log, piece.position)
    assert await left(asyncpg) == ["0", "1", "2", "3", "4"], "in the middle of a window nothing of it is pruned"


async def test_pruning_does_not_pass_a_transaction_that_is_open(
    log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    before, long, after = session(), session(), session()
    commit(before, "before")
    write(long, "long")
    commit(after, "after")
    piece = await log.read(now, EVERYTHING)
    assert names(piece.changes) == ["before", "after"]
    await pruned(log, piece.position)
    assert await left(asyncpg) == ["after"]
    long.commit()
    await pruned(log, piece.position)
    assert await left(asyncpg) == ["long", "after"]
    piece = await log.read(piece.position, EVERYTHING)
    assert names(piece.changes) == ["long"]
    await pruned(log, piece.position)
    assert await left(asyncpg) == []


# -- the catalog ---------------------------------------------------------------------------------------------


async def test_no_log_on_the_search_path_is_told_with_the_command(asyncpg: Connection) -> None:
    await asyncpg.execute("SET search_path = pg_catalog")
    with pytest.raises(NotMigrated, match=r"manage\.py migrate"):
        await ChangeLog.open(asyncpg)


async def test_tables_are_found_by_quoted_name_and_those_that_are_not_there_left_out(log: ChangeLog) -> None:
    oids = await log.oids(['"testapp_task"', '"not there"', '"testapp_awkward"'])
    assert oids.keys() == {'"testapp_task"', '"testapp_awkward"'}


async def test_columns_have_the_types_that_the_driver_would_see(log: ChangeLog, asyncpg: Connection) -> None:
    async with asyncpg.transaction():
        await asyncpg.execute(
            """
            CREATE TYPE pg_temp.mood AS ENUM ('sad', 'happy');
            CREATE DOMAIN pg_temp.positive AS int CHECK (VALUE > 0);
            CREATE DOMAIN pg_temp.small AS pg_temp.positive CHECK (VALUE < 10);
            CREATE DOMAIN pg_temp.tags AS text[];
            CREATE TEMP TABLE typed (
                a int, b pg_temp.positive, c pg_temp.small, d pg_temp.tags, e pg_temp.mood, f pg_temp.mood[],
                g int4range, h timestamptz[], gone int
            ) PARTITION BY LIST (a);
            CREATE TEMP TABLE typed_1 PARTITION OF typed FOR VALUES IN (1);
            ALTER TABLE typed DROP COLUMN gone;
            """
        )
        oids = await log.oids(["typed", "typed_1"])
        relations = relations_of(await log.relations(list(oids.values())))
    root, part = relations[oids["typed"]], relations[oids["typed_1"]]
    assert (root.root, part.root) == (root.oid, root.oid)
    assert root.columns == part.columns
    kinds = {name: (kind.name, kind.kind) for name, kind in root.columns.items()}
    int4 = ("int4", "b")
    assert kinds == {
        "a": int4,
        "b": int4,
        "c": int4,
        "d": ("_text", "b"),
        "e": ("mood", "e"),
        "f": ("_mood", "b"),
        "g": ("int4range", "r"),
        "h": ("_timestamptz", "b"),
    }
    elements = {name: kind.element and kind.element.name for name, kind in root.columns.items()}
    assert elements == {**dict.fromkeys("abceg"), "d": "text", "f": "mood", "h": "timestamptz"}
    assert root.columns["d"].element == ColumnType(25, "text", "b")


async def test_options_are_split_as_the_server_would(test_pg: PgParams, asyncpg: Connection) -> None:
    """What libpq passes on in ``options`` and what we set mean the same to PostgreSQL."""
    for options in (
        r"-c DateStyle=ISO,\ DMY -c maintenance_work_mem=9MB",
        '-c search_path="My\\ Schema",public',
        "--search-path=x --maintenance-work-mem=8MB",
    ):
        with psycopg.connect(test_pg.dsn(), options=options) as theirs:
            expected = theirs.execute("SELECT name, setting FROM pg_settings WHERE source = 'client'").fetchall()
        settings = asyncpg_arguments({"options": options})["server_settings"]
        for name, value in expected:
            if name in settings and name != "application_name":
                ours = await asyncpg.fetchval("SELECT set_config($1, $2, false)", name, settings[name])
                assert ours == await asyncpg.fetchval("SELECT current_setting($1)", name)
                shown = await asyncpg.fetchval("SELECT setting FROM pg_settings WHERE name = $1", name)
                assert shown == value, options


class _Unkept(module._Pieces):
    """As where the server cannot keep the keys of a window."""

    def __init__(self, *arguments: Any, kept: bool) -> None:
        super().__init__(*arguments, kept=False)


@pytest.mark.parametrize("pieces_of", [module._Pieces, _Unkept])
@pytest.mark.parametrize("keys", [50_000, 1, 2])
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_more_changes_with_one_id_than_are_read_at_a_time_are_all_read(
    limit: int,
    keys: int,
    pieces_of: type[module._Pieces],
    log: ChangeLog,
    now: Position,
    session: Callable[[], Session],
    asyncpg: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEYS", keys)
    monkeypatch.setattr(module, "_Pieces", pieces_of)
    writer = session()
    for number in range(80):
        commit(writer, f"many {number}")
    await asyncpg.execute(
        "WITH gone AS (DELETE FROM djcrf_pg_change WHERE new->>'name' LIKE 'many %' RETURNING *) "
        "INSERT INTO djcrf_pg_change (id, xid, relation, op, depth, new) OVERRIDING SYSTEM VALUE "
        "SELECT max(id) OVER (), xid, relation, op, depth, new FROM gone"
    )
    pieces, _ = await read_all(log, now, limit)
    found = [name for piece in pieces for name in names(piece.changes)]
    assert sorted(found) == sorted(f"many {number}" for number in range(80))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
async def test_changes_with_one_id_are_never_parted(
    limit: int, log: ChangeLog, now: Position, session: Callable[[], Session], asyncpg: Connection
) -> None:
    """An id is a position in the WAL, and transactions on different rows may read the same one."""
    for name in "abcdefgh":
        commit(session(), name)
    await asyncpg.execute(
        "WITH gone AS ("
        "    DELETE FROM djcrf_pg_change WHERE relation = 'testapp_project'::regclass AND new->>'name' ~ '^[a-h]$'"
        "    RETURNING *"
        "), placed AS (SELECT *, (row_number() OVER (ORDER BY id) - 1) / 3 AS place FROM gone) "
        "INSERT INTO djcrf_pg_change (id, xid, relation, op, depth, new) OVERRIDING SYSTEM VALUE "
        "SELECT max(id) OVER (PARTITION BY place), xid, relation, op, depth, new FROM placed"
    )
    pieces, _ = await read_all(log, now, limit)
    assert "".join(name for piece in pieces for name in names(piece.changes)) == "abcdefgh"
    again, position = list[str](), now
    while (piece := await ChangeLog(log.connection, log.schema).read(position, limit)).changes:
        again += names(piece.changes)
        position = reopened(piece.position)
    assert "".join(again) == "abcdefgh"
