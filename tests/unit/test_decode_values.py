"""JSON values to driver values: the parts that need no table."""

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.changelog.decode import (
    ColumnType,
    Decoders,
    Relation,
    _moment,
    may_have_floats,
    raw_columns,
    relations_of,
)


def decode(value: Any, name: str, oid: int = 0, kind: str = "b", element: ColumnType | None = None) -> Any:
    """Decode a value of a type."""
    return Decoders("default").converter(ColumnType(oid, name, kind, element))(value)


# -- interval ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("PT0S", timedelta()),
        ("PT1H2M3S", timedelta(hours=1, minutes=2, seconds=3)),
        ("P1DT0.000001S", timedelta(days=1, microseconds=1)),
        ("P-1D", timedelta(days=-1)),
        ("PT-1H-2M-3.5S", -timedelta(hours=1, minutes=2, seconds=3.5)),
        ("PT-0.5S", timedelta(seconds=-0.5)),
        ("P-1DT23H59M59.999999S", timedelta(days=-1, hours=23, minutes=59, seconds=59, microseconds=999_999)),
        ("P1Y2M3DT4H5M6.7S", timedelta(days=365 + 60 + 3, hours=4, minutes=5, seconds=6.7)),
        ("P-1Y-2M", timedelta(days=-365 - 60)),
        ("P1Y-1M", timedelta(days=335)),
        ("P2W", timedelta(days=14)),
        ("PT2562047788H", timedelta(hours=2562047788)),
    ],
)
def test_an_interval_is_read(text: str, value: timedelta) -> None:
    assert decode(text, "interval") == value


@given(st.timedeltas())
def test_any_timedelta_comes_back_from_the_text_that_postgresql_writes(value: timedelta) -> None:
    """EncodeInterval, INTSTYLE_ISO_8601: each unit has a sign of its own; there are days, but no weeks."""
    micros = abs(value - timedelta(days=value.days)) // timedelta(microseconds=1)
    seconds, micros = divmod(micros, 1_000_000)
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{micros:06}".rstrip("0").rstrip(".")
    assert decode(f"P{value.days}DT{hours}H{minutes}M{seconds}{fraction}S", "interval") == value


@pytest.mark.parametrize("text", ["", "1 day", "P1DT", "PT1.5H", "infinity", "-infinity", "P1X", "PT1S ", "1:00:00"])
def test_what_is_no_interval_raises(text: str) -> None:
    if text == "P1DT":
        assert decode(text, "interval") == timedelta(days=1)
        return
    with pytest.raises(ValueError, match="interval expected"):
        decode(text, "interval")


def test_an_interval_that_timedelta_cannot_hold_raises() -> None:
    with pytest.raises(ArithmeticError):
        decode("P178000000Y", "interval")


# -- numbers and bytes ---------------------------------------------------------------------------------------


@given(st.binary())
def test_bytea_is_read(value: bytes) -> None:
    assert decode(f"\\x{value.hex()}", "bytea") == value


@pytest.mark.parametrize("value", ["deadbeef", "\\000\\001", "\\xzz", "\\x0"])
def test_what_is_no_bytea_raises(value: str) -> None:
    with pytest.raises(ValueError, match=r"bytea|hexadecimal"):
        decode(value, "bytea")


@pytest.mark.parametrize("name", ["float4", "float8"])
def test_floats_are_read(name: str) -> None:
    assert math.isnan(decode("NaN", name))
    assert decode("Infinity", name) == math.inf
    assert decode("-Infinity", name) == -math.inf
    assert decode(Decimal("0.1"), name) == 0.1
    assert type(decode(3, name)) is float
    assert math.copysign(1, decode(Decimal("-0.0"), name)) == -1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_comes_back_from_its_shortest_digits(value: float) -> None:
    decoded = decode(Decimal(repr(value)), "float8")
    assert (decoded, math.copysign(1, decoded)) == (value, math.copysign(1, value))


def test_numeric_is_read() -> None:
    assert decode("NaN", "numeric").is_nan()
    assert decode("Infinity", "numeric") == Decimal("Infinity")
    assert decode("-Infinity", "numeric") == Decimal("-Infinity")
    assert str(decode(Decimal("1.10"), "numeric")) == "1.10"
    value = decode(10**40, "numeric")
    assert (type(value), value) == (Decimal, Decimal(10**40))


# -- dates and times -----------------------------------------------------------------------------------------


