"""SQL in files."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

import djcrf_pg
from djcrf_pg import sql
from djcrf_pg.shadow.messages import Message

PACKAGE = Path(str(files(djcrf_pg)))
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.sql"))

#: What the code fills in.
PLACES = {"schema", "class", "wait", "holder", "window", "rest", "weight", "last", "target", "after", "most", "count"}
PLACES |= {"xids", "relations", "firsts", "age", "rows", "bytes", "rings", "columns", "query", "calls", "name", "oid"}
PLACES |= {"version", "history", "tables", "range", "cut", "part", "order", "names"}
PLACES |= {"by_signals", *(f"given_{name}" for name in Message._fields)}

#: The gate asks the search_path each time: the log may come while its session lasts.
BY_PATH = {Path("listener/sql/gate.sql")}


def test_there_are_sql_files() -> None:
    assert len(FILES) >= 4


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_has_only_places_that_are_filled(path: Path) -> None:
    text = (PACKAGE / path).read_text(encoding="utf-8")
    rendered = sql.render(text, **dict.fromkeys(PLACES, '"public".'))
    assert "/*" not in rendered, "a place that render() does not recognise"
    assert not re.search(r"(?m)^-- name:(?! \w+$)", text), "a name that queries() does not recognise"


@pytest.mark.parametrize("path", sorted({*FILES} - BY_PATH), ids=str)
def test_everything_of_ours_is_named_with_its_schema(path: Path) -> None:
    """Except where the search_path is asked on purpose: in to_regclass, and in text."""
    text = re.sub(r"--.*", "", (PACKAGE / path).read_text(encoding="utf-8"))
    for match in re.finditer(
        r"(.{0,14})\b(djcrf_pg_(change|cursor|interest|interest_version|listener_awake|ring_v\d|capture_\w+_v\d|rings))\b",
        text,
    ):
        before = match[1]
        assert before.endswith(("/* :schema */", "to_regclass('")), match[0]


def test_places_are_filled() -> None:
    assert sql.render("SELECT * FROM /* :schema */t /* :more */", schema="s.", more="x") == "SELECT * FROM s.t x"


def test_other_comments_stay() -> None:
    assert sql.render("SELECT 1 /* why */ -- and :this") == "SELECT 1 /* why */ -- and :this"


def test_a_place_that_is_left_over_raises() -> None:
    with pytest.raises(KeyError, match="schema"):
        sql.render("SELECT * FROM /* :schema */t")


def test_values_are_not_rendered_again() -> None:
    assert sql.render("/* :a */", a="/* :b */ \\1 \\g<0>") == "/* :b */ \\1 \\g<0>"


def test_queries_are_found_by_name() -> None:
    places = {"schema": '"public".', **dict.fromkeys(("window", "weight", "oid", "version"), "SELECT")}
    queries = sql.queries("djcrf_pg.changelog", "reader.sql", **places)
    assert {"read", "take", "save", "prune", "adopt", "flag", "relations", "oids"} <= queries.keys()
    assert all(not text.startswith("-- name") for text in queries.values())
    assert queries["flag"].endswith("""setval('"public".djcrf_pg_listener_awake', $1)""")


def test_queries_with_a_place_left_over_raise() -> None:
    with pytest.raises(KeyError, match="schema"):
        sql.queries(
            "djcrf_pg.changelog", "reader.sql", window="SELECT", weight="SELECT", oid="SELECT", version="SELECT"
        )


def test_a_file_that_is_not_there_raises() -> None:
    with pytest.raises(FileNotFoundError):
        sql.load("djcrf_pg.changelog", "nothing.sql")
