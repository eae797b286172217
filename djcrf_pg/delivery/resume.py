"""Cursors of clients: how much of the log one has seen, as a text that it keeps and gives back when it resumes.

The events of a delivery are made of one *span* of the log: what one snapshot sees and an earlier one does not, or a
piece of that between two ids. Within a span, the events of an observer have an order, :class:`Mark`: that of the rows'
first changes, then delete, update and create, then groups. A cursor is a span and the mark of the last event in it that
its owner has. So it stands behind *that event*, however many of the same span are still on their way, and whoever makes
the events of the span again, and leaves out those up to the mark, has the rest.

What follows the window of a span is sent as one transaction: one event for each row, from its first old image to its
last new one (:attr:`Span.netted`). The cursors of such a replay are spans again, so a client that loses its connection
in the middle of one goes on there. The rest of the window is sent change by change: where a leader was killed, its
successor reads a window again that the client has seen more of than the cursor says, and the net effect would not tell
of the groups that a row has left since.

A cursor is signed (:mod:`django.core.signing`), so that it can be neither forged nor changed, and bound to the history
of a database. It is no secret and gives no right: what is replayed is what may be subscribed to. Its text has
:data:`MOST` characters at most. A snapshot names the transactions that were in progress, and where these are so many,
and so far apart, that they do not fit, the cursor is one from before the span, and from before some of them began: its
owner receives some events twice and misses none, for what follows is sent change by change.
"""

import base64
import binascii
import dataclasses
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, chain, islice, pairwise
from typing import NamedTuple, Self

from django.conf import settings
from django.core.signing import BadSignature, Signer

from djcrf_pg.changelog.cursor import Position, Snapshot, Span
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.delivery.protocol import History
from djcrf_pg.exceptions import CursorExpired, InvalidCursor

#: Characters of a cursor.
MOST = 1_000

#: Bytes that are signed: three become four characters, and the signature has 44.
_MOST_BYTES = (MOST - 44) // 4 * 3

#: Bytes that compression is not tried on: each event of those who resume has a cursor.
_SHORT = 100

_VERSION = 1
_SALT = "djcrf_pg.cursor"

#: The order of an occurrence's events.
PHASES = ("delete", "update", "create")


@lru_cache(maxsize=1)
def _signer(key: str) -> Signer:
    """What signs with a key. Making one reads the settings, which takes as long as a signature."""
    return Signer(key=key, salt=_SALT)


def digest(text: str) -> int:
    """What stands for a row's key, or for a group, in a :class:`Mark`.

    Args:
        text: The key or the name.
    """
    return zlib.crc32(text.encode(errors="surrogatepass"))


class Mark(NamedTuple):
    """Where an event stands among those that an observer has of a span.

    Attributes:
        id: That of the row's first change in the span.
        row: The :func:`digest` of its key, and 2**32 more unless it is gone: some changes concern two rows, an update
            that exchanges two keys, say.
        phase: The place of the action in :data:`PHASES`, from 1.
        group: The digest of the group; -1 for what is before all groups of the phase.
    """

    id: int
    row: int
    phase: int
    group: int

    @classmethod
    def of(cls, id: int, row: int, action: str, group: str | None) -> Self:
        """That of an event.

        Args:
            id: Of the row's first change.
            row: That of the event.
            action: What happened to it; for anything that is in no phase, behind all of them.
            group: The group that it came through; None where it may be one of several.
        """
        phase = PHASES.index(action) + 1 if action in PHASES else len(PHASES) + 1
        return cls(id, row, phase, -1 if group is None else digest(group))

    @classmethod
    def of_event(cls, event: Event, group: str) -> Self:
        """That of an event as one group has it.

        Args:
            event: The event.
            group: The group.
        """
        return cls.of(event.change_id, event.row, event.action, group)


