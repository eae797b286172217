"""Tables and sizes that other designs stumble over."""

import pytest
from django.db import connection

from tests.acceptance.board import Board
from tests.testapp.models import Awkward


def test_columns_with_the_names_that_sql_would_rather_keep(board: Board):
    board.subscribe("awkward")
    columns = {"n": 10, "o": 20, "old": "o", "new": "n", "row": 30, "select": 40, "strange": "it's", "text": "žlutý 🐎"}
    row = Awkward.objects.create(**columns)
    Awkward.objects.filter(pk=row.pk).update(new="N", select=41)
    Awkward.objects.filter(pk__lt=1_000_000).delete()
    rest = {"tg_relid": 5, "changed": 6, "image": 7, "id": row.pk}
    assert board.told("awkward") == [
        ("create", {**columns, **rest}),
        ("update", {**columns, **rest, "new": "N", "select": 41}),
        ("delete", {**columns, **rest, "new": "N", "select": 41}),
    ]


def test_a_text_of_a_megabyte_and_multibyte_text(board: Board):
    board.subscribe("awkward")
    texts = ["x" * 1_048_576, "ř" * 524_288, "🐎 \\ \" ' \x01 \u2028" * 50_000]
    rows = [Awkward.objects.create(text=text) for text in texts]
    told = board.told("awkward")
    assert [body["id"] for _, body in told] == [row.pk for row in rows]
    assert [body["text"] for _, body in told] == texts


@pytest.mark.slow
def test_ten_thousand_wide_rows_in_one_statement_arrive_in_order(board: Board):
    # The layer of the server is the default one: its channels hold 100 messages.
    board.subscribe("full")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_task (id, title, status, points, body) "
            "SELECT i, 't' || i, 'todo', i, repeat(md5(i::text), 64) FROM generate_series(1, 10000) AS i"
        )
        assert [(action, body["id"]) for action, body in board.told("full")] == [
            ("create", number) for number in range(1, 10_001)
        ]
        cursor.execute("UPDATE testapp_task SET points = -points WHERE id <= 10000")
    told = board.told("full")
    assert sorted(body["id"] for _, body in told) == list(range(1, 10_001))
    assert all(body["points"] == -body["id"] and len(body["body"]) == 2048 for _, body in told)
