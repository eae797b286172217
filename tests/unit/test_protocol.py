"""The wire: no loss is unnoticed, none is false, nothing is out of order, and nothing that comes off the layer raises.

:class:`Wire` drives both ends in the order in which a leader calls its own: reads, deliveries in parts, messages that
are handed over and taken one by one, heartbeats beside them, saves, kills and stops. The layer between them keeps the
order within a group and none between groups. ``DJCRF_PG_TEST_LONG=1`` (``make long``) takes many more histories: some
faults were in one of ten thousand.
"""

import dataclasses
import json
import os
from collections import deque
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from djcrf_pg.changelog.cursor import BEGINNING, Position, Snapshot, Span
from djcrf_pg.delivery import protocol
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.delivery.protocol import (
    EVERYBODY,
    KEY,
    PATIENCE,
    SILENCE,
    STREAMS,
    TYPE,
    Arrival,
    Doubt,
    Foreign,
    Happening,
    History,
    Inbound,
    Item,
    Loss,
    Message,
    Outbound,
    Point,
    Standing,
    Unreadable,
    settles,
    stream_of,
)

OURS = History(7, 5, 16_402, 1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).isoformat()
OBSERVER = "app.consumers.tasks"
OTHER = next(name for number in range(100) if stream_of(name := f"app.{number}") != stream_of(OBSERVER))

#: Two lanes of one stream, and one of another.
LANES = ["a0", "a1", "b0"]
OBSERVERS = {"a": OBSERVER, "b": OTHER}
OF_STREAM = {stream: [lane for lane in LANES if stream_of(OBSERVERS[lane[0]]) == stream] for stream in range(STREAMS)}
USED = [stream for stream, lanes in OF_STREAM.items() if lanes]

FATES = st.sampled_from(["arrives", "drops", "arrives", "repeats", "fails", "arrives"])
"""What becomes of a message."""

BEATS = -1
"""The group of the heartbeats, among those of the streams."""


def wire(text: str) -> dict[str, Any]:
    """As the layer carries it."""
    return {"type": TYPE, KEY: text}


def line(change_id: int, xid: int, body: Any = None) -> str:
    """An event."""
    return json.dumps(["update", body, change_id, xid, NOON, [], None, None], separators=(",", ":"))


class Database:
    """As much of PostgreSQL as a change log is made of."""

    def __init__(self) -> None:
        self._next, self._completed = 10, 9
        self.running: list[int] = []
        self.log: dict[int, tuple[int, str]] = {}
        self.term = 0
        self.cursor = Position(BEGINNING)

    def begin(self) -> int:
        """A transaction that gets an id."""
        xid = self._next
        self._next += 1
        self.running.append(xid)
        return xid

    def write(self, xid: int, lane: str) -> int:
        """A change."""
        id = len(self.log) + 1
        self.log[id] = (xid, lane)
        return id

    def savepoint(self) -> None:
        """A transaction within another, that has an id and ends; it is in no snapshot's list."""
        self._completed = max(self._completed, self._next)
        self._next += 1

    def commit(self, xid: int) -> None:
        """The end of a transaction."""
        self.running.remove(xid)
        self._completed = max(self._completed, xid)

    def snapshot(self) -> Snapshot:
        """pg_current_snapshot()"""
        xmax = self._completed + 1
        xip = frozenset(xid for xid in self.running if xid < xmax)
        return Snapshot(min(xip, default=xmax), xmax, xip)

    def committed(self, lane: str) -> set[int]:
        """What a list of a lane would show."""
        return {id for id, (xid, of) in self.log.items() if of == lane and xid not in self.running}

    def window(self, position: Position, limit: int) -> tuple[list[int], Position]:
        """The next piece."""
        target = position.target or self.snapshot()
        after = position.after_id or 0
        ids = [
            id
            for id, (xid, _) in self.log.items()
            if id > after and target.sees(xid) and not position.last.sees(xid) and xid not in self.running
        ]
        if len(ids) > limit:
            return ids[:limit], Position(position.last, target, ids[limit - 1])
        return ids, Position(target)


@dataclasses.dataclass
class Subscription:
    """A client that loads its list when it subscribes and after each loss.

    Attributes:
        lane: What it subscribed to.
        snapshot: When it did.
        has: The changes, and what was asked for again, that its list shows.
        last: The place of the last event that came, in the order in which leaders sent them.
    """

    lane: str
    snapshot: Snapshot
    has: set[int]
    last: int = 0


