"""Casts to json of others: capture runs exactly those that we warn of."""

import json
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from djcrf_pg.capture.casts import Cast, foreign_casts
from djcrf_pg.capture.install import plan
from tests.integration.log import Log, script, sql
from tests.project import Project

TYPES = [
    "CREATE TYPE mood AS ENUM ('sad', 'glad')",
    "CREATE TYPE calm AS ENUM ('very')",  # has no cast
    "CREATE TYPE owned AS ENUM ('safe')",
    "CREATE TYPE mended AS ENUM ('safe')",
    "CREATE DOMAIN feeling AS mood",
    "CREATE DOMAIN deeper AS feeling",
    "CREATE DOMAIN feelings AS mood[]",
    "CREATE TYPE person AS (name text, feels deeper)",
    "CREATE TYPE crowd AS (leader person, others person[])",
    "CREATE TYPE inward AS (n int)",  # has a cast, and a composite's is not called
    "CREATE TYPE moods AS RANGE (subtype = mood)",
    "CREATE TYPE spans AS RANGE (subtype = int)",
]

COLUMNS = {
    "enum": ("mood", "'sad'"),
    "domain": ("deeper", "'sad'"),
    "array": ("mood[]", "'{sad,glad}'"),
    "domains": ("deeper[]", "'{sad}'"),
    "array_domain": ("feelings", "'{glad}'"),
    "composite": ("person", "ROW('a', 'sad')"),
    "composites": ("crowd", "ROW(ROW('a', 'sad'), ARRAY[ROW('b', 'glad')::person])"),
    "spans": ("spans", "'[1,2)'"),
    "It's Strange": ("mood", "'sad'"),
    # What is not meant.
    "calm": ("calm", "'very'"),
    "inward": ("inward", "ROW(1)"),
    "range": ("moods", "'[sad,glad]'"),
    "plain": ("jsonb", "'{}'"),
    "texts": ("text[]", "'{a}'"),
}


def give_cast(type_name: str, owner: str | None = None) -> None:
    """Give a type a cast to json that says so, whose function somebody owns."""
    function = f"tell_{type_name}({type_name})"
    script(
        [
            f"CREATE FUNCTION {function} RETURNS json LANGUAGE sql AS $$ SELECT to_json('cast {type_name}'::text) $$",
            f"CREATE CAST ({type_name} AS json) WITH FUNCTION {function}",
        ]
    )
    if owner is not None:
        script([f"ALTER FUNCTION {function} OWNER TO {owner}"])


def casts() -> list[Cast]:
    """Those of the tables that have triggers."""
    return foreign_casts("default", [step.table for step in plan("default")])


@pytest.mark.django_db
def test_we_warn_of_exactly_the_casts_that_capture_calls(log: Log, make_table: Callable[..., str]) -> None:
    script(["CREATE ROLE djcrf_stranger", *TYPES])
    for name in ("mood", "inward", "spans"):
        give_cast(name, "djcrf_stranger")
    quote = connection.ops.quote_name
    make_table("casts", ", ".join(f"{quote(name)} {kind}" for name, (kind, _) in COLUMNS.items()))
    sql("INSERT INTO casts VALUES (" + ", ".join(value for _, value in COLUMNS.values()) + ")")
    ((_, _, image),) = log.images()
    assert image is not None
    called = {name for name, value in image.items() if "cast " in json.dumps(value)}
    found = [cast for cast in casts() if cast.table == "public.casts"]
    assert {cast.column for cast in found} == called
    assert called == set(list(COLUMNS)[:9])
    assert {(cast.type, cast.function) for cast in found} == {
        ("mood", "tell_mood(mood)"),
        ("spans", "tell_spans(spans)"),
    }
    assert {cast.owner for cast in found} == {"djcrf_stranger"}
    assert any(str(cast).startswith("public.casts, column enum: its triggers call tell_mood(mood)") for cast in found)


@pytest.mark.django_db
def test_casts_of_those_whom_we_trust_are_not_meant(make_table: Callable[..., str]) -> None:
    script(["CREATE ROLE djcrf_stranger", "CREATE ROLE djcrf_owner", *TYPES])
    give_cast("mended", "djcrf_owner")  # who shall own our functions
    give_cast("owned")  # a superuser's
    give_cast("mood", "djcrf_stranger")
    make_table("casts", "a mended, b owned, c mood")

    def columns() -> list[str]:
        return [cast.column for cast in casts() if cast.table == "public.casts"]

    assert columns() == ["a", "c"]
    functions = sql("SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE %s", "djcrf_pg_capture_%")
    script([f"ALTER FUNCTION {function} OWNER TO djcrf_owner" for (function,) in functions])
    assert columns() == ["c"]
    # As CREATE EXTENSION does for what it makes.
    script(
        [
            "INSERT INTO pg_depend SELECT 'pg_cast'::regclass, oid, 0, 'pg_extension'::regclass,"
            " (SELECT oid FROM pg_extension LIMIT 1), 0, 'e' FROM pg_cast WHERE castsource = 'mood'::regtype"
        ]
    )
    assert columns() == []


@pytest.fixture
def with_cast(migrated: Project) -> Iterator[Project]:
    """A project whose column ``secret`` has a type of somebody's who has given it a cast."""
    try:
        migrated.rows("CREATE ROLE djcrf_stranger")
        migrated.rows("CREATE TYPE mood AS ENUM ('sad')")
        migrated.rows(
            "CREATE FUNCTION tell(mood) RETURNS json LANGUAGE sql AS $$ SELECT '1'::json $$;"
            "ALTER FUNCTION tell(mood) OWNER TO djcrf_stranger; CREATE CAST (mood AS json) WITH FUNCTION tell(mood)"
        )
        migrated.rows("ALTER TABLE shelf_book ALTER secret TYPE mood USING NULL")
        yield migrated
    finally:
        migrated.rows("DROP OWNED BY djcrf_stranger CASCADE; DROP ROLE djcrf_stranger")


def test_status_and_the_check_of_the_database_name_it(with_cast: Project) -> None:
    said = "public.shelf_book, column secret: its triggers call tell(mood), the cast of mood to json, which belongs to"
    output = with_cast.manage("djcrf_pg", "status").stdout
    assert f"Warning: default: {said} djcrf_stranger, with the rights of {with_cast.pg.user}." in output
    assert "DJCRF_PG['EXCLUDE']" in output
    lines = json.loads(with_cast.manage("djcrf_pg", "status", "--json").stdout)
    assert {line["table"]: len(line["casts"]) for line in lines} == {
        "public.shelf_book": 1,
        "public.shelf_book_authors": 0,
    }
    check = with_cast.manage("check", "--database", "default").stderr
    assert f"(djcrf_pg.W007) Database 'default', {said}" in check
    excluded = {"EXCLUDE": {"shelf.Book": ["secret"]}}
    assert "Warning" not in with_cast.manage("djcrf_pg", "status", settings=excluded).stdout
    assert "W007" not in with_cast.manage("check", "--database", "default", settings=excluded).stderr
