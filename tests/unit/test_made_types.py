"""Images of types that somebody has made: the text that the driver is given, and what former functions wrote."""

from typing import Any

import pytest

from djcrf_pg.changelog.decode import ColumnType, Decoders

CITEXT = ColumnType(16400, "citext")
HSTORE = ColumnType(16500, "hstore")
MOOD = ColumnType(16600, "mood", "e")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (ColumnType(16401, "_citext", "b", CITEXT), '{a,NULL,"b, c"}', ["a", None, "b, c"]),
        (ColumnType(16401, "_citext", "b", CITEXT), ["a", None], ["a", None]),
        # Of arrays that the driver gives as a text, the JSON is kept as it is.
        (ColumnType(16601, "_mood", "b", MOOD), '"{good,bad}"', "{good,bad}"),
        (ColumnType(16601, "_mood", "b", MOOD), '["good"]', "{good}"),
        (MOOD, "good", "good"),
        (ColumnType(16700, "pair", "c"), "(good,1)", "(good,1)"),
        (HSTORE, {"a": "b", "c": None}, {"a": "b", "c": None}),
        (HSTORE, r'"a"=>"b, \"c\"", "d\\"=>NULL', {"a": 'b, "c"', "d\\": None}),
        (HSTORE, "", {}),
        (ColumnType(16501, "_hstore", "b", HSTORE), r'{"\"a\"=>\"b\"",NULL}', [{"a": "b"}, None]),
        (ColumnType(16501, "_hstore", "b", HSTORE), [{"a": "b"}], [{"a": "b"}]),
    ],
)
def test_text_and_json_are_both_read(column: ColumnType, value: Any, expected: Any) -> None:
    assert Decoders("default").converter(column)(value) == expected


@pytest.mark.parametrize("value", ['"a"=>', "a=>b", '"a"=>"b"junk', 7])
def test_what_is_no_hstore_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Decoders("default").converter(HSTORE)(value)
