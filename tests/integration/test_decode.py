"""Row images become what the ORM would have loaded: every value, and every value's type."""

import asyncio
import contextlib
import math
import os
import string
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.postgres.fields import ArrayField, HStoreField
from django.contrib.postgres.signals import get_citext_oids, get_hstore_oids
from django.db import connection, connections, models
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange
from django.db.models import DEFERRED, Model
from django.test import override_settings
from django.test.utils import CaptureQueriesContext, isolate_apps
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from djcrf_pg.changelog.decode import Hydrator, Relation, StaleRelation, parser, relations_of
from djcrf_pg.changelog.reader import ChangeLog
from djcrf_pg.listener.connection import connect
from djcrf_pg.observations import FieldDeferred, Observation, add_sink
from tests.decodeapp.models import Everything, EverythingProxy, Point, Target
from tests.integration.log import observe, sql

pytestmark = pytest.mark.django_db

#: For tests of tables and sessions that come and go.
COMMITTED = pytest.mark.django_db(transaction=True)

TABLE = "decodeapp_everything"


@pytest.fixture(autouse=True)
def _observed(db: None) -> None:
    observe(TABLE)
    # Pending checks of foreign keys would forbid ALTER TABLE.
    sql("SET CONSTRAINTS ALL IMMEDIATE")


def relation_of(table: str) -> Relation:
    """The table as the listener would describe it now."""

    async def ask() -> Relation:
        asyncpg = await connect("default", "test")
        try:
            log = await ChangeLog.open(asyncpg)
            name = connection.ops.quote_name(table)
            oid = (await log.oids([name]))[name]
            return relations_of(await log.relations([oid]))[oid]
        finally:
            await asyncpg.close()

    return asyncio.run(ask())


def last_image(relation: Relation) -> dict[str, Any]:
    """The last row that was written, as the router would parse it."""
    ((text,),) = sql("SELECT new::text FROM djcrf_pg_change WHERE new IS NOT NULL ORDER BY id DESC LIMIT 1")
    return parser(relation)(text)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two values are the same to the last digit, and of the same types all the way down."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, memoryview):
        return bytes(ours) == bytes(theirs)
    if isinstance(ours, float):
        return repr(ours) == repr(theirs)
    # The repr tells 1.10 from 1.1, NaN from nothing, and one time zone from another.
    return repr(ours) == repr(theirs)


def compare(ours: Model, theirs: Model) -> None:
    """Every field of both instances is the same."""
    for field in theirs._meta.concrete_fields:
        mine, loaded = (vars(instance).get(field.attname, DEFERRED) for instance in (ours, theirs))
        assert same(mine, loaded), f"{field.name}: {mine!r} ({type(mine)}) is not {loaded!r} ({type(loaded)})"
    assert ours._state.db == theirs._state.db
    assert not ours._state.adding


# -- the property --------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
STAMPS = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
)
# PostgreSQL keeps days and microseconds apart; a timedelta of many days is an interval of many days.
DURATIONS = st.timedeltas() | st.sampled_from([timedelta.min, timedelta.max, timedelta(microseconds=-1), timedelta(45)])
FLOATS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324])
BIG = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1])
ADDRESSES = st.ip_addresses().map(str)


def decimals(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    """Decimals that use every digit of their column."""
    numbers = st.integers(-(10**digits) + 1, 10**digits - 1)
    # Not scaleb(), which rounds to the context's 28 digits.
    return numbers.map(lambda number: Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -places)))


def json_values() -> st.SearchStrategy[Any]:
    """What a JSONField takes, integers that no float can hold among it."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
    )


def exact_texts() -> st.SearchStrategy[str]:
    """JSON text with more digits than a float has."""
    number = decimals(60, 30).map(lambda value: format(value, "f"))
    return number | st.lists(number, max_size=3).map(lambda found: f'{{"a": [{", ".join(found)}]}}')


def ranges(kind: Any, bound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Ranges with and without ends, and the empty one."""

    @st.composite
    def make(draw: st.DrawFn) -> Any:
        lower, upper = sorted((draw(bound), draw(bound)))
        return kind(
            draw(st.just(lower) | st.none()), draw(st.just(upper) | st.none()), draw(st.sampled_from(["[)", "()"]))
        )

    return make() | st.just(kind(empty=True))


