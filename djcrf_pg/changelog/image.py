"""Parse row images without losing a digit."""

import json
import re
from collections.abc import Callable, Collection
from decimal import Decimal
from json import decoder, scanner
from typing import Any

_decoder = json.JSONDecoder(parse_float=Decimal)
# Undocumented, but what JSONDecoder itself is made of since Python 2.6: a string and a value from a place on.
_scan_string: Callable[[str, int], tuple[str, int]] = decoder.scanstring  # type: ignore[attr-defined]
_Scan = Callable[[str, int], tuple[Any, int]]
_scan_value: _Scan = scanner.make_scanner(_decoder)  # type: ignore[arg-type]


def _integer(text: str) -> int | Decimal:
    """Python reads integers of up to 4300 digits from text, and the database has longer ones; a float may be -0."""
    return int(text) if len(text) < 4300 and text != "-0" else Decimal(text)


_long_decoder = json.JSONDecoder(parse_float=Decimal, parse_int=_integer)
_scan_long_value: _Scan = scanner.make_scanner(_long_decoder)  # type: ignore[arg-type]
_SPACE = re.compile(r"[ \t\n\r]*")


def parse(text: str, raw: Collection[str] = (), *, floats: bool = True) -> dict[str, Any]:
    """Parse a row image.

    Numbers with a point or an exponent become Decimals: only their column's type says whether they are floats.

    Args:
        text: A JSON object, column to value.
        raw: Columns whose value is wanted as the JSON text it was, because somebody else parses it.
        floats: Whether there may be floats, of which one is -0.

    Returns:
        The columns' values.
    """
    if floats and ("-0," in text or "-0}" in text or "-0]" in text):
        return _parse(text, raw, _long_decoder, _scan_long_value)
    try:
        return _parse(text, raw, _decoder, _scan_value)
    except ValueError:
        # Not at once: the decoder is three times as fast without a function of ours for each integer.
        return _parse(text, raw, _long_decoder, _scan_long_value)


def _parse(text: str, raw: Collection[str], parser: json.JSONDecoder, scan_value: _Scan) -> dict[str, Any]:
    if not raw:
        whole = _at_once(text, scan_value)
        if whole is None:
            whole = parser.decode(text)
        if not isinstance(whole, dict):
            raise TypeError(f"a row image is an object, not {text[:50]}")
        return whole
    image: dict[str, Any] = {}
    place = _after_space(text, text.index("{") + 1)
    while text[place] != "}":
        if text[place] == ",":
            place = _after_space(text, place + 1)
        column, place = _scan_string(text, place + 1)
        place = _after_space(text, text.index(":", place) + 1)
        value, end = scan_value(text, place)
        image[column] = text[place:end] if column in raw and value is not None else value
        place = _after_space(text, end)
    return image


def _at_once(text: str, scan_value: _Scan) -> Any:
    """A value with no space around it, as PostgreSQL writes it; None for anything else."""
    try:
        whole, end = scan_value(text, 0)
    except StopIteration:
        return None
    return whole if end == len(text) else None


def elements(text: str) -> list[str]:
    """Part a JSON array into the texts of its elements."""
    found: list[str] = []
    place = _after_space(text, text.index("[") + 1)
    while text[place] != "]":
        if text[place] == ",":
            place = _after_space(text, place + 1)
        _, end = _scan_long_value(text, place)
        found.append(text[place:end])
        place = _after_space(text, end)
    return found


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
