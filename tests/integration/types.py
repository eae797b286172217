"""The comparison over every type of a server: the attribute of an event's instance against the one that the ORM loads.

Each type is stored by itself, in an array, and in a domain, a composite and a range made of it, with values that are at
the ends of what the type has. The images are those that the triggers log, the older and the newer ones.
"""

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from django.contrib.postgres import fields as pg
from django.db import (
    DatabaseError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    models,
)
from django.db.models import Model
from rest_framework.serializers import ModelSerializer

from djcrf_pg.capture import catalog, plan
from djcrf_pg.changelog.decode import Hydrator, Relation, parser, relations_of
from djcrf_pg.changelog.reader import ChangeLog
from djcrf_pg.listener.connection import connect
from tests.integration.log import sql

SAME, DEFERRED, UNREADABLE, DIFFERENT = "same", "deferred", "deferred, a query raises", "different"
NO_INPUT = "no input"

#: Text that each type is offered; what it refuses is passed over.
ANY = [
    "",
    "1",
    "-1",
    "0",
    "1.10",
    "t",
    "a",
    "A b",
    "NULL",
    "{}",
    '"',
    "\\",
    "q\"\\'(),{}",
    "1 2",
    "(1,2)",
    "[1,2]",
    "(1,2),(3,4)",
    "<(1,2),3>",
    "{1,2,3}",
    "[(1,2),(3,4)]",
    "a.b.c",
    "a & b",
    "a:1 b",
    '"a"=>"1", "b"=>NULL',
    "[1,5)",
    "empty",
    "(,)",
    "{[1,2),[5,6)}",
    "0101",
    "10.0.0.0/8",
    "::1",
    "08:00:2b:01:02:03",
    "08:00:2b:01:02:03:04:05",
    "12345678-1234-5678-1234-567812345678",
    "<a/>",
    '{"b": 1.10, "a": [null, -0]}',
    "null",
    "1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "-0.0",
    "5e-324",
    "1e20",
    "0.1",
    "32767",
    "-2147483648",
    "9223372036854775807",
    "2026-01-02",
    "0044-03-15 BC",
    "infinity",
    "-infinity",
    "9999-12-31 23:59:59.999999+00",
    "2026-01-02 03:04:05.000006+05:30",
    "24:00:00",
    "23:59:59.999999",
    "12:00:00+02",
    "1 year 2 mons -3 days",
    "-00:00:00.000001",
    "178000000 years",
    "[2026-01-01,2026-02-01)",
    "[2026-01-01 00:00+02,)",
    "\\x00ff",
    "0/16B3748",
    "10:20:10,15",
    "pg_class",
    "1.5",
    "978-0-393-04002-9",
    "POINT(1 2)",
    "SRID=4326;POINT(1 2)",
    "POINT EMPTY",
    "SRID=4326;POINT Z EMPTY",
    "SRID=4326;POINT Z (1 2 3)",
    "POINT(-0 1e15)",
    "SRID=3857;POLYGON((0 0,0 1,1 1,0 0))",
    "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))",
    "GEOMETRYCOLLECTION EMPTY",
    "0100000100000000000000F03F000000000000F0BF0000000000000000000000000000000000000000000000000000000000000000E610000001000100040005",
    "CIRCULARSTRING(0 0,1 1,2 0)",
    "LINESTRING ZM (0 0 1 1,1 1 2 2)",
    "BOX(0 0,1 1)",
    "BOX3D(0 0 0,1 1 1)",
    'SPHEROID["WGS 84",6378137,298.257223563]',
    "(6378168, 0, 0)",
    "pg_monitor=r*w/pg_monitor",
    "djcrf_pg_change",
    "979-0-060-11561-5",
    "1436-4522",
    "220356483481",
]

#: Types that projects make.
OWN = {
    "an_enum": "CREATE TYPE an_enum AS ENUM ('a', 'A b', '\"', '', 'NULL', 'q\"\\''(),{}')",
    "a_range": "CREATE TYPE a_range AS RANGE (subtype = float8)",
    "a_multirange": "",  # which PostgreSQL makes beside it
}

