"""What comes from outside may be anything: frames, notifications, settings of a session."""

import json
from contextlib import suppress

import psycopg
import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from tests.acceptance.board import Board
from tests.client import Client
from tests.servers import AsgiServer, PgParams
from tests.testapp.models import Task

pytestmark = pytest.mark.processes

# The servers are there for all examples of a test.
FEW = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
ACTIONS = [
    "subscribe",
    "unsubscribe",
    "subscribe_instance",
    "unsubscribe_instance",
    "retrieve",
    "handle_instance_change",
]
ARGUMENTS = ["name", "request_id", "pk", "status", "consumer", "instance", "group", "observer", "action", "type"]
OBSERVERS = ["tasks", "tagged", "by_status", "full", "logins", "notes"]
FRAMES = st.one_of(
    TEXT,
    JSON.map(json.dumps),
    st.dictionaries(st.sampled_from(ARGUMENTS) | TEXT, JSON, max_size=5).map(json.dumps),
    st.fixed_dictionaries(
        {"action": st.sampled_from(ACTIONS)},
        optional={name: JSON for name in ARGUMENTS if name != "action"},
    ).map(json.dumps),
    st.fixed_dictionaries(
        {"action": st.sampled_from(ACTIONS[:2]), "name": st.sampled_from(OBSERVERS)},
        optional={"request_id": JSON, "status": JSON, "pk": JSON},
    ).map(json.dumps),
)


async def converse(url: str, frames: list[str]) -> None:
    """Send frames, until the server closes; it answers the last message, or has closed."""
    client = await Client.open(url)
    try:
        with suppress(ConnectionClosed):
            for frame in frames:
                await client.connection.send(frame)
            await client.connection.send(json.dumps({"action": "no such thing", "request_id": "the last"}))
            while "the last" not in str(await client.connection.recv()):
                pass
    finally:
        await client.close()


def test_no_frame_of_a_client_harms_the_others(board: Board, asgi_server: AsgiServer):
    board.subscribe("tasks")

    @FEW
    @given(st.sampled_from(["board", "instance"]), st.lists(FRAMES, min_size=1, max_size=5))
    @example("board", ["[" * 100_000])
    @example("board", [json.dumps({"action": "subscribe", "name": "tasks", "request_id": "r" * 900_000})])
    @example("board", [json.dumps({"action": "subscribe", "name": "tasks", "request_id": {"a": [1]}})])
    @example("board", [json.dumps({"action": "subscribe", "name": "by_status", "request_id": 1, "status": "\0\ud800"})])
    @example("instance", [json.dumps({"action": "subscribe_instance", "request_id": 1, "pk": "\0"})])
    @example("instance", [json.dumps({"action": "subscribe_instance", "request_id": 1, "pk": 2**70})])
    @example("instance", [json.dumps({"action": "subscribe_instance", "request_id": 1, "pk__in": [1]})])
    def send(consumer: str, frames: list[str]) -> None:
        board.runner.run(converse(asgi_server.consumer_url(consumer), frames))

    send()
    task = Task.objects.create(title="heard by the other")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
    assert asgi_server.running
    assert "never retrieved" not in asgi_server.output


def test_notifications_of_others_on_our_channel_are_harmless(board: Board, asgi_server: AsgiServer):
    board.subscribe("tasks")
    before = asgi_server.position
    payloads = ["", "{", "null", '{"table": 1, "op": [], "rows": "many"}', "[" * 7999, "ž" * 3999, "\x01\x7f'\"\\"]
    with connection.cursor() as cursor:
        for payload in payloads:
            cursor.execute("SELECT pg_notify('djcrf_pg', %s)", [payload])
    task = Task.objects.create(title="a")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
    assert "djcrf_pg" not in asgi_server.output[before:]


SETTING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)


def test_no_text_in_the_settings_of_a_session_fails_a_write_or_loses_an_event(
    board: Board, asgi_server: AsgiServer, test_pg: PgParams
):
    board.subscribe("tasks")
    before = asgi_server.position
    titles: list[str] = []
    contexts: list[str] = []
    with psycopg.connect(test_pg.dsn(), autocommit=True) as session:

        @FEW
        @given(SETTING | JSON.map(json.dumps).filter(lambda text: "\\u0000" not in text), SETTING)
        @example("[" * 100_000 + "]" * 100_000, "1,,x")
        @example('{"a": ' * 99 + "[NaN]" + "}" * 99, "*x")
        @example("9" * 5000, "-1,99999999999999999999")
        @example(json.dumps({"n": float("inf"), "s": "\ud800"}), " *")
        def write(context: str, suspend: str) -> None:
            titles.append(f"t{len(titles)}")
            contexts.append(context)
            with session.transaction():
                session.execute(
                    "SELECT set_config('djcrf_pg.context', %s, true), set_config('djcrf_pg.suspend', %s, true)",
                    # What means something is not for this test.
                    [context, suspend if "*" not in suspend.split(",") else ""],
                )
                session.execute(
                    "INSERT INTO testapp_task (title, status, points, body) VALUES (%s, 'todo', 0, '')", [titles[-1]]
                )

        write()
        # What the listener can still read, its encoder, the consumer or the handler may not.
        for depth in range(800, 1000, 10):
            write.hypothesis.inner_test("[" * depth + "]" * depth, "")
    pks = Task.objects.in_bulk(titles, field_name="title")
    told = board.messages("tasks")
    assert [message["body"]["pk"] for message in told] == [pks[title].pk for title in titles]
    for message, context in zip(told, contexts, strict=True):
        if message["context"] is not None:
            assert message["context"] == json.loads(context)
            json.dumps(message, allow_nan=False)
    assert "ERROR djcrf_pg" not in asgi_server.output[before:]
