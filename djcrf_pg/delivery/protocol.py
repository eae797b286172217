"""The wire between a leader and the processes that have its subscribers: both ends, without I/O and without a clock.

A channel layer is at most once: it drops what is over its capacity, forgets who is in a group, and says neither. This
module is how a loss is noticed all the same, by the process whose subscribers it concerns and by no other.

**The way.** An observer and a group are one *lane*; observers hash to :data:`STREAMS` *streams*, each a channel-layer
group that a process joins when one of its subscriptions needs it. A delivery is one message for each stream that has
something, or more where it is cut, and each message has a *number*, dense within (term, stream). A *heartbeat*, in a
group of its own that each process joins, says every :data:`BEAT` seconds how far all streams are. So what either end
keeps does not grow with groups or observers.

**Points.** Across terms, and for a process that joins late, numbers say nothing and positions in the log decide. All
snapshots of one history of a database are in one order, that of time, and ``xmax`` less the number of transactions in
progress rises with each that ends. So the order of two positions is that of a few numbers, a :class:`Point`. A message
names the *reach* of its stream: a position that covers all that was sent in it before and is not sent again. Who
covers that misses nothing.

What holds, each with its property in ``tests/unit/test_protocol.py``:

1. *No loss is unnoticed.* Whatever the layer drops, each subscription either receives every event that committed after
   its snapshot, or a :class:`Loss` that concerns it comes after the event was committed; two heartbeats after the last
   drop at the latest. It holds over killed and stopped leaders, over repeats, and over delays between streams.
2. *No loss is false.* A layer that drops nothing and keeps the order within a group makes no Loss: not by joining,
   leaving, joining again, by a new term, nor by another stream's traffic.
3. *Nothing is out of order.* Events of a lane arrive in the order of the leader's, each message once; after a killed
   leader they begin again at the cursor.
4. *Nobody is deafened.* What is damaged, foreign or forged raises nothing. What cannot be read has not come, so the
   number that is missing says so. What is bound to another history or another term than the database's is not
   delivered, and once reported. A forged message of the right term is two Losses at most, and the next heartbeat puts
   it right; one with the very number of the next real message stands in its place. (Who can write to the layer can
   forge events. This is about what they leave behind.)
5. *Messages keep their limits*, and each event is in one, in order.

**The leader's end**, :class:`Outbound`, lives for one term. Its caller keeps to this order:

- A delivery: :meth:`~Outbound.deliver` makes the messages, those of a stream are handed to the layer one after the
  other, and each is :meth:`~Outbound.taken` when the layer has it. A message is tried until then, or until the lead is
  lost; one that the layer refuses for good is taken too, and is missed like a dropped one. What is to reach all
  subscribers of an observer, a resync, is behind the rest of the delivery in the observer's stream.
- :meth:`~Outbound.advance` when all of a read was delivered. What is no read (a row that is sent again, a failure's
  resync) has the present snapshot for its reach, taken when it was made, and later than the transaction that asked for
  it. Whether it is settled when the cursor was saved, :func:`settles` says.
- :meth:`~Outbound.heartbeat` at the start of the term, every :data:`BEAT` seconds whatever else goes on, and before
  each save of the cursor; what may be saved is :attr:`~Outbound.savable`, the position of the last heartbeat that the
  layer took. So a successor begins where everybody knows to be, after a graceful stop and after a kill. Where that
  heartbeat is lost, the successor's first is a Loss: never silence.

It keeps four numbers and two points for each stream.

**The process's end**, :class:`Inbound`, is one for a channel layer, an event loop and a database:

- :meth:`~Inbound.join` when the layer has put the channel into a stream's group; the database is asked after that, and
  :meth:`~Inbound.learn` takes the answer: history, term, snapshot. What the snapshot sees is nobody's loss here. A
  subscription's own snapshot is as late or later. What the stream brings before that is held. :meth:`~Inbound.leave`
  forgets the stream.
- :meth:`~Inbound.take` takes what the channel receives, and says what happened. A gap in the numbers is a Loss at once.
  What a heartbeat names and has not come may be on its way by another host of the layer; what has not come by a
  heartbeat :data:`PATIENCE` seconds later is lost.
- A term or a history that is not the database's, as far as known, is a :class:`Doubt`: the caller asks the database
  until it answers, and meanwhile such messages are held, :data:`HELD_BYTES` at most. The answer counts, whatever it
  is. The same term or a higher one goes on; a lower one or another history means that the database is not the one it
  was (a failover, a restored backup), and all is lost up to the answer's snapshot. Between what was heard last and the
  answer there may have been leaders that nobody asked about. What they sent is followed too, in rising order: a term
  that is neither below the last one that was followed nor above the answer.
- After :data:`SILENCE` seconds without anything readable the caller joins its groups again, asks the database and,
  where somebody leads, calls :meth:`~Inbound.silence`. That alone is no loss: if messages were lost, the next heartbeat
  says so, and a leader that the database has named for a shorter time may not have begun yet.

It keeps, for each stream joined: a term, a number, two points, a position, and what the last heartbeats promised.

**A database** is known by its system identifier, the oids of database and log, and its timeline
(``pg_walfile_name(pg_current_wal_insert_lsn())`` begins with it), which a promotion or a recovery to a point in time
changes: what the old one had is not comparable. The names of the groups leave the timeline out. Copies of a cluster's
files that run as they were (no recovery) differ in nothing but their terms: they need a Redis or a prefix each.

**Messages** are ``{"type": TYPE, KEY: text}``. The text is ASCII, and its first line is a JSON object:

========= ============ ===============================================================================================
``v``     both         :data:`VERSION`
history   both         ``[system, database, log, timeline]``
term      both         of the leadership; terms come from the database, and rise
stream    events       where it goes
number    events       from 1
reach     events       a point: of what was sent in the stream before
beside    events       the number of the last message before that is beside what is read; 0 for none
span      events       ``[last, target, start, end]``: the part of the log that they are made of
to        events       ``{observer: {group: [line, …]}}``; the group :data:`EVERYBODY` is all subscribers
beat      heartbeat    from 1
position  heartbeat    ``[last, target, id]``: all of the log up to it was sent
streams   heartbeat    ``[number taken, number made, reach, beside]`` for each
observers heartbeat    eight digits for each observer that the leader has, one after the other
========= ============ ===============================================================================================

Each further line of a message with events is one of these, a JSON list as
:class:`~djcrf_pg.delivery.envelope.Event` makes it. Whoever receives parses the lines that somebody there wants. A
message has ``max_events`` entries and ``max_bytes`` bytes at most, but for one larger event. A heartbeat has
less than 1 kB, about twelve bytes for each transaction in progress, and eight for each observer.

**A leader of other code** (a rolling deploy) does not have each observer that a process has: it makes no events of
theirs, and its successor begins behind their changes. :meth:`~Inbound.knows` says so from its heartbeats.

**Versions side by side.** The envelopes of 0.1.0 (version 1, an object under the same key) go to DCRF's groups, and
these to streams, where no old process is. So neither receives what it cannot read, and each is a resync now and then:

- An old leader beside new processes: the database names a term of which no heartbeat comes. As long as that lasts,
  :meth:`~Inbound.silence` makes a Loss of all streams each time. The next leader's first heartbeat is one more if
  anything was sent meanwhile.
- A new leader beside old processes: see :mod:`djcrf_pg.delivery.predecessors`.
- A later version in the streams cannot be read: it is reported once for each term, and is a Loss as above.
"""

