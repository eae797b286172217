"""Rows that a transaction has deleted, asked of the log."""

import json

import psycopg
import pytest
from django.db import OperationalError, connection

from djcrf_pg.routing.parents import Elsewhere
from tests.servers import PgParams
from tests.testapp.models import Project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("known", [False, True], ids=["emptied", "deleted"])
def test_what_could_not_be_asked_is_asked_again(known: bool, test_pg: PgParams) -> None:
    """The database is gone at first; the events are tried again, and their parents are there."""
    project = Project.objects.create(name="gone")
    pk = project.pk
    project.delete()
    with psycopg.connect(test_pg.dsn(), autocommit=True) as admin:
        (xid, oid) = admin.execute(
            "SELECT xid::text::bigint, relation::oid FROM djcrf_pg_change WHERE op = 'D'"
        ).fetchone()
        elsewhere = Elsewhere("default", {"testapp_project": [oid]}, lambda oid, text: json.loads(text))
        if known:
            assert elsewhere.emptied([xid]) == {oid}
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", cursor.fetchone())
    with pytest.raises(OperationalError):
        elsewhere.find("testapp_project", "id", [(xid, str(pk))])
    connection.close()
    (row,) = elsewhere.find("testapp_project", "id", [(xid, str(pk))])
    assert row.old == {"id": pk, "name": "gone"}