POINTS = st.builds(Point, st.integers(), st.integers())
INTEGER_RANGES = ranges(NumericRange, st.integers(-(2**31) + 1, 2**31 - 2))

#: Null in an array is SQL's, and JSON's looks the same in an image.
DOCUMENTS = json_values().filter(lambda value: value is not None)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "small": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "big": BIG,
    "positive": st.integers(0, 2**63 - 1),
    "boolean": st.booleans(),
    "decimal": decimals(60, 30),
    "double": FLOATS,
    "char": TEXT,
    "text": TEXT,
    "slug": st.text(string.ascii_lowercase, max_size=20),
    "strange": TEXT,
    "file": st.text(string.ascii_letters, max_size=20),
    "url": TEXT,
    "address": ADDRESSES,
    "uuid": st.uuids(),
    "binary": st.binary(max_size=40),
    "point": POINTS,
    "stamp": STAMPS,
    "date": st.dates(),
    "time": st.times(),
    "duration": DURATIONS,
    "data": json_values(),
    "integers": st.lists(BIG | st.none(), max_size=4),
    "texts": st.lists(TEXT | st.none() | st.sampled_from(["NULL", "", "{}", '"', "\\"]), max_size=4),
    "stamps": st.lists(STAMPS | st.none(), max_size=3),
    "decimals": st.lists(st.lists(decimals(40, 20), min_size=2, max_size=2), max_size=3),
    "durations": st.lists(DURATIONS, max_size=3),
    "doubles": st.lists(FLOATS, max_size=3),
    "uuids": st.lists(st.uuids(), max_size=3),
    "binaries": st.lists(st.binary(max_size=10), max_size=3),
    "addresses": st.lists(ADDRESSES, max_size=3),
    "points": st.lists(POINTS, max_size=3),
    "documents": st.lists(DOCUMENTS, max_size=3),
    "pages": st.lists(st.lists(DOCUMENTS, min_size=2, max_size=2), max_size=2),
    "integer_range": INTEGER_RANGES,
    "big_range": ranges(NumericRange, st.integers(-(2**63) + 1, 2**63 - 2)),
    "decimal_range": ranges(NumericRange, decimals(30, 10)),
    "stamp_range": ranges(DateTimeTZRange, STAMPS),
    "date_range": ranges(DateRange, st.dates(max_value=date(9999, 12, 30))),
    "ranges": st.lists(INTEGER_RANGES, max_size=2),
}


@settings(max_examples=500 if "CI" in os.environ else 100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    values=st.fixed_dictionaries({name: st.none() | strategy for name, strategy in VALUES.items()}),
    exact=exact_texts(),
    code=st.none() | TEXT,
)
@example(values=dict.fromkeys(VALUES), exact="1.10", code=None)
def test_an_image_becomes_what_the_orm_would_have_loaded(values: dict[str, Any], exact: str, code: str | None) -> None:
    if TABLE not in RELATIONS:
        RELATIONS[TABLE] = relation_of(TABLE)
    relation = RELATIONS[TABLE]
    hydrator = Hydrator(Everything, relation, "default")
    target = None
    if code is not None:
        target, _ = Target.objects.get_or_create(code=code)
    written = Everything.objects.create(**values, target=target, by_code=target)
    # Through SQL, for no encoder writes such numbers.
    sql(f"UPDATE {TABLE} SET exact = %s::jsonb WHERE id = %s", exact, written.pk)
    image = last_image(relation)
    with CaptureQueriesContext(connection) as queries:
        ours = hydrator.instance(image)
        assert hydrator.instance(image, only_key=True).pk == ours.pk
    assert not queries.captured_queries
    compare(ours, Everything.objects.get(pk=written.pk))


RELATIONS: dict[str, Relation] = {}
"""Asked for once in a run: the table does not change between the examples."""


@pytest.fixture(autouse=True)
def _forget_relations() -> Iterator[None]:
    yield
    RELATIONS.clear()


# -- values that other writers write -------------------------------------------------------------------------

