"""Tell from the text of a statement whether it may write: text in, kind out, no database."""

import enum
import re
from functools import lru_cache

# Nested comments end early for this pattern: the statement is then of no known kind, which is harmless.
_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*+([a-z]+)", re.IGNORECASE | re.DOTALL)
_WRITING_WORD = re.compile(r"\b(?:insert|update|delete|merge)\b", re.IGNORECASE)
_CALL = re.compile(r"(\.\s*+)?(?:(?<!\w)(\w++)|\")\s*+\(")
_CONSTRAINTS = re.compile(r"\s*set\s+constraints\b", re.IGNORECASE)

#: A text longer than this is looked at each time: ``IN (…)`` lists are long and never the same.
_CACHED = 4096

# What stands before a parenthesis in the SQL that Django's ORM makes: words of the language, types, and
# functions of PostgreSQL's that write nothing.
_HARMLESS = frozenset(
    re.findall(
        r"\w+",
        """
        all and any array as between by case cast collate cross cube default distinct else end except exists extract
        filter from full group grouping having ilike in inner intersect interval is join lateral left like limit
        natural not offset on only or order over partition right rollup row rows select sets similar some table then
        to union using values when where with within
        bit char character decimal float numeric time timestamp varbit varchar varying
        abs array_agg array_length avg bool_and bool_or btrim ceil ceiling char_length coalesce concat concat_ws count
        current_date current_timestamp date date_part date_trunc dense_rank exp first_value floor greatest json_agg
        json_build_object jsonb_agg jsonb_array_length jsonb_build_array jsonb_build_object lag last_value lead least
        left length ln log lower lpad ltrim max md5 min mod now nth_value ntile nullif overlay percent_rank position
        power random rank regexp_replace replace reverse right round row_number rpad rtrim sign sqrt
        statement_timestamp stddev_pop stddev_samp string_agg strpos substr substring sum to_char to_date
        to_timestamp to_tsquery to_tsvector plainto_tsquery websearch_to_tsquery ts_rank trim trunc unnest upper
        var_pop var_samp
        """,
    )
)


class Kind(enum.Enum):
    """What a statement may do to the tables that are watched."""

    NOTHING = enum.auto()
    """Reads, or is none of our business: transaction control, DDL, ``VACUUM``, ``LISTEN``, …"""
    CALL = enum.auto()
    """Reads, and calls a function that may write."""
    WRITE = enum.auto()
    """Writes."""
    PROCEDURE = enum.auto()
    """May write and may end transactions, so it can share an implicit transaction with nothing else
    (PostgreSQL manual, 41.8 "Transaction Management")."""


_KINDS = {
    **dict.fromkeys(("insert", "update", "delete", "merge", "truncate", "copy", "execute", "explain"), Kind.WRITE),
    **dict.fromkeys(("call", "do"), Kind.PROCEDURE),
}


def kind(text: str) -> Kind:
    """Tell what a statement may do, from its first word.

    A ``SELECT`` writes only through a function that it calls; of ours, those that touch do. Functions that are hidden
    from its text (in a view, an operator, a policy of row-level security) are not seen.

    Args:
        text: A statement, with comments or parentheses before it if need be; of several, the first counts.
    """
    found = _FIRST_WORD.match(text)
    if found is None:
        return Kind.NOTHING
    word = found[1].lower()
    match word:
        case "select" | "with" | "values" | "table":
            return (_reading if len(text) <= _CACHED else _reading.__wrapped__)(text, word == "with")
        case "set":
            return Kind.PROCEDURE if _CONSTRAINTS.match(text) else Kind.NOTHING
    return _KINDS.get(word, Kind.NOTHING)


@lru_cache(maxsize=512)
def _reading(text: str, may_write: bool) -> Kind:
    if may_write and _WRITING_WORD.search(text):
        return Kind.WRITE
    calls: list[tuple[str, str]] = _CALL.findall(text)
    if any(name.lower().startswith("djcrf_pg_touch") for _, name in calls):
        return Kind.WRITE
    if any(qualified or name.lower() not in _HARMLESS for qualified, name in calls):
        return Kind.CALL
    return Kind.NOTHING
