"""The name of a transaction, as its changes in the log have it."""

import pytest
from django.db import connection, transaction

import djcrf_pg
from djcrf_pg.exceptions import TokenError
from tests.integration.writer.conftest import Log
from tests.testapp.models import Task

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "lite"])


def test_it_is_that_of_the_changes_also_in_savepoints_and_before_the_first_write(log: Log) -> None:
    with transaction.atomic():
        before = djcrf_pg.transaction_token()
        Task.objects.create(title="one")
        with transaction.atomic():
            Task.objects.create(title="other")
            inner = djcrf_pg.transaction_token()
    assert before == inner
    assert {str(change.xid) for change in log.take()} == {before}


def test_another_transaction_has_another_one() -> None:
    tokens = set()
    for _ in range(3):
        with transaction.atomic():
            tokens.add(djcrf_pg.transaction_token())
    assert len(tokens) == 3
    assert all(len(token) < 24 for token in tokens)


def test_outside_of_a_transaction_it_says_what_to_do() -> None:
    with pytest.raises(TokenError, match=r"no transaction is open on database 'default'.*transaction\.atomic\(\)"):
        djcrf_pg.transaction_token()


def test_in_sql_a_statement_that_is_a_transaction_by_itself_returns_it(log: Log) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_task (title, status, points, body) VALUES ('sql', '', 0, '') "
            "RETURNING pg_current_xact_id()::text"
        )
        (token,) = cursor.fetchone()
    assert {str(change.xid) for change in log.take()} == {token}


def test_a_database_of_another_vendor_has_none() -> None:
    with pytest.raises(TokenError, match=r"database 'lite' is SQLite, and has no change log"):
        djcrf_pg.transaction_token(using="lite")
