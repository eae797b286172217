"""Every type that a server has: an event's attribute is what the ORM loads, and the page says so."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.postgres.signals import get_citext_oids, get_hstore_oids
from django.test.utils import isolate_apps

from tests.integration import types
from tests.integration.log import sql

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "types.md"
START = (
    "<!-- generated: DJCRF_PG_WRITE_TYPES=1 DJCRF_PG_TEST_POSTGRES=debian pytest tests/integration/test_types.py -->\n"
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.extensions]


@pytest.fixture
def _every_extension(transactional_db: None) -> Iterator[None]:
    there = {name for (name,) in sql("SELECT name FROM pg_available_extensions")}
    if "postgis" not in there or "hstore" not in there:
        pytest.skip("no PostGIS here; Debian's packages postgresql and postgresql-15-postgis-3 have it")
    try:
        import django.contrib.gis.db.models  # noqa: F401
    except Exception as error:
        pytest.skip(f"no GDAL or GEOS here: {error}")
    before = {name for (name,) in sql("SELECT extname FROM pg_extension")}
    for name in sorted(there - before):
        if "-3" in name or name in ("postgis_tiger_geocoder", "postgis_topology"):
            continue
        types.try_sql(f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE')
    get_hstore_oids.cache_clear()
    get_citext_oids.cache_clear()
    with types.spatial():
        yield
    get_hstore_oids.cache_clear()
    get_citext_oids.cache_clear()
    for (table,) in sql(r"SELECT relname FROM pg_class WHERE relname ~ '^typed_\d+$' AND relkind = 'r'"):
        sql(f"DROP TABLE {table} CASCADE")
    for kind, name in sql(
        r"SELECT CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, typname FROM pg_type "
        r"WHERE typname ~ '^t[dcr]_\d+$' AND typtype IN ('d', 'c', 'r')"
    ):
        sql(f"DROP {kind} {name} CASCADE")
    for (name,) in sql("SELECT extname FROM pg_extension"):
        if name not in before:
            sql(f'DROP EXTENSION IF EXISTS "{name}" CASCADE')


@pytest.mark.usefixtures("_every_extension")
@isolate_apps("tests.decodeapp")
def test_the_page_has_what_becomes_of_every_type_and_only_intervals_inside_texts_differ() -> None:
    found = types.outcomes()
    table = types.render(found)
    if "DJCRF_PG_WRITE_TYPES" in os.environ:
        head, _, _ = PAGE.read_text("utf-8").partition(START)
        PAGE.write_text(head + START + table, "utf-8")
    wrong = {
        (outcome.name, shape)
        for outcome in found
        for results in (outcome.older, outcome.newer)
        for shape, counts in results.items()
        if counts[types.DIFFERENT]
    }
    # Their text has the pinned IntervalStyle inside, see docs/reference/limits.md.
    assert {name for name, _ in wrong} <= {"interval"}
    assert not {shape for _, shape in wrong} & {"value", "array", "domain"}
    assert PAGE.read_text("utf-8").partition(START)[2] == table