import dataclasses
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from djcrf_pg.changelog.cursor import Position, Snapshot, Span
from djcrf_pg.delivery.envelope import Event, parse

#: The version of these messages; it rises with each change that an older reader cannot take.
VERSION = 2

#: The type of the messages, which Channels wants, and the key of the text.
TYPE, KEY = "djcrf_pg.stream", "djcrf_pg"

#: Streams of a database.
STREAMS = 16

#: The group of a lane that is all subscribers of an observer.
EVERYBODY = ""

#: Seconds between heartbeats; after which what one has named must have come; and without any before one looks.
BEAT, PATIENCE, SILENCE = 1.0, 0.5, 2.5

#: Messages that are held while the database is asked, and their bytes.
HELD, HELD_BYTES = 1_000, 16 * 1024 * 1024

#: Refuted terms that are remembered, and promises of a stream: heartbeats within :data:`PATIENCE`.
_REFUTED, _PROMISES = 1_000, 16

#: Digits that stand for an observer.
_DIGITS = 8

#: Numbers on the wire are smaller: PostgreSQL's bigint, and a transaction id.
_INT, _XID = 2**63, 2**64


class History(NamedTuple):
    """What tells one log, and one course of its database's events.

    Attributes:
        system: The system identifier.
        database: The oid of the database.
        log: The oid of the change log.
        timeline: The timeline.
    """

    system: int
    database: int
    log: int
    timeline: int

    def group(self, stream: int | None) -> str:
        """The channel-layer group of a stream; of the heartbeats where it is None."""
        name = "beat" if stream is None else str(stream)
        return f"djcrf_pg.{self.system:x}.{self.database:x}.{self.log:x}.{name}"


