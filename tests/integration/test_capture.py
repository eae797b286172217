"""What the triggers write into the log, whoever writes to the table and however."""

import datetime
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from djcrf_pg.changelog.net import RowChange, net
from tests.integration.log import Log, script, sql
from tests.servers import PgParams
from tests.testapp.models import Awkward, Document, Label, Project, Task

pytestmark = pytest.mark.django_db

#: For tests in which another session has to see what was done, or where transactions count.
COMMITTED = pytest.mark.django_db(transaction=True)

MakeTable = Callable[..., str]


def assigned_xid() -> int | None:
    """The transaction's id, if anything has given it one."""
    xid = sql("SELECT pg_current_xact_id_if_assigned()::text")[0][0]
    return None if xid is None else int(xid)


# -- one statement -------------------------------------------------------------------------------------------


@COMMITTED
def test_an_insert_logs_the_new_row(log: Log) -> None:
    with transaction.atomic():
        task = Task.objects.create(title="a", points=3)
        xid = assigned_xid()
    (entry,) = log.entries()
    row = {"id": task.pk, "project_id": None, "title": "a", "status": "todo", "points": 3, "body": ""}
    assert entry[1:6] == (xid, "testapp_task", "I", None, row)


def test_an_update_logs_the_row_before_and_after(log: Log) -> None:
    task = Task.objects.create(title="a")
    log.entries()
    Task.objects.filter(pk=task.pk).update(status="done")
    ((op, old, new),) = log.images()
    assert op == "U"
    assert old is not None
    assert (old["status"], new) == ("todo", {**old, "status": "done"})


def test_a_delete_logs_the_old_row(log: Log) -> None:
    document = Document.objects.create(title="gone")
    pk = str(document.pk)
    log.entries()
    document.delete()
    assert log.images() == [("D", {"id": pk, "title": "gone"}, None)]


def test_a_truncate_is_logged_for_each_table_that_it_empties(log: Log) -> None:
    Project.objects.create(name="p")
    log.entries()
    sql("TRUNCATE testapp_project CASCADE")
    entries = log.entries()
    assert {entry.table for entry in entries} == {"testapp_project", "testapp_task", "testapp_task_labels"}
    assert {(entry.op, entry.old, entry.new) for entry in entries} == {("T", None, None)}


def test_a_statement_on_many_rows_logs_each(log: Log) -> None:
    Task.objects.bulk_create(Task(title=f"task {number}") for number in range(50))
    assert [entry.new and entry.new["title"] for entry in log.entries()] == [f"task {n}" for n in range(50)]
    Task.objects.update(points=1)
    assert [op for op, _, _ in log.images()] == ["U"] * 50
    sql("DELETE FROM testapp_task")
    assert [op for op, _, _ in log.images()] == ["D"] * 50


@COMMITTED
def test_copy_is_captured(log: Log, test_pg: PgParams) -> None:
    with test_pg.connect() as other, other.cursor().copy("COPY testapp_label (name) FROM STDIN") as copy:
        copy.write("one\ntwo\n")
    assert [entry.new and entry.new["name"] for entry in log.entries()] == ["one", "two"]


def test_join_tables_are_captured(log: Log) -> None:
    task, label = Task.objects.create(title="a"), Label.objects.create(name="l")
    log.entries()
    task.labels.add(label)
    (entry,) = log.entries()
    assert (entry.table, entry.op) == ("testapp_task_labels", "I")
    assert entry.new is not None
    assert (entry.new["task_id"], entry.new["label_id"]) == (task.pk, label.pk)


def test_columns_may_be_called_like_anything_in_the_trigger_functions(log: Log) -> None:
    awkward = Awkward.objects.create(strange="x", text="y")
    Awkward.objects.update(n=10, select=11, tg_relid=12, changed=13, image=14)
    awkward.delete()
    (_, _, created), (_, old, new), (_, deleted, _) = log.images()
    assert created == old
    assert new == deleted
    assert new == {
        **(old or {}),
        "n": 10,
        "select": 11,
        "tg_relid": 12,
        "changed": 13,
        "image": 14,
        "It's a Strange Column": "x",
    }


