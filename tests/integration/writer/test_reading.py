"""A list with the cursor that continues it: one snapshot, and what it refuses."""

import pytest
from django.db import connection, transaction
from django.db.utils import InternalError

from djcrf_pg import consistent_read
from djcrf_pg.exceptions import ReadError
from tests.servers import PgParams
from tests.testapp.models import Task

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "lite"])


def test_all_is_read_with_one_snapshot_and_nothing_is_written(test_pg: PgParams) -> None:
    with test_pg.connect() as other:
        with consistent_read() as cursor:
            other.execute("INSERT INTO testapp_task (title, status, points, body) VALUES ('new', '', 0, '')")
            assert not Task.objects.exists()
            with pytest.raises(InternalError, match="read-only"), transaction.atomic():
                Task.objects.create(title="mine")
        assert Task.objects.count() == 1
        with consistent_read() as later:
            assert Task.objects.count() == 1
    assert cursor != later
    Task.objects.create(title="mine")  # nothing is left of it


def test_an_error_of_the_block_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), consistent_read():
        raise ZeroDivisionError
    assert not connection.in_atomic_block


def test_inside_a_transaction_it_is_refused_and_says_what_to_do() -> None:
    with transaction.atomic():
        with pytest.raises(ReadError, match=r"inside a transaction on database 'default'.*ATOMIC_REQUESTS"):
            consistent_read().__enter__()
        Task.objects.create(title="goes on")
    assert Task.objects.exists()


def test_a_database_of_another_vendor_has_none() -> None:
    with (
        pytest.raises(ReadError, match=r"database 'lite' is SQLite, and has no cursors"),
        consistent_read(using="lite"),
    ):
        pass
