"""Row images to model instances, exactly as the ORM would have loaded them, and without a query.

A field that the ORM selects as SQL (an encrypted one, say) is deferred: the image has what is stored.

A JSON value becomes what the driver would have given for the column's type; then Django's own converters and
``Model.from_db`` do what they do in a queryset. Settings that the text of a value depends on are pinned while the
images are written (see the capture functions), all but the time zone: a timestamptz has whatever offset.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connections
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from django.db.models import DEFERRED, Field, Model
from psycopg import DataError, adapters
from psycopg.adapt import Transformer
from psycopg.pq import Format
from psycopg.types.hstore import HstoreLoader

from djcrf_pg.changelog.image import elements, parse
from djcrf_pg.changelog.net import Image
from djcrf_pg.instances import make, sql_fields
from djcrf_pg.observations import FieldDeferred, FieldSelectsSql, emit
from djcrf_pg.registry import own_columns

Convert = Callable[[Any], Any]


#: Types whose values are JSON themselves.
JSON = ("json", "jsonb")

#: The element types of arrays that Django teaches the driver, on each connection.
TAUGHT = ("hstore", "citext", "geometry", "geography", "raster")

#: Arrays whose text is their elements with spaces between them.
VECTORS = ("int2vector", "oidvector")

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
        ancestors: The tables that it inherits from (``INHERITS``), near and far: its rows are theirs too.
        deferrable: Whether its primary key is.
    """

    oid: int
    root: int
    name: str
    columns: Mapping[str, ColumnType]
    ancestors: tuple[int, ...] = ()
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


def _hstore(value: Any) -> dict[str, str | None]:
    if isinstance(value, dict):
        return value
    try:
        return HstoreLoader(0).load(_exactly(str)(value).encode())
    except DataError as error:
        raise ValueError(f"hstore expected, not {value!r:.60}") from error


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


_OUTER_YEAR = re.compile(r"(?:10000|(0001))(-[^ ]+)(?(1) BC)")


def _outer_year(value: str) -> datetime:
    """Read a time of the years 1 to 9999, written with the offset of a zone in which the year is 0 or 10000."""
    match = _OUTER_YEAR.fullmatch(value)
    if match is None:
        raise ValueError(f"ISO 8601 date and time expected, not {value!r:.60}")
    # After 400 years the calendar is the same.
    year, shift = (400, -400) if match[1] else (8000, 2000)
    moment = datetime.fromisoformat(f"{year:04}{match[2]}").astimezone(UTC)
    return moment.replace(year=moment.year + shift)


def _moment(zone: tzinfo) -> Convert:
    """Read a timestamptz: its offset is that of whatever session has written it."""

    def convert(value: str) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = _outer_year(value)
        # What fromisoformat makes of "+00:00" is timezone.utc already.
        if moment.tzinfo is zone:
            return moment
        try:
            return moment.astimezone(zone)
        except OverflowError as error:
            raise ValueError(f"{value} is outside of the years 1 to 9999 in {zone}") from error

    return convert


def _timestamptz(aware: bool, zone: tzinfo) -> Convert:
    read = _moment(zone)
    # USE_TZ = False: Django's connection speaks TIME_ZONE, and its loader drops the offset.
    return read if aware else lambda value: read(value).replace(tzinfo=None)


