"""Which messages of signals and of triggers are of the same change, and how two of them differ. No I/O."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from djcrf_pg.routing.failed import storable

#: The kinds of results. ``FAILED``: what makes the events of triggers raised.
EQUAL, MISSED, EXTRA, DIFFERENT, FAILED = "equal", "missed", "extra", "different", "failed"

#: Fields of a body that a result names; what has others besides says so.
_NAMED = 5


class Waiting(NamedTuple):
    """A message that has not met its counterpart.

    Attributes:
        name: See :class:`djcrf_pg.shadow.messages.Message`.
        by_signals: Whether signals have sent it; else triggers would have.
        digest: Of what it says.
        parts: What it says, decoded.
        origin: Of which change or process it is, decoded.
        is_due: Whether its counterpart would be here by now.
        is_old: Whether it waits no longer for others of the row that are not due.
    """

    name: str
    by_signals: bool
    digest: str
    parts: dict[str, list[Any]]
    origin: dict[str, Any]
    is_due: bool
    is_old: bool


class Result(NamedTuple):
    """What came of one or two messages.

    Attributes:
        kind: One of the kinds.
        what: The actions, or what differs.
        signals: The message that signals have sent, if there was one.
        triggers: The one that triggers would have sent, if there was one.
    """

    kind: str
    what: str
    signals: Waiting | None
    triggers: Waiting | None


def results(waiting: Iterable[Waiting]) -> list[Result]:
    """Compare the messages of one row of an observer.

    Equal ones belong together, whichever came first; of what is left over, those with the same actions and groups, then
    those with the same actions. So two differences of a row within seconds may be taken for one, and none is ever taken
    for equality. What differs even in its actions waits longer, for something like it may be on its way.

    Args:
        waiting: All that have not met their counterpart, the oldest first.

    Returns:
        What came of those that have waited long enough.
    """
    sides: dict[bool, list[Waiting]] = {True: [], False: []}
    for each in waiting:
        sides[each.by_signals].append(each)
    found = []
    for one in list(sides[True]):
        other = next((each for each in sides[False] if each.digest == one.digest), None)
        if other is not None:
            sides[True].remove(one)
            sides[False].remove(other)
            found.append(Result(EQUAL, "", one, other))
    for may_be in (_has_groups_of, _has_actions_of, _is_ripe):
        for one in list(sides[True]):
            other = next((each for each in sides[False] if (one.is_due or each.is_due) and may_be(one, each)), None)
            if other is not None:
                sides[True].remove(one)
                sides[False].remove(other)
                found.append(Result(DIFFERENT, _difference(one.parts, other.parts), one, other))
    alone = {
        side: [each for each in left if each.is_old or (each.is_due and not sides[not side])]
        for side, left in sides.items()
    }
    found += [Result(EXTRA, ", ".join(each.parts), each, None) for each in alone[True]]
    found += [Result(MISSED, ", ".join(each.parts), None, each) for each in alone[False]]
    return found


def _has_groups_of(one: Waiting, other: Waiting) -> bool:
    return _has_actions_of(one, other) and all(one.parts[action][0] == part[0] for action, part in other.parts.items())


def _has_actions_of(one: Waiting, other: Waiting) -> bool:
    return one.parts.keys() == other.parts.keys()


def _is_ripe(one: Waiting, other: Waiting) -> bool:
    """Whether nothing that is like either can be on its way."""
    return one.is_due and other.is_due and (one.is_old or other.is_old)


def _difference(signals: dict[str, list[Any]], triggers: dict[str, list[Any]]) -> str:
    """What differs: the actions, the groups, or the fields of a body, of one action before the next."""
    if signals.keys() != triggers.keys():
        return f"{', '.join(signals)} instead of {', '.join(triggers)}"
    for action, (groups, *body) in signals.items():
        others, *other = triggers[action]
        if groups != others:
            return f"{action}: groups"
        if json.dumps(body) != json.dumps(other):  # as JSON, True is not 1
            return f"{action}: {_fields(body, other)}"
    return "what is not kept"


def _fields(body: Sequence[Any], other: Sequence[Any]) -> str:
    """The top-level fields in which two bodies differ."""
    if not (body and other and isinstance(body[0], dict) and isinstance(other[0], dict)):
        return "body"
    names = sorted(
        name
        for name in body[0].keys() | other[0].keys()
        if name not in body[0] or name not in other[0] or json.dumps(body[0][name]) != json.dumps(other[0][name])
    )
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return storable(f"{', '.join(names[:_NAMED])}{more}") or "body"
