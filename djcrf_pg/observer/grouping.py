"""What groups functions give, as text: the same as DCRF's where it can match, and an error where it cannot.

A group is whatever ``format()`` makes of it. A number or a UUID is the same text on both sides. A string that is
returned in place of a list would be a group for each of its letters, which strangers share; and an object that is
printed with its address matches nothing.
"""

from collections.abc import Iterable, Iterator
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from django.utils.functional import Promise

from djcrf_pg.exceptions import GroupsError
from djcrf_pg.observations import GroupIsOdd, emit, text_of_value

#: What has a text of its own, which says all of it.
_PLAIN = (str, int, float, Decimal, UUID, date, time, Enum, Promise)

_said: set[tuple[str, str, str]] = set()


def groups_of(label: str, decorator: str, given: Any) -> Iterator[str]:
    """The groups that a function gives.

    Args:
        label: Of the observer.
        decorator: What the function is decorated with.
        given: What it returned.

    Raises:
        GroupsError: It is not the groups of anything, or one of them has no text that could match.
    """
    if isinstance(given, str | bytes):
        raise GroupsError(
            f"{_function(label, decorator)} returned the text {given!r}, whose letters would be the groups. Write "
            f"`yield` in place of `return`, or return a list."
        )
    try:
        groups: Iterable[Any] = iter(given)
    except TypeError:
        if hasattr(given, "close"):
            given.close()  # a coroutine, which nobody awaits
        raise GroupsError(
            f"{_function(label, decorator)} returned {text_of_value(given)}, which is no groups. Write `yield` in "
            f"place of `return`, or return a list."
        ) from None
    for group in groups:
        if type(group) is not str and not isinstance(group, _PLAIN):
            _look_at(group, label, decorator)
        yield f"{group}"


def _function(label: str, decorator: str) -> str:
    return f"The function for @….{decorator} of {label}"


def _look_at(group: Any, label: str, decorator: str) -> None:
    kind: Any = type(group)
    plain: Any = object
    if all(getattr(kind, name) is getattr(plain, name) for name in ("__str__", "__repr__", "__format__")):
        raise GroupsError(
            f"{_function(label, decorator)} yielded {text_of_value(group)}, whose text differs each time, so it "
            f'matches no group. Yield text: `yield f"room-{{instance.room_id}}"`, say.'
        )
    said = (label, decorator, kind.__qualname__)
    if said not in _said:
        _said.add(said)
        emit(GroupIsOdd(observer=label, decorator=decorator, group=text_of_value(group), text=f"{group}"))
