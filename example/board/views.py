"""The page, and the plain HTTP POST behind each of its buttons."""

import time

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from board import terminal
from board.models import GRID_SIDE, Task
from board.writes import BULK, WRITES, grouped


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The one page of the demo."""
    groups = grouped()
    bulk = groups.pop(BULK)
    return render(
        request,
        "board/index.html",
        {
            "groups": groups,
            "bulk": bulk,
            "columns": Task.Status.choices,
            "commands": terminal.commands(),
            "side": GRID_SIDE,
        },
    )


@require_POST
def write(request: HttpRequest, name: str) -> JsonResponse:
    """Do one of the writes.

    The tab that asked and the tests read the answer. The board itself moves only when the change comes back from
    the database over the WebSocket.
    """
    if name not in WRITES:
        raise Http404(f"No write is called {name!r}.")
    started = time.perf_counter()
    outcome = WRITES[name].run()
    return JsonResponse(
        {
            "write": name,
            "pks": outcome.pks,
            "rows": outcome.rows,
            "note": outcome.note,
            "ms": round((time.perf_counter() - started) * 1000, 1),
        }
    )