def test_a_table_may_be_called_like_anything(log: Log, make_table: MakeTable) -> None:
    name = make_table("It's a Table %s  (1)", "id int PRIMARY KEY")
    sql(f"INSERT INTO {connection.ops.quote_name(name)} VALUES (1)")
    assert log.images() == [("I", None, {"id": 1})]


def test_all_columns_may_be_dropped(log: Log, make_table: MakeTable) -> None:
    make_table("empty", "id int")
    sql("ALTER TABLE empty DROP COLUMN id")
    sql("INSERT INTO empty DEFAULT VALUES")
    sql("DELETE FROM empty")
    assert log.images() == [("I", None, {}), ("D", {}, None)]


# -- nothing happened ----------------------------------------------------------------------------------------

NOTHING = [
    "UPDATE testapp_task SET points = 5 WHERE false",
    "DELETE FROM testapp_task WHERE false",
    "INSERT INTO testapp_label (name) SELECT 'x' WHERE false",
    "INSERT INTO testapp_task (title, status, points, body) SELECT 'x', '', 0, '' WHERE false",
    "INSERT INTO testapp_task (title, status, points, body) VALUES ('there', '', 0, '') ON CONFLICT DO NOTHING",
    "MERGE INTO testapp_task t USING (SELECT 'no' AS title) s ON t.title = s.title WHEN MATCHED THEN DELETE",
]


@pytest.fixture
def bell(test_pg: PgParams) -> Iterator[psycopg.Connection[Any]]:
    """A session that hears the doorbell."""
    with test_pg.connect() as listening:
        listening.execute("LISTEN djcrf_pg")
        sql("SELECT setval('djcrf_pg_listener_awake', 0)")
        yield listening


def rings(listening: psycopg.Connection[Any]) -> list[Any]:
    """The payloads of every notification until now: one of our own comes after them."""
    sql("SELECT pg_notify('djcrf_pg', '\"end\"')")
    found = []
    for notification in listening.notifies(timeout=20):
        payload = json.loads(notification.payload)
        if payload == "end":
            return found
        found.append(payload)
    raise AssertionError("the last notification has not come")


@COMMITTED
@pytest.mark.parametrize("statement", NOTHING)
def test_a_statement_without_rows_logs_nothing_takes_no_xid_and_rings_no_bell(
    statement: str, log: Log, bell: psycopg.Connection[Any]
) -> None:
    Task.objects.create(title="there")
    log.entries()
    rings(bell)
    with transaction.atomic():
        sql(statement)
        assert assigned_xid() is None
    assert log.entries() == []
    assert rings(bell) == []


@COMMITTED
def test_what_is_rolled_back_is_not_in_the_log(log: Log) -> None:
    with transaction.atomic():
        Task.objects.create(title="kept")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Task.objects.create(title="dropped")
            raise ZeroDivisionError
        Task.objects.create(title="kept too")
    entries = log.entries()
    assert [entry.new and entry.new["title"] for entry in entries] == ["kept", "kept too"]
    assert len({entry.xid for entry in entries}) == 1, "a savepoint is part of its transaction"


# -- the doorbell --------------------------------------------------------------------------------------------


@COMMITTED
def test_the_bell_says_what_happened_but_not_to_which_rows(log: Log, bell: psycopg.Connection[Any]) -> None:
    Task.objects.bulk_create([Task(title="secret a"), Task(title="secret b")])
    Task.objects.update(points=1)
    Task.objects.all().delete()
    sql("TRUNCATE testapp_document")
    heard = rings(bell)
    assert [(ring["op"], ring["rows"]) for ring in heard if ring["table"] == "public.testapp_task"] == [
        ("INSERT", 2),
        ("UPDATE", 2),
        ("DELETE", 2),
    ]
    assert heard[-1] == {"table": "public.testapp_document", "op": "TRUNCATE", "rows": 0}
    assert all(ring.keys() == {"table", "op", "rows"} for ring in heard)


