"""Code of others that capture would run: casts to json of the types of observed columns.

A cast to json is a function, and ``row_to_json`` calls it for enums and other types that are not built in (PostgreSQL
manual, 9.16 "JSON Functions and Operators"). In our triggers that is with the rights of our functions' owner; and
where it raises, the write fails. Whoever owns a type can give it one.
"""

import dataclasses

from django.db import DatabaseError, connections

from djcrf_pg.capture import catalog
from djcrf_pg.capture.install import log_schema, plan
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


def foreign_casts(alias: str) -> list[Cast]:
    """Find them for the tables of a database that want triggers or have them; reads the catalog alone.

    Raises:
        InstallError: An observed name is no table, or the catalog cannot be read.
    """
    tables = {step.table.oid: step.table for step in plan(alias)}
    schema = log_schema(alias)
    if schema is None or not tables:
        return []
    try:
        rows = catalog.casts(connections[alias], schema, list(tables))
    except DatabaseError as error:
        raise InstallError(f"The types of database {alias!r} cannot be looked at: {str(error).strip()}") from error
    return [Cast(tables[oid].name, column, *rest) for oid, column, *rest in rows if column not in tables[oid].excluded]