#: The fields that users have for a type; the others get a plain one.
FIELDS: dict[str, Any] = {
    "int2": models.SmallIntegerField,
    "int4": models.IntegerField,
    "int8": models.BigIntegerField,
    "bool": models.BooleanField,
    "float8": models.FloatField,
    "text": models.TextField,
    "varchar": models.TextField,
    "uuid": models.UUIDField,
    "bytea": models.BinaryField,
    "date": models.DateField,
    "time": models.TimeField,
    "timestamptz": models.DateTimeField,
    "interval": models.DurationField,
    "inet": models.GenericIPAddressField,
    "jsonb": models.JSONField,
    "hstore": pg.HStoreField,
    "int4range": pg.IntegerRangeField,
    "int8range": pg.BigIntegerRangeField,
    "numrange": pg.DecimalRangeField,
    "tstzrange": pg.DateTimeRangeField,
    "daterange": pg.DateRangeField,
}

#: A session whose texts are others than those that the images have.
STRANGE = {
    "DateStyle": "German, DMY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "postgres_verbose",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
}

SHAPES = ("value", "array", "domain", "domains", "composite", "composites", "range", "ranges")


class Plain(models.Field):  # type: ignore[type-arg]
    """A field that leaves values as the driver gives them."""

    def db_type(self, connection: Any) -> str:
        return "text"


@dataclasses.dataclass
class Outcome:
    """What became of the values of a type: by shape, how often each happened, with the older images and the newer ones.

    Attributes:
        refuses: PostgreSQL makes values of the type by itself alone.
        examples: The texts that it takes.
        missing: How many rows have no image by the newer triggers.
    """

    name: str
    extension: str
    refuses: bool
    kinds: set[str]
    older: dict[str, Counter[str]]
    newer: dict[str, Counter[str]]
    examples: list[str]
    missing: int


def field_of(name: str) -> Any:
    """A field for a type, PostGIS's with its own."""
    if name in ("geometry", "geography"):
        from django.contrib.gis.db.models import GeometryField

        return GeometryField(null=True, geography=name == "geography", dim=2)
    if name == "raster":
        from django.contrib.gis.db.models import RasterField

        return RasterField(null=True)
    return FIELDS.get(name, Plain)(null=True)


def try_sql(statement: str, *params: Any) -> bool:
    """Whether a statement succeeds."""
    try:
        sql(statement, *params)
    except DatabaseError:
        return False
    return True


def types() -> list[tuple[str, str, str]]:
    """Every type that a column can have, but for arrays and rows: name, SQL and extension."""
    for statement in filter(None, OWN.values()):
        try_sql(statement)
    return [
        tuple(row)
        for row in sql(
            "SELECT t.typname, format_type(t.oid, NULL), coalesce(e.extname, '') FROM pg_type AS t "
            "JOIN pg_namespace AS n ON n.oid = t.typnamespace "
            "LEFT JOIN pg_depend AS d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' "
            "LEFT JOIN pg_extension AS e ON e.oid = d.refobjid "
            "WHERE t.typtype IN ('b', 'e', 'r', 'm', 'd') "
            "AND NOT EXISTS (SELECT FROM pg_type AS element WHERE element.typarray = t.oid) "
            "AND t.typname !~ '^t[dcr]_' AND n.nspname IN ('pg_catalog', 'public') ORDER BY 3, 1"
        )
    ]


def make_table(number: int, kind: str) -> tuple[str, list[str]] | None:
    """Make a table with the shapes that there can be of a type."""
    table, columns = f"typed_{number}", [("value", kind)]
    if not try_sql(f"CREATE TABLE {table} (id serial PRIMARY KEY, value {kind})"):
        return None
    for shape, made, statement in (
        ("domain", f"td_{number}", "CREATE DOMAIN {} AS " + kind),
        ("composite", f"tc_{number}", "CREATE TYPE {} AS (x " + kind + ", y text)"),
        ("range", f"tr_{number}", "CREATE TYPE {} AS RANGE (subtype = " + kind + ")"),
    ):
        if try_sql(statement.format(made)):
            columns += [(shape, made), (f"{shape}s", f"{made}[]")]
    columns.append(("array", f"{kind}[]"))
    there = ["value"]
    for shape, column in columns[1:]:
        if try_sql(f'ALTER TABLE {table} ADD COLUMN "{shape}" {column}'):
            there.append(shape)
    return table, there