@COMMITTED
@pytest.mark.parametrize("flag", [1, 2])
def test_the_bell_is_silent_while_the_listener_is_awake_or_polls(
    flag: int, log: Log, bell: psycopg.Connection[Any]
) -> None:
    sql("SELECT setval('djcrf_pg_listener_awake', %s)", flag)
    Task.objects.create(title="a")
    assert rings(bell) == []
    assert len(log.entries()) == 1


# -- pairs of old and new ------------------------------------------------------------------------------------


@pytest.fixture
def shuffled(make_table: MakeTable) -> str:
    """A table of 1000 rows in an odd physical order, with holes."""
    make_table("shuffled", "id int PRIMARY KEY, value int, note text")
    script(
        [
            "INSERT INTO shuffled SELECT n, n, 'n' FROM generate_series(1, 2000) AS n ORDER BY hashint4(n)",
            "UPDATE shuffled SET note = repeat('x', 200) WHERE hashint4(id) % 3 = 0",
            "DELETE FROM shuffled WHERE id > 1000",
            "UPDATE shuffled SET note = 'y' WHERE hashint4(id) % 5 = 0",
        ]
    )
    return "shuffled"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE shuffled SET value = -value",
        "UPDATE shuffled SET value = -s.n FROM generate_series(1000, 1, -1) AS s (n) WHERE s.n = id",
        "WITH x AS (SELECT id FROM shuffled ORDER BY hashint4(id + 1) FOR UPDATE) "
        "UPDATE shuffled SET value = -value FROM x WHERE x.id = shuffled.id",
        "MERGE INTO shuffled USING generate_series(1, 1000) AS s (n) ON id = s.n "
        "WHEN MATCHED THEN UPDATE SET value = -value",
        "INSERT INTO shuffled SELECT n, 0, 'new' FROM generate_series(1, 1000) AS n ORDER BY hashint4(n + 2) "
        "ON CONFLICT (id) DO UPDATE SET value = -shuffled.value",
        "UPDATE shuffled SET value = -value, id = id + 100000",
    ],
    ids=["update", "from", "order", "merge", "upsert", "key"],
)
def test_an_update_pairs_each_old_row_with_its_new_one(statement: str, log: Log, shuffled: str) -> None:
    log.entries()
    sql(statement)
    images = log.images()
    assert len(images) == 1000
    for op, old, new in images:
        assert op == "U"
        assert old is not None
        assert new is not None
        assert new["id"] % 100_000 == old["id"]
        assert new["value"] == -old["value"] == -old["id"]


def test_a_merge_logs_each_of_its_actions(log: Log, shuffled: str) -> None:
    log.entries()
    sql(
        "MERGE INTO shuffled USING generate_series(990, 1010) AS s (n) ON id = s.n "
        "WHEN MATCHED AND id < 995 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET value = -value "
        "WHEN NOT MATCHED THEN INSERT VALUES (s.n, 0, '')"
    )
    images = log.images()
    assert {old["id"] for op, old, _ in images if op == "D" and old} == {*range(990, 995)}
    assert {new["id"] for op, _, new in images if op == "I" and new} == {*range(1001, 1011)}
    updates = [(old, new) for op, old, new in images if op == "U"]
    assert len(updates) == 6
    assert all(old and new and old["id"] == new["id"] and new["value"] == -old["value"] for old, new in updates)


def test_an_upsert_logs_what_it_inserted_and_what_it_updated(log: Log, shuffled: str) -> None:
    log.entries()
    sql(
        "INSERT INTO shuffled SELECT n, 5, 'new' FROM generate_series(999, 1002) AS n "
        "ON CONFLICT (id) DO UPDATE SET value = excluded.value"
    )
    images = log.images()
    assert sorted((op, (new or {})["id"]) for op, _, new in images) == [
        ("I", 1001),
        ("I", 1002),
        ("U", 999),
        ("U", 1000),
    ]