#: Behind all events of a span that are no resync.
LAST = Mark(2**63, 0, 0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """How much of a log somebody has seen.

    Attributes:
        history: The log.
        span: The part of it that was seen last.
        mark: The last event of it that was seen; None where all of it was.
        observer: The :func:`digest` of the address of the observer whose events were seen: those of others may be on
            their way. 0 where it is good for all.
        is_exact: Whether its owner has seen nothing else.
    """

    history: History
    span: Span
    mark: Mark | None = None
    observer: int = 0
    is_exact: bool = True

    @classmethod
    def at(cls, history: History, snapshot: Snapshot) -> Self:
        """One that has seen what had been committed.

        Args:
            history: The log.
            snapshot: What had been committed.
        """
        return cls(history, Span(snapshot))

    @classmethod
    def behind(cls, history: History, position: Position) -> Self:
        """One that has seen what is before a position.

        Args:
            history: The log.
            position: The position.
        """
        return cls(history, Span(position.last) if position.target is None else Span.before(position))

    def spans(self, now: Snapshot, *, netted: bool = True) -> Iterator[tuple[Span, Mark | None]]:
        """What its owner has not seen of what is committed now.

        Args:
            now: What is committed.
            netted: Whether what comes behind the last event is sent as one transaction. That is for an owner that
                shows what the cursor has seen, and nothing else; another one may have loaded a row later, as it was
                in between.

        Yields:
            Spans, in order; and the mark of the last event that is not news, where there is one.
        """
        last, target, _, end, _ = self.span
        if self.mark is not None:
            yield self.span, self.mark
        if target is not None and end is not None:
            yield Span(last, target, start=end), None
        if (begin := target or last) != now:
            yield Span(begin, now, netted=netted and self.is_exact), None

    # The text.

    def encode(self) -> str:
        """The signed text."""
        return _text(self, settings.SECRET_KEY)

    def _packed(self) -> bytes:
        """The bytes; where they do not fit, those of a cursor that has seen less."""
        packed = self._exactly()
        last = self.span.last
        while len(packed) > _MOST_BYTES:
            first = sorted(last.xip)[: len(last.xip) * 3 // 4]
            last = Snapshot(last.xmin, first[-1], frozenset(first[:-1]))
            packed = Cursor(self.history, Span(last), None, self.observer, is_exact=False)._exactly()
        return packed

    def _exactly(self) -> bytes:
        last, target, start, end, netted = self.span
        numbers = [*self.history, self.observer, self.is_exact, start, 0 if end is None else end + 1, netted]
        if self.mark is not None:
            id, row, phase, group = self.mark
            numbers += [id, row, phase, group + 1]
        snapshots = [last] if target is None else [last, target]
        packed = b"\0" + _pack(chain([len(numbers)], numbers, *map(_numbers, snapshots)))
        if len(packed) > _SHORT:
            packed = min(packed, b"\1" + zlib.compress(packed[1:], 9), key=len)
        return bytes([_VERSION]) + packed

    @classmethod
    def decode(cls, text: object, history: History, observer: str) -> Self:
        """Read what :meth:`encode` has made.

        Args:
            text: The text.
            history: The log that it is to be of.
            observer: The address of the observer that it is for.

        Raises:
            InvalidCursor: It is none, its signature is wrong, or it is of another database or observer.
            CursorExpired: The database has taken another course of events since.
        """
        if not isinstance(text, str) or len(text) > MOST + 100:
            raise InvalidCursor("A cursor is the text that a handler or current_cursor() was given.")
        try:
            signed = Signer(salt=_SALT).unsign(text)
            packed = base64.urlsafe_b64decode(signed + "=" * (-len(signed) % 4))
        except (BadSignature, binascii.Error, ValueError) as error:
            raise InvalidCursor(
                "The signature of the cursor is wrong: it was changed on its way, or SECRET_KEY was, and "
                "SECRET_KEY_FALLBACKS does not have the former one."
            ) from error
        if packed[0] != _VERSION:
            raise CursorExpired("The cursor is of another version of djcrf_pg: reload.")
        cursor = cls._unpacked(zlib.decompress(packed[2:]) if packed[1] else packed[2:])
        if cursor.history.group(None) != history.group(None):
            raise InvalidCursor("The cursor is of another database.")
        if cursor.observer not in (0, digest(observer)):
            raise InvalidCursor("The cursor is of another observer: each has cursors of its own.")
        if cursor.history != history:
            raise CursorExpired("The database was promoted or restored since the cursor was made: reload.")
        return cursor

    @classmethod
    def _unpacked(cls, packed: bytes) -> Self:
        numbers = _unpack(packed)
        system, database, log, timeline, observer, *place = [next(numbers) for _ in range(next(numbers))]
        is_exact, start, end, netted, *mark = place
        last = _snapshot(numbers)
        target = _snapshot(numbers)
        assert last is not None
        return cls(
            History(system, database, log, timeline),
            Span(last, target, start, end - 1 if end else None, netted=bool(netted)),
            Mark(mark[0], mark[1], mark[2], mark[3] - 1) if mark else None,
            observer,
            bool(is_exact),
        )


@lru_cache(maxsize=64)
def _text(cursor: Cursor, key: str) -> str:
    """Made once for all consumers of a process that are given the same event."""
    packed = base64.urlsafe_b64encode(cursor._packed()).decode("ascii").rstrip("=")
    return _signer(key).sign(packed)


# Of a signed text: nothing here meets what somebody else has made.


def _pack(numbers: Iterable[int]) -> bytes:
    """Numbers, seven bits a byte."""
    packed = bytearray()
    for number in numbers:
        while number > 127:
            packed.append(number & 127 | 128)
            number >>= 7
        packed.append(number)
    return bytes(packed)


def _unpack(packed: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0


def _numbers(snapshot: Snapshot) -> list[int]:
    """A snapshot as small numbers: how far each transaction in progress is from the one before it."""
    xids = sorted(snapshot.xip)
    gaps = (after - before for before, after in pairwise([snapshot.xmin, *xids]))
    return [snapshot.xmin, snapshot.xmax - snapshot.xmin, len(xids), *gaps]


def _snapshot(numbers: Iterator[int]) -> Snapshot | None:
    if (xmin := next(numbers, None)) is None:
        return None
    xmax, count = xmin + next(numbers), next(numbers)
    *xids, _ = accumulate([xmin, *islice(numbers, count), 0])
    return Snapshot(xmin, xmax, frozenset(xids[1:]))
