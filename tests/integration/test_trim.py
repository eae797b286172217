"""What a writer does for the caps of the log: djcrf_pg_trim_v2, called here after each statement."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from djcrf_pg import sql as files
from tests.processes import wait_until
from tests.servers import EmbeddedPostgres, PgParams

pytestmark = pytest.mark.django_db(transaction=True)

Session = psycopg.Connection[tuple[Any, ...]]

#: Not a trigger's: nothing but the trim itself is at work.
LOGGED = """
    INSERT INTO djcrf_pg_change (id, relation, op, new) OVERRIDING SYSTEM VALUE
    SELECT pg_current_wal_insert_lsn() - '0/0' + i, 'testapp_task'::regclass, 'I',
           json_build_object('id', i, 'text', {text})
    FROM generate_series(%s::bigint, %s::bigint) AS i
"""

MARKS = [f"djcrf_pg_{name}" for name in ("trimmed", "late", "front_xid", "front_id", "reach_xid", "reach_id")]


@pytest.fixture
def session(test_pg: PgParams) -> Iterator[Session]:
    """A writer's session with an empty log, whose caps are put back in the end."""
    with test_pg.connect() as session:
        before = session.execute("SELECT max_age, max_rows, max_bytes FROM djcrf_pg_cap").fetchone()
        session.execute("TRUNCATE djcrf_pg_change, djcrf_pg_cursor")
        yield session
        session.execute("TRUNCATE djcrf_pg_change, djcrf_pg_cursor")
        cap(session, *(before or ()))


def cap(session: Session, age: Any = "7 days", rows: int = 10**9, size: int = 10**12) -> None:
    session.execute("UPDATE djcrf_pg_cap SET max_age = %s, max_rows = %s, max_bytes = %s", [age, rows, size])


def write(session: Session, first: int, count: int, text: str = "''") -> None:
    """Log a statement of so many rows, and trim as its writer does."""
    with session.transaction():
        session.execute(LOGGED.format(text=text), [first, first + count - 1])  # type: ignore[arg-type]
        session.execute("SELECT djcrf_pg_trim_v2(%s)", [count])


def fill(session: Session, first: int, count: int, text: str = "''") -> None:
    """Log rows, and trim nothing."""
    session.execute(LOGGED.format(text=text), [first, first + count - 1])  # type: ignore[arg-type]


def ids(session: Session) -> list[int]:
    """The rows whose inserts are in the log."""
    found = session.execute("SELECT (new->>'id')::bigint FROM djcrf_pg_change WHERE op = 'I' ORDER BY 1").fetchall()
    return [number for (number,) in found]


def said(session: Session) -> set[str]:
    """The tables whose changes were deleted unread."""
    found = session.execute("SELECT relation::text FROM djcrf_pg_change WHERE op = 'O'").fetchall()
    return {name for (name,) in found}


def trim_until(session: Session, done: Callable[[], bool], first: int = 10**9) -> None:
    """Write single rows until the trims have done something."""
    for number in range(2_000):
        if done():
            return
        write(session, first + number, 1)
    raise AssertionError("they do not do it")


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_rows_stay_under_their_cap_and_what_is_deleted_unread_is_said(level: str, session: Session) -> None:
    session.execute(f"SET default_transaction_isolation = '{level}'")  # type: ignore[arg-type]
    cap(session, rows=1_000)
    for number in range(300):
        write(session, number * 100, 100)
    trim_until(session, lambda: len(ids(session)) <= 1_001)
    found = ids(session)
    assert len(found) >= 900, "and no more than need be is deleted"
    assert found == list(range(found[0], 30_000)) + found[found.index(29_999) + 1 :], "the newest are there"
    assert said(session) == {"testapp_task"}


def test_a_repeatable_read_transaction_outlives_that_others_have_trimmed_what_it_sees(
    session: Session, test_pg: PgParams
) -> None:
    fill(session, 1, 5_000)
    with test_pg.connect() as other:
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert len(ids(session)) == 5_000
        cap(other, rows=1_000)
        trim_until(other, lambda: len(ids(other)) <= 1_001)
        write(session, 10_000, 1)
        session.execute("COMMIT")
        assert 10_000 in ids(other)


def test_a_serializable_transaction_reads_nothing_that_others_write(session: Session) -> None:
    cap(session, rows=1)
    fill(session, 1, 1_000)
    session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
    write(session, 2_000, 100)
    locks = session.execute("SELECT relation::regclass::text FROM pg_locks WHERE mode = 'SIReadLock'").fetchall()
    session.execute("COMMIT")
    assert locks == []
    assert len(ids(session)) == 1_100