def test_a_foreign_keys_actions_are_captured(log: Log, make_table: MakeTable) -> None:
    make_table("parent", "id int PRIMARY KEY")
    make_table(
        "child",
        "id int PRIMARY KEY, a int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, "
        "b int REFERENCES parent ON DELETE SET NULL",
    )
    script(["INSERT INTO parent VALUES (1), (2), (3)", "INSERT INTO child VALUES (1, 1, 2), (2, 2, 3)"])
    log.entries()
    sql("UPDATE parent SET id = 10 WHERE id = 1")
    assert {(entry.table, entry.op) for entry in log.entries()} == {("parent", "U"), ("child", "U")}
    sql("DELETE FROM parent WHERE id = 10")
    assert [(entry.table, entry.old and entry.old["id"]) for entry in log.entries()] in (
        [("child", 1), ("parent", 10)],
        [("parent", 10), ("child", 1)],
    )
    sql("DELETE FROM parent WHERE id = 3")
    (update,) = [entry for entry in log.entries() if entry.table == "child"]
    assert (update.op, update.new) == ("U", {"id": 2, "a": 2, "b": None})


# -- partitions ----------------------------------------------------------------------------------------------


@pytest.fixture
def partitioned(make_table: MakeTable) -> str:
    """A table with two partitions, one of them with its columns in another order."""
    return make_table(
        "parted",
        "id int, region text, value int, PRIMARY KEY (id, region)",
        "CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a')",
        "CREATE TABLE parted_b (value int, gone int, region text NOT NULL, id int NOT NULL)",
        "ALTER TABLE parted_b DROP COLUMN gone",
        "ALTER TABLE parted ATTACH PARTITION parted_b FOR VALUES IN ('b')",
        options="PARTITION BY LIST (region)",
    )


def test_a_row_that_moves_to_another_partition_is_one_update(log: Log, partitioned: str) -> None:
    script(
        ["INSERT INTO parted SELECT n, 'a', n FROM generate_series(1, 10) AS n", "UPDATE parted SET value = 100 - id"]
    )
    log.entries()
    sql("UPDATE parted SET region = 'b', value = id WHERE id <= 5")
    images = log.images()
    assert len(images) == 5
    for op, old, new in images:
        assert op == "U"
        assert old is not None
        assert new == {"id": old["id"], "region": "b", "value": old["id"]}
        assert old["value"] == 100 - old["id"]


@pytest.mark.parametrize("table", ["parted", "parted_a", "parted_b"])
def test_a_write_to_the_root_or_to_a_partition_is_captured_once(table: str, log: Log, partitioned: str) -> None:
    region = "b" if table == "parted_b" else "a"
    script(
        [
            f"INSERT INTO {table} (id, region, value) VALUES (1, '{region}', 1)",
            f"UPDATE {table} SET value = 2",
            f"DELETE FROM {table}",
        ]
    )
    row, changed = {"id": 1, "region": region, "value": 1}, {"id": 1, "region": region, "value": 2}
    assert log.images() == [("I", None, row), ("U", row, changed), ("D", changed, None)]


# -- triggers of the user ------------------------------------------------------------------------------------


def net_of(log: Log) -> list[tuple[Any, Any]]:
    """Old and new of the net effect of what was logged since, as one transaction of one table."""
    now = datetime.datetime.now(datetime.UTC)
    changes = [RowChange(entry.id, 1, 1, entry.old, entry.new, entry.context, now) for entry in log.entries()]
    return [(change.old, change.new) for change in net(changes, lambda _, row: row["id"])]


def test_a_row_that_a_before_trigger_changes_is_logged_as_it_was_stored(log: Log, make_table: MakeTable) -> None:
    make_table(
        "stamped",
        "id int PRIMARY KEY, value text",
        "CREATE OR REPLACE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.value := upper(NEW.value); RETURN NEW; END $$",
        "CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION stamp()",
    )
    sql("INSERT INTO stamped VALUES (1, 'a')")
    assert log.images() == [("I", None, {"id": 1, "value": "A"})]


