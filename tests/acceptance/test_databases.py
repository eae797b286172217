"""Two databases: a change log and a listener each."""

from collections.abc import Callable

import pytest

from tests.acceptance.board import Board
from tests.servers import AsgiServer
from tests.testapp.models import Remote, Task

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "second"])


def test_a_model_in_another_database_has_a_listener_of_its_own(
    asgi_server: AsgiServer, open_board: Callable[..., Board]
):
    board = open_board(asgi_server)
    board.subscribe("tasks", "remotes")
    task, remote = Task.objects.create(title="here"), Remote.objects.create(text="there")
    Remote.objects.filter(pk=remote.pk).update(text="changed")
    assert board.told("tasks") == [("create", {"pk": task.pk})]
    assert board.told("remotes") == [("create", {"pk": remote.pk}), ("update", {"pk": remote.pk})]
    for alias in ("default", "second"):
        assert asgi_server.find(f"listener of database '{alias}' leads")
