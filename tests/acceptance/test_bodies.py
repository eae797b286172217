"""The tables in the docs of what becomes of Python's types, row by row and at a client."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from djcrf_pg.delivery.envelope import Event
from tests.acceptance.board import Board
from tests.servers import AsgiServer
from tests.testapp.bodies import EXPRESSION, evaluate
from tests.testapp.models import Task

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "observer-api.md"


def table(head: str) -> dict[str, str]:
    """The rows of the table whose columns are ``Python`` and this one."""
    _, _, rest = PAGE.read_text().partition(f"| Python | {head} |\n|---|---|\n")
    rows = [line.split("|")[1:3] for line in rest.partition("\n\n")[0].splitlines()]
    # Behind the expression there may be words.
    return {expression.split("`")[1]: result.strip(" `") for expression, result in rows}


JSON, NUMBERS, ERRORS = table("JSON"), table("JSON as a number"), table("Error")


def received(board: Board, name: str, expressions: list[str]) -> list[str]:
    """What a client receives of each expression, in this order: JSON text, with the digits that came."""
    board.subscribe(name)
    task = Task.objects.create(title="a", body="None", status=EXPRESSION)
    for expression in expressions:
        Task.objects.filter(pk=task.pk).update(body=expression)
    events = board.runner.run(board.client.events(len(expressions) + 1))
    return [json.dumps(event["body"]["value"], ensure_ascii=False) for event in events[1:]]


@pytest.mark.usefixtures("transactional_db")
def test_a_client_receives_of_each_type_what_the_table_says(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    assert len(JSON) > 20
    board = open_board(start_asgi_server(), "bodies")
    assert dict(zip(JSON, received(board, "made", list(JSON)), strict=True)) == JSON


@pytest.mark.usefixtures("transactional_db")
def test_what_a_serializer_class_leaves_a_decimal_is_a_number(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    board = open_board(start_asgi_server(), "bodies")
    assert dict(zip(NUMBERS, received(board, "serialized", list(NUMBERS)), strict=True)) == NUMBERS


@pytest.mark.usefixtures("transactional_db")
def test_so_it_is_for_a_function_where_the_setting_says_so(
    start_asgi_server: Callable[..., AsgiServer], open_board: Callable[..., Board]
) -> None:
    server = start_asgi_server(env={"DJANGO_SETTINGS_MODULE": "tests.testapp.settings_numbers"})
    board = open_board(server, "bodies")
    expected = {**{python: text for python, text in JSON.items() if "Decimal" not in python}, **NUMBERS}
    assert dict(zip(expected, received(board, "made", list(expected)), strict=True)) == expected


@pytest.mark.parametrize("expression", NUMBERS)
def test_no_digit_is_lost_either_way(expression: str) -> None:
    value: Any = evaluate(expression)
    for text in (JSON.get(expression), NUMBERS[expression]):
        if text is not None and value.is_finite():
            assert Decimal(text.strip('"')) == value


@pytest.mark.parametrize("expression", ERRORS)
def test_what_is_no_json_is_an_error(expression: str) -> None:
    event = Event("create", {"value": evaluate(expression)}, 1, 1, "2026-01-01T00:00:00+00:00")
    with pytest.raises((TypeError, ValueError)) as raised:
        event.encode()
    assert type(raised.value).__name__ == ERRORS[expression]
