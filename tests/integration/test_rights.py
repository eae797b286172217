"""An application whose owner is no superuser: it owns the log and the capture functions, and others write."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

from djcrf_pg import sql as files
from djcrf_pg.capture import catalog, objects
from djcrf_pg.capture.plan import Project, steps
from tests.integration.log import script
from tests.servers import PgParams

pytestmark = pytest.mark.django_db(transaction=True)

Session = psycopg.Connection[Any]


@pytest.fixture
def app(test_pg: PgParams, db: None) -> Iterator[Session]:
    """A session of a superuser in which the roles ``djcrf_owner`` and ``djcrf_writer`` are there.

    The owner's schema ``app`` has a log and the observed tables ``shown`` and ``vault``, whose column ``secret`` is
    excluded. The writer may write to both, and has no right on anything of ours.
    """
    roles = ["djcrf_owner", "djcrf_writer"]
    with test_pg.connect() as session:
        try:
            for role in roles:
                session.execute(f"CREATE ROLE {role}")  # type: ignore[arg-type]
            session.execute("CREATE SCHEMA app AUTHORIZATION djcrf_owner")
            session.execute("SET search_path = app")
            session.execute("SET SESSION AUTHORIZATION djcrf_owner")
            for number in objects._FILES:
                text = files.render(files.load("djcrf_pg.capture", f"{number}_forwards.sql"), schema="app.")
                session.execute(text)  # type: ignore[arg-type]
            for table in ("shown", "vault"):
                session.execute(f"CREATE TABLE {table} (id int, value text, secret text)")  # type: ignore[arg-type]
                session.execute(f"GRANT ALL ON {table} TO djcrf_writer")  # type: ignore[arg-type]
            session.execute("GRANT USAGE ON SCHEMA app TO djcrf_writer")
            with connection.cursor() as cursor:
                cursor.execute("SET search_path = app")
            wanted = {"shown": (), "vault": ("secret",)}
            for step in steps(catalog.tables(connection, wanted), {}, "app.", Project("tests", ())):
                for statement in step.statements:
                    session.execute(statement)  # type: ignore[arg-type]
            session.execute("RESET SESSION AUTHORIZATION")
            yield session
        finally:
            session.execute("RESET SESSION AUTHORIZATION")
            script(["RESET search_path", f"DROP OWNED BY {', '.join(roles)} CASCADE", f"DROP ROLE {', '.join(roles)}"])


def logged(app: Session) -> list[tuple[str, Any, Any]]:
    """Operation, old and new of every change in the application's log."""
    app.execute("RESET SESSION AUTHORIZATION")
    return app.execute("SELECT op::text, old, new FROM app.djcrf_pg_change ORDER BY id").fetchall()


@pytest.mark.parametrize("table", ["shown", "vault"])
def test_row_level_security_hides_no_change(table: str, app: Session):
    """Neither the writer nor the owner, whose rights the functions have, can see a row; what they write is logged."""
    for statement in [
        "ALTER TABLE {} ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE {} FORCE ROW LEVEL SECURITY",
        "CREATE POLICY ins ON {} FOR INSERT WITH CHECK (true)",
        "CREATE POLICY upd ON {} FOR UPDATE USING (true)",
        "CREATE POLICY del ON {} FOR DELETE USING (id = 1)",
    ]:
        app.execute(statement.format(table))  # type: ignore[arg-type]
    for role in ("djcrf_writer", "djcrf_owner"):
        app.execute(f"SET SESSION AUTHORIZATION {role}")  # type: ignore[arg-type]
        app.execute(f"INSERT INTO {table} VALUES (1, 'a', 's'), (2, 'b', 's')")  # type: ignore[arg-type]
        assert app.execute(f"SELECT * FROM {table}").fetchall() == []  # type: ignore[arg-type]
        app.execute(f"UPDATE {table} SET value = 'c'")  # type: ignore[arg-type]
        app.execute(f"DELETE FROM {table}")  # type: ignore[arg-type]
        app.execute(f"TRUNCATE {table}")  # type: ignore[arg-type]
        secret = {"secret": "s"} if table == "shown" else {}
        one, two = {"id": 1, "value": "a", **secret}, {"id": 2, "value": "b", **secret}
        assert logged(app) == [
            ("I", None, one),
            ("I", None, two),
            ("U", one, {**one, "value": "c"}),
            ("U", two, {**two, "value": "c"}),
            ("D", {**one, "value": "c"}, None),
            ("T", None, None),
        ]
        app.execute("TRUNCATE app.djcrf_pg_change")


