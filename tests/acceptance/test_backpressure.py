"""A client that does not read costs what its inbox may hold, delays nobody else, and loads again."""

from collections.abc import Callable

import pytest

from tests.acceptance.board import Board
from tests.servers import AsgiServer
from tests.testapp.models import Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: More than what the sockets of a connection take.
ROWS, SIZE = 200, 100_000


def test_a_client_that_does_not_read_delays_nobody_and_gets_a_resync(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    asgi = start_asgi_server(settings={"INBOX_BYTES": 1_000_000})
    slow, steady = open_board(asgi, compression=None), open_board(asgi, compression=None)
    slow.subscribe("full")
    steady.subscribe("full")
    for number in range(ROWS):
        Task.objects.create(title=f"row {number}", body="x" * SIZE)
        assert steady.events(1)[0]["body"]["title"] == f"row {number}"

    resync = slow.runner.run(slow.client.until(lambda message: message.get("action") == "resync"))
    assert resync["data"] == {"reason": "behind", "model": "testapp.Task"}
    told = slow.client.take(lambda message: message.get("observer") == "full")
    assert 0 < len(told) < ROWS
    assert [event["body"]["title"] for event in told] == [f"row {number}" for number in range(len(told))]

    after = Task.objects.create(title="after")
    slow.runner.run(slow.client.until(lambda message: message.get("body", {}).get("id") == after.pk))
    assert not steady.client.take(lambda message: message.get("action") == "resync")
