"""djangorestframework-gis: a body is what the serializer makes of the ORM's instance, whatever geometry is in it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from rest_framework.utils.encoders import JSONEncoder

from djcrf_pg.capture import catalog, plan
from tests.subscriber import Subscriber

if not settings.SPATIAL:
    pytest.skip(
        "no PostGIS here: DJCRF_PG_TEST_POSTGRES=debian, with Debian's postgresql-postgis and its GDAL and GEOS",
        allow_module_level=True,
    )

from django.contrib.gis.gdal import GDALRaster
from django.contrib.gis.geos import GEOSGeometry

from tests.packages.places.consumers import PlaceSerializer
from tests.packages.places.models import Place, Sketch

pytestmark = pytest.mark.extensions

Open = Callable[..., Subscriber]

FIELDS = ("point", "area", "shape", "parts", "peak", "position")
FULL = [
    "SRID=4326;POINT(1.1 -0)",
    "SRID=3857;POLYGON((0 0,0 4,4 4,4 0,0 0),(1 1,1 2,2 2,1 1))",
    "LINESTRING(0 0,-0 1)",
    "SRID=4326;GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1),GEOMETRYCOLLECTION(POINT(0.1 0.2)))",
    "SRID=4326;POINT Z (1 2 8848.86)",
    "SRID=4326;POINT(179.9999999999999 1)",
]
OTHER = [
    "SRID=4326;POINT(2 3)",
    "SRID=3857;POLYGON((0 0,0 1,1 1,0 0))",
    "MULTIPOINT((0 0),(1 1))",
    "SRID=4326;GEOMETRYCOLLECTION(MULTIPOLYGON(((0 0,0 1,1 1,0 0))))",
    "SRID=4326;POINT Z (1 2 0)",
    "SRID=4326;POINT(0 0)",
]
EMPTY = [
    "SRID=4326;POINT EMPTY",
    "SRID=3857;POLYGON EMPTY",
    "MULTILINESTRING EMPTY",
    "SRID=4326;GEOMETRYCOLLECTION EMPTY",
    "SRID=4326;POINT Z (0 0 0)",  # GEOS drops the third dimension of an empty one, and PostGIS misses it
    "SRID=4326;POINT EMPTY",
]


def values(texts: list[str] | None) -> dict[str, Any]:
    """The fields of a place; None is null."""
    picture = None
    if texts is not None:
        bands = [{"data": bytes([1, 2, 3, len(texts[0])]), "nodata_value": 3}, {"data": bytes(4)}]
        place = {"srid": 4326, "origin": (1, 2), "scale": (0.5, -0.5), "skew": (0, 0)}
        picture = GDALRaster({"width": 2, "height": 2, "datatype": 1, "bands": bands, **place})
    geometries = [None] * len(FIELDS) if texts is None else map(GEOSGeometry, texts)
    return {**dict(zip(FIELDS, geometries, strict=True)), "picture": picture}


def body(pk: Any) -> Any:
    """What a view would answer."""
    return json.loads(json.dumps(PlaceSerializer(Place.objects.get(pk=pk)).data, cls=JSONEncoder))


@pytest.mark.parametrize(
    ("before", "after"), [(FULL, OTHER), (None, EMPTY), (EMPTY, None)], ids=["full", "null", "empty"]
)
def test_bodies_are_those_of_the_orms_instances_and_of_a_deleted_row_as_it_was(
    before: list[str] | None, after: list[str] | None, subscriber: Open
) -> None:
    client = subscriber("places")
    client.subscribe("places")
    place = Place.objects.create(name="a", **values(before))
    expected = [("create", [], body(place.pk))]
    events = client.events(1)
    Place.objects.filter(pk=place.pk).update(**values(after))
    expected.append(("update", [*FIELDS, "picture"], body(place.pk)))
    expected.append(("delete", [], body(place.pk)))
    events += client.events(1)
    place.delete()
    events += client.events(1)
    assert [(event["action"], event["changed"], event["body"]) for event in events] == expected


def test_many_rows_of_a_statement_have_their_own_geometries(subscriber: Open) -> None:
    client = subscriber("places")
    client.subscribe("places")
    Place.objects.bulk_create([Place(name=str(x), **values([f"SRID=4326;POINT({x} 0)", *FULL[1:]])) for x in range(5)])
    expected = [body(pk) for pk in Place.objects.order_by("pk").values_list("pk", flat=True)]
    assert [event["body"] for event in client.events(5)] == expected


@pytest.mark.parametrize(
    "curve", ["CIRCULARSTRING(0 0,1 1,2 0)", "CURVEPOLYGON(CIRCULARSTRING(0 0,4 0,4 4,0 4,0 0))"], ids=["line", "area"]
)
def test_a_row_with_what_geos_does_not_read_is_written_told_and_deleted(curve: str, subscriber: Open) -> None:
    client = subscriber("places")
    client.subscribe("sketches", "keys")
    sketch = Sketch.objects.create(name="a")
    events = client.events(2)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO places_sketch (name, drawing) VALUES ('curved', ST_SetSRID(%s::geometry, 32632)) RETURNING id",
            [curve],
        )
        (pk,) = cursor.fetchone()
        events += client.events(2)
        with pytest.raises(Exception) as raised:  # noqa: PT011 - which one depends on the version of GEOS
            Sketch.objects.get(pk=pk)
        cursor.execute("UPDATE places_sketch SET drawing = ST_Translate(drawing, 0, 0), name = 'b' WHERE id = %s", [pk])
        events += client.events(2)
        cursor.execute("DELETE FROM places_sketch WHERE id = %s", [pk])
        events += client.events(2)
    told = [(event["action"], event["body"]) for event in events if event["observer"] == "sketches"]
    whole = {"name": "a", "deferred": [], "drawing": None, "stored": None}
    deferred = {"name": "curved", "deferred": ["drawing"], "drawing": raised.type.__name__, "stored": curve}
    assert told == [
        ("create", whole),
        ("create", deferred),
        ("update", {**deferred, "name": "b"}),
        ("delete", {"name": "b", "deferred": ["drawing"], "drawing": "DoesNotExist", "stored": None}),
    ]
    keys = [(event["action"], event["body"]) for event in events if event["observer"] == "keys"]
    assert keys == [("create", {"pk": sketch.pk}), *((action, {"pk": pk}) for action in ("create", "update", "delete"))]


@pytest.fixture
def triggers_of_0_1_0(transactional_db: None) -> Iterator[None]:
    """Those of sketches, as they are between the deploy of newer code and its ``migrate``."""
    schema = catalog.schema_of_log(connection)
    assert schema is not None
    (table,) = catalog.tables(connection, {"places_sketch": ()})
    for version in ("v1", None):
        with connection.cursor() as cursor:
            for event in ("insert", "update", "delete"):
                cursor.execute(plan.definition(table, event, schema, version))
        if version:
            yield


@pytest.mark.usefixtures("triggers_of_0_1_0")
def test_what_an_older_trigger_has_logged_is_loaded_on_access(subscriber: Open) -> None:
    client = subscriber("places")
    client.subscribe("sketches")
    sketch = Sketch.objects.create(name="a", drawing=GEOSGeometry("POINT (1 2)", srid=32632))
    events = client.events(1)
    sketch.delete()
    events += client.events(1)
    assert [(event["action"], event["body"]) for event in events] == [
        ("create", {"name": "a", "deferred": ["drawing"], "drawing": "POINT (1 2)", "stored": "POINT(1 2)"}),
        ("delete", {"name": "a", "deferred": ["drawing"], "drawing": "DoesNotExist", "stored": None}),
    ]