FOREIGN = {
    "duration": [
        "1 mon",
        "1 year 2 mons -3 days",
        "-1 year 1 day",
        "1 mon -1 day 00:00:01.5",
        "-00:00:00.000001",
        "-25:00",
    ],
    "decimal": ["NaN", "1e29", "0.000000000000000000000000000001", "-0"],
    "double": ["1e-310", "123456789012345680", "0.1"],
    "address": ["10.0.0.0/8", "::ffff:1.2.3.4", "fe80::1/64"],
    "data": ["null", '"text"', "1e400", "123456789012345678901234567890", '{"b": 1.10, "a": "\\u00e9\\ud83d\\ude00"}'],
    "exact": ["1e400", "[1.10, 100, 1E+2]"],
    "time": ["00:00:00", "23:59:59.999999"],
    "stamp": ["2026-01-02 03:04:05+05:30", "0001-01-01 00:00:00+00"],
    "integers": ["[0:1]={1,2}", "{{1,2},{3,4}}", "{NULL}"],
    "texts": ['{"NULL",NULL,"a\\"b",""}'],
    "decimal_range": ["(,)", "empty", "[1.10,1.10]", "(1,2]"],
    "stamp_range": ["(2026-01-01 00:00+02,2026-01-02 00:00+00]", "[,2026-01-01 00:00+00)"],
    "decimals": ["{{NaN,1.10}}"],
    "doubles": ["{NaN,Infinity,-Infinity,-0,1}"],
    "durations": ["{1 mon,-1 day 2 hours}"],
    "boolean": ["f", "t"],
}


@pytest.mark.parametrize(
    ("field", "text"), [(field, text) for field, texts in FOREIGN.items() for text in texts], ids=str
)
def test_values_that_the_orm_reads_but_does_not_write(field: str, text: str) -> None:
    written = Everything.objects.create()
    kind = relation_of(TABLE).columns[field].name
    sql(f"UPDATE {TABLE} SET {field} = %s::{kind}", text)
    relation = relation_of(TABLE)
    compare(
        Hydrator(Everything, relation, "default").instance(last_image(relation)), Everything.objects.get(pk=written.pk)
    )


@COMMITTED
@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns"])
def test_without_use_tz_stamps_are_naive_as_the_orms(zone: str) -> None:
    written = Everything.objects.create(
        stamp=datetime(2026, 7, 1, 12, tzinfo=UTC), stamps=[datetime(2026, 1, 1, 12, tzinfo=UTC)]
    )
    relation = relation_of(TABLE)
    image = last_image(relation)
    with override_settings(USE_TZ=False, TIME_ZONE=zone), reconnected():
        ours = Hydrator(Everything, relation, "default").instance(image)
        theirs = Everything.objects.get(pk=written.pk)
        assert theirs.stamp is not None
        assert theirs.stamp.tzinfo is None
        compare(ours, theirs)


@COMMITTED
def test_a_databases_time_zone_counts() -> None:
    written = Everything.objects.create(stamp=datetime(2026, 7, 1, 12, tzinfo=UTC))
    relation = relation_of(TABLE)
    image = last_image(relation)
    connection.settings_dict["TIME_ZONE"] = "Asia/Kathmandu"
    try:
        with reconnected():
            ours = Hydrator(Everything, relation, "default").instance(image)
            theirs = Everything.objects.get(pk=written.pk)
            assert theirs.stamp is not None
            assert theirs.stamp.utcoffset() == timedelta(hours=5, minutes=45)
            compare(ours, theirs)
    finally:
        connection.settings_dict["TIME_ZONE"] = None


@contextlib.contextmanager
def reconnected() -> Iterator[None]:
    """A connection with the settings as they are now, inside; and another one after that."""

    def forget() -> None:
        connection.close()
        for name in ("timezone", "timezone_name"):
            vars(connections["default"]).pop(name, None)

    forget()
    yield
    forget()


# -- models --------------------------------------------------------------------------------------------------


def test_a_proxy_is_made_of_its_tables_rows() -> None:
    written = EverythingProxy.objects.create(text="x")
    relation = relation_of(TABLE)
    ours = Hydrator(EverythingProxy, relation, "default").instance(last_image(relation))
    assert type(ours) is EverythingProxy
    compare(ours, EverythingProxy.objects.get(pk=written.pk))