def test_bytes_stay_under_their_cap(session: Session) -> None:
    cap(session, size=2_000_000)
    # Of digests, which do not compress.
    text = "(SELECT string_agg(md5((i * k)::text), '') FROM generate_series(1, 30) AS k)"
    for number in range(80):
        write(session, number * 100, 100, text)

    def size() -> int:
        found = session.execute("SELECT sum(100 + pg_column_size(new)) FROM djcrf_pg_change").fetchone()
        return int(found[0]) if found else 0

    trim_until(session, lambda: size() <= 2_100_000)
    assert size() > 1_500_000
    assert said(session) == {"testapp_task"}


def test_old_changes_go_and_young_ones_stay(session: Session) -> None:
    cap(session, age="1 hour")
    fill(session, 1, 1_000)
    session.execute("UPDATE djcrf_pg_change SET at = at - interval '2 hours'")
    fill(session, 2_000, 1_000)
    trim_until(session, lambda: ids(session)[0] == 2_000)
    assert len(ids(session)) >= 1_000


def test_what_was_delivered_goes_without_a_word(session: Session) -> None:
    cap(session, rows=500)
    fill(session, 1, 1_000)
    session.execute("INSERT INTO djcrf_pg_cursor (name, snapshot, term) VALUES ('leader', pg_current_snapshot(), 1)")
    write(session, 2_000, 100)
    trim_until(session, lambda: ids(session)[0] > 1)
    assert said(session) == set()


def test_under_the_caps_nothing_is_touched(session: Session) -> None:
    cap(session, rows=10_000)
    fill(session, 1, 6_000)
    for number in range(100):
        write(session, 10_000 + number, 1)
    assert len(ids(session)) == 6_100


