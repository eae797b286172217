"""A client that does not read costs what its inbox may hold, delays nobody else, and has the rest from the log."""

from collections.abc import Callable

import pytest

from tests.acceptance.board import Board
from tests.servers import AsgiServer
from tests.testapp.models import Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: More than what the sockets of a connection take.
ROWS, SIZE = 200, 100_000


@pytest.mark.parametrize("limit", [10_000, 10])
def test_a_client_that_does_not_read_delays_nobody_and_has_the_rest_from_the_log(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board], limit: int
) -> None:
    asgi = start_asgi_server(settings={"INBOX_BYTES": 1_000_000, "REPLAY_LIMIT": limit})
    slow, steady = open_board(asgi, compression=None), open_board(asgi, compression=None)
    slow.subscribe("full")
    steady.subscribe("full")
    for number in range(ROWS):
        Task.objects.create(title=f"row {number}", body="x" * SIZE)
        assert steady.events(1)[0]["body"]["title"] == f"row {number}"

    after = Task.objects.create(title="after")
    if limit < ROWS:
        resync = slow.runner.run(slow.client.until(lambda message: message.get("action") == "resync"))
        assert resync["data"] == {"reason": "behind", "model": "testapp.Task"}
        after = Task.objects.create(title="after that")
    slow.runner.run(slow.client.until(lambda message: message.get("body", {}).get("id") == after.pk))
    titles = [message["body"]["title"] for message in slow.client.received if "body" in message]
    told = len(titles) - 1
    assert titles == [*(f"row {number}" for number in range(told)), after.title], "each once, and in order"
    assert told == ROWS if limit > ROWS else 0 < told < ROWS
    for board in (slow, steady):
        assert not board.client.take(lambda message: message.get("action") == "resync")