def make_tree(make_table: MakeTable, name: str, level: str) -> None:
    """A table whose rows get their path from a trigger that fires after the statement that wrote them."""
    make_table(
        "tree",
        "id int PRIMARY KEY, parent text, path text",
        "CREATE OR REPLACE FUNCTION set_path() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE tree SET path = parent || '/' || id WHERE path = ''; RETURN NULL; END $$",
        f"CREATE TRIGGER {name} AFTER INSERT OR UPDATE ON tree FOR EACH {level} "
        "WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION set_path()",
    )


@pytest.mark.parametrize(
    ("name", "level"), [("aaa", "ROW"), ("aaa", "STATEMENT"), ("zzz", "ROW"), ("zzz", "STATEMENT")]
)
def test_a_row_that_an_after_trigger_changes_again_ends_as_it_was_stored(
    name: str, level: str, log: Log, make_table: MakeTable
) -> None:
    """The trigger's own statement is logged before the one that fired it, when it fires before our trigger."""
    make_tree(make_table, name, level)
    sql("INSERT INTO tree VALUES (1, 'a', '')")
    assert sql("SELECT path FROM tree") == [("a/1",)]
    assert net_of(log) == [(None, {"id": 1, "parent": "a", "path": "a/1"})]
    sql("UPDATE tree SET path = '', parent = 'b'")
    assert net_of(log) == [({"id": 1, "parent": "a", "path": "a/1"}, {"id": 1, "parent": "b", "path": "b/1"})]


@pytest.mark.parametrize(
    ("name", "level"), [("aaa", "ROW"), ("aaa", "STATEMENT"), ("zzz", "ROW"), ("zzz", "STATEMENT")]
)
def test_a_row_that_an_after_trigger_changes_back_is_no_event(
    name: str, level: str, log: Log, make_table: MakeTable
) -> None:
    make_tree(make_table, name, level)
    sql("INSERT INTO tree VALUES (1, 'a', '')")
    log.entries()
    sql("UPDATE tree SET path = ''")
    assert sql("SELECT path FROM tree") == [("a/1",)]
    assert net_of(log) == []


# -- the writer's session ------------------------------------------------------------------------------------

COLUMNS = (
    "id int PRIMARY KEY, stamp timestamptz, naive timestamp, day date, span interval, raw bytea, f4 real, "
    "f8 double precision, stamps tstzrange, days daterange, spans interval[], price money"
)
SETTINGS = {
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "'postgres_verbose'",
    "timezone": "'America/St_Johns'",
    "bytea_output": "'escape'",
    "extra_float_digits": "-10",
    "xmlbinary": "'hex'",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "array_nulls": "off",
}
ROW = (
    "1, '2026-01-02 03:04:05.678901+00', '2026-01-02 03:04:05', '2026-02-01', '-1 mon 2 days -03:04:05.6', "
    "'\\x00ff41', 0.1, 0.1::float8 + 0.2, '[2026-01-02 03:04+00, 2026-02-03 04:05+00)', '[2026-02-01, 2026-03-01)', "
    "array['1 day'::interval, '-1 hour'], 1.5"
)


@COMMITTED
def test_the_settings_of_a_session_do_not_change_the_image(log: Log, make_table: MakeTable, test_pg: PgParams) -> None:
    make_table("rendered", COLUMNS)
    with test_pg.connect() as other:
        other.execute(f"INSERT INTO rendered VALUES ({ROW})")  # type: ignore[arg-type]
        other.execute("DELETE FROM rendered")
    (_, _, expected), _ = log.images()
    with test_pg.connect() as other:
        other.execute(f"INSERT INTO rendered VALUES ({ROW})")  # type: ignore[arg-type]
        for name, value in SETTINGS.items():
            other.execute(f"SET {name} = {value}")  # type: ignore[arg-type]
        other.execute("UPDATE rendered SET id = 2")
        other.execute("DELETE FROM rendered")
    _, (_, old, new), (_, deleted, _) = log.images()
    assert expected is not None
    assert (old, new, deleted) == (expected, {**expected, "id": 2}, {**expected, "id": 2})
    assert expected["span"] == "P-1M2DT-3H-4M-5.6S"
    assert expected["raw"] == "\\x00ff41"
    assert expected["stamp"] == "2026-01-02T03:04:05.678901+00:00"
    assert str(expected["f8"]) == "0.30000000000000004"