def test_dates_and_times_are_read() -> None:
    assert decode("0001-01-01", "date") == date(1, 1, 1)
    assert decode("23:59:59.999999", "time") == time(23, 59, 59, 999_999)
    assert decode("12:00:00+02:00", "timetz").utcoffset() == timedelta(hours=2)
    assert decode("2026-01-02T03:04:05.000006", "timestamp") == datetime(2026, 1, 2, 3, 4, 5, 6)
    assert decode("2026-01-02T03:04:05+00:00", "timestamptz") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-02T08:34:05+05:30", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-01T19:04:05-08:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("1890-01-01T00:53:28+00:53:28", datetime(1890, 1, 1, tzinfo=UTC)),
        # The years 10000 and 0, where the zone is ahead or behind.
        ("10000-01-01T00:59:59.5+01:00", datetime(9999, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)),
        ("0001-12-31T19:03:58-04:56:02 BC", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_with_the_offset_of_any_session(value: str, expected: datetime) -> None:
    found = decode(value, "timestamptz")
    assert (found, found.utcoffset()) == (expected, timedelta(0))


@pytest.mark.parametrize(
    "value", ["10000-01-02T00:00:00+01:00", "0001-12-31T00:00:00+00:00 BC", "10001-01-01T00:00:00+01:00"]
)
def test_a_time_that_is_outside_of_all_years_raises(value: str) -> None:
    with pytest.raises(ValueError, match=r"year|ISO 8601"):
        decode(value, "timestamptz")


def test_a_time_that_the_connection_s_zone_takes_out_of_all_years_raises() -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        _moment(ZoneInfo("Asia/Tokyo"))("9999-12-31T23:00:00+00:00")


@pytest.mark.parametrize("value", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"])
@pytest.mark.parametrize("name", ["date", "timestamp", "timestamptz"])
def test_a_date_that_python_cannot_hold_raises(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(value, name)


@override_settings(USE_TZ=False, TIME_ZONE="America/New_York")
def test_without_use_tz_a_timestamptz_is_naive_and_in_the_time_zone() -> None:
    assert decode("2026-01-02T03:04:05+00:00", "timestamptz") == datetime(2026, 1, 1, 22, 4, 5)


# -- strictness ----------------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {"bool": True, "int": 7, "decimal": Decimal("1.5"), "str": "x", "list": [1], "dict": {"a": 1}}
#: What the hydrator takes for a value that does not fit its type.
MISFITS = (TypeError, ValueError, ArithmeticError, AttributeError)

#: The JSON types that each type has; those of the last line are text of a certain form.
TAKES: dict[str, set[str]] = {
    "bool": {"bool"},
    "hstore": {"dict"},
    **{name: {"int"} for name in ("int2", "int4", "int8")},
    **{name: {"str"} for name in ("text", "varchar", "bpchar", "name", "char", "citext", "inet", "cidr", "jsonb")},
    **{name: {"int", "decimal"} for name in ("float4", "float8", "numeric")},
    **{name: set() for name in ("uuid", "bytea", "date", "time", "timestamp", "timestamptz", "interval")},
}


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("given_type", VALUES)
def test_a_json_value_of_the_wrong_type_raises(name: str, given_type: str) -> None:
    """The column was retyped since the catalog was read; what comes out must not be taken for a value."""
    value = VALUES[given_type]
    if given_type in TAKES[name]:
        assert decode(value, name) == value
    else:
        with pytest.raises(MISFITS):
            decode(value, name)


@pytest.mark.parametrize("value", [7, True, None, ["x"]])
def test_an_enum_is_text(value: Any) -> None:
    assert decode("happy", "mood", kind="e") == "happy"
    with pytest.raises(TypeError):
        decode(value, "mood", kind="e")


# -- arrays, ranges, JSON ------------------------------------------------------------------------------------

INT4 = ColumnType(23, "int4")


def test_arrays_keep_their_dimensions_and_nulls() -> None:
    assert decode([[1, None], [3, 4]], "_int4", element=INT4) == [[1, None], [3, 4]]
    assert decode([], "_int4", element=INT4) == []
    assert decode([Decimal("1.10")], "_numeric", element=ColumnType(1700, "numeric")) == [Decimal("1.10")]
    stamps = decode(["2026-01-02T03:04:05+00:00"], "_timestamptz", element=ColumnType(1184, "timestamptz"))
    assert stamps == [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)]


@pytest.mark.parametrize("value", ["{1,2}", 1, ["1"], [True], [[1], ["2"]]])
def test_an_array_of_something_else_raises(value: Any) -> None:
    with pytest.raises(TypeError):
        decode(value, "_int4", element=INT4)


def test_json_inside_an_array_keeps_its_digits() -> None:
    element = ColumnType(3802, "jsonb")
    assert decode('[{"a": 1.10}, null,[1, [2]]]', "_jsonb", element=element) == ['{"a": 1.10}', None, "[1, [2]]"]
    assert decode("[ ]", "_jsonb", element=element) == []


def test_ranges_are_read_by_the_driver() -> None:
    value = decode("[1,5)", "int4range", oid=3904, kind="r")
    assert (value.lower, value.upper, value.bounds) == (1, 5, "[)")
    assert decode("empty", "int4range", oid=3904, kind="r").isempty
    stamps = decode('["2026-01-01 00:00:00+00",)', "tstzrange", oid=3910, kind="r")
    assert stamps.lower == datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(TypeError):
        decode(5, "int4range", oid=3904, kind="r")


def test_a_type_that_nobody_knows_is_its_text() -> None:
    assert decode("(1,2)", "some_composite", oid=99_999, kind="c") == "(1,2)"
    with pytest.raises(TypeError):
        decode({"a": 1}, "some_composite", oid=99_999, kind="c")


def test_json_columns_are_raw() -> None:
    columns = {"a": ColumnType(114, "json"), "b": ColumnType(3802, "jsonb"), "c": ColumnType(25, "text")}
    assert raw_columns(Relation(1, 1, "t", columns)) == {"a", "b"}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (ColumnType(23, "int4"), False),
        (ColumnType(1700, "numeric"), False),
        (ColumnType(3802, "jsonb"), False),
        (ColumnType(99_998, "mood", "e"), False),
        (ColumnType(1007, "_int4", element=ColumnType(23, "int4")), False),
        (ColumnType(701, "float8"), True),
        (ColumnType(1022, "_float8", element=ColumnType(701, "float8")), True),
        (ColumnType(99_999, "some_composite", "c"), True),
        (ColumnType(99_999, "some_type"), True),
    ],
)
def test_floats_are_looked_for_where_they_may_be(column: ColumnType, expected: bool) -> None:
    assert may_have_floats(Relation(1, 1, "t", {"a": ColumnType(25, "text"), "b": column})) is expected


