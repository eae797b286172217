"""The commands that look at the log while a leader delivers: they see everything, and take nothing from anybody."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

import djcrf_pg
from djcrf_pg.models import Change
from tests.acceptance.board import Board
from tests.processes import ROOT, wait_until
from tests.servers import DSN, AsgiServer, EmbeddedPostgres, ManagePy, PgParams, app_env, docker_answers
from tests.testapp.models import Remote, Task

pytestmark = pytest.mark.processes

FOLLOWS = r"Changes of .* from now on; Ctrl-C ends it\."


def ids(command: ManagePy) -> list[int]:
    """The ids of the tasks that a ``tail --json`` has printed."""
    lines = [json.loads(line) for line in command.output.splitlines() if line.startswith("{")]
    return [int(line["pk"]) for line in lines if line["model"] == "testapp.Task"]


@pytest.fixture
def board(
    transactional_db: None, start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> Board:
    """A client of a server whose listener leads, subscribed to two observers of tasks."""
    board = open_board(start_asgi_server())
    board.subscribe("tasks")
    board.subscribe("by_status", status="done")
    return board


def test_all_of_them_work_beside_a_leader_that_delivers(
    board: Board, start_command: Callable[..., ManagePy], run_command: Callable[..., str]
) -> None:
    tail = start_command("djcrf_pg", "tail", "--interval", "0.05", "--database", "default")
    tail.wait_for(FOLLOWS)
    with djcrf_pg.context(user="ada"):
        task = Task.objects.create(title="milk")
    tail.wait_for(rf"create  testapp\.Task {task.pk}  title: \"milk\".*\[user=ada\]")
    assert ("create", {"pk": task.pk}) in board.told("tasks")
    change = Change.objects.get(op="I", context__contains="ada")
    here = ["--database", "default"]
    explain = ["djcrf_pg", "explain", f"{change.xid}.{change.id}", *here]
    wait_until(lambda: json.loads(run_command(*explain, "--json"))[0]["delivered"])
    text = run_command(*explain)
    assert re.search(r"^Delivered: the leader's cursor has passed it\. djcrf_pg leader .* leads now\.$", text, re.M)
    sent = text.partition("Sent to subscribers")[2].partition("\n\n")[0]
    assert "BoardConsumer.tasks (testapp.Task)" in sent
    assert "1 process with subscribers: djcrf_pg gate" in sent
    # Its observer has a subscriber, and the group of this row has none.
    assert "BoardConsumer.by_status (testapp.Task): nobody has subscribed to the groups of this row" in text
    assert "create to group status__todo; no process has subscribers" in text
    assert "BoardConsumer.full (testapp.Task): nobody has subscribed to the observer" in text
    history = run_command("djcrf_pg", "history", "testapp.Task", str(task.pk), *here)
    assert f"create  testapp.Task {task.pk}" in history
    pruned = run_command("djcrf_pg", "prune", "--older-than", "0", *here)
    assert re.search(r"^default: \d+ changes deleted\.", pruned, re.M)
    # And the leader goes on.
    other = Task.objects.create(title="bread")
    assert ("create", {"pk": other.pk}) in board.told("tasks")
    tail.wait_for(rf"create  testapp\.Task {other.pk}")
    tail.send_signal(signal.SIGINT)
    assert tail.wait() == 0
    assert "Traceback" not in tail.output


def test_tail_prints_a_transaction_that_began_long_ago_when_it_commits(
    transactional_db: None, start_command: Callable[..., ManagePy], test_pg: PgParams
) -> None:
    with test_pg.connect() as slow, slow.transaction():
        slow.execute("INSERT INTO testapp_task (id, title, status, points, body) VALUES (7, 'slow', 'todo', 0, '')")
        tail = start_command("djcrf_pg", "tail", "--json", "--interval", "0.05", "--database", "default")
        wait_until(lambda: "tail" in names(test_pg), message="it does not connect")
        number = 100
        while not ids(tail):  # it follows when it prints the first of these
            number += 1
            Task.objects.create(pk=number, title=str(number))
        wait_until(lambda: number in ids(tail))
        assert 7 not in ids(tail)
    wait_until(lambda: 7 in ids(tail), message="what was committed late is missing")
    assert len(ids(tail)) == len(set(ids(tail)))


def names(params: PgParams) -> str:
    """What the sessions of a database call themselves."""
    with params.connect() as admin:
        rows = admin.execute("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
        return " ".join(name for (name,) in rows)


@pytest.mark.django_db(databases=["default", "second"], transaction=True)
def test_tail_follows_each_database_and_names_it(start_command: Callable[..., ManagePy]) -> None:
    tail = start_command("djcrf_pg", "tail", "--interval", "0.05")
    tail.wait_for(FOLLOWS)
    Task.objects.create(pk=22, title="near")
    Remote.objects.create(pk=5, text="far")
    tail.wait_for(r"default  .*testapp\.Task 22")
    tail.wait_for(r"second  .*testapp\.Remote 5")


def test_tail_follows_one_row(transactional_db: None, start_command: Callable[..., ManagePy]) -> None:
    arguments = ["--model", "testapp.Task", "--pk", "2", "--database", "default"]
    tail = start_command("djcrf_pg", "tail", "--interval", "0.05", *arguments)
    tail.wait_for(FOLLOWS)
    Task.objects.bulk_create([Task(pk=pk, title=str(pk)) for pk in (1, 2, 22)])
    Task.objects.filter(pk=2).update(points=5)
    tail.wait_for(r"update  testapp\.Task 2  points: 0 → 5")
    assert not tail.find(r"testapp\.Task (1|22)\b")


def test_tail_begins_in_the_past_and_ends_when_nobody_reads_it_any_more(
    transactional_db: None, test_pg: PgParams
) -> None:
    Task.objects.bulk_create([Task(title=str(number)) for number in range(50)])
    command = [sys.executable, "-m", "tests.manage", "djcrf_pg", "tail", "--since", "1h", "--database", "default"]
    env = {key: value for key, value in app_env(dbname=test_pg.dbname).items() if value is not None}
    tail = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    with tail:
        assert "  tx " in tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(20) == 0
        said = tail.stderr.read()
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


@pytest.mark.skipif(docker_answers(), reason="needs an embedded server, to stop it")
def test_tail_survives_a_restart_of_the_server_without_a_hole() -> None:
    with EmbeddedPostgres() as server:
        with server.params.connect() as admin:
            admin.execute("CREATE DATABASE eyes")
        env = {**app_env(dbname="eyes"), DSN: server.params.dsn()}
        ManagePy.run("migrate", "--verbosity", "0", env=env)

        def write(first: int) -> None:
            with server.params.connect("eyes") as writer:
                for pk in range(first, first + 5):
                    writer.execute(
                        "INSERT INTO testapp_task (id, title, status, points, body) VALUES (%s, %s, 'todo', 0, '')",
                        [pk, str(pk)],
                    )

        arguments = ["djcrf_pg", "tail", "--interval", "0.05", "--database", "default"]
        with ManagePy(*arguments, env=env) as tail:
            tail.wait_for(FOLLOWS)
            write(1)
            tail.wait_for(r"testapp\.Task 5\b")
            server.terminate()
            tail.wait_for("the connection is lost")
            server.start()
            write(11)
            tail.wait_for("connected again; it goes on where it was")
            tail.wait_for(r"testapp\.Task 15\b")
            found = [int(pk) for pk in re.findall(r"testapp\.Task (\d+)", tail.output)]
            assert found == [*range(1, 6), *range(11, 16)]


def test_tail_says_so_where_the_log_was_trimmed_before_it_has_read_it(
    transactional_db: None, start_command: Callable[..., ManagePy], test_pg: PgParams
) -> None:
    tail = start_command("djcrf_pg", "tail", "--interval", "0.05", "--database", "default")
    tail.wait_for(FOLLOWS)
    # As if it had been away: what a transaction has written is gone, and the log says so, when it commits.
    with transaction.atomic(), connection.cursor() as cursor:
        Task.objects.create(title="never seen")
        cursor.execute("DELETE FROM djcrf_pg_change")
        cursor.execute(
            "INSERT INTO djcrf_pg_cursor (name, snapshot, term) SELECT 'pruned', format('%1$s:%1$s:', "
            "pg_current_xact_id()::text::bigint + 1)::pg_snapshot, 0"
        )
    tail.wait_for("the log was trimmed up to transaction")


@pytest.mark.parametrize(
    "arguments", [["history", "testapp.Task", "1", "--database", "default"], ["tail", "--database", "default"]]
)
def test_a_role_that_may_not_look_is_told_the_grant(
    arguments: list[str], transactional_db: None, test_pg: PgParams
) -> None:
    with test_pg.connect() as admin:
        admin.execute("CREATE ROLE blind LOGIN PASSWORD 'secret'")
        try:
            env: dict[str, Any] = app_env(dbname=test_pg.dbname)
            blind = PgParams(test_pg.host, test_pg.port, "blind", "secret", test_pg.dbname, test_pg.options)
            env[DSN] = blind.dsn()
            result = ManagePy.run("djcrf_pg", *arguments, "--database", "default", env=env, check=False)
        finally:
            admin.execute("DROP ROLE blind")
    assert result.returncode == 1
    assert "GRANT SELECT ON djcrf_pg_change, djcrf_pg_cursor, djcrf_pg_interest, djcrf_pg_failure TO blind;" in (
        result.stderr
    )
    assert "Traceback" not in result.stderr
