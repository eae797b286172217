"""What might fail inside our triggers must not fail the user's write."""

from collections.abc import Callable

import pytest
from django.db import InternalError, connection
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


def test_an_image_over_a_gigabyte_is_a_resync_and_no_failure(make_table: Callable[..., str], log: Log):
    # Each newline is two characters of JSON; stored, they are a few megabytes.
    make_table("huge", "id int PRIMARY KEY, data text")
    run("INSERT INTO huge VALUES (1, repeat(E'\\n', 600000000))")
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


def test_a_read_only_transaction_fails_with_postgresql_s_own_error(make_table: Callable[..., str], log: Log):
    make_table("plain", "id int PRIMARY KEY")
    with pytest.raises(InternalError, match="cannot execute INSERT in a read-only transaction") as caught:
        run("BEGIN READ ONLY; INSERT INTO plain VALUES (1)")
    assert isinstance(caught.value.__cause__, errors.ReadOnlySqlTransaction)
    run("ROLLBACK")
    assert log.entries() == []
