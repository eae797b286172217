"""What the integration tests share: the log as rows, and tables of their own with triggers."""

from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from tests.integration.log import Log, observe


@pytest.fixture
def log(db: None) -> Log:
    """The change log from here on."""
    return Log()


@pytest.fixture
def make_table(db: None) -> Iterator[Callable[..., str]]:
    """Makes observed tables, ``make_table("t", "id int PRIMARY KEY, secret text", excluded=["secret"])``.

    They are dropped with the test.
    """
    made: list[str] = []

    def make(name: str, columns: str, *more: str, options: str = "", excluded: tuple[str, ...] = ()) -> str:
        quoted = connection.ops.quote_name(name)
        with connection.cursor() as cursor:
            made.append(quoted)
            cursor.execute(f"CREATE TABLE {quoted} ({columns}) {options}")
            for statement in more:
                cursor.execute(statement)
        observe(name, excluded)
        return name

    yield make
    if connection.in_atomic_block:
        return  # they go with the transaction
    with connection.cursor() as cursor:
        for name in made:
            cursor.execute(f"DROP TABLE IF EXISTS {name} CASCADE")