@pytest.mark.parametrize("transactions", [1, 3_000])
def test_what_was_deleted_and_cannot_be_vacuumed_is_scanned_once_and_little_by_little(
    transactions: int, session: Session, test_pg: PgParams
) -> None:
    cap(session, rows=1_000)
    for number in range(min(transactions, 100)):
        fill(session, number * 3_000, 300_000 // min(transactions, 100))
    if transactions > 1:
        session.execute("UPDATE djcrf_pg_change SET xid = (1000 + (new->>'id')::bigint / 100)::text::xid8")
        session.execute("SELECT setval('djcrf_pg_front_xid', 1000)")
    with test_pg.connect() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM djcrf_pg_change")
        session.execute("DELETE FROM djcrf_pg_change")
        fill(session, 10**6, 3_000)
        reads = []

        def deleted() -> bool:
            with session.transaction():
                fill(session, 10**7, 1)
                plan = session.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT djcrf_pg_trim_v2(1)").fetchone()
            assert plan is not None
            reads.append(sum(plan[0][0]["Plan"][f"Shared {what} Blocks"] for what in ("Hit", "Read")))
            return len(reads) > 500 or len(ids(session)) <= 1_100

        wait_until(deleted)
        assert len(ids(session)) <= 1_100
        # All of it takes 300 000.
        assert max(reads) < 100_000


def test_a_limit_of_time_that_runs_out_in_a_trim_fails_no_write(session: Session, slow: None) -> None:
    session.execute("SET statement_timeout = '500ms'")
    cap(session, rows=1)
    fill(session, 1, 100)
    session.execute("SELECT djcrf_pg_trim_v2(1)")
    assert locks(session) == 0


def test_who_cancels_a_statement_in_a_trim_has_it_cancelled(session: Session, slow: None, test_pg: PgParams) -> None:
    cap(session, rows=1)
    fill(session, 1, 100)
    errors: list[Exception] = []

    def work() -> None:
        try:
            session.execute("SELECT djcrf_pg_trim_v2(1)")
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    pid = session.info.backend_pid
    with test_pg.connect() as other:
        sleeps = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        wait_until(lambda: other.execute(sleeps, [pid]).fetchall())
        other.execute("SELECT pg_cancel_backend(%s)", [pid])
        thread.join()
        assert [type(error) for error in errors] == [psycopg.errors.QueryCanceled]
        assert locks(other) == 0


def locks(session: Session) -> int:
    """Locks of trims."""
    found = session.execute("SELECT count(*) FROM pg_locks WHERE classid = 1684693878").fetchone()
    return int(found[0]) if found else -1


@pytest.fixture
def slow(test_pg: PgParams) -> Iterator[None]:
    """A trim that stands still."""
    with test_pg.connect() as session:
        found = session.execute("SELECT pg_get_functiondef('djcrf_pg_mark_v1'::regproc)").fetchone()
        session.execute(
            "CREATE OR REPLACE FUNCTION djcrf_pg_mark_v1(mark text, xid xid8, id bigint) RETURNS void "
            "LANGUAGE sql AS 'SELECT pg_sleep(60)'"
        )
        yield
        session.execute(found[0] if found else "")


@pytest.mark.parametrize("value", ["", "no number", "9" * 1_000_000, "-1"])
def test_no_value_of_the_session_s_setting_fails_a_write(value: str, session: Session) -> None:
    cap(session, rows=1)
    fill(session, 1, 100)
    session.execute("SELECT set_config('djcrf_pg.trims', %s, false)", [value])
    trim_until(session, lambda: ids(session)[0] > 100)


def test_a_transaction_trims_so_often_that_its_subtransactions_are_few(session: Session) -> None:
    cap(session, rows=10)
    with session.transaction():
        for number in range(100):
            write(session, number * 30, 30)
        (cached,) = session.execute("SELECT current_setting('djcrf_pg.trims')::int").fetchone() or ()
        assert cached == 20
    write(session, 10_000, 30)
    trim_until(session, lambda: len(ids(session)) <= 11)


def test_lastval_is_the_writer_s_own(session: Session) -> None:
    session.execute("CREATE TEMPORARY SEQUENCE own START 4711")
    session.execute("SELECT nextval('own')")
    cap(session, rows=1)
    fill(session, 1, 100)
    trim_until(session, lambda: bool(said(session)))
    assert session.execute("SELECT lastval()").fetchone() == (4711,)


def test_what_another_transaction_is_deleting_is_left_to_it_and_back_when_it_rolls_back(
    session: Session, test_pg: PgParams
) -> None:
    cap(session, rows=1_000)
    fill(session, 1, 20_000)  # one trim deletes less than half
    with test_pg.connect() as slow:
        slow.execute("BEGIN")
        wait_until(lambda: slow.execute("SELECT djcrf_pg_trim_v2(1)") and len(ids(slow)) < 20_000)
        theirs = 20_000 - len(ids(slow))
        session.execute("SET lock_timeout = '1ms'")
        seen = len(ids(session))
        trim_until(session, lambda: len(ids(session)) <= seen - 1)
        assert ids(session)[:theirs] == list(range(1, theirs + 1))
        slow.execute("ROLLBACK")
    trim_until(session, lambda: len(ids(session)) <= 1_001)
    assert ids(session)[0] > theirs


def test_what_a_long_transaction_has_logged_is_trimmed_when_it_has_committed(
    session: Session, test_pg: PgParams
) -> None:
    cap(session, rows=1_000)
    with test_pg.connect() as slow:
        slow.execute("BEGIN")
        fill(slow, 1, 100)
        for number in range(100):
            write(session, 1_000 + number * 100, 100)
        trim_until(session, lambda: len(ids(session)) <= 1_001)  # it holds nobody up
        slow.execute("COMMIT")
    trim_until(session, lambda: ids(session)[0] > 100)


def test_changes_restored_from_another_cluster_are_the_oldest(session: Session) -> None:
    cap(session, rows=1_000)
    fill(session, 1, 1_500)
    session.execute("UPDATE djcrf_pg_change SET xid = '1000000000000'")
    fill(session, 10_000, 500)
    trim_until(session, lambda: ids(session)[0] > 500)
    found = ids(session)
    assert [number for number in found if 10_000 <= number < 10_500] == list(range(10_000, 10_500))


def test_marks_of_another_cluster_s_dump_hide_nothing(session: Session) -> None:
    cap(session, rows=1_000)
    for mark in MARKS:
        session.execute("SELECT setval(%s, 1000000000000000)", [mark])
    fill(session, 1, 2_000)
    trim_until(session, lambda: len(ids(session)) <= 1_001)


@pytest.mark.processes
def test_a_crash_of_the_server_which_loses_its_statistics_does_not_hide_the_length() -> None:
    with EmbeddedPostgres(settings={"autovacuum": "off"}) as server:
        with server.params.connect() as session:
            for number in ("0001", "0002", "0005"):
                text = files.load("djcrf_pg.capture", f"{number}_forwards.sql")
                session.execute(files.render(text, schema="public."))  # type: ignore[arg-type]
            session.execute("CREATE TABLE testapp_task (id int)")
            fill(session, 1, 6_000)
            session.execute("ANALYZE djcrf_pg_change")
        server.send_signal(signal.SIGQUIT)
        server.wait()
        server.start()
        with server.params.connect() as session:
            assert session.execute("SELECT pg_stat_get_live_tuples('djcrf_pg_change'::regclass)").fetchone() == (0,)
            cap(session, rows=5_000)
            fill(session, 10_000, 1_000)
            assert session.execute("SELECT djcrf_pg_length_v1()").fetchone() == (7_000,)
            trim_until(session, lambda: len(ids(session)) <= 5_001)


@pytest.mark.parametrize("missing", ["TABLE djcrf_pg_cap", "SEQUENCE djcrf_pg_reach_id", "FUNCTION djcrf_pg_length_v1"])
def test_nothing_that_goes_wrong_there_fails_a_write(missing: str, session: Session) -> None:
    fill(session, 1, 10_000)
    cap(session, rows=5_000)
    session.execute(f"ALTER {missing} RENAME TO gone")  # type: ignore[arg-type]
    try:
        write(session, 20_000, 1)
        assert locks(session) == 0
    finally:
        kind, name = missing.split()
        session.execute(f"ALTER {kind} gone RENAME TO {name}")  # type: ignore[arg-type]