def fill(table: str, shapes: list[str], kind: str, number: int) -> list[str]:
    """Store what the type takes, in each shape, a row each; return the texts that it takes."""
    taken = []
    for text in ANY:
        if not try_sql(f"INSERT INTO {table} (value) VALUES (%s::text::{kind})", text):
            continue
        taken.append(text)
        value = f"(SELECT value FROM {table} ORDER BY id DESC LIMIT 1)"
        for shape, made in {
            "array": f"ARRAY[[{value}, NULL]]",
            "domain": value,
            "domains": f"ARRAY[{value}::td_{number}, NULL]",
            "composite": f"ROW({value}, 'a \"b\\')",
            "composites": f"ARRAY[ROW({value}, NULL)::tc_{number}]",
            "range": f"tr_{number}({value}, NULL)",
            "ranges": f"ARRAY[tr_{number}({value}, NULL), 'empty']",
        }.items():
            if shape in shapes:
                try_sql(f'UPDATE {table} SET "{shape}" = {made} WHERE id = (SELECT max(id) FROM {table})')
    return taken


def relations_by_name(tables: list[str]) -> dict[str, Relation]:
    """The tables as a listener would describe them."""

    async def ask() -> dict[str, Relation]:
        asyncpg = await connect("default", "test")
        try:
            log = await ChangeLog.open(asyncpg)
            oids = await log.oids(tables)
            found = relations_of(await log.relations(list(oids.values())))
            return {name: found[oid] for name, oid in oids.items()}
        finally:
            await asyncpg.close()

    return asyncio.run(ask())


def refuses(kind: str) -> bool:
    """Whether a type has no input function, as those have that are made for indexes and statistics."""
    try:
        sql(f"SELECT ''::text::{kind}")
    except (NotSupportedError, InternalError):
        return True
    except DatabaseError:
        pass
    return False


def images(table: str, version: str) -> dict[int, str]:
    """The images that the triggers of a version log of a table's rows, by key; none where the write fails."""
    schema = catalog.schema_of_log(connection) or ""
    (described,) = catalog.tables(connection, {table: ()})
    sql(plan.definition(described, "update", schema, version))
    sql("DELETE FROM djcrf_pg_change")
    try:
        for name, value in STRANGE.items():
            sql(f"SET {name} = '{value}'")
        for (key,) in sql(f"SELECT id FROM {table}"):
            try_sql(f"UPDATE {table} SET id = id WHERE id = %s", key)
    finally:
        for name in STRANGE:
            sql(f"RESET {name}")
        sql("SET TimeZone = 'UTC'")
    logged = sql("SELECT (new ->> 'id')::int, new::text FROM djcrf_pg_change WHERE op = 'U' ORDER BY id")
    return dict(logged)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two values are the same to the last digit, and of the same types."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, memoryview):
        return bytes(ours) == bytes(theirs)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if type(ours).__name__ == "GDALRaster":
        from django.contrib.gis.db.backends.postgis.pgraster import to_pgraster

        return bool(to_pgraster(ours) == to_pgraster(theirs))
    if hasattr(ours, "ewkb"):
        return bool(ours.ewkb == theirs.ewkb)
    return repr(ours) == repr(theirs)


def compare(model: type[Model], ours: Any, shape: str, kinds: set[str]) -> str:
    """Compare an attribute and the serializer's data, and say what became of the value."""
    missing = shape in ours.get_deferred_fields()
    try:
        theirs = model._base_manager.only("pk", shape).get(pk=ours.pk)
        loaded = getattr(theirs, shape)
    except (AssertionError, ProgrammingError, OperationalError):
        raise
    except Exception:
        return UNREADABLE if missing else DIFFERENT
    if missing:
        return DEFERRED
    kinds.add(type(loaded).__name__)
    meta = type("Meta", (), {"model": model, "fields": [shape]})
    serializer = type("Serializer", (ModelSerializer,), {"Meta": meta})
    if not same(getattr(ours, shape), loaded):
        return DIFFERENT
    try:
        expected = serializer(theirs).data
    except Exception:
        return SAME  # such a field has no serializer of its own
    return SAME if repr(serializer(ours).data) == repr(expected) else DIFFERENT