@COMMITTED
def test_the_sessions_settings_are_its_own_again_after_the_write(log: Log, test_pg: PgParams) -> None:
    with test_pg.connect() as other:
        other.execute("SET timezone = 'America/St_Johns'")
        other.execute("INSERT INTO testapp_project (name) VALUES ('p')")
        assert other.execute("SHOW timezone").fetchall() == [("America/St_Johns",)]


@COMMITTED
def test_what_the_session_says_of_itself_is_logged_whatever_it_is(log: Log) -> None:
    with transaction.atomic():
        sql("SELECT set_config('djcrf_pg.context', %s, true)", "no JSON {")
        Project.objects.create(name="p")
    Project.objects.create(name="q")
    first, second = log.entries()
    # A custom setting that was local to a transaction is the empty text afterwards.
    assert (first.context, second.context or None) == ("no JSON {", None)


# -- excluded columns ----------------------------------------------------------------------------------------


@COMMITTED
def test_excluded_columns_are_nowhere(log: Log, make_table: MakeTable, bell: psycopg.Connection[Any]) -> None:
    columns = 'id int PRIMARY KEY, secret text, "It\'s % a  ""Secret""" text, shown text'
    make_table("vault", columns, excluded=("secret", 'It\'s % a  "Secret"'))
    script(
        [
            "INSERT INTO vault VALUES (1, 'hush 1', 'hush 2', 'x'), (2, 'hush 3', 'hush 4', 'y')",
            "UPDATE vault SET secret = 'hush 5', shown = 'z' WHERE id = 1",
            "UPDATE vault SET secret = 'hush 6'",
            "UPDATE vault SET id = id + 10",
            "DELETE FROM vault",
        ]
    )
    heard = rings(bell)
    entries = log.entries()
    assert len(entries) == 2 + 1 + 2 + 2 + 2
    for entry in entries:
        assert "hush" not in entry.text
        assert (entry.old or {}).keys() <= {"id", "shown"}
        assert (entry.new or {}).keys() <= {"id", "shown"}
    assert "hush" not in json.dumps(heard)
    assert sql("SELECT count(*) FROM djcrf_pg_change AS c WHERE c::text LIKE %s", "%hush%") == [(0,)]


# -- rights and search_path ----------------------------------------------------------------------------------


@pytest.fixture
def stranger(test_pg: PgParams, make_table: MakeTable) -> Iterator[psycopg.Connection[Any]]:
    """A session of a role that may write to the table ``open`` and has no right on anything of ours."""
    make_table("open", "id int PRIMARY KEY, value text")
    script(["CREATE ROLE djcrf_stranger", "GRANT ALL ON open TO djcrf_stranger"])
    try:
        with test_pg.connect() as session:
            session.execute("GRANT CREATE ON SCHEMA public TO djcrf_stranger")
            session.execute("SET SESSION AUTHORIZATION djcrf_stranger")
            yield session
    finally:
        script(["DROP OWNED BY djcrf_stranger CASCADE", "DROP ROLE djcrf_stranger"])


@COMMITTED
def test_who_has_no_rights_on_our_objects_can_write(log: Log, stranger: psycopg.Connection[Any]) -> None:
    stranger.execute("INSERT INTO open VALUES (1, 'a')")
    stranger.execute("UPDATE open SET value = 'b'")
    stranger.execute("DELETE FROM open")
    stranger.execute("TRUNCATE open")
    assert [op for op, _, _ in log.images()] == ["I", "U", "D", "T"]