def test_uuids_are_read() -> None:
    assert decode("12345678-1234-5678-1234-567812345678", "uuid") == UUID("12345678123456781234567812345678")


def test_relations_are_made_of_the_catalogs_rows() -> None:
    row = {
        "oid": 5,
        "root": 4,
        "name": "public.t",
        "kind": "b",
        "element_kind": "b",
        "virtual": False,
        "ancestors": [],
        "deferrable": True,
    }
    rows = [
        {**row, "column": "a", "type": 23, "type_name": "int4", "element": None, "element_name": None},
        {**row, "column": "b", "type": 1007, "type_name": "_int4", "element": 23, "element_name": "int4"},
    ]
    columns = {"a": INT4, "b": ColumnType(1007, "_int4", "b", INT4)}
    assert relations_of(rows) == {5: Relation(5, 4, "public.t", columns, deferrable=True)}


# -- arrays that the driver gives as text --------------------------------------------------------------------

MOOD = ColumnType(99_998, "mood", "e")


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ('["a", "b c", null, "NULL", "", "q\\"\\\\"]', '{a,"b c",NULL,"NULL","","q\\"\\\\"}'),
        ('[["a", "{"], ["b,", "d"]]', '{{a,"{"},{"b,",d}}'),
        ("[]", "{}"),
        ('"{a,b}"', "{a,b}"),
    ],
)
def test_an_array_of_an_enum_is_the_text_that_the_driver_gives(image: str, text: str) -> None:
    """Older triggers write JSON, newer ones the text itself."""
    assert decode(image, "_mood", 99_999, element=MOOD) == text


def test_an_array_keeps_the_digits_of_its_elements() -> None:
    assert (
        decode("[1.10, -0, 1e+20, true]", "_cents", 99_999, element=ColumnType(99_998, "cents")) == "{1.10,-0,1e+20,t}"
    )


@pytest.mark.parametrize(("image", "kind"), [('[{"a": 1}]', "c"), ('["P1D"]', "d"), ('[{"a": 1}]', "b"), ("7", "e")])
def test_an_array_whose_text_json_does_not_tell_raises(image: str, kind: str) -> None:
    with pytest.raises(MISFITS):
        decode(image, "_pair", 99_999, element=ColumnType(99_998, "pair", kind))


@pytest.mark.parametrize("kind", ["c", "d"])
def test_the_text_of_an_array_of_composites_or_domains_is_taken_as_it_is(kind: str) -> None:
    assert decode('"{\\"(1,2)\\"}"', "_pair", 99_999, element=ColumnType(99_998, "pair", kind)) == '{"(1,2)"}'


def test_text_of_arrays_of_geometries_is_read() -> None:
    assert decode("{00AA:NULL}", "_geometry", 99_999, element=ColumnType(99_998, "geometry")) == ["00AA", None]


@pytest.mark.parametrize(("name", "oid", "element"), [("int2vector", 22, 21), ("oidvector", 30, 26)])
def test_a_vector_is_its_text(name: str, oid: int, element: int) -> None:
    assert decode("[1, 2]", name, oid, element=ColumnType(element, name)) == "1 2"
    assert decode('"1 2"', name, oid, element=ColumnType(element, name)) == "1 2"


def test_text_of_arrays_of_extensions_types_is_read() -> None:
    assert decode('{a,"b c",NULL}', "_citext", 99_999, element=ColumnType(99_998, "citext")) == ["a", "b c", None]
    value = '{"\\"a\\"=>\\"1\\", \\"b\\"=>NULL",NULL}'
    assert decode(value, "_hstore", 99_999, element=ColumnType(99_998, "hstore")) == [{"a": "1", "b": None}, None]
    assert decode('"a"=>"1"', "hstore") == {"a": "1"}


def test_columns_that_become_the_text_of_an_array_are_raw() -> None:
    assert raw_columns(Relation(1, 1, "t", {"m": ColumnType(99_999, "_mood", "b", MOOD)})) == {"m"}