class Origin(NamedTuple):
    """What events are made of.

    Attributes:
        history: The log.
        span: The part of it.
        requests: The request ids that a replay is for; None for what is live.
    """

    history: History
    span: Span
    requests: tuple[Any, ...] | None = None


def digits_of(observer: str) -> str:
    """What stands for an observer in heartbeats.

    Args:
        observer: Its address.
    """
    return f"{zlib.crc32(observer.encode()):0{_DIGITS}x}"


def stream_of(observer: str) -> int:
    """The stream of all lanes of an observer, so that the order between its groups and its resyncs is that of sending.

    Args:
        observer: Its address.
    """
    return zlib.crc32(observer.encode()) % STREAMS


class Point(NamedTuple):
    """A position in the log, as numbers that can be compared.

    Attributes:
        seen: Transactions that had ended: ``xmax`` less those in progress.
        target: The same of the target, in the middle of a window; else 0.
        after_id: In the middle of a window, the id of the last change.
    """

    seen: int
    target: int = 0
    after_id: int = 0

    @classmethod
    def of(cls, position: Position) -> Self:
        """That of a position."""
        if position.target is None:
            return cls(_ended(position.last))
        return cls(_ended(position.last), _ended(position.target), position.after_id or 0)

    @classmethod
    def at(cls, snapshot: Snapshot) -> Self:
        """That of the position behind all that a snapshot sees."""
        return cls.of(Position(snapshot))

    def covers(self, other: "Point") -> bool:
        """Whether everything that is before the other one is before this one."""
        if self.seen >= (other.target or other.seen):
            return True
        return self[:2] == other[:2] and self.after_id >= other.after_id

    def both(self, other: "Point") -> "Point":
        """A point that covers two. Of a place in a window and one that is as late, neither may cover the other."""
        if self.covers(other):
            return self
        return other if other.covers(self) else Point(max(self.seen, self.target, other.seen, other.target))


def _ended(snapshot: Snapshot) -> int:
    # The transactions in progress are those of the first level; what a savepoint began counts as ended. It is the order
    # alone that matters, and no snapshot puts a number below xmax among those in progress that a former one had not.
    return snapshot.xmax - len(snapshot.xip)


# The leader's end.


def settles(saved: Position, reach: Position) -> bool:
    """Whether what is beside what is read is settled: whoever misses it will notice, or it will be sent again.

    Args:
        saved: Where the cursor was saved, after it was sent.
        reach: Its reach.
    """
    # A heartbeat may have named the very same before it was made: a successor would begin where everybody seems to be.
    done, due = Point.of(saved), Point.of(reach)
    return done != due and done.covers(due)


class Item(NamedTuple):
    """An event for a lane.

    Attributes:
        observer: The address of the observer.
        group: The group, or :data:`EVERYBODY`.
        line: The event as JSON in ASCII.
    """

    observer: str
    group: str
    line: str


class Message(NamedTuple):
    """A message with events, for the layer.

    Attributes:
        stream: Where it goes.
        sent: What was sent in the stream with it.
        text: Its text.
    """

    stream: int
    sent: "Sent"
    text: str


class Sent(NamedTuple):
    """What was sent in a stream in a term.

    Attributes:
        number: Of the last message.
        reach: Up to where in the log what the messages say may lie.
        beside: The number of the last message that is beside what is read, so that no log has what it says; 0 for none.
    """

    number: int
    reach: Point
    beside: int = 0


class Heartbeat(NamedTuple):
    """A heartbeat, for the layer.

    Attributes:
        position: All of the log up to it was sent.
        text: Its text.
    """

    position: Position
    text: str