class Wire(RuleBasedStateMachine):
    """Both ends, a layer that loses nothing, and the database."""

    lossy = False

    def __init__(self) -> None:
        super().__init__()
        self.db = Database()
        self.now = 0.0
        self.out: Outbound | None = None
        self.position = Position(BEGINNING)
        self.parts: list[tuple[list[Item], Position, Span | None]] = []
        self.pending: dict[int, list[Message]] = {}
        self.asked: dict[int, str] = {}
        self.asked_ever: dict[int, str] = {}
        self.asks = self.order = 0
        self.sending: set[int] = set()
        self.reaches: dict[int, Position] = {}
        self.delivered: set[int] = set()
        self.lanes: dict[int, deque[str]] = {stream: deque() for stream in [BEATS, *USED]}
        self.streams: set[int] = set()
        self.inbound = Inbound(lambda observer, group: group in LANES and observer == OBSERVERS[group[0]])
        self.doubt: Doubt | None = None
        self.subscriptions: list[Subscription] = []
        self.dropped: dict[int, int] = dict.fromkeys(USED, 0)
        self.lost: dict[int, int] = dict.fromkeys(USED, 0)

    @initialize(lanes=st.sets(st.sampled_from(LANES)))
    def begin(self, lanes: set[str]) -> None:
        self.lead()
        for lane in lanes:
            self.subscribe(lane)

    # Writers.

    @rule(lane=st.sampled_from(LANES))
    def change(self, lane: str) -> None:
        xid = self.db.begin()
        self.db.write(xid, lane)
        self.db.commit(xid)

    @rule(lane=st.sampled_from(LANES))
    def change_in_a_transaction_that_goes_on(self, lane: str) -> None:
        self.db.write(self.db.begin(), lane)

    @precondition(lambda self: self.db.running)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.db.commit(data.draw(st.sampled_from(self.db.running)))

    @rule()
    def savepoint(self) -> None:
        self.db.savepoint()

    @rule(lane=st.sampled_from(LANES))
    def ask_for_a_row_again(self, lane: str) -> None:
        """What `manage.py djcrf_pg failures --retry` does: a transaction, but it has no place in the log."""
        self.db.commit(self.db.begin())
        self.asks -= 1
        self.asked[self.asks] = self.asked_ever[self.asks] = lane

    # The leader.

    @precondition(lambda self: self.out is None)
    @rule()
    def lead(self) -> None:
        if not self.lossy:
            self.receive_all()  # a new leader takes longer than a message, if not than an answer of the database
        self.db.term += 1
        self.position = self.db.cursor
        self.out = Outbound(OURS, self.db.term, self.position, max_events=2, max_bytes=10_000)
        self.beat(arrives=True)

    @property
    def may_read(self) -> bool:
        """Whether a leader has nothing on its hands."""
        return self.out is not None and not self.parts and not self.pending

    @precondition(lambda self: self.may_read)
    @rule(limit=st.integers(1, 4), cut=st.integers(0, 3))
    def read(self, limit: int, cut: int) -> None:
        begin = self.position
        ids, self.position = self.db.window(begin, limit)
        items = [self.item(id, *self.db.log[id]) for id in ids]
        span = Span.between(begin, self.position)
        self.parts = [(part, self.position, span) for part in (items[:cut], items[cut:]) if part]
        self.go_on()

    @precondition(lambda self: self.may_read and self.asked)
    @rule()
    def send_again(self) -> None:
        reach = Position(self.db.snapshot())
        self.reaches |= dict.fromkeys(self.asked, reach)
        self.sending = set(self.asked)
        self.parts = [([self.item(id, 2**62, lane) for id, lane in self.asked.items()], reach, None)]
        self.go_on()

    def item(self, id: int, xid: int, lane: str) -> Item:
        """An event that says in what order it was sent."""
        self.order += 1
        return Item(OBSERVERS[lane[0]], lane, line(abs(id), xid, [id, self.order]))

    def go_on(self) -> None:
        """Take the next part, or advance."""
        assert self.out is not None
        if not self.pending and self.parts:
            self.pending = self.out.deliver(*self.parts.pop(0))
        if not self.pending:
            self.out.advance(self.position)
            self.delivered |= self.sending
            self.sending = set()

    @precondition(lambda self: self.pending)
    @rule(place=st.integers(0, STREAMS), fate=FATES)
    def send(self, place: int, fate: str) -> None:
        assert self.out is not None
        stream = sorted(self.pending)[place % len(self.pending)]
        message = self.pending[stream][0]
        if fate == "drops" and self.may_drop(stream):
            if stream in self.streams:
                self.dropped[stream] += 1
        elif stream in self.streams:
            self.lanes[stream].extend([message.text] * (2 if fate == "repeats" else 1))
        if fate == "fails":
            return  # the layer has it, its answer was lost, and it will be sent again
        self.out.taken(message)
        self.pending[stream].pop(0)
        if not self.pending[stream]:
            del self.pending[stream]
        self.go_on()

    @precondition(lambda self: self.may_read)
    @rule(lanes=st.lists(st.sampled_from(LANES), min_size=1, max_size=5), fates=st.lists(FATES, max_size=8))
    def change_and_send(self, lanes: list[str], fates: list[str]) -> None:
        for lane in lanes:
            self.change(lane)
        self.read(limit=3, cut=1)
        for fate in fates:
            if self.pending:
                self.send(len(fate), fate)

    def may_drop(self, stream: int) -> bool:
        """Whether the layer may drop something."""
        return self.lossy

    @precondition(lambda self: self.out is not None)
    @rule(arrives=st.booleans())
    def beat(self, arrives: bool) -> None:
        assert self.out is not None
        heartbeat = self.out.heartbeat()
        if arrives or not self.lossy:
            self.lanes[BEATS].append(heartbeat.text)
        self.out.told(heartbeat)

    @precondition(lambda self: self.out is not None)
    @rule()
    def save(self) -> None:
        assert self.out is not None
        self.db.cursor = self.out.savable
        for id in self.delivered & self.asked.keys():
            if settles(self.db.cursor, self.reaches[id]):
                del self.asked[id]

    @precondition(lambda self: self.out is not None)
    @rule()
    def kill(self) -> None:
        self.out, self.parts, self.pending = None, [], {}
        self.delivered = self.sending = set()

    @precondition(lambda self: self.may_read)
    @rule(arrives=st.booleans())
    def stop(self, arrives: bool) -> None:
        self.beat(arrives)
        self.save()
        self.kill()

    @rule(lane=st.sampled_from(LANES))
    def fail_over(self, lane: str) -> None:
        """A leader that has sent little when the next one comes."""
        self.kill()
        self.lead()
        self.change_and_send([lane], ["arrives"])

    # The process.

    @rule(stream=st.sampled_from(USED))
    def join(self, stream: int) -> None:
        self.streams.add(stream)
        self.inbound.join(stream)

    @rule(lane=st.sampled_from(LANES))
    def subscribe(self, lane: str) -> None:
        self.join(stream_of(OBSERVERS[lane[0]]))
        self.ask()
        self.subscriptions.append(Subscription(lane, self.db.snapshot(), self.loaded(lane)))

    def loaded(self, lane: str) -> set[int]:
        """What a list that is loaded now shows."""
        return self.db.committed(lane) | {id for id in self.asked_ever if self.asked_ever[id] == lane}

    @rule()
    def ask(self) -> None:
        standing = Standing(OURS, self.db.term, self.db.snapshot())
        doubt, self.doubt = self.doubt, None
        self.heed(self.inbound.learn(standing, self.streams, self.now, doubt))

    @precondition(lambda self: len(self.subscriptions) > 3)
    @rule(stream=st.sampled_from(USED))
    def leave(self, stream: int) -> None:
        self.streams.discard(stream)
        self.inbound.leave(stream)
        self.subscriptions = [one for one in self.subscriptions if stream_of(OBSERVERS[one.lane[0]]) != stream]

    @precondition(lambda self: any(self.lanes.values()))
    @rule(place=st.integers(0, 2), count=st.integers(1, 4))
    def receive(self, place: int, count: int) -> None:
        lanes = [texts for texts in self.lanes.values() if texts]
        texts = lanes[place % len(lanes)]
        for _ in range(min(count, len(texts))):
            self.heed(self.inbound.take(wire(texts.popleft()), self.now))

    @rule()
    def pass_time(self) -> None:
        if not self.lossy:
            self.flush()
        self.now += PATIENCE

    def receive_all(self) -> None:
        """Receive all that is on its way."""
        for texts in self.lanes.values():
            while texts:
                self.heed(self.inbound.take(wire(texts.popleft()), self.now))

    def flush(self) -> None:
        """Receive all that is on its way, and have the database answer."""
        self.receive_all()
        if self.doubt is not None:
            self.ask()

    def heed(self, happened: list[Happening]) -> None:
        """Do as a hub does."""
        for one in happened:
            match one:
                case Doubt():
                    self.doubt = one
                case Loss():
                    self.lost[one.stream] += 1
                    for subscription in self.subscriptions:
                        if subscription.lane in OF_STREAM[one.stream]:
                            self.make_good(one, subscription)
                case Arrival():
                    for subscription in self.subscriptions:
                        for place in one.to.get((OBSERVERS[subscription.lane[0]], subscription.lane), ()):
                            self.show(subscription, one.events[place])
                case _:
                    raise AssertionError(one)

    def make_good(self, loss: Loss, subscription: Subscription) -> None:
        """Have a client load its list, if it is concerned."""
        if loss.concerns(subscription.snapshot):
            subscription.has |= self.loaded(subscription.lane)

    def show(self, subscription: Subscription, event: Event) -> None:
        """Have a client take an event."""
        id, order = event.body
        assert order > subscription.last, "an event came twice, or after a later one"
        subscription.last = order
        if not subscription.snapshot.sees(event.xid):
            subscription.has.add(id)

    def settle(self) -> None:
        """Let everything that goes on come to its end, over a layer that drops no more."""
        self.lossy = False
        if self.out is None:
            self.lead()
        assert self.out is not None
        for _ in range(200):
            for stream in list(self.pending):
                for message in self.pending.pop(stream):
                    if stream in self.streams:
                        self.lanes[stream].append(message.text)
                    self.out.taken(message)
            self.go_on()
            if self.may_read:
                break
        for xid in list(self.db.running):
            self.db.commit(xid)
        for _ in range(2):
            self.beat(arrives=True)
            self.flush()
            self.now += 1
            self.ask()
        self.flush()

    def missing(self) -> list[tuple[Subscription, set[int]]]:
        """What clients do not show of what was delivered by now."""
        read, target, after = self.position.last, self.position.target, self.position.after_id or 0
        delivered = {
            id
            for id, (xid, _) in self.db.log.items()
            if read.sees(xid) or (target is not None and target.sees(xid) and id <= after)
        }
        found = []
        for one in self.subscriptions:
            due = delivered & self.db.committed(one.lane)
            due |= {id for id, lane in self.asked_ever.items() if lane == one.lane and id not in self.asked}
            if due - one.has:
                found.append((one, due - one.has))
        return found

    def teardown(self) -> None:
        self.settle()
        assert not self.missing()


