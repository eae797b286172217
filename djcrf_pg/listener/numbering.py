"""Numbers on messages, by which a consumer knows that the channel layer has dropped one.

A layer has a capacity, and drops what is over it without a word to anybody: a consumer that was busy for a moment, or a
process with many, would never hear of it. So each message carries its number and names the message before it in the
same group. The last one of a burst has none after it; so the leader says now and then, in the group of all subscribers
of an observer, what the last numbers were: a *roll*. It is small, comes after 2 s, then after twice as long each time,
and stops after about an hour without traffic.
"""

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, Self

from djcrf_pg.registry import Observed

#: Groups whose last numbers are remembered, and those of them that one observer's rolls can name.
_GROUPS, _ROLL = 100_000, 10_000

#: Groups in one roll.
_CUT = 1_000

#: Seconds to the first roll after a message, and to the last one.
_SOON, _LATE = 2.0, 2_048.0


class Tail(NamedTuple):
    """The last message to a group.

    Attributes:
        number: Its number.
        xid: The transaction of its last event.
        at: When that was written, ISO 8601.
    """

    number: int
    xid: int
    at: str


UNKNOWN = Tail(0, 0, "")


class Control(NamedTuple):
    """Where the rolls of an observer go.

    Attributes:
        group: The group of all its subscribers.
        message_type: What selects the handler.
        address: What tells the observer from others with the same groups and handler's name.
    """

    group: str
    message_type: str
    address: str

    @classmethod
    def of(cls, observer: Observed) -> Self:
        """That of an observer."""
        return cls(observer.resync_group(), observer.message_type, observer.address)


@dataclasses.dataclass(slots=True)
class _Burst:
    tails: OrderedDict[str, Tail] = dataclasses.field(default_factory=OrderedDict)
    pause: float = 0.0
    due: float = 0.0


class Numbering:
    """The numbers of one leadership's messages."""

    def __init__(self) -> None:
        self._last = 0
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._bursts: dict[Control, _Burst] = {}

    def number(self, group: str) -> tuple[Tail, int]:
        """Number the next message to a group.

        Returns:
            The message before it, :data:`UNKNOWN` where that is not known, and its own number.
        """
        self._last += 1
        return self._tails.get(group, UNKNOWN), self._last

    def sent(self, control: Control, group: str, tail: Tail, now: float) -> None:
        """Note that a message was sent.

        Args:
            control: Where the observer's rolls go.
            group: Where the message went.
            tail: The message.
            now: Seconds of some clock.
        """
        self._tails[group] = tail
        self._tails.move_to_end(group)
        if len(self._tails) > _GROUPS:
            self._tails.popitem(last=False)
        burst = self._bursts.setdefault(control, _Burst())
        if burst.pause != _SOON:
            burst.pause, burst.due = _SOON, now + _SOON
        burst.tails[group] = tail
        burst.tails.move_to_end(group)
        if len(burst.tails) > _ROLL:
            burst.tails.popitem(last=False)

    @property
    def due(self) -> float | None:
        """When the next roll is due, by the clock of :meth:`sent`."""
        return min((burst.due for burst in self._bursts.values()), default=None)

    def hasten(self) -> None:
        """Have the first rolls after a message be due at once."""
        for burst in self._bursts.values():
            if burst.pause == _SOON:
                burst.due = -math.inf

    def rolls(self, now: float) -> Iterator[tuple[Control, dict[str, Tail]]]:
        """The rolls that are due, as of now: messages may be sent while one is on its way."""
        for control, burst in list(self._bursts.items()):
            if burst.due > now:
                continue
            burst.pause *= 2
            burst.due = now + burst.pause
            if burst.pause > _LATE:
                del self._bursts[control]
            tails = list(burst.tails.items())
            for start in range(0, len(tails), _CUT):
                yield control, dict(tails[start : start + _CUT])
