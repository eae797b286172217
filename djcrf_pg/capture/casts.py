"""Code of others that capture would run: casts to json of the types of observed columns.

A cast to json is a function, and ``row_to_json`` calls it for enums and other types that are not built in (PostgreSQL
manual, 9.16 "JSON Functions and Operators"). In our triggers that is with the rights of our functions' owner; and
where it raises, the write fails. Whoever owns a type can give it one.
"""

import dataclasses
from collections.abc import Iterable

from django.db import DatabaseError, connections

from djcrf_pg.capture import catalog
from djcrf_pg.capture.install import log_schema
from djcrf_pg.capture.plan import Table
from djcrf_pg.exceptions import InstallError


@dataclasses.dataclass(frozen=True, slots=True)
class Cast:
    """A cast that capture would run for a column, and whose function somebody else owns.

    Attributes:
        table: The qualified name of the table.
        column: The column whose type, or a part of it, has the cast.
        type: That type.
        function: The cast's function.
        owner: Who owns the function.
        runs_as: Who owns our functions.
    """

    table: str
    column: str
    type: str
    function: str
    owner: str
    runs_as: str

    def __str__(self) -> str:
        return (
            f"{self.table}, column {self.column}: its triggers call {self.function}, the cast of {self.type} to json, "
            f"which belongs to {self.owner}, with the rights of {self.runs_as}."
        )


#: What to do about one.
MEND = (
    "Have the function owned by the owner of the djcrf_pg functions, drop the cast, or name the column in "
    "DJCRF_PG['EXCLUDE'] and run `manage.py migrate`."
)


def foreign_casts(alias: str, tables: Iterable[Table]) -> list[Cast]:
    """Find them for tables of a database; reads the catalog alone.

    Args:
        alias: The database.
        tables: Those that want triggers or have them.

    Raises:
        InstallError: The catalog cannot be read.
    """
    known = {table.oid: table for table in tables}
    schema = log_schema(alias)
    if schema is None or not known:
        return []
    try:
        rows = catalog.casts(connections[alias], schema, list(known))
    except DatabaseError as error:
        raise InstallError(f"The types of database {alias!r} cannot be looked at: {str(error).strip()}") from error
    return [Cast(known[oid].name, column, *rest) for oid, column, *rest in rows if column not in known[oid].excluded]