@COMMITTED
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM djcrf_pg_change",
        "INSERT INTO djcrf_pg_change (relation, op) VALUES (1, 'I')",
        "DELETE FROM djcrf_pg_change",
        "SELECT * FROM djcrf_pg_cursor",
        "UPDATE djcrf_pg_cursor SET term = 99",
        "SELECT last_value FROM djcrf_pg_listener_awake",
        "SELECT setval('djcrf_pg_listener_awake', 1)",
        "SELECT djcrf_pg_ring_v2(1, 'x', 1)",
        "CREATE TABLE mine (id int); CREATE TRIGGER t AFTER INSERT ON mine REFERENCING NEW TABLE AS djcrf_pg_new "
        "FOR EACH STATEMENT EXECUTE FUNCTION djcrf_pg_capture_insert_v2()",
    ],
)
def test_who_has_no_rights_on_our_objects_can_neither_read_nor_touch_them(
    statement: str, stranger: psycopg.Connection[Any]
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="djcrf_pg_"):
        stranger.execute(statement)  # type: ignore[arg-type]


FAKES = [
    "CREATE FUNCTION {}.row_to_json(anyelement) RETURNS json LANGUAGE sql AS $$ SELECT '{{\"fake\": true}}'::json $$",
    "CREATE FUNCTION {}.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{{}}'::jsonb $$",
    "CREATE FUNCTION {}.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'fake' $$",
    "CREATE FUNCTION {}.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$ SELECT 1/0 $$",
    "CREATE FUNCTION {}.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS $$ SELECT '1'::xid8 $$",
    "CREATE FUNCTION {}.djcrf_pg_ring_v2(oid, text, bigint) RETURNS void LANGUAGE sql AS $$ SELECT 1/0 $$",
    "CREATE FUNCTION {}.count(int) RETURNS bigint LANGUAGE sql AS $$ SELECT 0::bigint $$",
]
FAKE_TABLES = [
    "CREATE {0} TABLE {1}djcrf_pg_change (id int, relation oid, op text, old json, new json, context text)",
    "CREATE {0} TABLE {1}djcrf_pg_new (fake int)",
    "CREATE {0} TABLE {1}djcrf_pg_old (fake int)",
    "CREATE {0} TABLE {1}djcrf_pg_listener_awake (last_value int)",
]


@COMMITTED
def test_a_hostile_search_path_has_no_effect(log: Log, stranger: psycopg.Connection[Any]) -> None:
    script(["CREATE SCHEMA hostile", "GRANT ALL ON SCHEMA hostile TO djcrf_stranger"])
    try:
        stranger.execute("CREATE TEMP TABLE first (id int)")
        for statement in [
            *(fake.format(schema) for fake in FAKES for schema in ("hostile", "pg_temp")),
            *(table.format("TEMP", "") for table in FAKE_TABLES),
            *(table.format("", "hostile.") for table in FAKE_TABLES),
            "CREATE DOMAIN hostile.text AS int",
            "CREATE FUNCTION hostile.cut(jsonb, text[]) RETURNS jsonb LANGUAGE sql AS $$ SELECT $1 $$",
            "CREATE OPERATOR hostile.- (LEFTARG = jsonb, RIGHTARG = text[], FUNCTION = hostile.cut)",
            "SET search_path = pg_temp, hostile, public, pg_catalog",
            "INSERT INTO public.open VALUES (1, 'a')",
            "UPDATE public.open SET value = 'b'",
            "DELETE FROM public.open",
        ]:
            stranger.execute(statement)  # type: ignore[arg-type]
        a, b = {"id": 1, "value": "a"}, {"id": 1, "value": "b"}
        entries = log.entries()
        assert [entry[3:7] for entry in entries] == [("I", None, a, None), ("U", a, b, None), ("D", b, None, None)]
        assert all(entry.xid > 1 for entry in entries)
        for fake in ("pg_temp.djcrf_pg_change", "hostile.djcrf_pg_change"):
            assert stranger.execute(f"SELECT count(*) FROM {fake}").fetchall() == [(0,)]  # type: ignore[arg-type]
    finally:
        sql("DROP SCHEMA hostile CASCADE")