def compare_all(
    hydrator: Hydrator, shapes: Collection[str], found: dict[int, str], kinds: set[str]
) -> dict[str, Counter[str]]:
    """Compare the values of a table's rows, by shape."""
    table = hydrator.relation.name
    filled = ", ".join(f'"{shape}" IS NOT NULL' for shape in shapes)
    there = {key: dict(zip(shapes, rest, strict=True)) for key, *rest in sql(f"SELECT id, {filled} FROM {table}")}
    results: dict[str, Counter[str]] = {shape: Counter() for shape in shapes}
    parse = parser(hydrator.relation)
    for key, text in found.items():
        ours = hydrator.instance(parse(text), lenient=True)
        for shape in shapes:
            # The image of JSON's null is that of SQL's.
            if there[key][shape]:
                mine = kinds if shape == "value" else set()
                results[shape][compare(hydrator.model, ours, shape, mine)] += 1
    return results


def outcomes() -> list[Outcome]:
    """Compare every type of the server. The tables stay; the database is the test's."""
    made = {}
    for number, (name, kind, extension) in enumerate(types()):
        if table := make_table(number, kind):
            taken = fill(*table, kind, number)
            made[name] = (extension, not taken and refuses(kind), *table, taken)
    relations = relations_by_name([table for _, _, table, _, _ in made.values()])
    found = []
    for name, (extension, refused, table, shapes, taken) in made.items():
        relation = relations[table]
        fields = {shape: field_of(name) if shape in ("value", "domain") else Plain(null=True) for shape in shapes}
        if name in ("json", "jsonb") and "array" in fields:
            fields["array"] = pg.ArrayField(pg.ArrayField(models.JSONField(null=True)), null=True)
        meta = type("Meta", (), {"app_label": "decodeapp", "db_table": table, "managed": False})
        members = {"__module__": __name__, "Meta": meta, "id": models.AutoField(primary_key=True), **fields}
        model: Any = type(f"Typed{table}", (Model,), members)
        hydrator = Hydrator(model, relation, "default")
        kinds: set[str] = set()
        older = compare_all(hydrator, shapes, images(table, "v1"), kinds)
        newer_images = images(table, "v2")
        newer = compare_all(hydrator, shapes, newer_images, kinds)
        missing = len(taken) - len(newer_images)
        found.append(Outcome(name, extension, refused, kinds, older, newer, taken, missing))
    return found


@contextlib.contextmanager
def spatial() -> Iterator[None]:
    """Give the default alias the backend of PostGIS."""
    from django.contrib.gis.db.backends.postgis.base import DatabaseWrapper

    before = connections["default"]
    connections["default"] = DatabaseWrapper(before.settings_dict, "default")
    try:
        yield
    finally:
        connections["default"].close()
        connections["default"] = before


def cell(counts: Counter[str] | None) -> str:
    """A cell of the table."""
    if not counts:
        return "-"
    return "; ".join(word for word in (SAME, DEFERRED, UNREADABLE, DIFFERENT) if counts[word])


def render(found: list[Outcome]) -> str:
    """The table of the page docs/reference/types.md."""
    lines = [
        "| Type | Extension | In Python | " + " | ".join(shape.capitalize() for shape in SHAPES) + " |",
        "|---" * (3 + len(SHAPES)) + "|",
    ]
    for outcome in found:
        cells = [NO_INPUT if outcome.refuses else cell(outcome.newer.get(shape)) for shape in SHAPES]
        kinds = ", ".join(f"`{kind}`" for kind in sorted(outcome.kinds)) or "-"
        home = "yours" if outcome.name in OWN else outcome.extension or "-"
        lines.append(f"| `{outcome.name}` | {home} | {kinds} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
