"""The caps of the log, which the writers keep: here through the triggers; test_trim.py has the trimming itself."""

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.db import connection

from tests.integration.log import sql
from tests.processes import wait_until
from tests.servers import PgParams

pytestmark = pytest.mark.django_db(transaction=True)

MakeTable = Callable[..., str]


@pytest.fixture
def capped() -> Iterator[Callable[..., None]]:
    """Sets caps of the log; those of the settings are back afterwards."""
    before = sql("SELECT max_age, max_rows, max_bytes FROM djcrf_pg_cap")[0]
    sql("DELETE FROM djcrf_pg_change")

    def cap(age: str = "7 days", rows: int = 10**9, size: int = 10**12) -> None:
        sql("UPDATE djcrf_pg_cap SET max_age = %s, max_rows = %s, max_bytes = %s", age, rows, size)

    yield cap
    cap(*before)


def write(first: int, count: int, statements: int = 1, text: str = "") -> None:
    """Insert rows in so many statements, each a transaction of its own."""
    each = count // statements
    for start in range(first, first + count, each):
        sql("INSERT INTO many SELECT i, %s FROM generate_series(%s, %s) AS i", text, start, start + each - 1)


def length() -> int:
    return int(sql("SELECT count(*) FROM djcrf_pg_change")[0][0])


def said() -> list[tuple[str]]:
    """The tables whose changes were deleted unread."""
    return sql("SELECT relation::text FROM djcrf_pg_change WHERE op = 'O' ORDER BY 1")


@pytest.fixture
def many(make_table: MakeTable) -> None:
    """An observed table."""
    make_table("many", "id int PRIMARY KEY, text text")


def test_rows_stay_under_their_cap_and_what_is_deleted_unread_is_said(many: None, capped: Callable[..., None]) -> None:
    """A writer looks when the WAL has moved on by 1 MiB: 4 000 of these rows, or fewer."""
    capped(rows=3_000)
    for number in range(10):
        write(number * 2_000, 2_000, statements=20)
        assert length() < 3_000 + 4_200
    assert ("many",) in said()
    # The newest are there.
    assert sql("SELECT max((new->>'id')::int) FROM djcrf_pg_change") == [(19_999,)]


def test_a_statement_larger_than_the_cap_is_made_up_for(many: None, capped: Callable[..., None]) -> None:
    capped(rows=1_000)
    for number in range(4):
        write(number * 20_000, 20_000)
        assert length() <= 40_001
    write(90_000, 2_048, statements=2)
    assert length() < 40_000


def test_bytes_stay_under_their_cap(many: None, capped: Callable[..., None]) -> None:
    capped(size=2_000_000)
    for number in range(8):
        # Of digests, which do not compress.
        sql(
            "INSERT INTO many SELECT i, (SELECT string_agg(md5((i * k)::text), '') FROM generate_series(1, 30) k) "
            "FROM generate_series(%s, %s) AS i",
            number * 1_024 + 1,
            number * 1_024 + 1_024,
        )
        size = int(sql("SELECT sum(pg_column_size(new)) FROM djcrf_pg_change")[0][0] or 0)
        assert size < 2 * 2_000_000 + 1_024 * 1_100
    assert ("many",) in said()


def test_under_the_caps_nothing_is_touched(many: None, capped: Callable[..., None]) -> None:
    capped()
    write(1, 4_096, statements=4)
    assert length() == 4_096


def test_nothing_that_goes_wrong_there_fails_a_write(many: None, capped: Callable[..., None]) -> None:
    capped(rows=1)
    write(1, 1_024)
    sql("ALTER TABLE djcrf_pg_cap RENAME COLUMN max_rows TO other")
    try:
        write(5_000, 2_048)
    finally:
        sql("ALTER TABLE djcrf_pg_cap RENAME COLUMN other TO max_rows")
    assert length() >= 2_048


def test_a_serializable_transaction_leaves_the_log_alone(many: None, capped: Callable[..., None]) -> None:
    capped(rows=1)
    write(1, 1_000)
    before = length()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        cursor.execute("INSERT INTO many SELECT i FROM generate_series(5000, 20000) AS i")
        cursor.execute("COMMIT")
    assert length() == before + 15_001


def test_writers_that_trim_at_the_same_time_wait_for_nobody(
    many: None, capped: Callable[..., None], test_pg: PgParams
) -> None:
    capped(rows=10)
    write(1, 1_000)
    with psycopg.connect(test_pg.dsn()) as slow:
        slow.execute("INSERT INTO many SELECT i FROM generate_series(10000, 11100) AS i")
        done: list[int] = []

        def work() -> None:
            with test_pg.connect() as quick:
                quick.execute("INSERT INTO many SELECT i FROM generate_series(20000, 22000) AS i")
                done.append(1)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: done)
        thread.join()
        slow.rollback()
    write(30_000, 1_024)
    assert length() < 4_000
