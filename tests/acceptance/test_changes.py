"""The table of changes in the docs, row by row."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from django.db import connection

from tests.acceptance.board import Board
from tests.acceptance.test_models import Zoo
from tests.client import Message
from tests.servers import AsgiServer, PgParams
from tests.zoo.models import Thing

TABLE = Path(__file__).parents[2] / "docs" / "reference" / "changes.md"


class Case(NamedTuple):
    """A row of the table."""

    change: str
    given: str
    written: str
    events: list[str]


def cases() -> Iterator[Case]:
    """Read the table: cells are parted by ``|``, and ``\\|`` is one within SQL."""
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0] not in ("Change", "---"):
            change, given, written, events = cells
            yield Case(change, given.strip("`"), written.strip("`"), [e for e in events.split(", ") if e])


def statements(sql: str) -> list[str]:
    """Split at semicolons that end a statement; the bodies of functions keep theirs."""
    return [part for part in re.split(r";\s*(?=(?:[^$]|\$\$[^$]*\$\$)*$)", sql) if part.strip()]


@pytest.fixture
def zoo(transactional_db: None, asgi_server: AsgiServer, open_board: Callable[..., Board]) -> Zoo:
    """A client of the zoo consumer."""
    board = open_board(asgi_server, "zoo")
    return Zoo(board.runner, board.client)


@pytest.fixture
def things(transactional_db: None, test_pg: PgParams) -> Iterator[None]:
    """The three rows; afterwards the table is as the migrations made it."""
    for number, name in enumerate("abc", start=1):
        Thing.objects.create(pk=number, name=name, points=number * 10)
    with psycopg.connect(test_pg.dsn(), autocommit=True) as admin:
        before = admin.execute(_SHAPE).fetchall()
        yield
        admin.execute("DROP VIEW IF EXISTS zoo_view; DROP TABLE IF EXISTS zoo_root CASCADE")
        for function in ("again", "twice", "no_odd", "back"):
            admin.execute(f"DROP FUNCTION IF EXISTS {function} CASCADE")
        for rule in ("quiet", "loud"):
            admin.execute(f"DROP RULE IF EXISTS {rule} ON zoo_thing")
        admin.execute("ALTER TABLE zoo_thing DROP COLUMN IF EXISTS extra, DROP COLUMN IF EXISTS root_id")
        admin.execute("TRUNCATE zoo_thing")
        kept = dict(before)
        for name, _ in admin.execute(_SHAPE).fetchall():
            if name not in kept:
                admin.execute(f'ALTER TABLE zoo_thing DROP CONSTRAINT "{name}"')
        there = dict(admin.execute(_SHAPE).fetchall())
        for name, definition in sorted(kept.items(), key=lambda item: "FOREIGN" in item[1]):
            if name not in there:
                admin.execute(f'ALTER TABLE zoo_thing ADD CONSTRAINT "{name}" {definition}')
        admin.execute("ALTER TABLE zoo_thing ENABLE TRIGGER djcrf_pg_delete")
        assert admin.execute(_SHAPE).fetchall() == before


_SHAPE = (
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE conrelid = 'zoo_thing'::regclass AND contype IN ('p', 'u', 'f') ORDER BY conname"
)


def _sorted_events(message: Message) -> tuple[int, str]:
    return (message["body"]["row"]["id"], message["action"])


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.change)
def test_a_change_has_exactly_these_events(case: Case, things: None, zoo: Zoo, test_pg: PgParams):
    if "MERGE" in case.written and connection.pg_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    with psycopg.connect(test_pg.dsn(), autocommit=True) as writer:
        for statement in statements(case.given):
            writer.execute(statement)
        if "DISABLE TRIGGER" in case.given:
            writer.execute("ALTER TABLE zoo_thing ENABLE TRIGGER djcrf_pg_delete")
        zoo.subscribe("thing")
        if "DISABLE TRIGGER" in case.given:
            writer.execute(case.given)
        # What the case says must not come, a failing COMMIT among it, is for the events to tell.
        with contextlib.suppress(psycopg.errors.ForeignKeyViolation):
            for statement in statements(case.written):
                writer.execute(statement)
    expected = [event for event in case.events if not event.startswith("resync")]
    resyncs = [event.removeprefix("resync ") for event in case.events if event.startswith("resync")]
    messages = zoo.messages("thing")
    told = [f"{message['action']} {message['body']['row']['id']}" for message in sorted(messages, key=_sorted_events)]
    assert sorted(told) == sorted(expected)
    for reason in resyncs:
        reply = zoo.runner.run(zoo.client.until(lambda message: message.get("action") == "resync"))
        assert reply["data"]["reason"] == reason
    _folds_to_the_table(messages, resyncs)


def _folds_to_the_table(messages: list[Message], resyncs: list[str]) -> None:
    """A client that knew the three rows and followed the events has what the table has."""
    replica = {} if resyncs else {number: number * 10 for number in (1, 2, 3)}
    for message in messages:
        row = message["body"]["row"]
        if message["action"] == "delete":
            replica.pop(row["id"], None)
        else:
            replica[row["id"]] = row["points"]
    untold = messages == [] and not resyncs
    table = dict(Thing.objects.filter(pk__lt=1_000_000).values_list("pk", "points"))
    if not untold:
        assert replica == table
