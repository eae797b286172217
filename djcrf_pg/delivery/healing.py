"""What a process has lost is read from the log, and handed on as if it had come.

Of each stream, the hub keeps how far events were handed over (:class:`Progress`). When it learns of a loss, the stream
is *healed* (:class:`Healing`): the hub hands on no more of it, joins its groups again and asks the database what is
committed. What the subscriptions have not had of that is read as for a client that resumes, for all groups that
somebody here is in. Then the stream goes on behind it, with what the answer did not see.

A message that comes before the question was asked is made of what the answer sees, so it is dropped; those that come
later are held. What is read is sent change by change, as it would have come: a client may have loaded its rows after
some of them, and the net effect of all would not say which groups a row was in meanwhile.
"""

import asyncio
import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.delivery.envelope import RESYNC, Event
from djcrf_pg.delivery.protocol import EVERYBODY, Arrival, History, Loss, Origin, Point
from djcrf_pg.delivery.resume import LAST, Cursor, Mark

#: An event that was read: the group, the event as text, and what it is made of.
Replayed = tuple[str, str, Origin]

#: Bytes of messages that are held while what comes before them is read.
HELD_BYTES = 32 * 1024 * 1024


class Replayer(Protocol):
    """What reads the log."""

    async def replay(
        self, cursor: Cursor, until: Snapshot, observer: Any, groups: Collection[str], *, lost: int
    ) -> Sequence[Replayed]:
        """See :meth:`djcrf_pg.listener.replay.Replays.replay`."""

    async def failed(self, seconds: float) -> Collection[str]:
        """See :meth:`djcrf_pg.listener.replay.Replays.failed`."""


class Progress:
    """How far the events of a stream were handed over.

    Attributes:
        origin: What those that came last were made of.
        marks: Of each observer, that of the last of these.
    """

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.marks: dict[str, Mark] = {}

    def note(self, arrival: Arrival) -> None:
        """Note that the events of a message were handed over."""
        if arrival.origin.span.is_empty:
            return  # they are beside what is read
        if arrival.origin != self.origin:
            self.origin, self.marks = arrival.origin, {}
        last: dict[str, int] = {}
        groups: dict[str, list[str]] = {}
        for (observer, group), places in arrival.to.items():
            if group == EVERYBODY:
                continue  # a resync, which is behind the others
            if places[-1] > last.get(observer, -1):
                last[observer], groups[observer] = places[-1], [group]
            elif places[-1] == last[observer]:
                groups[observer].append(group)
        for observer, place in last.items():
            event = arrival.events[place]
            self.marks[observer] = max(Mark.of_event(event, group) for group in groups[observer])

    def cursor(self, history: History, since: Position, observer: str) -> Cursor:
        """What has been handed over of an observer.

        Args:
            history: The log.
            since: A position before which nothing is missing.
            observer: Its address.
        """
        if self.origin is None or self.origin.history != history:
            return Cursor.behind(history, since)
        span = self.origin.span
        assert span.target is not None
        begin = Position(span.last, span.target, span.start) if span.start else Position(span.last)
        end = Position(span.target) if span.end is None else Position(span.last, span.target, span.end)
        known, mark = Point.of(since), self.marks.get(observer)
        if known.covers(Point.of(end)):
            return Cursor.behind(history, since)
        if mark is not None:
            return Cursor(history, span, mark)
        return Cursor.behind(history, since if known.covers(Point.of(begin)) else begin)


@dataclasses.dataclass(slots=True)
class Healing:
    """A stream that is healed.

    Attributes:
        loss: What is lost.
        begun: When that was noticed, by ``time.monotonic``.
        held: The messages that have come since the question was asked; None before it is.
        again: Whether more was lost while what is before it was read.
        task: What reads.
        cursors: What the subscriptions of an observer have, where that is not what was handed over of the stream.
        aside: The observers of which something was dropped that is not in the log: it came, and could not wait.
    """

    loss: Loss
    begun: float
    held: list[Arrival] | None = None
    again: bool = False
    task: asyncio.Task[None] | None = None
    cursors: dict[str, Cursor] = dataclasses.field(default_factory=dict)
    aside: set[str] = dataclasses.field(default_factory=set)
    _bytes: int = 0

    def ask(self) -> None:
        """Note that the database is asked from now on."""
        self.held, self.again, self._bytes = [], False, 0

    def lose(self, loss: Loss | None = None) -> None:
        """Note that more was lost."""
        if loss is not None:
            self.loss = self.loss.merge(loss)
        for arrival in self.held or ():
            self._drop(arrival)
        self.held, self.again = None, True

    def hold(self, arrival: Arrival) -> None:
        """Take a message."""
        if self.held is None:
            self._drop(arrival)
            return
        self.held.append(arrival)
        self._bytes += sum(map(len, arrival.lines))
        if self._bytes > HELD_BYTES:
            self.lose()

    def _drop(self, arrival: Arrival) -> None:
        if arrival.origin.span.is_empty:
            self.aside.update(observer for observer, _ in arrival.to)


def before(event: Event, group: str, origin: Origin) -> Cursor:
    """A cursor that has seen what an observer's subscription is given before an event.

    Args:
        event: The event.
        group: The group that it comes through.
        origin: What it is made of.
    """
    if origin.span.is_empty:
        return Cursor(origin.history, origin.span)
    if event.action == RESYNC:
        return Cursor(origin.history, origin.span, LAST)
    mark = Mark.of_event(event, group)
    return Cursor(origin.history, origin.span, mark._replace(group=mark.group - 1))