class Outbound:
    """What a leader sends, for one term.

    Args:
        history: Of the database.
        term: Of the leadership.
        position: Where it goes on.
        max_events: So many entries a message at most.
        max_bytes: So many bytes a message at most; a larger event travels alone.

    Attributes:
        savable: The position that the cursor may be saved at: everybody knows of it.
    """

    def __init__(self, history: History, term: int, position: Position, *, max_events: int, max_bytes: int) -> None:
        self.savable = position
        self._head = {"v": VERSION, "history": history, "term": term}
        self._position = position
        self._limits = max_events, max_bytes
        self._made = [Sent(0, Point.of(position))] * STREAMS
        self._taken = list(self._made)
        self._beat = 0

    @property
    def beside(self) -> Span:
        """The span of what is no read: behind all that was sent."""
        return Span.before(self._position)

    def deliver(self, items: Iterable[Item], reach: Position, span: Span | None = None) -> dict[int, list[Message]]:
        """Make the messages of a delivery.

        Args:
            items: The events, in order.
            reach: Up to where in the log what they say may lie: of a read, its end.
            span: The part of the log that they are made of; None where they are beside what is read.

        Returns:
            By stream. Those of a stream are sent in this order.
        """
        streams: dict[int, tuple[list[Item], list[Item]]] = {}
        places: dict[str, tuple[list[Item], list[Item]]] = {}
        for item in items:
            if (place := places.get(item.observer)) is None:
                place = places[item.observer] = streams.setdefault(stream_of(item.observer), ([], []))
            place[item.group == EVERYBODY].append(item)
        return {
            stream: [self._message(stream, part, reach, span or self.beside) for part in self._cut([*events, *resyncs])]
            for stream, (events, resyncs) in streams.items()
        }

    def _cut(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        most, limit = self._limits
        part: list[Item] = []
        size = 0
        sizes: dict[tuple[str, str], int] = {}
        for item in items:
            observer, group, line = item
            if (names := sizes.get((observer, group))) is None:
                names = sizes[observer, group] = len(_json(group)) + len(_json(observer)) + _OVERHEAD
            added = len(line) + names
            if part and (len(part) >= most or size + added > limit):
                yield part
                part, size = [], 0
            part.append(item)
            size += added
        if part:
            yield part

    def _message(self, stream: int, items: Iterable[Item], reach: Position, span: Span) -> Message:
        before = self._made[stream]
        number = before.number + 1
        lines: list[str] = []
        to: dict[str, dict[str, list[int]]] = {}
        for observer, group, line in items:
            if not lines or lines[-1] is not line:  # one event often goes to several groups
                lines.append(line)
            to.setdefault(observer, {}).setdefault(group, []).append(len(lines) - 1)
        place = [str(span.last), span.target and str(span.target), span.start, span.end]
        head = {**self._head, "stream": stream, "number": number, "reach": before.reach, "beside": before.beside}
        head |= {"span": place, "to": to}
        beside = number if span.is_empty else before.beside
        sent = self._made[stream] = Sent(number, before.reach.both(Point.of(reach)), beside)
        return Message(stream, sent, "\n".join([_json(head), *lines]))

    def taken(self, message: Message) -> None:
        """Note that the layer has a message, or will never take it."""
        self._taken[message.stream] = message.sent

    def advance(self, position: Position) -> None:
        """Note that all of the log up to a position was sent.

        Raises:
            RuntimeError: Messages are still to be taken.
        """
        if self._taken != self._made:
            raise RuntimeError("messages of a delivery are still on their way to the channel layer")
        self._position = position

    def heartbeat(self, observers: Iterable[str] = ()) -> Heartbeat:
        """Make the next heartbeat. One is sent before the next one is made.

        Args:
            observers: The addresses of those that the leader has.
        """
        self._beat += 1
        last, target = self._position.last, self._position.target
        position = [str(last), target and str(target), self._position.after_id]
        streams = [
            [taken.number, made.number, taken.reach, taken.beside]
            for taken, made in zip(self._taken, self._made, strict=True)
        ]
        head = {**self._head, "beat": self._beat, "position": position, "streams": streams}
        head["observers"] = "".join(map(digits_of, observers))
        return Heartbeat(self._position, _json(head))

    def told(self, heartbeat: Heartbeat) -> None:
        """Note that the layer has a heartbeat."""
        self.savable = heartbeat.position


#: Bytes of an entry beside its line and its names.
_OVERHEAD = 16


#: What ``json.dumps`` would make anew for each text.
_json = json.JSONEncoder(separators=(",", ":")).encode


# The process's end.


class Standing(NamedTuple):
    """What the database answers.

    Attributes:
        history: Which one it is.
        term: Of the leadership that began last.
        snapshot: What had been committed.
    """

    history: History
    term: int
    snapshot: Snapshot

    def continues(self, former: "Standing") -> bool:
        """Whether it is of the course of events of a former answer: elsewhere, numbers and positions are others."""
        return self.history == former.history and self.term >= former.term


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """A message with events that are news.

    Attributes:
        stream: Its stream.
        origin: What its events are made of.
        to: Observer and group to places in ``lines``, in order; for whoever is in several lanes, the places say the
            order between them.
        lines: The events as text.
        events: Place to event, of those that somebody wants; whoever may change one parses the line again.
    """

    stream: int
    origin: Origin
    to: Mapping[tuple[str, str], Sequence[int]]
    lines: Sequence[str]
    events: Mapping[int, Event]


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """Events of a stream may be lost.

    Attributes:
        stream: The stream.
        since: What is before it was not lost.
        until: Who has seen what is before it has lost nothing; None where that is not known.
        known_at: When it was known that what is before ``since`` was there, on the clock of the caller.
        beside: Whether there was something among them that is in no log.
    """

    stream: int
    since: Position | None
    until: Point | None
    known_at: float = 0.0
    beside: bool = False

    def concerns(self, snapshot: Snapshot) -> bool:
        """Whether a subscription that began with a snapshot may have lost something."""
        return self.until is None or not Point.at(snapshot).covers(self.until)

    def merge(self, later: "Loss") -> "Loss":
        """Both as one: it concerns whom either of them concerns.

        Args:
            later: Another one of the stream.
        """
        until, beside = later.until, self.beside or later.beside
        if self.until is None or (until is not None and self.until.covers(until)):
            until = self.until
        return dataclasses.replace(self, until=until, beside=beside)


@dataclasses.dataclass(frozen=True, slots=True)
class Doubt:
    """Messages claim a history and a term of which the database is to be asked; the answer goes to ``learn``."""

    history: History
    term: int


@dataclasses.dataclass(frozen=True, slots=True)
class Foreign:
    """There are messages of another database, or of a term that ours has not begun; reported once."""

    history: History
    term: int


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """There are messages that cannot be read; reported once for each term."""

    error: str


Happening = Arrival | Loss | Doubt | Foreign | Unreadable


@dataclasses.dataclass(frozen=True, slots=True)
class _Batch:
    """A message with events as it was read."""

    hash: int
    history: History
    term: int
    stream: int
    number: int
    before: Sent
    span: Span
    to: dict[tuple[str, str], list[int]]
    lines: list[str]
    events: dict[int, Event]


@dataclasses.dataclass(frozen=True, slots=True)
class _Beat:
    """A heartbeat as it was read."""

    history: History
    term: int
    beat: int
    position: Position
    streams: list[tuple[Sent, int]]
    observers: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Promise:
    """What a heartbeat has named and has not come yet."""

    term: int
    sent: Sent
    position: Position
    at: float


@dataclasses.dataclass(slots=True)
class _Stream:
    """What is known of a stream.

    Attributes:
        begun: What is before it is for nobody here, as the database has said.
        start: The position of that.
        joined: What it was at first; since then, what the log has may have been read.
        known: What is before it has come, is for nobody here, or is a Loss that was reported. A heartbeat may set it
            back: then a forged one does no harm for longer than to the next.
        since: The position of the last heartbeat that found all there, or of the snapshot at the beginning.
        at: When that was.
        term: Of the last message.
        last: Its number.
        base: Numbers up to it are old, whenever they come.
        came: The hash of the last message. A layer may repeat it when the numbers have been set back.
        floor: The last number when a heartbeat was last held against one :data:`PATIENCE` seconds before it.
        looked: When that was.
        promises: What heartbeats have named and has not come yet.
    """

    begun: Point | None = None
    start: Position | None = None
    joined: Point | None = None
    known: Point | None = None
    since: Position | None = None
    at: float = 0.0
    term: int = 0
    last: int = 0
    base: int = 0
    came: int | None = None
    floor: int = 0
    looked: float = 0.0
    promises: list[_Promise] = dataclasses.field(default_factory=list)

    def begin(self, snapshot: Snapshot, now: float) -> None:
        """Take it that nothing which a snapshot sees is for anybody here."""
        self.start = Position(snapshot)
        self.reach(self.start, now)
        self.begun = self.known
        self.joined = self.joined or self.begun

    def covers(self, sent: Sent) -> bool:
        """Whether nothing of a term is missing of which nothing has come.

        Without an answer of the database nobody has subscribed.
        """
        if self.begun is None or self.known is None:
            return True
        return self.is_past(sent, 0) or (self.known.covers(sent.reach) and not self.lacks(sent, 0))

    def is_past(self, sent: Sent, number: int) -> bool:
        """Whether all that was sent after a message is for nobody here."""
        return self.begun is not None and self.begun.covers(sent.reach) and not self.lacks(sent, number)

    def lacks(self, sent: Sent, number: int) -> bool:
        """Whether something may be for somebody here that is in no log, and was sent after a message."""
        return sent.beside > number and self.joined is not None and not self.joined.covers(sent.reach)

    def reach(self, position: Position, now: float) -> None:
        """Note that all up to a position is there."""
        self.since, self.known, self.at = position, Point.of(position), now

    def follow(self, number: int) -> None:
        """Note that all up to a number has come, and so what heartbeats have promised of it."""
        self.last = number
        while self.promises and self.promises[0].sent.number <= number:
            promise = self.promises.pop(0)
            self.reach(promise.position, promise.at)

    def adopt(self, term: int, number: int) -> None:
        """Go on after a number."""
        self.term, self.last, self.base, self.floor = term, number, number, 0
        self.promises.clear()


class Inbound:
    """What a process receives from the leaders of a database.

    Args:
        wants: Whether somebody here is in the lane of an observer and a group.

    Attributes:
        beats: Heartbeats that were taken.
    """

    def __init__(self, wants: Callable[[str, str], bool]) -> None:
        self.beats = 0
        self._wants = wants
        self._streams: dict[int, _Stream] = {}
        self._standing: Standing | None = None
        #: When the database first named the term, and the last term that was followed.
        self._named_at, self._followed = 0.0, 0
        self._hears = self._garbled = self._complained = False
        self._observers: frozenset[str] | None = None
        #: The position of the last heartbeat of the present term.
        self._reached: Position | None = None
        self._held: list[tuple[_Batch | _Beat, int]] = []
        self._asking = False
        self._refuted: OrderedDict[tuple[History, int], None] = OrderedDict()
        self._reported: set[History] = set()

    def join(self, stream: int) -> None:
        """Note that the channel is in the group of a stream, if it was not already."""
        self._streams.setdefault(stream, _Stream())

    def leave(self, stream: int) -> None:
        """Forget a stream."""
        self._streams.pop(stream, None)

    def healed(self, stream: int, snapshot: Snapshot, now: float) -> None:
        """Note that all of a stream that a snapshot sees was read from the log: what is missing of that is no loss.

        Args:
            stream: The stream.
            snapshot: Of the present history.
            now: Seconds of some clock.
        """
        state = self._streams.get(stream)
        if state is not None and (state.known is None or not state.known.covers(Point.at(snapshot))):
            state.begin(snapshot, now)

    def has(self, stream: int, snapshot: Snapshot) -> bool:
        """Whether a heartbeat has said that the leader has passed a snapshot, and all of a stream by then is here.

        Args:
            stream: The stream.
            snapshot: Of the present history.
        """
        state, target = self._streams.get(stream), Point.at(snapshot)
        return (
            state is not None
            and state.since is not None
            and not state.promises
            and Point.of(state.since).covers(target)
            and self._reached is not None
            and Point.of(self._reached).covers(target)
        )

    # What the database says.

    def learn(
        self, standing: Standing, streams: Iterable[int], now: float, doubt: Doubt | None = None
    ) -> list[Happening]:
        """Take an answer of the database. Answers are taken in the order of the questions.

        Args:
            standing: The answer.
            streams: Those that had been joined when the question was asked.
            now: Seconds of some clock.
            doubt: That for which it was asked.

        Returns:
            What happened.
        """
        happened: list[Happening] = []
        before, self._standing = self._standing, standing
        if before is None:
            self._followed = standing.term
        elif not standing.continues(before):
            happened += [Loss(stream, None, None) for stream, state in self._streams.items() if state.known is not None]
            self._streams = {stream: _Stream() for stream in self._streams}
            self._followed = standing.term
        if before is None or before[:2] != standing[:2]:
            self._named_at = now
            self._hears = self._garbled = self._complained = False
            self._observers = self._reached = None
        for stream in streams:
            state = self._streams.get(stream)
            if state is not None and state.known is None:
                state.begin(standing.snapshot, now)
        self._refuted.pop(standing[:2], None)
        if doubt is not None:
            self._asking = False
            happened += self._refute(doubt)
        held, self._held = self._held, []
        for message, size in held:
            happened += self._heed(message, size, now)
        return happened

    def _refute(self, doubt: Doubt) -> list[Happening]:
        assert self._standing is not None
        history, term = claim = doubt.history, doubt.term
        if self._is_followed(*claim):
            return []
        self._refuted[claim] = None
        if len(self._refuted) > _REFUTED:
            self._refuted.popitem(last=False)
        is_old = history == self._standing.history and term < self._standing.term
        if is_old or history in self._reported or len(self._reported) >= _REFUTED:
            return []
        self._reported.add(history)
        return [Foreign(history, term)]

    def knows(self, observer: str) -> bool | None:
        """Whether the leader has an observer; None where no heartbeat of its term has come yet."""
        return None if self._observers is None else digits_of(observer) in self._observers

    def silence(self, now: float) -> list[Loss]:
        """Note that somebody leads, and nothing readable has come for :data:`SILENCE`.

        Args:
            now: Seconds of some clock.

        Returns:
            What may be lost: the leader is of another version. Nothing where it is only silent, or has just begun.
        """
        if self._standing is None or (self._hears and not self._garbled) or now - self._named_at < SILENCE:
            return []
        return [loss for stream in self._streams for loss in self._lose(stream, None)]

    # What the layer brings.

    def take(self, message: Any, now: float) -> list[Happening]:
        """Take a message of the channel, whatever it is.

        Args:
            message: The message.
            now: Seconds of some clock.

        Returns:
            What happened, in order. It never raises.
        """
        try:
            read = _read(message, self._wants)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self._garbled = True
            if self._complained:
                return []
            self._complained = True
            return [Unreadable(f"{type(error).__name__}: {error}"[:200])]
        return self._heed(read, len(message[KEY]), now)

    def _heed(self, read: _Batch | _Beat, size: int, now: float) -> list[Happening]:
        claim = (read.history, read.term)
        if self._standing is None or not self._is_followed(*claim):
            return self._hold(read, size, claim)
        self._followed = read.term
        is_present = claim == self._standing[:2]
        self._hears |= is_present
        if isinstance(read, _Beat):
            if is_present:
                self._garbled, self._observers = False, read.observers
            return self._compare(read, now)
        state = self._streams.get(read.stream)
        if state is not None and state.begun is None:
            # What is missing before it may be behind the snapshot that is on its way. The answer brings it.
            self._keep(read, size)
            return []
        return self._follow(read)

    def _is_followed(self, history: History, term: int) -> bool:
        """Whether messages are those of the leader, or of one before it that nobody asked about."""
        standing = self._standing
        return standing is not None and history == standing.history and self._followed <= term <= standing.term

    def _hold(self, read: _Batch | _Beat, size: int, claim: tuple[History, int]) -> list[Happening]:
        if claim in self._refuted:
            return []
        self._keep(read, size)
        if self._asking:
            return []
        self._asking = True
        return [Doubt(*claim)]

    def _keep(self, read: _Batch | _Beat, size: int) -> None:
        if len(self._held) < HELD and size + sum(each for _, each in self._held) <= HELD_BYTES:
            self._held.append((read, size))

    def _follow(self, batch: _Batch) -> list[Happening]:
        """A message with events."""
        state = self._streams.get(batch.stream)
        if state is None:
            return []
        happened: list[Happening] = []
        if batch.hash == state.came:
            # Perhaps a heartbeat that was long on its way has set the number back, as if this one had been forged.
            state.follow(max(state.last, batch.number))
            return []
        if state.term != batch.term:
            if not state.covers(batch.before):
                happened += self._lose(batch.stream, batch.before, 0)
            promises = [promise for promise in state.promises if promise.term == batch.term]
            state.adopt(batch.term, 0)
            state.promises = promises
        elif batch.number <= state.base or batch.number == state.last:
            return []
        elif batch.number < state.last:
            # No layer does this: one of the two is forged, or its order is not that of the leader. What comes late must
            # not be applied after what is newer, so it is lost too.
            state.adopt(batch.term, batch.number)
            return [*self._lose(batch.stream, None)]
        elif batch.number > state.last + 1:
            happened += self._lose(batch.stream, batch.before, state.last)
        state.came = batch.hash
        state.follow(batch.number)
        if batch.to:
            origin = Origin(batch.history, batch.span)
            happened.append(Arrival(batch.stream, origin, batch.to, batch.lines, batch.events))
        return happened

    def _compare(self, beat: _Beat, now: float) -> list[Happening]:
        """A heartbeat."""
        self.beats += 1
        self._reached = beat.position
        happened: list[Happening] = []
        for stream, state in self._streams.items():
            if state.known is not None:
                happened += self._check(stream, state, beat, now)
        return happened

    def _check(self, stream: int, state: _Stream, beat: _Beat, now: float) -> Iterator[Loss]:
        taken, made = beat.streams[stream]
        if state.promises and state.promises[0].term != beat.term:
            state.promises.clear()  # the points decide
        if expired := [promise.sent for promise in state.promises if now - promise.at >= PATIENCE]:
            yield from self._lose(stream, expired[-1], state.last if state.term == beat.term else 0)
            state.adopt(beat.term, min(expired[-1].number, made))
        looks = now - state.looked >= PATIENCE
        if looks and state.term == beat.term and state.floor > made:
            # A number that the leader had not reached when it came: it was forged.
            yield from self._lose(stream, None)
            state.adopt(beat.term, taken.number)
        is_same = state.term == beat.term
        if state.last >= taken.number or state.is_past(taken, state.last) if is_same else state.covers(taken):
            if not is_same or state.last < taken.number:
                state.adopt(beat.term, taken.number)
            state.promises.clear()
            state.reach(beat.position, now)
        elif len(state.promises) < _PROMISES:
            state.promises.append(_Promise(beat.term, taken, beat.position, now))
        if looks:
            state.looked, state.floor = now, state.last if state.term == beat.term else 0

    def _lose(self, stream: int, sent: Sent | None, number: int = 0) -> list[Loss]:
        """Note that what was sent in a stream, after a number, has not come."""
        state = self._streams[stream]
        if state.begun is None:
            return []
        until, beside = None, False
        if sent is not None:
            until, beside = sent.reach, state.lacks(sent, number)
            if state.begun.covers(until) and not beside:
                return []
        # A leader that has nothing to read stays where it is, which may be before the log of today.
        is_behind = state.known is not None and state.begun.covers(state.known)
        loss = Loss(stream, state.start if is_behind else state.since, until, state.at, beside)
        if until is not None and state.known is not None and until.covers(state.known):
            state.known = until
        return [loss]


# Reading.


def _read(message: Any, wants: Callable[[str, str], bool]) -> _Batch | _Beat:
    """Read a message.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, RecursionError: It is none of ours.
    """
    text = message[KEY]
    if not isinstance(text, str):
        raise TypeError("it is no text")
    first, *lines = text.split("\n")
    head = json.loads(first)
    if head["v"] != VERSION:
        raise ValueError(f"its version is {head['v']!r:.50}, and here is {VERSION}")
    system, database, log, timeline = map(_int, head["history"])
    history, term = History(system, database, log, timeline), _int(head["term"])
    if "beat" in head:
        position, streams, observers = _position(*head["position"]), _streams(head["streams"]), head["observers"]
        return _Beat(history, term, _int(head["beat"]), position, streams, _observers(observers))
    stream = _int(head["stream"], STREAMS)
    to = {
        (observer, group): [_int(place, len(lines)) for place in places]
        for observer, groups in head["to"].items()
        for group, places in groups.items()
        if wants(observer, group)
    }
    events = {place: parse(lines[place]) for places in to.values() for place in places}
    number, span = _int(head["number"]), _span(*head["span"])
    before = Sent(number - 1, _point(head["reach"]), _int(head["beside"], number))
    return _Batch(hash(text), history, term, stream, number, before, span, to, lines, events)


def _int(value: Any, limit: int = _INT) -> int:
    if type(value) is not int or not 0 <= value < limit:  # True is an int
        raise ValueError(f"{value!r:.50} is no number below {limit}")
    return value


def _point(fields: Any) -> Point:
    seen, target, after_id = map(_int, fields)
    return Point(seen, target, after_id)


def _position(last: str, target: str | None, after_id: int | None) -> Position:
    return Position(
        _snapshot(last), None if target is None else _snapshot(target), None if after_id is None else _int(after_id)
    )


def _span(last: str, target: str | None, start: int, end: int | None) -> Span:
    return Span(
        _snapshot(last),
        None if target is None else _snapshot(target),
        _int(start),
        None if end is None else _int(end),
    )


def _snapshot(text: str) -> Snapshot:
    snapshot = Snapshot.parse(text)
    if not max(snapshot.xip, default=0) <= snapshot.xmax < _XID:
        raise ValueError("its position is none")
    return snapshot


def _observers(digits: Any) -> frozenset[str]:
    if not isinstance(digits, str) or len(digits) % _DIGITS:
        raise ValueError("its observers are none")
    return frozenset(digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS))


def _streams(entries: Any) -> list[tuple[Sent, int]]:
    streams = [
        (Sent(_int(taken), _point(reach), _int(beside, taken + 1)), _int(made))
        for taken, made, reach, beside in entries
    ]
    if len(streams) != STREAMS:
        raise ValueError(f"it has {len(streams)} streams, and here are {STREAMS}")
    return streams