class Complete(Wire):
    """A layer that loses nothing: there is no Loss, whatever else happens."""

    @invariant()
    def no_loss_is_false(self) -> None:
        for stream in USED:
            assert self.lost[stream] <= self.dropped[stream]


class Lossy(Wire):
    """A layer that drops whatever it likes: no subscription misses anything without a Loss."""

    lossy = True


class Healed(Lossy):
    """What is lost is read from the log, and that has nothing of what was asked for again. One leader leads."""

    def kill(self) -> None:
        """It goes on: nobody tells what only its predecessor has sent beside what it read."""

    stop = fail_over = kill  # type: ignore[assignment]

    @precondition(lambda self: self.may_read)
    @rule(lane=st.sampled_from(LANES), fate=FATES)
    def send_a_row_again(self, lane: str, fate: str) -> None:
        self.ask_for_a_row_again(lane)
        self.send_again()
        self.send(0, fate)

    def settle(self) -> None:
        super().settle()
        self.save()

    def make_good(self, loss: Loss, subscription: Subscription) -> None:
        load = self.loaded if loss.beside else self.db.committed
        subscription.has |= load(subscription.lane)
        self.inbound.healed(loss.stream, self.db.snapshot(), self.now)


HISTORIES = 15_000 if os.environ.get("DJCRF_PG_TEST_LONG") == "1" else 250
PROFILE = settings(
    max_examples=HISTORIES, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)

