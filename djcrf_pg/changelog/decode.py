"""Row images to model instances, exactly as the ORM would have loaded them, and without a query.

A field that the ORM selects as SQL (an encrypted one, say) is deferred: the image has what is stored.

A JSON value becomes what the driver would have given for the column's type; then Django's own converters and
``Model.from_db`` do what they do in a queryset. The images are written with pinned settings (see the capture
functions), so the text of a value depends on its type alone.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connections
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from django.db.models import DEFERRED, Field, Model
from psycopg.adapt import Transformer
from psycopg.pq import Format

from djcrf_pg.changelog.image import elements
from djcrf_pg.changelog.net import Image
from djcrf_pg.instances import make, sql_fields
from djcrf_pg.observations import FieldDeferred, FieldSelectsSql, emit
from djcrf_pg.registry import own_columns

Convert = Callable[[Any], Any]


#: Types whose values are JSON themselves.
JSON = ("json", "jsonb")

#: The oids of types from here on are those that somebody has made (PostgreSQL's FirstNormalObjectId).
_FIRST_MADE = 16384

#: Made types whose arrays Django has the driver read (``django.contrib.postgres.signals``), and how: as ``text[]``.
_READ_ARRAYS = ("citext", "hstore")
_TEXT_ARRAY = 1009

#: The kind of a generated column that is not stored: a trigger sees null, so its field is deferred.
VIRTUAL = "virtual"


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type, as the driver sees it: domains are their base type.

    Attributes:
        oid: In ``pg_type``.
        name: ``typname``.
        kind: ``typtype``: ``b`` base, ``e`` enum, ``r`` range, ``c`` composite, …
        element: The type of an array's elements.
    """

    oid: int
    name: str
    kind: str = "b"
    element: "ColumnType | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class Relation:
    """A table as the catalog describes it.

    Attributes:
        oid: The table itself.
        root: The partitioned table that it belongs to, else the table itself.
        name: Qualified and quoted.
        columns: Column name to type.
        deferrable: Whether its primary key is.
    """

    oid: int
    root: int
    name: str
    columns: Mapping[str, ColumnType]
    deferrable: bool = False


class StaleRelation(Exception):
    """An image does not fit what is known of its table: the catalog must be read again."""

    def __init__(self, oid: int) -> None:
        super().__init__(oid)
        self.oid = oid


@dataclasses.dataclass(frozen=True, slots=True)
class _exactly:
    """The converter of values that JSON has as the driver has them."""

    kind: type

    def __call__(self, value: Any) -> Any:
        if type(value) is not self.kind:
            raise TypeError(f"{self.kind.__name__} expected, not {value!r:.60}")
        return value


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(f"number expected, not {value!r}")
    return float(value)


def _numeric(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise TypeError(f"number expected, not {value!r}")
    return Decimal(value)


def _bytea(value: str) -> bytes:
    if not value.startswith("\\x"):
        raise ValueError("bytea in hex format expected")
    return bytes.fromhex(value[2:])


_INTERVAL = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?"
    r"(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d+))?S)?)?"
)


def _interval(value: str) -> timedelta:
    """Read ``IntervalStyle = iso_8601``; a year is 365 days and a month 30, as in psycopg."""
    match = _INTERVAL.fullmatch(value)
    if match is None:
        raise ValueError(f"ISO 8601 interval expected, not {value!r}")
    years, months, weeks, days, hours, minutes = (int(part or 0) for part in match.groups()[:6])
    sign, seconds, fraction = match.groups()[6:]
    micros = int(seconds or 0) * 1_000_000 + int((fraction or "").ljust(6, "0")[:6])
    return timedelta(
        days=365 * years + 30 * months + 7 * weeks + days,
        hours=hours,
        minutes=minutes,
        microseconds=-micros if sign else micros,
    )


_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")(?:, |$)', re.DOTALL)


def _hstore(value: Any) -> dict[str, str | None]:
    """Read hstore: JSON from its extension's cast, the text of its output function inside of an array."""
    if not isinstance(value, str):
        return cast("dict[str, str | None]", _exactly(dict)(value))
    found: dict[str, str | None] = {}
    place = 0
    while place < len(value):
        match = _PAIR.match(value, place)
        if match is None:
            raise ValueError(f"hstore expected, not {value!r:.50}")
        key, text = match.groups()
        found[_unescaped(key)] = None if text is None else _unescaped(text)
        place = match.end()
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _timestamptz(aware: bool, zone: tzinfo) -> Convert:
    if aware and zone is UTC:
        # What fromisoformat makes of "+00:00" is timezone.utc already.
        return datetime.fromisoformat
    if aware:
        return lambda value: datetime.fromisoformat(value).astimezone(zone)
    # USE_TZ = False: Django's connection speaks TIME_ZONE, and its loader drops the offset.
    return lambda value: datetime.fromisoformat(value).astimezone(zone).replace(tzinfo=None)


