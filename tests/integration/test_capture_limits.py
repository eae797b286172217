"""What might fail inside our triggers must not fail the user's write."""

from collections.abc import Callable

import pytest
from django.db import InternalError, connection, transaction
from psycopg import errors

from tests.integration.log import Log

pytestmark = pytest.mark.django_db(transaction=True)


def run(sql: str, *parameters: object) -> None:
    """Run a statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)


@pytest.mark.parametrize("value", [r'{"a": "\u0000"}', '{"a": 1e1000000}', r'{"a": "\ud800"}'])
def test_json_that_jsonb_refuses_beside_an_excluded_column(make_table: Callable[..., str], log: Log, value: str):
    make_table("careful", "id int PRIMARY KEY, data json, secret text", excluded=("secret",))
    run("INSERT INTO careful VALUES (1, %s, 'hush'), (2, NULL, 'hush')", value)
    run("UPDATE careful SET secret = 'hush 2', id = id + 10")
    run("DELETE FROM careful")
    entries = log.entries()
    assert [entry.op for entry in entries] == ["I", "I", "U", "U", "D", "D"]
    assert all("secret" not in entry.text and "hush" not in entry.text for entry in entries)


@pytest.mark.slow
def test_an_image_over_a_gigabyte_is_a_resync_and_no_failure(make_table: Callable[..., str], log: Log):
    # Each of these is six characters of JSON; stored, they are a few megabytes.
    make_table("huge", "id int PRIMARY KEY, data text")
    run("INSERT INTO huge VALUES (1, repeat(E'\\x01', 180000000))")
    run("UPDATE huge SET id = 2")
    run("DELETE FROM huge")
    assert [entry.op for entry in log.entries()] == ["R", "R", "R"]


def test_a_wide_row_below_the_limit_is_written_whole(make_table: Callable[..., str], log: Log):
    make_table("wide", "id int PRIMARY KEY, data text", "ALTER TABLE wide ALTER data SET STORAGE EXTERNAL")
    run("INSERT INTO wide VALUES (1, repeat('x', 3000000)), (2, 'small')")
    run("UPDATE wide SET id = id + 10")
    entries = log.entries()
    assert [entry.op for entry in entries] == ["I", "I", "U", "U"]
    assert [len(entry.new["data"]) for entry in entries] == [3_000_000, 5, 3_000_000, 5]
    assert [entry.new["id"] - entry.old["id"] for entry in entries[2:]] == [10, 10]


def test_what_is_suspended_for_one_table_costs_the_others_no_subtransaction(make_table: Callable[..., str], log: Log):
    # Each subtransaction that writes takes an xid, and over 64 of them slow every snapshot of the server.
    make_table("other", "id int PRIMARY KEY")
    make_table("plain", "id int PRIMARY KEY")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('djcrf_pg.suspend', 'other'::regclass::oid::text, true)")
        cursor.execute("INSERT INTO other VALUES (1)")
        cursor.execute("INSERT INTO plain VALUES (1)")
        cursor.execute("UPDATE plain SET id = 2")
        cursor.execute("DELETE FROM plain")
        # A row that a subtransaction wrote has its xid for xmin, and the transaction's in our column.
        own = "FROM djcrf_pg_change WHERE xid = pg_current_xact_id() ORDER BY id"
        cursor.execute(f"SELECT op::text, xmin::text = xid::text {own}")
        assert cursor.fetchall() == [("I", True), ("U", True), ("D", True)]
    assert len(log.entries()) == 3


def test_columns_may_be_called_like_the_transition_tables(make_table: Callable[..., str], log: Log):
    columns = "id int PRIMARY KEY, djcrf_pg_new int, djcrf_pg_old int, djcrf_pg_row int, djcrf_pg_wide int"
    make_table("named", columns)
    make_table("named_too", columns, excluded=("djcrf_pg_wide",))
    for table in ("named", "named_too"):
        run(f"INSERT INTO {table} VALUES (1, 2, 3, 4, 5)")
        run(f"UPDATE {table} SET id = 2")
        run(f"DELETE FROM {table}")
    entries = log.entries()
    assert [entry.op for entry in entries] == ["I", "U", "D", "I", "U", "D"]
    whole = {"id": 2, "djcrf_pg_new": 2, "djcrf_pg_old": 3, "djcrf_pg_row": 4, "djcrf_pg_wide": 5}
    assert entries[1].new == entries[2].old == whole
    del whole["djcrf_pg_wide"]
    assert entries[4].new == entries[5].old == whole


def test_a_virtual_column_beside_an_excluded_one_is_left_out(make_table: Callable[..., str], log: Log):
    if connection.cursor().connection.info.server_version < 180000:
        pytest.skip("virtual generated columns are PostgreSQL 18's")
    columns = "id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, secret text"
    make_table("virtual", columns, excluded=("secret",))
    run("INSERT INTO virtual VALUES (1)")
    run("UPDATE virtual SET id = 2")
    run("DELETE FROM virtual")
    assert [(entry.op, entry.old, entry.new) for entry in log.entries()] == [
        ("I", None, {"id": 1}),
        ("U", {"id": 1}, {"id": 2}),
        ("D", {"id": 2}, None),
    ]


def test_a_read_only_transaction_fails_with_postgresql_s_own_error(make_table: Callable[..., str], log: Log):
    make_table("plain", "id int PRIMARY KEY")
    with pytest.raises(InternalError, match="cannot execute INSERT in a read-only transaction") as caught:
        run("BEGIN READ ONLY; INSERT INTO plain VALUES (1)")
    assert isinstance(caught.value.__cause__, errors.ReadOnlySqlTransaction)
    run("ROLLBACK")
    assert log.entries() == []