TestComplete = Complete.TestCase
TestComplete.settings = PROFILE
TestLossy = Lossy.TestCase
TestLossy.settings = PROFILE
TestHealed = Healed.TestCase
TestHealed.settings = PROFILE

# The order of snapshots.


@given(st.lists(st.sampled_from(["begin", "commit first", "commit last", "savepoint"]), max_size=30))
def test_points_are_in_the_order_of_time(steps: list[str]) -> None:
    db, former = Database(), []
    for step in ["begin", "begin", *steps]:
        if step == "begin":
            db.begin()
        elif step == "savepoint":
            db.savepoint()
        elif db.running:
            db.commit(db.running[0 if step == "commit first" else -1])
        former.append(db.snapshot())
    for place, earlier in enumerate(former):
        for later in former[place:]:
            assert Point.of(Position(later)).covers(Point.of(Position(earlier)))
            assert Point.of(Position(earlier)).covers(Point.of(Position(later))) is (earlier == later)


def test_within_a_window_the_id_decides_and_its_end_covers_it() -> None:
    last, target, other = Snapshot(10, 10), Snapshot(20, 20), Snapshot(30, 30)
    order = [Point.of(one) for one in (Position(last), Position(last, target, 3), Position(last, target, 4))]
    order.append(Point.of(Position(target)))
    for place, point in enumerate(order):
        assert all(point.covers(earlier) for earlier in order[: place + 1])
        assert not any(point.covers(later) for later in order[place + 1 :])
    # Two windows from the same place have different rows below the same id.
    assert not Point.of(Position(last, other, 9)).covers(order[1])
    assert not order[2].covers(Point.of(Position(last, other, 1)))


def test_of_two_points_that_do_not_cover_each_other_a_third_one_covers_both() -> None:
    """A row is sent again in the middle of a window: what it says may lie behind the window's beginning."""
    place = Point.of(Position(Snapshot(10, 10), Snapshot(20, 20), 3))
    for between in (Point(15), Point(20), Point(30), Point(10)):
        for both in (place.both(between), between.both(place)):
            assert both.covers(place)
            assert both.covers(between)
            assert both.seen <= 30


# What comes off the layer.


BETWEEN = Position(Snapshot(10, 10)), Position(Snapshot(12, 12))
"""Where the read begins and ends that these messages are of."""


def outbound(position: Position | None = None, **limits: int) -> Outbound:
    """A leader's end."""
    return Outbound(OURS, 3, position or Position(Snapshot(10, 10)), **{"max_events": 10, "max_bytes": 1_000, **limits})


def inbound(*streams: int) -> Inbound:
    """A process's end, that wants everything."""
    end = Inbound(lambda observer, group: True)
    for stream in streams or USED:
        end.join(stream)
    assert end.learn(Standing(OURS, 3, Snapshot(10, 10)), streams or USED, 0.0) == []
    return end


def one(out: Outbound, lane: str = LANES[0], body: Any = None) -> str:
    """A message with one event, which the layer has taken."""
    return sent(out, Item(OBSERVER, lane, line(1, 11, body)), 12, Span.between(*BETWEEN))


def beside(out: Outbound, xmax: int) -> str:
    """A message that is beside what is read: a row that is sent again."""
    return sent(out, Item(OBSERVER, LANES[0], line(1, 2**62)), xmax, None)