# -- types of extensions -------------------------------------------------------------------------------------


@pytest.fixture
def _extensions(db: None) -> Iterator[None]:
    """The extensions, and a connection that knows their types."""
    names = ("hstore", "citext")
    there = {name for (name,) in sql("SELECT name FROM pg_available_extensions")}
    if missing := [name for name in names if name not in there]:
        pytest.skip(f"no extension {', '.join(missing)} here; DJCRF_PG_TEST_POSTGRES=debian has them")
    for name in names:
        sql(f"CREATE EXTENSION {name}")
    sql("CREATE TABLE extended (id serial PRIMARY KEY, pairs hstore, many hstore[], name citext, names citext[])")
    observe("extended")
    get_hstore_oids.cache_clear()
    get_citext_oids.cache_clear()
    with reconnected():
        yield
        sql("DROP TABLE extended")
        for name in names:
            sql(f"DROP EXTENSION {name}")
        get_hstore_oids.cache_clear()
        get_citext_oids.cache_clear()


class CITextColumn(models.TextField):
    """A column of type citext; Django's own field for it is no more."""

    def db_type(self, connection: Any) -> str:
        return "citext"


PAIRS = st.dictionaries(TEXT, TEXT | st.none(), max_size=4)
NAMES = TEXT | st.sampled_from(["NULL", "", "{}", '"', "\\", "Straße"])


@COMMITTED
@pytest.mark.extensions
@pytest.mark.usefixtures("_extensions")
@isolate_apps("tests.decodeapp")
def test_hstore_and_citext_become_what_the_orm_would_have_loaded() -> None:
    class Extended(models.Model):
        pairs = HStoreField(null=True)
        many = ArrayField(HStoreField(), null=True)
        name = CITextColumn(null=True)
        names = ArrayField(CITextColumn(), null=True)

        class Meta:
            app_label = "decodeapp"
            db_table = "extended"

        def __str__(self) -> str:
            return "extended"

    relation = relation_of("extended")
    hydrator = Hydrator(Extended, relation, "default")

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        pairs=st.none() | PAIRS,
        many=st.none() | st.lists(PAIRS, max_size=3),
        name=st.none() | NAMES,
        names=st.none() | st.lists(NAMES, max_size=4),
    )
    @example(pairs={"a": "1", "b": None, "c d": 'e"f'}, many=[{}, {"NULL": "=>"}], name="MiXed", names=["A", "a"])
    def check(**values: Any) -> None:
        written = Extended.objects.create(**values)
        compare(hydrator.instance(last_image(relation)), Extended.objects.get(pk=written.pk))

    check()


# -- what does not fit ---------------------------------------------------------------------------------------


@pytest.fixture
def deferred() -> Iterator[list[FieldDeferred]]:
    """The observations of fields that were deferred."""
    found: list[FieldDeferred] = []

    def hear(observation: Observation, error: BaseException | None) -> None:
        if isinstance(observation, FieldDeferred):
            found.append(observation)

    remove = add_sink(hear)
    yield found
    remove()


def test_a_column_that_is_not_in_the_image_is_deferred_and_loaded_when_it_is_asked_for() -> None:
    written = Everything.objects.create(text="x", integer=5)
    relation = relation_of(TABLE)
    image = last_image(relation)
    del image["text"]
    ours: Any = Hydrator(Everything, relation, "default").instance(image)
    assert ours.get_deferred_fields() == {"text"}
    with CaptureQueriesContext(connection) as queries:
        assert (ours.integer, ours.text) == (5, "x")
    assert len(queries) == 1
    assert ours.pk == written.pk


def test_a_column_that_no_field_knows_is_passed_over() -> None:
    Everything.objects.create(text="x")
    relation = relation_of(TABLE)
    image = {**last_image(relation), "unheard_of": {"a": 1}}
    ours: Any = Hydrator(Everything, relation, "default").instance(image)
    assert ours.text == "x"
    assert not ours.get_deferred_fields()