_PLAIN: dict[str, Convert] = {
    "bool": _exactly(bool),
    **dict.fromkeys(("int2", "int4", "int8"), _exactly(int)),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "char", "citext"), _exactly(str)),
    **dict.fromkeys(("inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "xml"), _exactly(str)),
    **dict.fromkeys(("float4", "float8"), _float),
    "hstore": _hstore,
    "oid": int,
    "numeric": _numeric,
    "uuid": UUID,
    "bytea": _bytea,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timetz": time.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "interval": _interval,
    # The raw text of the value, see image.parse.
    "jsonb": _exactly(str),
}


_WITHOUT_FLOATS = {*_PLAIN, "timestamptz", "json"} - {"float4", "float8"}


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
            if column.name in VECTORS:
                return _vector_text
            if is_text(column):
                # What a domain is made of decides how its text is written, and that is not known here.
                return _array_text if column.element.kind in ("b", "e", "r", "m") else _only_text
            if column.element.name in VECTORS:
                return _vectors
            if column.element.name in TAUGHT:
                # PostGIS's arrays have colons between their elements, which are hexadecimal.
                colons = column.element.name in ("geometry", "geography")
                return self._array_or_text(self.converter(column.element), ":" if colons else ",")
            if column.element.name in JSON:
                return _json_array(self.converter(column.element), depth)
            return _array(self.converter(column.element))
        if column.name == "timestamptz":
            return _timestamptz(settings.USE_TZ, self._zone)
        if column.kind == "e":
            return _exactly(str)
        if convert := _PLAIN.get(column.name):
            return convert
        if column.name == "json":
            return json.loads
        return self._fallback(column)

    def _array_or_text(self, convert: Convert, delimiter: str) -> Convert:
        """Older triggers write an array of an extension's type as JSON, newer ones as its text."""
        load = self._driver.get_loader(adapters.types["text"].array_oid, Format.TEXT).load
        read = _array(convert)

        def convert_either(value: Any) -> Any:
            if isinstance(value, str):
                text = value if delimiter == "," else value.replace(delimiter, ",")
                return read(load(text.encode()))
            return read(value)

        return convert_either

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


def is_text(column: ColumnType) -> bool:
    """Whether the driver does not know the array's type, and gives its text: arrays of enums or domains, say."""
    if column.element is None:
        return False
    known = adapters.get_loader(column.oid, Format.TEXT) is not None or column.element.name in TAUGHT
    return column.name in VECTORS or not known


_QUOTED = re.compile(r'[\s"\\{},]|^$|^null$', re.IGNORECASE)
_ESCAPED = re.compile(r'["\\]')


def _read_text_array(value: str) -> Any:
    """The JSON text of an array, numbers as the text that they are; or the array's own text."""
    if not value.startswith(("[", '"')):
        raise TypeError(f"array expected, not {value:.60}")
    return json.loads(value, parse_int=str, parse_float=str)


def _array_text(value: str) -> str:
    """Write an array as PostgreSQL does.

    Raises:
        ValueError: An element has a cast to JSON, which does not tell its text.
    """
    found = _read_text_array(value)
    return found if isinstance(found, str) else _braces(found)


def _only_text(value: str) -> str:
    return _exactly(str)(_read_text_array(value))  # type: ignore[no-any-return]


def _braces(items: list[Any]) -> str:
    return "{" + ",".join(map(_element_text, items)) + "}"


def _element_text(item: Any) -> str:
    if item is None:
        return "NULL"
    if isinstance(item, list):
        return _braces(item)
    if isinstance(item, bool):
        return "t" if item else "f"
    if not isinstance(item, str):
        raise ValueError(f"the text of {item!r:.60} is not known")
    return f'"{_ESCAPED.sub(_escape, item)}"' if _QUOTED.search(item) else item


def _escape(match: "re.Match[str]") -> str:
    return "\\" + match[0]


def _vector_text(value: str) -> str:
    found = _read_text_array(value)
    return found if isinstance(found, str) else " ".join(map(_exactly(str), found))


def _vectors(value: Any) -> list[Any]:
    """An array of vectors, each of which is a list in JSON too."""
    return [
        item
        if item is None
        else _vectors(item)
        if any(part is None or isinstance(part, list) for part in item)
        else " ".join(map(str, item))
        for item in _exactly(list)(value)
    ]


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

    def instance(
        self, image: Image, *, lenient: bool = False, only_key: bool = False, has_code: bool | None = None
    ) -> Model:
        """Make an instance of an image; see :meth:`values`.

        Args:
            image: The row.
            lenient: Leave out a field whose value does not fit, instead of raising.
            only_key: Leave out all fields but the primary key's. Code of the model's may miss them, see
                :func:`~djcrf_pg.instances.runs_code`.
            has_code: What that says; None to have it asked.

        Raises:
            StaleRelation: As :meth:`values` does.
            ValueError: The key is not in the image, or cannot be decoded: nothing can be said of such a row.
        """
        values = self.values(image, self._key_columns if only_key else None, lenient=lenient)
        if not self._keys <= values.keys():
            raise ValueError(
                f"the key of {self.model._meta.label} cannot be read from an image of {self.relation.name}"
            )
        return make(self.model, self._alias, values, has_code=has_code)

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


def parser(relation: Relation) -> Callable[[str], Image]:
    """What parses the images of a table."""
    return partial(parse, raw=raw_columns(relation), floats=may_have_floats(relation))


def raw_columns(relation: Relation) -> frozenset[str]:
    """The columns whose JSON value must stay text, because it is parsed, or made into the text of an array, later."""
    return frozenset(
        name for name, kind in relation.columns.items() if (kind.element or kind).name in JSON or is_text(kind)
    )


def may_have_floats(relation: Relation) -> bool:
    """Whether an image may have a float: of types that are not known here nobody can say."""
    kinds = [kind.element or kind for kind in relation.columns.values()]
    return not all(kind.kind == "e" or (kind.kind == "b" and kind.name in _WITHOUT_FLOATS) for kind in kinds)


def relations_of(rows: list[Any]) -> dict[int, Relation]:
    """Make relations of the rows of the query ``relations``."""
    columns: dict[int, dict[str, ColumnType]] = {}
    found: dict[int, Relation] = {}
    for row in rows:
        element = None
        if row["element"] is not None:
            element = ColumnType(row["element"], row["element_name"], row["element_kind"])
        kind = VIRTUAL if row["virtual"] else row["kind"]
        column = ColumnType(row["type"], row["type_name"], kind, element)
        oid = row["oid"]
        columns.setdefault(oid, {})[row["column"]] = column
        found[oid] = Relation(
            oid, row["root"], row["name"], columns[oid], tuple(row["ancestors"]), deferrable=row["deferrable"]
        )
    return found
