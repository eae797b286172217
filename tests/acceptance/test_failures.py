"""A raise is no hole: whoever would have received the event loads again, and the row can be sent again after a fix."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from djcrf_pg.models import Failure
from tests.client import Client, Message
from tests.processes import wait_until
from tests.servers import AsgiServer, ManagePy
from tests.subscriber import Subscriber
from tests.testapp.failing import FailingConsumer
from tests.testapp.models import Label, Task

RESYNC = {"reason": "failed", "model": "testapp.Task"}


@pytest.fixture
def server(transactional_db: None, start_asgi_server: Callable[..., AsgiServer]) -> AsgiServer:
    """A server of the test's own: one that has sent a resync waits with the next."""
    return start_asgi_server()


@pytest.fixture
def subscribe(runner: asyncio.Runner, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Subscribes to an observer as a client of a status: ``subscribe("observer", "red")``."""
    clients: list[Client] = []

    def open_client(name: str, status: str = "red", server: AsgiServer | None = None) -> Subscriber:
        server = server or request.getfixturevalue("server")
        client = runner.run(Client.open(f"{server.url}/ws/failing/{status}/"))
        clients.append(client)
        subscriber = Subscriber(runner, client)
        subscriber.subscribe(name)
        return subscriber

    yield open_client
    for client in clients:
        runner.run(client.close())


def until(client: Subscriber, task: Task) -> Message:
    """The event of a row."""

    def is_of_it(message: Message) -> bool:
        body = message.get("body", {})
        return task.pk in (body.get("pk"), body.get("id"))

    return client.runner.run(client.client.until(is_of_it))


def resync(client: Subscriber) -> tuple[Any, ...]:
    """The next resync: what it says."""
    message = client.runner.run(client.client.until(lambda message: message.get("action") == "resync"))
    return message["data"], message["response_status"], message["request_id"]


def others(client: Subscriber, status: str = "red") -> list[Message]:
    """What else a client has got, up to the event of one more row."""
    until(client, Task.objects.create(title=f"fence {next(_numbers)}", status=status))
    return client.client.take(lambda message: True)


_numbers = itertools.count()


def fail(count: int, part: str = "bodied", status: str = "red") -> list[Task]:
    """Have so many rows fail, in one transaction."""
    Label.objects.create(name=f"broken {part}")
    return Task.objects.bulk_create([Task(title=f"task {number}", status=status, points=1) for number in range(count)])


def test_a_serializer_that_raises_is_one_resync_for_its_groups_alone(
    server: AsgiServer, subscribe: Callable[..., Any]
) -> None:
    red, blue = subscribe("bodied", "red"), subscribe("bodied", "blue")
    tasks = fail(50)
    assert resync(red) == (RESYNC, 205, "bodied")
    assert others(red, "red") == []
    assert others(blue, "blue") == []
    assert set(Failure.objects.values_list("key", flat=True)) == {json.dumps([str(task.pk)]) for task in tasks}
    wait_until(lambda: all(Failure.objects.values_list("told", flat=True)))  # when the cursor is saved


def test_groups_that_raise_are_a_resync_for_all_subscribers(server: AsgiServer, subscribe: Callable[..., Any]) -> None:
    clients = [subscribe("grouped", status) for status in ("red", "blue")]
    fail(3, "grouped")
    assert [resync(client) for client in clients] == [(RESYNC, 205, "grouped")] * 2


def test_a_handler_that_raises_is_called_once_more_with_what_it_was_given_and_then_a_resync(
    server: AsgiServer, subscribe: Callable[..., Any]
) -> None:
    client = subscribe("handled")
    task = Task.objects.create(title="raise")
    assert resync(client) == (RESYNC, 205, "handled")
    assert others(client) == []
    failure = wait_until(lambda: Failure.objects.first(), message="the failure is not recorded")
    assert (failure.part, failure.key, failure.times) == ("handler", json.dumps([str(task.pk)]), 1)
    assert failure.error == f"RuntimeError(\"cannot handle {{'pk': {task.pk}}}\")"


@pytest.mark.parametrize("part", ["bodied", "grouped"])
@pytest.mark.parametrize(
    ("title", "error"),
    [
        ("exit", "SystemExit('cannot do this')"),
        ("cancelled", "CancelledError('cannot do this')"),
        ("unprintable", "<tests.testapp.failing.Unprintable, whose repr() raises>"),
        ("empty", "Empty('cannot do this')"),
    ],
)
def test_whatever_is_raised_is_kept_and_the_listener_goes_on(
    title: str, error: str, part: str, server: AsgiServer, subscribe: Callable[..., Any]
) -> None:
    client = subscribe(part)
    Label.objects.create(name=f"broken {part}")
    task = Task.objects.create(title=title, status="red", points=1)
    assert resync(client) == (RESYNC, 205, part)
    assert others(client) == []
    (failure,) = Failure.objects.all()
    assert (failure.key, failure.error) == (json.dumps([str(task.pk)]), error)


def test_what_fails_only_because_of_what_its_batch_shares_is_no_failure(
    server: AsgiServer, subscribe: Callable[..., Any]
) -> None:
    client = subscribe("once")
    Task.objects.bulk_create([Task(title=f"task {number}") for number in range(3)])
    assert [message["body"]["title"] for message in others(client)] == ["task 0", "task 1", "task 2"]
    assert not Failure.objects.exists()


@pytest.mark.slow
def test_failures_are_shown_sent_again_and_forgotten(
    server: AsgiServer, subscribe: Callable[..., Any], run_command: Callable[..., str]
) -> None:
    client = subscribe("bodied")
    tasks = fail(12)
    resync(client)

    shown = run_command("djcrf_pg", "failures", "--database", "default")
    assert "tests.testapp.failing.FailingConsumer.bodied, serializer: RuntimeError('cannot do this')" in shown
    keys = ", ".join(str(task.pk) for task in tasks[:10])
    assert f"testapp.Task {keys} and 2 more (database 'default'), 12 times, last at " in shown
    assert 'raise RuntimeError("cannot do this")' in shown
    assert "failures --retry" in shown

    assert "default: 0 sent again, 12 failed again." in run_command(
        "djcrf_pg", "failures", "--database", "default", "--retry"
    )
    assert {
        entry["times"] for entry in json.loads(run_command("djcrf_pg", "failures", "--database", "default", "--json"))
    } == {2}

    # The label first: with it the delete would be a failure too.
    Label.objects.all().delete()
    tasks[0].delete()
    chosen = Failure.objects.get(key=json.dumps([str(tasks[1].pk)]))
    assert "default: 1 sent again, 0 failed again." in run_command(
        "djcrf_pg", "failures", "--database", "default", "--retry", str(chosen.pk)
    )
    assert until(client, tasks[1])["action"] == "update"

    assert "default: 11 sent again, 0 failed again." in run_command(
        "djcrf_pg", "failures", "--database", "default", "--retry"
    )
    for task in tasks[2:]:
        until(client, task)
    assert "No failures." in run_command("djcrf_pg", "failures", "--database", "default")

    Failure.objects.create(**entry("x"))
    assert "default: 1 forgotten." in run_command("djcrf_pg", "failures", "--database", "default", "--forget")
    with pytest.raises(AssertionError, match="There is no failure 77"):
        run_command("djcrf_pg", "failures", "--database", "default", "--retry", "77")


def entry(address: str, **values: Any) -> dict[str, Any]:
    """The columns of a failure."""
    return {
        **{"observer": "x", "address": address, "part": "serializer", "model": "testapp.Task", "key": '["1"]'},
        **{"change_id": 1, "error": "e", "traceback": "t", "first_at": NOW, "last_at": NOW},
        **values,
    }


NOW = "2026-01-01T00:00:00+00:00"
BODIED = vars(FailingConsumer)["bodied"]


def test_a_new_leader_sends_the_resync_that_the_former_one_owed(
    transactional_db: None,
    redis_url: str,
    start_asgi_server: Callable[..., AsgiServer],
    start_command: Callable[..., ManagePy],
    subscribe: Callable[..., Any],
) -> None:
    other = start_asgi_server(redis=redis_url, settings={"EMBEDDED": False})
    first = start_command("djcrf_pg", "listen", redis=redis_url)
    client = subscribe("bodied", "red", other)
    first.kill()
    Failure.objects.create(**entry(BODIED.address, observer=BODIED.identity))
    start_command("djcrf_pg", "listen", redis=redis_url)
    assert resync(client) == (RESYNC, 205, "bodied")
    wait_until(lambda: Failure.objects.get().told)


def test_what_nobody_here_observes_any_more_is_not_sent_again(
    server: AsgiServer, subscribe: Callable[..., Any], run_command: Callable[..., str]
) -> None:
    subscribe("bodied")
    Failure.objects.create(**entry("nobody's", told=True))
    assert "default: 0 sent again, 1 failed again." in run_command(
        "djcrf_pg", "failures", "--database", "default", "--retry"
    )


def test_what_somebody_asked_for_while_nobody_led_is_sent_by_the_next_leader(
    server: AsgiServer, subscribe: Callable[..., Any]
) -> None:
    subscribe("bodied")
    server.terminate()
    task = Task.objects.create(title="task", status="red")
    values = entry(BODIED.address, observer=BODIED.identity, key=json.dumps([str(task.pk)]), told=True, retry=True)
    Failure.objects.create(**values)
    server.start()
    subscribe("bodied")
    wait_until(lambda: not Failure.objects.exists())


def test_a_database_of_the_version_before_gives_the_resync_and_says_what_is_missing(
    server: AsgiServer, subscribe: Callable[..., Any]
) -> None:
    client = subscribe("bodied")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE djcrf_pg_failure RENAME TO djcrf_pg_failure_of_later")
    try:
        fail(2)
        assert resync(client) == (RESYNC, 205, "bodied")
        server.wait_for(r"2 failures of observers are not recorded .*manage.py migrate")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE djcrf_pg_failure_of_later RENAME TO djcrf_pg_failure")