def test_a_writer_without_rights_copies_and_sees_nothing_of_ours(app: Session):
    app.execute("SET SESSION AUTHORIZATION djcrf_writer")
    with app.cursor().copy("COPY vault FROM STDIN") as copy:
        copy.write_row((1, "a", "hush"))
    for what in ("djcrf_pg_change", "djcrf_pg_cursor", "djcrf_pg_listener_awake"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(f"SELECT * FROM {what}")  # type: ignore[arg-type]
    for function in (
        "djcrf_pg_columns_v2('vault'::regclass, '{}')",
        "djcrf_pg_suspended_v2('vault'::regclass)",
        "djcrf_pg_ring_v2('vault'::regclass, 'I', 1)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(f"SELECT {function}")  # type: ignore[arg-type]
    assert logged(app) == [("I", None, {"id": 1, "value": "a"})]


TOUCHES = [
    "SELECT app.djcrf_pg_touch('app.vault', 1)",
    """SELECT app.djcrf_pg_touch_v2('app.vault', '[{"id": 1}]')""",
]


@pytest.fixture
def vault(app: Session) -> Session:
    """The table ``vault`` with a row in it, and without anything in the log."""
    app.execute("ALTER TABLE app.vault ADD PRIMARY KEY (id)")
    app.execute("INSERT INTO app.vault VALUES (1, 'value', 'hush')")
    app.execute("TRUNCATE app.djcrf_pg_change")
    return app


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_writer_without_rights_on_anything_of_ours_touches(touch: str, vault: Session):
    vault.execute("SET SESSION AUTHORIZATION djcrf_writer")
    vault.execute(touch)  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        vault.execute("SELECT * FROM djcrf_pg_change")
    assert logged(vault) == [("U", {"id": 1}, {"id": 1})]


@pytest.mark.parametrize("become", ["SET SESSION AUTHORIZATION", "SET ROLE"])
@pytest.mark.parametrize("touch", TOUCHES)
def test_who_may_not_update_may_not_touch(touch: str, become: str, vault: Session):
    """Whatever else he may, and though the functions run as their owner and PUBLIC may call them."""
    for statement in (
        "REVOKE UPDATE ON app.vault FROM djcrf_writer",
        "REVOKE ALL ON app.vault FROM djcrf_writer",
        "GRANT SELECT ON app.vault TO djcrf_writer",
    ):
        vault.execute(statement)  # type: ignore[arg-type]
        vault.execute(f"{become} djcrf_writer")  # type: ignore[arg-type]
        with pytest.raises(
            psycopg.errors.InsufficientPrivilege, match=r"permission denied to touch rows of app\.vault"
        ):
            vault.execute(touch)  # type: ignore[arg-type]
        vault.execute("RESET ROLE")
        vault.execute("RESET SESSION AUTHORIZATION")
    vault.execute("GRANT UPDATE (value) ON app.vault TO djcrf_writer")
    vault.execute(f"{become} djcrf_writer")  # type: ignore[arg-type]
    vault.execute(touch)  # type: ignore[arg-type]
    vault.execute("RESET ROLE")
    assert logged(vault) == [("U", {"id": 1}, {"id": 1})]


@pytest.mark.parametrize(
    "call",
    [
        """SELECT djcrf_pg_touch('vault', '{"id": 1, "value": "forged"}'::jsonb)""",
        """SELECT djcrf_pg_touch('vault', '{"secret": "hush"}'::jsonb)""",
        """SELECT djcrf_pg_touch_v2('vault', '[{"id": 1, "value": "forged"}]')""",
        "SELECT djcrf_pg_touch('djcrf_pg_change', 1)",
    ],
)
def test_a_writer_can_say_nothing_of_a_row_but_which_one_it_is(call: str, vault: Session):
    vault.execute("SET SESSION AUTHORIZATION djcrf_writer")
    with pytest.raises((psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege)):
        vault.execute(call)  # type: ignore[arg-type]
    vault.execute("""SELECT djcrf_pg_touch_v2('vault', '[{"id": 1}, {"id": 2, "value": "forged"}]')""")
    assert logged(vault) == [("U", {"id": 1}, {"id": 1}), ("U", {"id": 2}, {"id": 2})]


def test_whether_there_is_a_row_is_said_to_nobody(vault: Session):
    """Policies may hide it from who may touch, and from the functions' owner, where they are forced."""
    vault.execute("ALTER TABLE app.vault ENABLE ROW LEVEL SECURITY")
    vault.execute("ALTER TABLE app.vault FORCE ROW LEVEL SECURITY")
    for role in ("djcrf_writer", "djcrf_owner"):
        vault.execute(f"SET SESSION AUTHORIZATION {role}")  # type: ignore[arg-type]
        assert vault.execute("SELECT djcrf_pg_touch('vault', 1)").fetchall() == [("",)]
        assert vault.execute("SELECT djcrf_pg_touch('vault', 2)").fetchall() == [("",)]
    assert len(logged(vault)) == 4