def sent(out: Outbound, item: Item, reach: int, span: Span | None) -> str:
    """A message that the layer has taken."""
    ((message,),) = out.deliver([item], Position(Snapshot(reach, reach)), span).values()
    out.taken(message)
    return message.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A message of which one part is another."""
    out = outbound()
    text = one(out) if draw(st.booleans()) else out.heartbeat().text
    head, *lines = text.split("\n")
    if lines and draw(st.booleans()):
        fields = json.loads(lines[0])
        fields[draw(st.integers(0, len(fields) - 1))] = draw(JSON)
        lines = [json.dumps(fields)]
    else:
        fields = json.loads(head)
        path, inner = draw(st.sampled_from(sorted(fields))), draw(st.booleans())
        if inner and isinstance(fields[path], list):
            fields[path][draw(st.integers(0, len(fields[path]) - 1))] = draw(JSON)
        elif draw(st.booleans()):
            del fields[path]
        else:
            fields[path] = draw(JSON)
        head = json.dumps(fields)
    return "\n".join([head, *lines])


@given(st.lists(damaged().map(wire) | JSON | st.fixed_dictionaries({KEY: JSON | JSON.map(json.dumps)}), max_size=5))
@example([wire("[" * 100_000)])
@example([wire('{"v":2}'), wire("9" * 10_000), wire("")])
def test_whatever_comes_off_the_layer_raises_nothing_and_the_next_heartbeats_put_it_right(messages: list[Any]) -> None:
    """The right term is known, so this may be two losses for each stream. Then everything is received again."""
    end, out, now = inbound(), outbound(), 0.0
    happened = [one for message in messages for one in end.take(message, now)]
    assert sum(isinstance(one, Unreadable) for one in happened) <= 1
    for doubt in [one for one in happened if isinstance(one, Doubt)]:
        happened += end.learn(Standing(OURS, 3, Snapshot(10, 10)), USED, now, doubt)
    for _ in range(3):
        now += 1.0
        happened += end.take(wire(out.heartbeat().text), now)
    losses = [one for one in happened if isinstance(one, Loss)]
    assert all(sum(loss.stream == stream for loss in losses) <= 2 * len(messages) for stream in USED)
    for number in range(3):
        (arrival,) = end.take(wire(one(out, body=number)), now)
        assert isinstance(arrival, Arrival)
        assert arrival.events[0].body == number


def test_a_loss_says_whether_something_is_lost_that_is_in_no_log() -> None:
    stream = stream_of(OBSERVER)
    for lost, is_beside in ((one, False), (lambda out: beside(out, 13), True)):
        end, out = inbound(stream), outbound()
        lost(out)
        (by_number, _) = end.take(wire(one(out)), 0.0)
        assert isinstance(by_number, Loss)
        assert by_number.beside is is_beside
        (again, _) = (one(out), end.take(wire(one(out)), 0.0)[0])[::-1]
        assert isinstance(again, Loss)
        assert not again.beside, "that was lost before"
        lost(out)
        assert [each for at in (0.0, 1.0) for each in end.take(wire(out.heartbeat().text), at)] == [
            Loss(stream, by_number.since, again.until, 0.0, is_beside)
        ]


def test_what_is_in_no_log_is_lost_also_where_the_log_was_read_meanwhile() -> None:
    stream = stream_of(OBSERVER)
    for promised in (True, False):
        end, out = inbound(stream), outbound()
        beside(out, 12)
        end.healed(stream, Snapshot(13, 13), 0.0)
        texts = [out.heartbeat().text, out.heartbeat().text] if promised else [one(out)]
        losses = [each for at, text in enumerate(texts) for each in end.take(wire(text), at) if isinstance(each, Loss)]
        assert [loss.beside for loss in losses] == [True]


def test_what_is_sent_again_within_a_window_is_beside_it_too() -> None:
    stream = stream_of(OBSERVER)
    end, out = inbound(stream), outbound()
    out.advance(Position(Snapshot(10, 10), Snapshot(20, 20), 5))
    beside(out, 13)
    (loss, _) = end.take(wire(one(out)), 0.0)
    assert isinstance(loss, Loss)
    assert loss.beside


def test_what_is_in_no_log_and_was_sent_before_somebody_joined_is_nobody_s_loss() -> None:
    stream = stream_of(OBSERVER)
    end, out = inbound(stream), outbound()
    beside(out, 9)
    assert [each for at in (0.0, 1.0) for each in end.take(wire(out.heartbeat().text), at)] == []


@pytest.mark.parametrize(
    "fields",
    [
        ["update", {}, 1, 1, "2026-01-01T00:00:00", [], None, None],
        ["update", {}, 1, True, NOON, [], None, None],
        ["update", {}, 1, 1, NOON, [], None, "old"],
        ["update", {}, 1, 1, NOON, None, None, None],
        ["resync", "body", 1, 1, NOON, [], None, None],
        ["resync", {}, 1, 1, NOON, [], None, None],
        ["update", {}],
        {},
    ],
)
def test_an_event_that_is_damaged_has_not_come_and_that_is_one_loss(fields: Any) -> None:
    end, out = inbound(), outbound()
    good = one(out)
    head, _ = good.split("\n")
    (unreadable,) = end.take(wire(f"{head}\n{json.dumps(fields)}"), 0.0)
    assert isinstance(unreadable, Unreadable)
    found = [*end.take(wire(one(out)), 0.0), *end.take(wire(out.heartbeat().text), 1.0)]
    assert [type(one) for one in found] == [Loss, Arrival]


def test_events_that_nobody_here_wants_are_not_even_read() -> None:
    end, out = Inbound(lambda observer, group: group == LANES[0]), outbound()
    for stream in USED:
        end.join(stream)
    end.learn(Standing(OURS, 3, Snapshot(10, 10)), USED, 0.0)
    items = [Item(OBSERVER, LANES[1], "damaged"), Item(OBSERVER, LANES[0], line(1, 11))]
    ((message,),) = out.deliver(items, Position(Snapshot(12, 12))).values()
    (arrival,) = end.take(wire(message.text), 0.0)
    assert isinstance(arrival, Arrival)
    assert arrival.to == {(OBSERVER, LANES[0]): [1]}
    assert list(arrival.events) == [1]


# Whose messages they are.


def test_another_site_on_the_same_layer_is_ignored_and_reported_once() -> None:
    end, out, theirs = (
        inbound(),
        outbound(),
        Outbound(OURS._replace(system=8), 99, Position(Snapshot(10, 10)), max_events=9, max_bytes=9),
    )
    happened: list[Happening] = []
    for _ in range(5):
        for doubt in end.take(wire(one(theirs)), 0.0):
            assert isinstance(doubt, Doubt)
            happened += end.learn(Standing(OURS, 3, Snapshot(10, 10)), USED, 0.0, doubt)
    assert happened == [Foreign(OURS._replace(system=8), 99)]
    (arrival,) = end.take(wire(one(out)), 0.0)
    assert isinstance(arrival, Arrival)


@pytest.mark.parametrize("term", [1, 2, 4, 10**12])
def test_a_term_that_the_database_does_not_confirm_deafens_nobody(term: int) -> None:
    end, out = inbound(), outbound()
    forged = Outbound(OURS, term, Position(Snapshot(10, 10)), max_events=9, max_bytes=9)
    (doubt,) = end.take(wire(one(forged)), 0.0)
    assert isinstance(doubt, Doubt)
    (arrival,) = end.take(wire(one(out)), 0.0)
    assert isinstance(arrival, Arrival), "the own leader is received while the database is asked"
    reported = end.learn(Standing(OURS, 3, Snapshot(10, 10)), USED, 0.0, doubt)
    assert reported == ([] if term < 3 else [Foreign(OURS, term)])
    assert end.take(wire(one(forged)), 0.0) == []
    (arrival,) = end.take(wire(one(out)), 0.0)
    assert isinstance(arrival, Arrival)


def test_messages_of_a_new_leader_are_held_until_the_database_has_confirmed_it() -> None:
    end, out = inbound(), Outbound(OURS, 4, Position(Snapshot(10, 10)), max_events=9, max_bytes=9)
    (doubt,) = end.take(wire(one(out, body="first")), 0.0)
    assert end.take(wire(one(out, body="second")), 0.0) == []
    assert isinstance(doubt, Doubt)
    held = end.learn(Standing(OURS, 4, Snapshot(10, 10)), USED, 0.0, doubt)
    assert [arrival.events[0].body for arrival in held if isinstance(arrival, Arrival)] == ["first", "second"]
    assert len(held) == 2


def test_leaders_that_came_and_went_before_the_database_answered_are_followed_in_order() -> None:
    end = inbound()
    first, second, third = [
        Outbound(OURS, term, Position(Snapshot(10, 10)), max_events=9, max_bytes=9) for term in (4, 5, 6)
    ]
    (doubt,) = end.take(wire(one(first, body="first")), 0.0)
    assert isinstance(doubt, Doubt)
    assert [end.take(wire(one(out, body="held")), 0.0) for out in (second, first)] == [[], []]
    found = end.learn(Standing(OURS, 6, Snapshot(40, 40)), USED, 0.0, doubt)
    assert [one.events[0].body for one in found if isinstance(one, Arrival)] == ["first", "held"]
    assert isinstance(found[2], Doubt), "the first is not followed any more when the second was"
    (arrival,) = end.take(wire(one(third)), 0.0)
    assert isinstance(arrival, Arrival)


def test_what_is_held_has_bounds_and_what_is_over_them_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HELD", 2)
    end, out = inbound(), Outbound(OURS, 4, Position(Snapshot(10, 10)), max_events=9, max_bytes=9)
    (doubt, *_), *_ = [end.take(wire(one(out, body=number)), 0.0) for number in range(3)]
    assert isinstance(doubt, Doubt)
    held = end.learn(Standing(OURS, 4, Snapshot(10, 10)), USED, 0.0, doubt)
    assert [type(one) for one in [*held, *end.take(wire(one(out)), 0.0)]] == [Arrival, Arrival, Loss, Arrival]


@pytest.mark.parametrize(
    "now", [Standing(OURS, 2, Snapshot(5, 5)), Standing(OURS._replace(timeline=2), 3, Snapshot(5, 5))]
)
def test_a_database_that_went_back_is_a_loss_of_everything_and_its_leader_is_received(now: Standing) -> None:
    end = inbound()
    out = Outbound(now.history, now.term, Position(Snapshot(5, 5)), max_events=9, max_bytes=9)
    (doubt,) = end.take(wire(one(out)), 0.0)
    assert isinstance(doubt, Doubt)
    *losses, arrival = end.learn(now, USED, 0.0, doubt)
    assert losses == [Loss(stream, None, None) for stream in USED]
    assert isinstance(arrival, Arrival)


def test_a_leader_of_another_version_is_one_report_and_a_loss_for_each_stream_as_long_as_it_leads() -> None:
    end, out = inbound(), outbound()
    text = one(out)
    other = wire(text.replace('"v":2', '"v":3'))
    found = [happening for _ in range(5) for happening in end.take(other, 0.0)]
    assert found == [Unreadable("ValueError: its version is 3, and here is 2")]
    assert {loss.stream for loss in end.silence(SILENCE)} == set(USED)
    assert end.take(other, SILENCE) == []
    assert {loss.stream for loss in end.silence(SILENCE)} == set(USED)


def test_a_leader_of_which_nothing_comes_is_a_loss_and_one_that_falls_silent_is_none() -> None:
    end, out = inbound(), outbound()
    end.take(wire(out.heartbeat().text), 0.0)
    assert end.silence(SILENCE) == []
    end.learn(Standing(OURS, 4, Snapshot(10, 10)), USED, 1.0)
    assert end.silence(SILENCE) == [], "it has just begun"
    assert len(end.silence(1.0 + SILENCE)) == len(USED), "an old leader took over"


# One step at a time, where the machine above comes seldom.


def test_what_was_sent_before_joining_is_old_however_late_it_comes() -> None:
    end, out = Inbound(lambda observer, group: True), outbound()
    late = [one(out), one(out)]
    end.join(stream_of(OBSERVER))
    end.learn(Standing(OURS, 3, Snapshot(20, 20)), USED, 0.0)
    found = [end.take(wire(text), 0.0) for text in (out.heartbeat().text, *late)]
    assert found == [[], [], []]
    assert [type(each) for each in end.take(wire(one(out)), 0.0)] == [Arrival]


def test_what_the_dead_leader_promised_and_its_successor_sends_again_is_no_loss() -> None:
    end, dead, out = inbound(), outbound(), Outbound(OURS, 4, Position(Snapshot(10, 10)), max_events=9, max_bytes=9)
    one(dead)
    assert end.take(wire(dead.heartbeat().text), 0.0) == []
    end.learn(Standing(OURS, 4, Snapshot(20, 20)), USED, 0.5)
    assert end.take(wire(out.heartbeat().text), 1.0) == []
    assert [type(each) for each in end.take(wire(one(out)), 2.0)] == [Arrival]


def test_a_loss_is_told_once_and_not_again_by_the_next_leader() -> None:
    end, out = inbound(stream_of(OBSERVER)), outbound()
    one(out)
    assert [type(each) for each in end.take(wire(one(out)), 0.0)] == [Loss, Arrival]
    end.learn(Standing(OURS, 4, Snapshot(20, 20)), USED, 0.5)
    successor = Outbound(OURS, 4, Position(Snapshot(12, 12)), max_events=9, max_bytes=9)
    for now in (1.0, 2.0, 3.0):
        assert end.take(wire(successor.heartbeat().text), now) == []


def test_what_was_sent_while_the_stream_was_left_is_no_loss() -> None:
    stream = stream_of(OBSERVER)
    end, out = inbound(stream), outbound()
    end.take(wire(one(out)), 0.0)
    end.leave(stream)
    one(out)
    end.join(stream)
    end.learn(Standing(OURS, 3, Snapshot(20, 20)), [stream], 0.0)
    assert [type(each) for each in end.take(wire(one(out)), 0.0)] == [Arrival]


def test_what_is_lost_between_the_question_of_a_stream_and_its_answer_is_missed() -> None:
    """Also where the process knows the database by other streams."""
    own = stream_of(OBSERVER)
    end, out = inbound(next(stream for stream in USED if stream != own)), outbound()
    end.join(own)
    asked = Standing(OURS, 3, Snapshot(10, 10))
    one(out, body="lost")
    assert end.take(wire(one(out)), 0.0) == []
    assert [type(each) for each in end.learn(asked, [own], 0.1)] == [Loss, Arrival]


def test_a_loss_begins_where_the_process_did_and_not_where_its_leader_stands() -> None:
    stream = stream_of(OBSERVER)
    end, out = Inbound(lambda observer, group: True), outbound(Position(BEGINNING))
    end.join(stream)
    end.learn(Standing(OURS, 3, Snapshot(11, 11)), [stream], 0.0)
    assert end.take(wire(out.heartbeat().text), 0.0) == []
    one(out)
    loss, _ = end.take(wire(one(out)), 1.0)
    assert isinstance(loss, Loss)
    assert loss.since == Position(Snapshot(11, 11))


def test_what_was_healed_is_lost_no_more() -> None:
    stream = stream_of(OBSERVER)
    end, out = inbound(stream), outbound()
    promised = out.heartbeat().text
    one(out)
    end.healed(stream, Snapshot(12, 12), 0.0)
    assert [type(each) for each in end.take(wire(one(out)), 0.0)] == [Arrival], "it reaches no further"
    end.healed(stream, Snapshot(9, 9), 0.0)
    assert end.take(wire(promised), 0.1) == []
    assert end.take(wire(out.heartbeat().text), 5.0) == []


def test_what_comes_behind_a_later_message_is_a_loss_for_everybody_and_not_applied() -> None:
    end, out = inbound(), outbound()
    first, second, third = [one(out) for _ in range(3)]
    assert [type(each) for each in end.take(wire(second), 0.0)] == [Loss, Arrival]
    assert end.take(wire(first), 0.0) == [Loss(stream_of(OBSERVER), Position(Snapshot(10, 10)), None)]
    assert [type(each) for each in end.take(wire(third), 0.0)] == [Loss, Arrival]


def test_a_heartbeat_that_was_long_on_its_way_makes_no_message_come_twice() -> None:
    """It names fewer messages than had come when the one before it came, as if the later ones had been forged."""
    end, out = inbound(), outbound()
    late = [out.heartbeat().text, out.heartbeat().text]
    first, second = one(out), one(out)
    found = [end.take(wire(text), 1.0) for text in (first, second, late[0])]
    assert [[type(each) for each in happened] for happened in found] == [[Arrival], [Arrival], []]
    assert [type(each) for each in end.take(wire(late[1]), 1.0 + PATIENCE)] == [Loss]
    assert end.take(wire(second), 2.0) == [], "the layer repeats it"
    assert [type(each) for each in end.take(wire(one(out)), 2.0)] == [Arrival]


def test_what_was_sent_before_a_stream_was_joined_leaves_nothing_open_when_the_leader_changes() -> None:
    stream = stream_of(OBSERVER)
    end, out = Inbound(lambda observer, group: True), outbound(Position(BEGINNING))
    first = out.heartbeat().text
    one(out)
    end.join(stream)
    end.learn(Standing(OURS, 3, Snapshot(12, 12)), [stream], 0.0)
    out.advance(Position(Snapshot(13, 13)))
    assert [end.take(wire(text), 0.0) for text in (first, out.heartbeat().text)] == [[], []]
    end.learn(Standing(OURS, 4, Snapshot(20, 20)), [stream], 0.1)
    successor = Outbound(OURS, 4, Position(Snapshot(13, 13)), max_events=9, max_bytes=9)
    assert [type(each) for each in end.take(wire(one(successor)), 0.1)] == [Arrival]


def test_heartbeats_that_come_at_once_make_no_loss_later() -> None:
    """Each names one more message that is dropped; the second one after the last drop says so of all of them."""
    stream = stream_of(OBSERVER)
    end, out = inbound(stream), outbound()
    for number in range(3):
        sent(out, Item(OBSERVER, LANES[0], line(number, 11)), 12 + number, Span.between(*BETWEEN))
        assert end.take(wire(out.heartbeat().text), 0.0) == []
    assert end.take(wire(out.heartbeat().text), 1.0) == [
        Loss(stream, Position(Snapshot(10, 10)), Point.at(Snapshot(14, 14)))
    ]


def test_what_is_sent_again_where_the_heartbeats_are_already_is_not_settled_there() -> None:
    """Nothing was committed between the last read and it, so its reach is a position that everybody knows."""
    steps = Lossy()
    steps.begin(lanes={"b0"})
    steps.ask_for_a_row_again(lane="b0")
    steps.read(limit=1, cut=0)
    steps.beat(arrives=True)
    steps.send_again()
    steps.send(place=0, fate="drops")
    steps.beat(arrives=False)
    steps.save()
    assert steps.asked, "its successor sends it once more"
    steps.kill()
    steps.lead()
    steps.teardown()


def test_the_cursor_may_be_saved_where_a_heartbeat_has_told_everybody() -> None:
    out, begun = outbound(), Position(Snapshot(10, 10))
    out.advance(Position(Snapshot(12, 12)))
    heartbeat = out.heartbeat()
    assert out.savable == begun
    out.told(heartbeat)
    assert out.savable == Position(Snapshot(12, 12))


# What the leader sends.


@given(
    st.lists(st.tuples(st.sampled_from([*LANES, "ü" * 9, EVERYBODY]), st.integers(0, 300)), max_size=30),
    st.integers(1, 5),
    st.integers(100, 800),
)
def test_messages_keep_their_limits_and_each_event_is_in_one_in_order(
    wanted: list[tuple[str, int]], most: int, size: int
) -> None:
    out = outbound(max_events=most, max_bytes=size)
    items = [Item(OBSERVER, lane, line(id, 11, "x" * length)) for id, (lane, length) in enumerate(wanted, 1)]
    end, came = inbound(*range(STREAMS)), dict[str, list[int]]()
    empty = len(out.deliver([Item("", "", "")], Position(BEGINNING))[0][0].text)
    out = outbound(max_events=most, max_bytes=size)
    for messages in out.deliver(items, Position(Snapshot(12, 12))).values():
        for message in messages:
            assert message.text.isascii()
            (arrival,) = end.take(wire(message.text), 0.0)
            assert isinstance(arrival, Arrival)
            entries = sum(map(len, arrival.to.values()))
            assert entries <= most
            assert entries == 1 or len(message.text) <= size + empty + 10
            for (_, group), places in arrival.to.items():
                came.setdefault(group, []).extend(arrival.events[place].change_id for place in places)
    for group in {group for group, _ in wanted}:
        assert came[group] == [id for id, (of, _) in enumerate(wanted, 1) if of == group]


def test_a_resync_is_behind_what_it_makes_void() -> None:
    out, end = outbound(), inbound()
    items = [Item(OBSERVER, EVERYBODY, line(1, 11)), Item(OBSERVER, LANES[0], line(2, 11))]
    delivery = out.deliver(items, Position(Snapshot(12, 12)))
    (arrival,) = end.take(wire(delivery[stream_of(OBSERVER)][0].text), 0.0)
    assert isinstance(arrival, Arrival)
    assert arrival.to == {(OBSERVER, LANES[0]): [0], (OBSERVER, EVERYBODY): [1]}


def test_an_event_for_several_groups_travels_once() -> None:
    out, text = outbound(), line(1, 11)
    ((message,),) = out.deliver([Item(OBSERVER, lane, text) for lane in LANES[:2]], Position(BEGINNING)).values()
    assert message.text.count("\n") == 1


def test_a_heartbeat_is_small() -> None:
    busy = Snapshot(10**10, 10**10 + 500, frozenset(range(10**10, 10**10 + 500, 5)))
    out = Outbound(
        History(2**63 - 1, 10**9, 10**9, 99), 10**13, Position(Snapshot(10**10, 10**10)), max_events=9, max_bytes=9
    )
    assert len(out.heartbeat().text) < 1_000
    out.advance(Position(busy))
    assert len(out.heartbeat().text) < 1_000 + 12 * len(busy.xip)


def test_a_leader_cannot_go_on_before_its_messages_are_taken() -> None:
    out = outbound()
    out.deliver([Item(OBSERVER, LANES[0], line(1, 11))], Position(Snapshot(12, 12)))
    with pytest.raises(RuntimeError, match="still on their way"):
        out.advance(Position(Snapshot(12, 12)))


def test_the_groups_of_two_databases_differ_and_a_promotion_changes_none() -> None:
    names = {history.group(stream) for history in (OURS, OURS._replace(log=1)) for stream in (None, *range(STREAMS))}
    assert len(names) == 2 * (STREAMS + 1)
    assert OURS.group(3) == OURS._replace(timeline=2).group(3)
    assert all(len(name) < 100 for name in names)


def test_heartbeats_say_which_observers_the_leader_has() -> None:
    end, out = inbound(), outbound()
    assert end.knows(OBSERVER) is None
    assert end.take(wire(out.heartbeat([OBSERVER, "another"]).text), 0.0) == []
    assert end.knows(OBSERVER)
    assert end.knows("another")
    assert end.knows("a third") is False
    # What a former leader had says nothing of the next one.
    end.learn(Standing(OURS, 4, Snapshot(10, 10)), USED, 0.0)
    assert end.knows(OBSERVER) is None
    end.take(wire(out.heartbeat([OBSERVER]).text), 1.0)
    assert end.knows(OBSERVER) is None


@pytest.mark.parametrize("observers", [None, 7, ["0" * 8], "0" * 7])
def test_a_heartbeat_with_damaged_observers_is_unreadable(observers: Any) -> None:
    end, out = inbound(), outbound()
    head = json.loads(out.heartbeat().text)
    (happened,) = end.take(wire(json.dumps({**head, "observers": observers})), 0.0)
    assert isinstance(happened, Unreadable)
    assert end.knows(OBSERVER) is None