_PLAIN: dict[str, Convert] = {
    "bool": _exactly(bool),
    **dict.fromkeys(("int2", "int4", "int8"), _exactly(int)),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "char", "citext"), _exactly(str)),
    **dict.fromkeys(("inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "xml"), _exactly(str)),
    **dict.fromkeys(("float4", "float8"), _float),
    "oid": int,
    "numeric": _numeric,
    "uuid": UUID,
    "bytea": _bytea,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timetz": time.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "interval": _interval,
    "hstore": _hstore,
    # The raw text of the value, see image.parse.
    "jsonb": _exactly(str),
}


class Decoders:
    """Makes converters from JSON values to driver values, for one database.

    Args:
        alias: The Django database alias; its time zone counts.
    """

    def __init__(self, alias: str) -> None:
        connection = connections[alias]
        self._zone = connection.timezone or ZoneInfo(connection.timezone_name)
        # Types that have no converter here are read by psycopg from the text that they have inside JSON.
        self._driver = Transformer(get_adapters_template(settings.USE_TZ, connection.timezone))

    def converter(self, column: ColumnType, depth: int = 1) -> Convert:
        """Return the function from a JSON value (never null) to the driver's value.

        Args:
            column: The type.
            depth: Dimensions of an array, which matter where its elements may be arrays in JSON themselves.

        The function raises ValueError or TypeError for a value that is none of the type's.
        """
        if column.element is not None:
            if column.element.name in JSON:
                return _json_array(self.converter(column.element), depth)
            convert_list = _array(self.converter(column.element))
            return self._made_array(column, convert_list) if column.oid >= _FIRST_MADE else convert_list
        if column.name == "timestamptz":
            return _timestamptz(settings.USE_TZ, self._zone)
        if column.kind == "e":
            return _exactly(str)
        if convert := _PLAIN.get(column.name):
            return convert
        if column.name == "json":
            return json.loads
        return self._fallback(column)

    def _made_array(self, column: ColumnType, convert_list: Convert) -> Convert:
        """Of a type that somebody has made the image has the text that the driver is given; a former version had JSON.

        Django has the driver read arrays of citext and hstore, and nothing else of the kind.
        """
        assert column.element is not None
        split: Convert | None = None
        if column.element.name in _READ_ARRAYS:
            split = self._driver.get_loader(_TEXT_ARRAY, Format.TEXT).load

        def convert(value: Any) -> Any:
            if not isinstance(value, str):
                return convert_list(value)
            return value if split is None else convert_list(split(value.encode()))

        return convert

    def _fallback(self, column: ColumnType) -> Convert:
        load = self._driver.get_loader(column.oid, Format.TEXT).load
        text = _exactly(str)
        return lambda value: load(text(value).encode())


def _array(convert: Convert) -> Convert:
    def convert_list(value: Any) -> list[Any]:
        return [
            None if item is None else convert_list(item) if isinstance(item, list) else convert(item)
            for item in _exactly(list)(value)
        ]

    return convert_list


def _json_array(convert: Convert, depth: int) -> Convert:
    """Elements stay the text they are, for somebody else parses them; SQL's null and JSON's look the same here."""

    def convert_text(value: str, depth: int = depth) -> list[Any]:
        return [
            None if item == "null" else convert_text(item, depth - 1) if depth > 1 else convert(item)
            for item in elements(value)
        ]

    return convert_text


class _Column(NamedTuple):
    name: str
    attname: str
    as_is: type | None  # values of this type need nothing
    convert: Convert
    django: list[tuple[Callable[..., Any], Any]]
    field: str
    type: ColumnType


class Hydrator:
    """Turns images of one table into instances of one model.

    Args:
        model: The model, whose own table it is.
        relation: The table.
        alias: The database that the instances say they come from.

    Attributes:
        names: Column to field name, for the columns of the model's own table.
    """

    def __init__(self, model: type[Model], relation: Relation, alias: str) -> None:
        self.model = model
        self.relation = relation
        self._alias = alias
        self._connection = connections[alias]
        decoders = Decoders(alias)
        own = own_columns(model)
        self.names = {column: field.name for column, field in own.items()}
        selected = sql_fields(model, alias)
        for field in selected.values():
            emit(FieldSelectsSql(model=model._meta.label, field=field.name, kind=type(field).__name__))
        self._columns = [
            self._column(column, field, relation.columns[column], decoders)
            for column, field in own.items()
            if column in relation.columns and relation.columns[column].kind != VIRTUAL and column not in selected
        ]
        self._unknown = [column for column in own if column not in relation.columns]
        keys = model._meta.pk_fields
        self._keys = {field.attname for field in own.values() if field in keys}
        self._key_columns = [column for column in self._columns if column.attname in self._keys]
        self._reported: set[str] = set()

    def _column(self, name: str, field: "Field[Any, Any]", kind: ColumnType, decoders: Decoders) -> _Column:
        expression = field.get_col(self.model._meta.db_table)
        functions = [
            *self._connection.ops.get_db_converters(expression),
            *expression.get_db_converters(self._connection),
        ]
        depth, part = 0, cast(Any, field)
        while (part := getattr(part, "base_field", None)) is not None:
            depth += 1
        convert = decoders.converter(kind, max(depth, 1))
        django = [(function, expression) for function in functions]
        as_is = convert.kind if isinstance(convert, _exactly) and not django else None
        return _Column(name, field.attname, as_is, convert, django, field.name, kind)

    def instance(self, image: Image, *, lenient: bool = False, only_key: bool = False) -> Model:
        """Make an instance of an image; see :meth:`values`.

        Args:
            image: The row.
            lenient: Leave out a field whose value does not fit, instead of raising.
            only_key: Leave out all fields but the primary key's. Code of the model's may miss them, see
                :func:`~djcrf_pg.instances.runs_code`.

        Raises:
            StaleRelation: As :meth:`values` does.
            ValueError: The key is not in the image, or cannot be decoded: nothing can be said of such a row.
        """
        values = self.values(image, self._key_columns if only_key else None, lenient=lenient)
        if not self._keys <= values.keys():
            raise ValueError(
                f"the key of {self.model._meta.label} cannot be read from an image of {self.relation.name}"
            )
        return make(self.model, self._alias, values)

    def values(
        self, image: Image, columns: Iterable[_Column] | None = None, *, lenient: bool = False
    ) -> dict[str, Any]:
        """Read an image, in the order of the model's fields.

        Columns that the image lacks (excluded, or added later) are left out, which makes deferred fields; columns
        that no field knows are passed over.

        Args:
            image: The row.
            columns: Those of them that are wanted; by default all.
            lenient: Leave out a field whose value does not fit, instead of raising.

        Returns:
            The attributes of the table's own fields.

        Raises:
            StaleRelation: A value does not fit its column's type, or the column is not known.
        """
        if self._unknown and not lenient and any(column in image for column in self._unknown):
            raise StaleRelation(self.relation.oid)
        values: dict[str, Any] = {}
        for column in self._columns if columns is None else columns:
            name, attname, as_is, convert, django, _, _ = column
            value = image.get(name, DEFERRED)
            if type(value) is as_is:
                values[attname] = value
                continue
            if value is DEFERRED:
                continue
            try:
                if value is not None:
                    value = convert(value)
                for function, expression in django:
                    value = function(value, expression, self._connection)
            except Exception as error:
                # Converters are the driver's and the user's: what they raise is anybody's guess.
                if not lenient:
                    raise StaleRelation(self.relation.oid) from error
                self._report(column, error)
                continue
            values[attname] = value
        return values

    def _report(self, column: _Column, error: Exception) -> None:
        if column.name in self._reported:
            return
        self._reported.add(column.name)
        label = self.model._meta.label
        emit(
            FieldDeferred(
                model=label,
                field=column.field,
                column=column.name,
                type=column.type.name,
                error=str(error),
            )
        )


def raw_columns(relation: Relation) -> frozenset[str]:
    """The columns whose JSON value must stay text, because Django or psycopg parses it."""
    return frozenset(name for name, kind in relation.columns.items() if (kind.element or kind).name in JSON)


def relations_of(rows: list[Any]) -> dict[int, Relation]:
    """Make relations of the rows of the query ``relations``."""
    found: dict[int, tuple[int, str, dict[str, ColumnType], bool]] = {}
    for row in rows:
        element = None
        if row["element"] is not None:
            element = ColumnType(row["element"], row["element_name"], row["element_kind"])
        kind = VIRTUAL if row["virtual"] else row["kind"]
        column = ColumnType(row["type"], row["type_name"], kind, element)
        found.setdefault(row["oid"], (row["root"], row["name"], {}, row["deferrable"]))[2][row["column"]] = column
    return {oid: Relation(oid, *described) for oid, described in found.items()}
