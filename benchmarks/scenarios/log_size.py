"""Bytes of disk that a change takes in the log, the table with its index and what is stored beside it.

Each change is a transaction of its own. Against the bytes of the row's text as JSON, of which the log has one for an
insert or a delete and two for an update.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks import runner
from benchmarks.runner import Bench, Result
from benchmarks.servers import statement

_COLUMNS = "title, body, n, price, at, flag, tag"


def _values(texts: int) -> str:
    """Those of :data:`_COLUMNS`, with so many random texts of 32 characters, which cannot be compressed."""
    body = f"(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, {texts}))"
    return f"'title ' || number, {body}, 0, number * 1.5, now(), true, gen_random_uuid()"


#: The row; its table, columns and values.
ROWS = {
    "3 columns": ("narrow", "title, n", "'title ' || number, 0"),
    "8 columns": ("resumed", _COLUMNS, _values(6)),
    "8 columns and a text of 4 kB": ("resumed", _COLUMNS, _values(125)),
}

#: Behind the keys of the rows that are there.
FIRST = 10_000_000


def run(bench: Bench) -> Iterator[Result]:
    """Measure bytes."""
    lab, count = bench.lab, bench.choose(500, 10_000)
    with lab.params.connect() as connection:
        connection.execute("SET synchronous_commit = off")
        for title, (table, columns, values) in ROWS.items():
            statements = {
                "insert": f"INSERT INTO bench_{table} (id, {columns}) VALUES ({FIRST} + number, {values})",
                "update": f"UPDATE bench_{table} SET n = n + 1 WHERE id = {FIRST} + number",
                "delete": f"DELETE FROM bench_{table} WHERE id = {FIRST} + number",
            }
            image = 0.0
            for what, text in statements.items():
                lab.forget()
                empty = _size(lab.db)
                connection.execute(
                    f"DO $$ BEGIN FOR number IN 1..{count} LOOP {text}; COMMIT; END LOOP; END $$".encode()
                )
                size = (_size(lab.db) - empty) / count
                if what == "insert":
                    image = float(
                        statement(
                            lab.db,
                            f"SELECT avg(octet_length(to_jsonb(r)::text)) FROM bench_{table} AS r WHERE id > {FIRST}",
                        )
                    )
                reference = ("the row as JSON", [image])
                yield Result("log-size", f"{what}, a row of {title}", runner.OURS, [size], "bytes", *reference)


def _size(connection: Any) -> int:
    return int(statement(connection, "SELECT pg_total_relation_size('djcrf_pg_change')"))
