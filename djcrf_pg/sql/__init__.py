"""Load SQL from ``.sql`` files, so that it stays SQL: an editor can highlight it and psql can parse it.

Places to fill in are comments, ``/* :name */``; one that is left over is an error. A file may hold several
queries, each after a line ``-- name: some_name``.
"""

import re
from functools import cache
from importlib.resources import files

_PLACE = re.compile(r"/\* :(\w+) \*/")
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def render(text: str, **values: str) -> str:
    """Fill the places ``/* :name */`` of a SQL text.

    Args:
        text: SQL with places.
        values: SQL for each place, already quoted.

    Raises:
        KeyError: A place has no value.
    """
    return _PLACE.sub(lambda match: values[match[1]], text)


@cache
def load(package: str, name: str) -> str:
    """Return the text of the SQL file ``name`` in the folder ``sql`` of ``package``."""
    return (files(package) / "sql" / name).read_text(encoding="utf-8")


@cache
def texts(package: str, name: str) -> dict[str, str]:
    """Return the named queries of a SQL file, with their places."""
    parts = _NAME.split(load(package, name))
    return {key: body.strip() for key, body in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def queries(package: str, name: str, **values: str) -> dict[str, str]:
    """Return the named queries of a SQL file, rendered with ``values``."""
    return {key: render(body, **values) for key, body in texts(package, name).items()}


#: The query of the schema that holds the change log, quoted.
LOG_SCHEMA = texts("djcrf_pg", "log.sql")["schema"]


def oid_of(name: str) -> str:
    """The expression for the oid of a table.

    Args:
        name: The expression for its quoted name, or that of the column that has it.
    """
    return render(texts("djcrf_pg", "log.sql")["oid"], name=name)


def set_caps(schema: str, age: float, rows: int, size: int) -> str:
    """The command that tells the writers how large the log may grow.

    Args:
        schema: The schema of the log, quoted and with its dot.
        age: Seconds.
        rows: Changes.
        size: Bytes.
    """
    places = {"schema": schema, "age": str(float(age)), "rows": str(int(rows)), "bytes": str(int(size))}
    return render(texts("djcrf_pg", "log.sql")["caps"], **places)


def set_rings(schema: str, rings: bool) -> str:
    """The command that tells the writers whether to ring although transactions can be prepared.

    Args:
        schema: The schema of the log, quoted and with its dot.
        rings: Whether the setting NOTIFY says so.
    """
    return render(texts("djcrf_pg", "log.sql")["rings"], schema=schema, rings=str(int(rings)))
