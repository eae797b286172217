"""Every type that a server has: an event's attribute is what the ORM loads, and the page says so."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.postgres.signals import get_citext_oids, get_hstore_oids
from django.db import connection, models
from django.test.utils import isolate_apps

from djcrf_pg.changelog.decode import Hydrator, parser
from tests.integration import types
from tests.integration.log import observe, sql

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
    for name in types.OWN:
        sql(f"DROP TYPE IF EXISTS {name} CASCADE")
    for (name,) in sql("SELECT extname FROM pg_extension"):
        if name not in before:
            sql(f'DROP EXTENSION IF EXISTS "{name}" CASCADE')


@pytest.mark.usefixtures("_every_extension")
@isolate_apps("tests.decodeapp")
def test_the_page_has_what_becomes_of_every_type_and_only_texts_that_depend_on_the_session_differ() -> None:
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
    assert not [outcome.name for outcome in found if outcome.missing]
    assert not [outcome.name for outcome in found if not outcome.examples and not outcome.refuses]
    # Texts have the pinned IntervalStyle inside, and names their schemas, see docs/reference/limits.md.
    assert {name for name, _ in wrong} <= {"interval", "regclass", "regtype"}
    assert not {shape for name, shape in wrong if name == "interval"} & {"value", "array", "domain"}
    assert PAGE.read_text("utf-8").partition(START)[2] == table


GEOMETRIES = {
    "PointField": ["SRID=4326;POINT(1 2)", "SRID=4326;POINT EMPTY", None],
    "PolygonField": ["SRID=4326;POLYGON((0 0,0 1,1 1,0 0))", "SRID=4326;POLYGON EMPTY"],
    "GeometryField": ["SRID=4326;LINESTRING(0 0,-0 1)", "SRID=4326;MULTIPOINT((0 0),(1 1))"],
    "GeometryCollectionField": ["SRID=4326;GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))"],
}


@pytest.mark.usefixtures("_every_extension")
@pytest.mark.parametrize("options", [{}, {"dim": 3}, {"geography": True}, {"srid": 3857}], ids=str)
@isolate_apps("tests.decodeapp")
def test_geometries_are_those_of_a_query_also_for_a_serializer_of_drf_gis(options: dict[str, Any]) -> None:
    pytest.importorskip("rest_framework_gis", reason="djangorestframework-gis is not installed")
    from django.contrib.gis.db import models as gis
    from rest_framework_gis.fields import GeometryField
    from rest_framework_gis.serializers import GeoFeatureModelSerializer

    fields = {name.lower(): getattr(gis, name)(null=True, **options) for name in GEOMETRIES}
    meta = type("Meta", (), {"app_label": "decodeapp", "db_table": "typed_0"})
    model: Any = type("Spatial", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})
    with connection.schema_editor() as editor:
        editor.create_model(model)
    observe("typed_0")
    relation = types.relations_by_name(["typed_0"])["typed_0"]
    hydrator = Hydrator(model, relation, "default")
    for name, texts in GEOMETRIES.items():
        column = name.lower()
        serializer = type(
            "Feature",
            (GeoFeatureModelSerializer,),
            {
                "Meta": type("Meta", (), {"model": model, "geo_field": column, "fields": ["id"]}),
                column: GeometryField(),
            },
        )
        for text in texts:
            written = text and text.replace("4326", str(options.get("srid", 4326)))
            made = f"ST_Force3D('{written}'::geometry)" if "dim" in options else f"'{written}'"
            sql(f"INSERT INTO typed_0 ({column}) VALUES ({made if text else 'NULL'})")
            ((image,),) = sql("SELECT new::text FROM djcrf_pg_change ORDER BY xid DESC, id DESC LIMIT 1")
            ours: Any = hydrator.instance(parser(hydrator.relation)(image))
            theirs = model.objects.get(pk=ours.pk)
            assert types.same(getattr(ours, column), getattr(theirs, column))
            assert serializer(ours).data == serializer(theirs).data