@pytest.mark.parametrize(
    ("field", "change", "value"),
    [
        ("integer", "TYPE text USING 'x' || integer", 5),
        ("text", "TYPE int USING 7", "x"),
        ("uuid", "TYPE int USING 7", "12345678-1234-5678-1234-567812345678"),
        ("binary", "TYPE int USING 7", b"x"),
        ("stamp", "TYPE int USING 7", datetime(2026, 1, 1, tzinfo=UTC)),
        ("date", "TYPE int USING 7", date(2026, 1, 1)),
        ("duration", "TYPE int USING 7", timedelta(1)),
        ("point", "TYPE int USING 7", Point(1, 2)),
        ("point", "TYPE text USING 'no point'", Point(1, 2)),
        ("integers", "TYPE text USING 'x'", [1]),
        ("integer_range", "TYPE int USING 7", NumericRange(1, 2)),
        ("text", "TYPE jsonb USING '{}'", "x"),
        ("boolean", "TYPE text USING 'yes'", True),
    ],
)
def test_a_column_that_was_retyped_is_noticed_and_deferred_at_last(
    field: str, change: str, value: Any, deferred: list[FieldDeferred]
) -> None:
    """First with what was known of the table, then with what is known now: the model is behind the table."""
    before = relation_of(TABLE)
    stale = Hydrator(Everything, before, "default")
    Everything.objects.create(**{field: value})
    sql(f'ALTER TABLE {TABLE} ALTER "{field}" {change}')
    try:
        sql(f"UPDATE {TABLE} SET small = 1")
        image = last_image(before)
        with pytest.raises(StaleRelation) as caught:
            stale.instance(image)
        assert caught.value.oid == before.oid
        for _ in range(2):
            ours: Any = stale.instance(image, lenient=True)
            assert ours.get_deferred_fields() == {field}
            assert ours.small == 1
        (report,) = deferred
        assert (report.model, report.field, report.column) == ("decodeapp.Everything", field, field)
    finally:
        kind = before.columns[field].name
        sql(f'ALTER TABLE {TABLE} ALTER "{field}" TYPE {kind} USING NULL')


def test_a_column_that_came_back_is_noticed() -> None:
    before = relation_of(TABLE)
    known = Relation(before.oid, before.root, before.name, {k: v for k, v in before.columns.items() if k != "text"})
    hydrator = Hydrator(Everything, known, "default")
    Everything.objects.create(text="x")
    image = last_image(before)
    with pytest.raises(StaleRelation):
        hydrator.instance(image)
    ours: Any = hydrator.instance(image, lenient=True)
    assert ours.get_deferred_fields() == {"text"}


@pytest.mark.parametrize(
    ("field", "text"),
    [("stamp", "infinity"), ("date", "-infinity"), ("date", "0044-03-15 BC"), ("duration", "178000000 years")],
)
def test_what_python_cannot_hold_is_deferred_and_the_rest_is_there(
    field: str, text: str, deferred: list[FieldDeferred]
) -> None:
    Everything.objects.create(integer=5)
    sql(f"UPDATE {TABLE} SET {field} = %s", text)
    relation = relation_of(TABLE)
    ours: Any = Hydrator(Everything, relation, "default").instance(last_image(relation), lenient=True)
    assert ours.get_deferred_fields() == {field}
    assert ours.integer == 5
    assert len(deferred) == 1


@COMMITTED
def test_a_generated_column_that_is_not_stored_is_deferred() -> None:
    """Its value is in no row image: PostgreSQL computes it when it is read."""
    if connection.pg_version < 180_000:
        pytest.skip("virtual generated columns come with PostgreSQL 18")
    sql("CREATE TABLE with_virtual (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)")
    try:
        observe("with_virtual")
        sql("INSERT INTO with_virtual VALUES (1, 5)")
        with isolate_apps("tests.decodeapp"):

            class WithVirtual(models.Model):
                id = models.IntegerField(primary_key=True)
                a = models.IntegerField()
                b = models.IntegerField()

                class Meta:
                    app_label = "decodeapp"
                    db_table = "with_virtual"

                def __str__(self) -> str:
                    return "virtual"

            relation = relation_of("with_virtual")
            ours: Any = Hydrator(WithVirtual, relation, "default").instance(last_image(relation))
            assert ours.a == 5
            assert ours.b == 10, "loaded when it is asked for"
    finally:
        sql("DROP TABLE with_virtual")