# -- ALTER TABLE ---------------------------------------------------------------------------------------------


@COMMITTED
@pytest.mark.parametrize("excluded", [(), ("secret",)], ids=["whole", "excluded"])
@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "one transaction"])
def test_a_table_may_be_altered_between_writes(
    atomic: bool, excluded: tuple[str, ...], log: Log, make_table: MakeTable
) -> None:
    """In one session, where the trigger functions' plans are cached, and inside one transaction too."""
    make_table("altered", "id int PRIMARY KEY, a int, secret text", excluded=excluded)
    steps = [
        ("INSERT INTO altered VALUES (1, 1, 's')", {"id": 1, "a": 1}),
        ("UPDATE altered SET a = 2", {"id": 1, "a": 2}),
        ("ALTER TABLE altered ADD COLUMN b text DEFAULT 'new'", None),
        ("UPDATE altered SET a = 3", {"id": 1, "a": 3, "b": "new"}),
        ("ALTER TABLE altered RENAME COLUMN a TO c", None),
        ("UPDATE altered SET c = 4", {"id": 1, "c": 4, "b": "new"}),
        ("ALTER TABLE altered ALTER COLUMN c TYPE text USING 'was ' || c", None),
        ("UPDATE altered SET c = c || '!'", {"id": 1, "c": "was 4!", "b": "new"}),
        ("ALTER TABLE altered DROP COLUMN b", None),
        ("UPDATE altered SET c = 'x'", {"id": 1, "c": "x"}),
        ("ALTER TABLE altered RENAME TO altered_too", None),
        ("UPDATE altered_too SET c = 'y'", {"id": 1, "c": "y"}),
        ("ALTER TABLE altered_too RENAME TO altered", None),
        ("ALTER TABLE altered DROP COLUMN secret", None),
        ("INSERT INTO altered VALUES (2, 'z')", {"id": 2, "c": "z"}),
        ("DELETE FROM altered WHERE id = 2", None),
    ]
    hidden = {} if excluded else {"secret": "s"}
    if atomic:
        with transaction.atomic():
            script(step for step, _ in steps)
    else:
        script(step for step, _ in steps)
    expected = [image for _, image in steps if image]
    # Where it is not excluded, the column is in the images until it is dropped.
    expected = [{**image, **hidden} for image in expected[:-1]] + expected[-1:]
    images = log.images()
    assert [new for op, _, new in images if op != "D"] == expected
    assert images[-1] == ("D", expected[-1], None)
    for (_, _, before), (op, old, _) in pairwise(images):
        if op == "U" and old and before:
            same = old.keys() & before.keys()
            assert {key: old[key] for key in same if key != "c"} == {key: before[key] for key in same if key != "c"}


def test_values_that_were_written_before_a_column_was_added_have_its_default(log: Log, make_table: MakeTable) -> None:
    make_table("grown", "id int PRIMARY KEY")
    script(["INSERT INTO grown VALUES (1)", "ALTER TABLE grown ADD COLUMN value int DEFAULT 7"])
    log.entries()
    sql("DELETE FROM grown")
    assert log.images() == [("D", {"id": 1, "value": 7}, None)]


def test_a_stored_generated_column_has_its_value(log: Log, make_table: MakeTable) -> None:
    make_table("computed", "id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED")
    script(["INSERT INTO computed VALUES (1, 5)", "UPDATE computed SET a = 6"])
    assert [new for _, _, new in log.images()] == [{"id": 1, "a": 5, "b": 10}, {"id": 1, "a": 6, "b": 12}]


def test_a_value_that_jsonb_could_not_hold_does_not_fail_the_write(log: Log, make_table: MakeTable) -> None:
    make_table("large", "id int PRIMARY KEY, value numeric, wide text")
    sql("INSERT INTO large VALUES (1, ('1e' || 131071)::numeric, repeat('x', 3000000))")
    (entry,) = log.entries()
    assert entry.new is not None
    assert len(entry.new["wide"]) == 3_000_000
