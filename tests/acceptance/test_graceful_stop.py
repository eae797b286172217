"""A server that is asked to end has its embedded leader save the cursor: whoever leads next repeats nothing."""

import pytest

from tests.testapp.models import Task

pytestmark = pytest.mark.processes

SERVERS = ["uvicorn", "daphne", "gunicorn", "granian"]


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("wait", [True, False])
def test_no_row_comes_twice_over_a_restart(transactional_db, start_asgi_server, redis_url, open_board, name, wait):
    first = start_asgi_server(name, redis=redis_url)
    board = open_board(first)
    board.subscribe("tasks")
    second = start_asgi_server(name, redis=redis_url)
    other = open_board(second)
    # It stands by, and its clients are told of what the first one repeats.
    other.subscribe("tasks")
    keys = []
    for number in range(40):
        keys.append(Task.objects.create(title=f"w{number}").pk)
        if wait:
            board.events(1)
    if not wait:
        board.events(40)
    first.terminate()
    second.wait_for("'default' leads")
    last = Task.objects.create(title="later").pk
    told = [body["pk"] for action, body in other.told("tasks") if action == "create"]
    assert [key for key in told if key in {*keys, last}] == [*keys, last]
