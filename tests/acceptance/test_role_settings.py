"""Whatever a role sets for its own programs, events arrive: what can be pinned is, within the rest the leader lives."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.board import Board
from tests.acceptance.test_cluster import LEADS, STANDS_BY
from tests.processes import TIMEOUT, wait_until
from tests.servers import DSN, AsgiServer, ManagePy, PgParams
from tests.testapp.models import Task

pytestmark = pytest.mark.processes

#: Settings that would end a wait, a question or a session. The tests wait for longer.
TIMEOUTS = {
    "statement_timeout": "300ms",
    "lock_timeout": "300ms",
    "idle_in_transaction_session_timeout": "300ms",
    "idle_session_timeout": "300ms",
    "transaction_timeout": "300ms",
}

#: Those that change what statements mean, what values look like, and where things are.
MANNERS = {
    "array_nulls": "off",
    "backslash_quote": "off",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "datestyle": "SQL, DMY",
    "default_tablespace": "nowhere",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "exit_on_error": "on",
    "extra_float_digits": "-15",
    "intervalstyle": "sql_standard",
    "lc_messages": "C",
    "plpgsql.extra_errors": "all",
    "plan_cache_mode": "force_generic_plan",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "search_path": "nowhere, public, pg_catalog",
    "session_replication_role": "replica",
    "standard_conforming_strings": "off",
    "synchronous_commit": "off",
    "temp_tablespaces": "nowhere",
    "timezone": "Asia/Kathmandu",
    "transform_null_equals": "on",
    "xmlbinary": "hex",
}

#: Those that leave little room.
ROOM = {
    "temp_file_limit": "0",
    "work_mem": "64kB",
    "hash_mem_multiplier": "1",
    "maintenance_work_mem": "1MB",
    "max_stack_depth": "100kB",
    "max_parallel_workers_per_gather": "4",
}


@pytest.fixture
def serve(
    role: PgParams,
    test_pg: PgParams,
    redis_url: str,
    start_command: Callable[..., ManagePy],
    start_asgi_server: Callable[..., AsgiServer],
    open_board: Callable[..., Board],
) -> Callable[..., tuple[ManagePy, Board]]:
    """Gives the role settings, starts a listener and a server as that role, and connects a client."""

    def serve(given: dict[str, str], options: str = "", **settings: Any) -> tuple[ManagePy, Board]:
        with test_pg.connect() as admin:
            admin.execute("LOAD 'plpgsql'")
            known = {name.lower() for (name,) in admin.execute("SELECT name FROM pg_settings")}
            for name in known & given.keys():
                # As a list of names, where it is one.
                value = sql.SQL(given[name]) if name == "search_path" else sql.Literal(given[name])
                setting = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
                admin.execute(
                    sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                        sql.Identifier(role.user), sql.Identifier(role.dbname), setting, value
                    )
                )
        server = replace(role, options={**role.options, "options": options} if options else role.options)
        env = {DSN: server.dsn("postgres")}
        leader = start_command(
            "djcrf_pg", "listen", "--database", "default", redis=redis_url, env=env, settings=settings
        )
        leader.wait_for(LEADS, timeout=2 * TIMEOUT)
        board = open_board(start_asgi_server(redis=redis_url, env=env, settings={"EMBEDDED": False}))
        board.subscribe("tasks", "asking")
        return leader, board

    return serve


def test_no_timeout_of_a_role_ends_a_session_or_a_question(
    serve: Callable[..., tuple[ManagePy, Board]],
    start_command: Callable[..., ManagePy],
    redis_url: str,
    role: PgParams,
    test_pg: PgParams,
) -> None:
    leader, board = serve(TIMEOUTS, SAFETY_POLL=60)
    standby = start_command(
        "djcrf_pg", "listen", "--database", "default", redis=redis_url, env={DSN: role.dsn("postgres")}
    )
    standby.wait_for(STANDS_BY)
    since = leader.position
    with test_pg.connect() as admin, psycopg.connect(test_pg.dsn()) as locker:

        def lasts(kind: str, condition: str) -> bool:
            """Whether a session of ours has been at it for longer than any of the timeouts."""
            query = f"""
                SELECT FROM pg_stat_activity
                WHERE application_name LIKE 'djcrf_pg {kind} %' AND {condition}
                  AND clock_timestamp() - greatest(query_start, state_change) > interval '600 ms'"""
            return admin.execute(query.encode()).fetchone() is not None

        wait_until(lambda: lasts("leader", "state = 'idle'"))
        wait_until(lambda: lasts("gate", "state = 'idle'"))
        wait_until(lambda: lasts("listener", "wait_event = 'advisory'"))
        first = Task.objects.create(title="ask first")
        assert board.told("asking") == [("create", {"pk": first.pk, "labels": 0})]
        locker.execute("LOCK TABLE djcrf_pg_change IN ACCESS EXCLUSIVE MODE")
        admin.execute("NOTIFY djcrf_pg")
        wait_until(lambda: lasts("leader", "wait_event_type = 'Lock'"))
        locker.rollback()
    second = Task.objects.create(title="ask second")
    assert board.told("tasks")[-1] == ("create", {"pk": second.pk})
    assert "next try in" not in leader.output[since:] + standby.output
    with test_pg.connect() as admin:
        if admin.info.server_version < 170000:
            pytest.skip("PostgreSQL has transaction_timeout since 17; the others were tried")


def test_no_manner_of_a_role_s_sessions_stops_delivery(serve: Callable[..., tuple[ManagePy, Board]]) -> None:
    leader, board = serve(MANNERS)
    since = leader.position
    task = Task.objects.create(title="ask what it is", body="\u00e9\u20ac\\'\"")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
    assert ("create", {"pk": task.pk, "labels": 0}) in board.told("asking")
    assert "WARNING" not in leader.output[since:]


def test_a_role_with_little_room_is_told_everything(
    serve: Callable[..., tuple[ManagePy, Board]], test_pg: PgParams
) -> None:
    leader, board = serve(ROOM, "-c work_mem=64kB", BATCH_SIZE=200)
    since = leader.position
    with test_pg.connect() as writer:
        writer.execute("INSERT INTO testapp_project (id, name) SELECT i, 'p' || i FROM generate_series(1, 1000) AS i")
        writer.execute(
            "INSERT INTO testapp_task (id, title, status, points, body, project_id) "
            "SELECT i, 'task ' || i, 'todo', 0, repeat('x', 100), i FROM generate_series(1, 1000) AS i"
        )
        # As Django deletes: parents are in other pieces, and looked for there.
        with writer.transaction():
            writer.execute("DELETE FROM testapp_task")
            writer.execute("DELETE FROM testapp_project")
    assert board.told("tasks") == [(action, {"pk": pk}) for action in ("create", "delete") for pk in range(1, 1001)]
    assert not re.findall("WARNING.*|ERROR.*", leader.output[since:])
