"""Row images: parsed without losing a digit, and JSON columns left as the text they were."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.changelog.image import parse

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
INTEGERS = st.integers(-(10**40), 10**40)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | INTEGERS | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
SPACE = st.text(" \t\n\r", max_size=3)


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """The text of a JSON value in many spellings, with the white space that a column of type json keeps."""
    number = draw(st.booleans())
    if number:
        return format(draw(DECIMALS), "f") if draw(st.booleans()) else str(draw(INTEGERS))
    text = json.dumps(
        draw(JSON),
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")])),
        indent=draw(st.sampled_from([None, 1])),
    )
    return text


def as_python(text: str) -> Any:
    """What the value is, with the digits of its numbers."""
    return json.loads(text, parse_float=Decimal)


ROWS = st.dictionaries(TEXT, json_texts(), max_size=5)
STYLES = [
    pytest.param("{{{}}}", ",", ":", id="row_to_json"),
    pytest.param("{{{}}}", ", ", ": ", id="jsonb"),
    pytest.param(" {{ {} }} ", " ,\n ", " :\t", id="spacious"),
]


def image_text(row: dict[str, str], brackets: str, comma: str, colon: str) -> str:
    """The object that has these texts as values."""
    return brackets.format(comma.join(f"{json.dumps(name)}{colon}{text}" for name, text in row.items()))


@pytest.mark.parametrize(("brackets", "comma", "colon"), STYLES)
@given(row=ROWS)
def test_an_image_is_parsed_like_any_json(row: dict[str, str], brackets: str, comma: str, colon: str) -> None:
    text = image_text(row, brackets, comma, colon).strip()
    expected = {name: as_python(value) for name, value in row.items()}
    assert parse(text) == expected
    assert parse(text, {"a column that is not there"}) == expected


@pytest.mark.parametrize(("brackets", "comma", "colon"), STYLES)
@given(row=ROWS, data=st.data(), before=SPACE, after=SPACE)
def test_raw_columns_keep_their_text(
    row: dict[str, str], data: st.DataObject, before: str, after: str, brackets: str, comma: str, colon: str
) -> None:
    raw = data.draw(st.frozensets(st.sampled_from(sorted(row)))) if row else frozenset()
    # row_to_json writes a value of type json as it is, white space around it included.
    written = {name: f"{before}{text}{after}" if name in raw else text for name, text in row.items()}
    image = parse(image_text(written, brackets, comma, colon), raw or {"another"})
    assert list(image) == list(row)
    for name, text in row.items():
        if name in raw and text != "null":
            assert image[name] == text
        else:
            assert image[name] == as_python(text)


def test_null_is_none_in_raw_columns_too() -> None:
    assert parse('{"a":null,"b":null}', {"a"}) == {"a": None, "b": None}


def test_digits_are_kept() -> None:
    text = '{"price":1.10000000000000000000000000001,"big":123456789012345678901234567890,"small":1e-400}'
    assert parse(text) == {
        "price": Decimal("1.10000000000000000000000000001"),
        "big": 123456789012345678901234567890,
        "small": Decimal("1e-400"),
    }
    assert str(parse('{"price":1.10}')["price"]) == "1.10"
    assert parse('{"data":{"n": 1.10, "e": 1E+2}}', {"data"}) == {"data": '{"n": 1.10, "e": 1E+2}'}


@pytest.mark.parametrize("raw", [(), {"data"}, {"other"}])
def test_a_number_of_more_digits_than_int_takes_is_parsed(raw: set[str]) -> None:
    """PostgreSQL's numeric has up to 131 072 digits; Python's int refuses text of more than 4 300."""
    digits = "9" * 5_000
    value = parse(f'{{"data":{digits}}}', raw)["data"]
    assert value == digits if raw == {"data"} else value == Decimal(digits)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a"}', '{"a":}', '{"a":1', '{"a":1,', '{"a":tru}'])
@pytest.mark.parametrize("raw", [(), {"a"}])
def test_what_is_no_image_raises(text: str, raw: set[str]) -> None:
    if text == "[]" and not raw:
        pytest.skip("a JSON value, though no image; the log has no such thing")
    with pytest.raises((ValueError, IndexError, StopIteration)):
        parse(text, raw)


@pytest.mark.parametrize("raw", [(), ("other",)])
@pytest.mark.parametrize("text", ['{"a":-0}', '{"a":-0,"b":1}'])
def test_negative_zero_keeps_its_sign(text: str, raw: tuple[str, ...]) -> None:
    assert str(parse(text, raw)["a"]) == "-0"


def test_negative_zero_keeps_its_sign_in_an_array() -> None:
    assert [str(value) for value in parse('{"a":[1,-0]}')["a"]] == ["1", "-0"]
