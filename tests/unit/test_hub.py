"""The process's end: who receives what, and who loads again, over a layer and a database that do as a test says.

The layer is Channels' own, in memory. The leader is an ``Outbound`` that the test drives, and inboxes are real ones.
"""

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.test import override_settings

from djcrf_pg.changelog.cursor import Position, Snapshot, Span
from djcrf_pg.delivery import healing, protocol
from djcrf_pg.delivery import hub as module
from djcrf_pg.delivery.envelope import CHANNEL_LAYER, NEVER_SEEN, Event, parse
from djcrf_pg.delivery.healing import Progress
from djcrf_pg.delivery.hub import Hub
from djcrf_pg.delivery.inbox import BEHIND, Inbox, Moment, Subscription
from djcrf_pg.delivery.interest import bit_of
from djcrf_pg.delivery.layer import channel_layer
from djcrf_pg.delivery.protocol import EVERYBODY, KEY, TYPE, History, Item, Origin, Outbound, stream_of
from djcrf_pg.delivery.resume import Cursor, Mark
from djcrf_pg.exceptions import ConfigurationError, CursorExpired
from djcrf_pg.observations import (
    ForeignMessages,
    HubFailed,
    LayerUnreachable,
    MessagesMissing,
    MessagesReplayed,
    MessagesUnreadable,
    Observation,
)
from tests.processes import until
from tests.testapp.models import Task

HISTORY = History(7, 5, 16_402, 1)
OTHER_DATABASE = History(8, 5, 16_402, 1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RESYNC = ("resync", CHANNEL_LAYER)

TASKS = "app.tasks"
ELSEWHERE = next(name for number in range(100) if stream_of(name := f"app.{number}") != stream_of(TASKS))
BESIDE = next(name for number in range(1000) if stream_of(name := f"app.{number}") == stream_of(TASKS))
"""The address of an observer; of one in another stream; and of one in the same."""


def at(xid: int) -> Position:
    """Where all below a transaction has ended."""
    return Position(Snapshot(xid, xid))


@dataclasses.dataclass
class Answer:
    """The database's."""

    xid: int = 10
    history: History = HISTORY
    term: int = 1
    leader: str | None = "leader"

    @property
    def moment(self) -> Moment:
        """Now."""
        return Moment(Snapshot(self.xid, self.xid), NOON)


class Gate:
    """Asks a database that is whatever the test says."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.error: Exception | None = None
        self.known = True
        self.asked = 0
        self.retained: list[set[int]] = []
        self.recorded: list[Any] = []

    def _ask(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error

    async def probe(self, tables: Iterable[str], bits: Iterable[int]) -> Answer:
        """As the gate's."""
        self._ask()
        return dataclasses.replace(self.answer)

    async def renew(self) -> bool:
        """As the gate's."""
        self._ask()
        return self.known

    async def retain(self, bits: Collection[int]) -> None:
        """As the gate's."""
        self.retained.append(set(bits))

    async def record(self, failures: Sequence[Any]) -> None:
        """As the gate's."""
        self._ask()
        self.recorded += failures


class Log:
    """What was committed, as far as the test has sent it.

    Attributes:
        entries: Transaction, address of the observer, group, and the event.
        expired: Whether nothing of it is to be had.
        error: What asking for it raises.
        failing: Observers that something failed on lately.
        read: So many times it was.
        going: Set while nothing keeps who reads waiting.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[int, str, str, str]] = []
        self.expired = False
        self.error: Exception | None = None
        self.failing: set[str] = set()
        self.read = 0
        self.going = asyncio.Event()
        self.going.set()

    async def replay(
        self, cursor: Cursor, until: Snapshot, observer: Any, groups: Collection[str], *, lost: int
    ) -> list[tuple[str, str, Origin]]:
        """As that of the listener's end, of what was lost."""
        self.read += 1
        await self.going.wait()
        if self.error is not None:
            raise self.error
        if self.expired:
            raise CursorExpired("gone")
        found = []
        for span, mark in cursor.spans(until, netted=False):
            assert span.target is not None
            for xid, address, group, line in self.entries:
                event = parse(line)
                is_in = span.target.sees(xid) and not span.last.sees(xid)
                is_news = mark is None or Mark.of_event(event, group) > mark
                if address == observer.address and group in groups and is_in and is_news:
                    found.append((group, line, Origin(cursor.history, span)))
        return found

    async def failed(self, seconds: float) -> Collection[str]:
        """As that of the listener's end."""
        return self.failing


class Layer(InMemoryChannelLayer):  # type: ignore[misc]
    """Channels' own, that fails and drops.

    Attributes:
        drops: Whether it drops what is sent to groups.
        refuses: Whether it fails when a channel is to join a group.
        refused: So many times it has.
        deaf: So many times it fails yet when something is to be received.
        joined: The groups of each call.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.drops = self.refuses = False
        self.deaf = self.refused = 0
        self.joined: list[str] = []

    async def group_add(self, group: str, channel: str) -> None:
        """As every layer's."""
        if self.refuses:
            self.refused += 1
            raise ConnectionError("refused")
        self.joined.append(group)
        await super().group_add(group, channel)

    async def group_send(self, group: str, message: Any) -> None:
        """As every layer's."""
        if not self.drops:
            await super().group_send(group, message)

    async def receive(self, channel: str) -> Any:
        """As every layer's."""
        if self.deaf:
            self.deaf -= 1
            raise ConnectionError("broken")
        return await super().receive(channel)


class Observer:
    """Notes what its subscriptions are given."""

    model_cls = Task

    def __init__(self, address: str) -> None:
        self.address = self.label = address
        self.spans: list[Span] = []
        self.histories: list[History] = []
        self.noted: defaultdict[Subscription, list[Any]] = defaultdict(list)

    async def receive(self, subscription: Subscription, group: str, line: str, origin: Origin) -> None:
        """An event."""
        self.noted[subscription].append((group, parse(line).body))
        self.spans.append(origin.span)
        self.histories.append(origin.history)
        subscription.consumer.append(parse(line).body)

    async def settle(self, subscription: Subscription) -> None:
        """A resync."""
        if subscription.lost is not None:
            self.noted[subscription].append(("resync", subscription.lost["reason"]))
            subscription.lost = None


class Site:
    """A hub, the database that it asks, and the leader."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.log = Log()
        self.hub = Hub(self.gate, self.log, lambda *_: True)
        self.layer: Any = channel_layer()
        self.observers = {address: Observer(address) for address in (TASKS, ELSEWHERE, BESIDE)}
        self.inboxes: list[Inbox] = []
        #: Whether the leader is in the middle of a window when it sends what is beside that.
        self.is_within = False
        self.lead(HISTORY, 1)

    def lead(self, history: History, term: int, xid: int = 10) -> None:
        """Begin to lead."""
        self.history = history
        self.last = at(xid)
        self.outbound = Outbound(history, term, self.last, max_events=100, max_bytes=100_000)

    def inbox(self) -> Inbox:
        """That of another consumer."""
        self.inboxes.append(Inbox())
        return self.inboxes[-1]

    async def subscribe(self, group: str, address: str = TASKS, inbox: Inbox | None = None) -> Subscription:
        """As ``subscribe()`` does."""
        inbox = inbox or self.inbox()
        subscription = inbox.subscribe(address, self.observers[address], [])
        subscription.wait([group])
        self.hub.enter(subscription, group)
        if not self.hub.is_in(address):
            await self.hub.join(address, self.gate.answer.history)
        self.hub.learn(dataclasses.replace(self.gate.answer), self.hub.streams)
        subscription.waited([group])
        subscription.since[group] = self.gate.answer.moment
        return subscription

    def unsubscribe(self, subscription: Subscription, group: str) -> None:
        """As ``unsubscribe()`` does."""
        del subscription.since[group]
        self.hub.leave(subscription, group)

    async def send(self, *items: tuple[str, str, Any], upto: int | None = None) -> None:
        """Commit changes, each of an observer, a group and a body, and deliver their events.

        The transaction is the one before the end of the window, ``upto``; the database has seen it from now on.
        """
        begin, end = self.last, at(upto or self.last.last.xmax + 10)
        xid = end.last.xmax - 1
        self.gate.answer.xid = max(self.gate.answer.xid, end.last.xmax)
        lines: dict[Any, str] = {}
        for _, _, body in items:
            number = len(self.log.entries) + len(lines) + 1
            lines.setdefault(body, Event("update", body, number, xid, NOON.isoformat()).encode())
        self.log.entries += [(xid, address, group, lines[body]) for address, group, body in items]
        events = [Item(address, group, lines[body]) for address, group, body in items]
        for messages in self.outbound.deliver(events, end, Span.between(begin, end)).values():
            for message in messages:
                await self.put(self.history.group(message.stream), message.text)
                self.outbound.taken(message)
        self.outbound.advance(end)
        self.last = end

    async def send_beside(self, *items: tuple[str, str, Any]) -> None:
        """Deliver events that are made of nothing in the log, as of a row that is sent again."""
        if self.is_within:
            self.outbound.advance(Position(self.last.last, at(self.last.last.xmax + 10).last, 1))
        events = [
            Item(address, group, Event("update", body, number, NEVER_SEEN, NOON.isoformat()).encode())
            for number, (address, group, body) in enumerate(items, 1)
        ]
        for messages in self.outbound.deliver(events, self.last).values():
            for message in messages:
                await self.put(self.history.group(message.stream), message.text)
                self.outbound.taken(message)

    async def beat(self) -> None:
        """A heartbeat."""
        heartbeat = self.outbound.heartbeat()
        await self.put(self.history.group(None), heartbeat.text)
        self.outbound.told(heartbeat)

    async def put(self, group: str, text: Any) -> None:
        """Send a text."""
        await self.layer.group_send(group, {"type": TYPE, KEY: text})

    def noted(self, subscription: Subscription) -> list[Any]:
        """What a subscription was given."""
        return self.observers[subscription.observer.address].noted[subscription]

    async def settled(self) -> None:
        """Wait until all that was sent is where it goes: the hub, which has looked since, and who is not held."""
        channel = self.hub._channel
        await until(lambda: not self.layer.channels.get(channel) or self.layer.channels[channel].empty())
        await asyncio.sleep(5 * module.TICK)
        await until(lambda: not any(inbox._is_due for inbox in self.inboxes))

    @property
    def groups(self) -> set[str]:
        """Those that the hub's channel is in."""
        return {group for group, channels in self.layer.groups.items() if self.hub._channel in channels}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "TICK", 0.01)
    monkeypatch.setattr(module, "_ASK", 0.01)
    monkeypatch.setattr(module, "SILENCE", 600)
    monkeypatch.setattr(module, "_PACE", 0.0, raising=False)
    monkeypatch.setattr(protocol, "PATIENCE", 0.02)
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": f"{__name__}.Layer"}}):
        yield


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    yield site
    for inbox in site.inboxes:
        await inbox.close()
    await site.hub.close()


Kind = type[Observation]


def of(kind: Kind, observed: list[Observation]) -> list[Any]:
    """Those of a kind."""
    return [observation for observation in observed if isinstance(observation, kind)]


# -- lanes ---------------------------------------------------------------------------------------------------


async def test_an_event_goes_to_the_lane_of_its_observer_and_its_group(site: Site) -> None:
    one, other = await site.subscribe("g"), await site.subscribe("h")
    same_group = await site.subscribe("g", ELSEWHERE)
    beside = await site.subscribe("g", BESIDE)
    await site.send((TASKS, "g", 1), (TASKS, "h", 2), (ELSEWHERE, "g", 3), (BESIDE, "g", 4), (TASKS, "nobody's", 5))
    await site.send((TASKS, EVERYBODY, 6))
    await until(lambda: len(site.noted(one)) == len(site.noted(other)) == 2)
    await site.settled()
    assert site.noted(one) == [("g", 1), (EVERYBODY, 6)]
    assert site.noted(other) == [("h", 2), (EVERYBODY, 6)]
    assert site.noted(same_group) == [("g", 3)]
    assert site.noted(beside) == [("g", 4)]


async def test_whoever_is_in_several_lanes_receives_in_the_order_of_the_leader(site: Site) -> None:
    inbox = site.inbox()
    one = await site.subscribe("g", inbox=inbox)
    await site.subscribe("h", inbox=inbox)
    beside = await site.subscribe("g", BESIDE, inbox=inbox)
    beside.consumer = one.consumer  # what a consumer's handlers were given, in order
    lanes = [(TASKS, "h"), (BESIDE, "g"), (TASKS, "g"), (BESIDE, "g"), (TASKS, "h"), (TASKS, "g")]
    await site.send(*((*lane, number) for number, lane in enumerate(lanes)))
    await until(lambda: len(one.consumer) == len(lanes))
    assert one.consumer == list(range(len(lanes)))


async def test_an_event_of_two_groups_comes_through_each(site: Site) -> None:
    one = await site.subscribe("g")
    await site.subscribe("h", inbox=one.inbox)
    await site.send((TASKS, "g", 1), (TASKS, "h", 1))
    await until(lambda: site.noted(one) == [("g", 1), ("h", 1)])


async def test_a_group_that_was_left_is_no_lane_and_the_others_go_on(site: Site) -> None:
    one, other = await site.subscribe("g"), await site.subscribe("g")
    await site.subscribe("h", inbox=one.inbox)
    site.unsubscribe(one, "g")
    await site.send((TASKS, "g", 1), (TASKS, "h", 2), (TASKS, EVERYBODY, 3))
    await until(lambda: site.noted(one) == [("h", 2), (EVERYBODY, 3)])
    await until(lambda: site.noted(other) == [("g", 1), (EVERYBODY, 3)])
    site.unsubscribe(one, "h")
    assert site.hub.subscriptions() == [other]


async def test_nothing_is_left_of_consumers_that_ended(site: Site) -> None:
    one = await site.subscribe("g")
    await site.subscribe("h", inbox=one.inbox)
    other = await site.subscribe("g", ELSEWHERE)
    waiting = await site.subscribe("w")
    waiting.wait(["never there"])
    site.hub.enter(waiting, "never there")
    for subscription in (one, waiting):
        site.hub.forget(subscription)
    assert site.hub.subscriptions() == [other]
    site.hub.forget(other)
    assert site.hub._lanes == {}


async def test_the_groups_that_an_ended_consumer_was_in_are_left_also_where_some_cannot_be(site: Site) -> None:
    await site.subscribe("g")
    names = [f"own{number}" for number in range(20)]
    for name in names:
        await site.layer.group_add(name, "c")
    discard = site.layer.group_discard

    async def group_discard(group: str, channel: str) -> None:
        if group == "own3":
            raise ConnectionError("broken")
        await discard(group, channel)

    site.layer.group_discard = group_discard
    site.hub.abandon(site.layer, "c", names)
    await until(lambda: {name for name in names if name in site.layer.groups} == {"own3"})


async def test_groups_that_cannot_be_left_hold_up_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections of the layer are frozen, which says nothing and never ends."""
    monkeypatch.setattr(module, "_LINGER", 0.02)
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    one, other = await site.subscribe("g"), await site.subscribe("g", ELSEWHERE)

    async def group_discard(group: str, channel: str) -> None:
        await asyncio.Event().wait()

    site.layer.group_discard = group_discard
    for _ in range(1_000):
        site.hub.abandon(site.layer, "c", ["own"])
    site.hub.forget(other)
    await until(lambda: site.hub.streams == [stream_of(TASKS)])
    site.layer.drops = True
    await site.send((TASKS, "g", 1))
    site.layer.drops = False
    await site.beat()
    await asyncio.sleep(2 * protocol.PATIENCE)
    await site.beat()
    await until(lambda: site.noted(one) == [("g", 1)])
    async with asyncio.timeout(1):
        await site.subscribe("g", ELSEWHERE)


# -- streams -------------------------------------------------------------------------------------------------


async def test_the_channel_is_in_the_streams_that_are_used_and_in_that_of_the_heartbeats(site: Site) -> None:
    await site.subscribe("g")
    assert site.groups == {HISTORY.group(None), HISTORY.group(stream_of(TASKS))}
    await site.subscribe("g", ELSEWHERE)
    await site.subscribe("g", BESIDE)
    await site.hub.join(BESIDE, HISTORY)
    assert site.groups == {HISTORY.group(stream) for stream in (None, stream_of(TASKS), stream_of(ELSEWHERE))}
    assert len(site.layer.joined) == 3


async def test_a_stream_that_is_used_no_more_is_left_after_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.05)
    one, other = await site.subscribe("g"), await site.subscribe("g", ELSEWHERE)
    site.hub.forget(one)
    await until(lambda: HISTORY.group(stream_of(TASKS)) not in site.groups)
    assert not site.hub.is_in(TASKS)
    assert site.hub.is_in(ELSEWHERE)
    await site.send((TASKS, "g", 1), (ELSEWHERE, "g", 2))
    site.gate.answer.xid = 20
    again = await site.subscribe("g")
    await site.send((TASKS, "g", 3), upto=30)
    await until(lambda: site.noted(again) == [("g", 3)])
    await site.beat()
    await site.settled()
    assert site.noted(again) == [("g", 3)], "what was sent while it was left was not for it"
    assert site.noted(other) == [("g", 2)]


async def test_a_stream_that_is_used_again_is_not_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.05)
    one = await site.subscribe("g")
    for _ in range(5):
        site.hub.forget(one)
        await asyncio.sleep(0.03)
        one = await site.subscribe("g")
    await asyncio.sleep(0.06)
    assert site.layer.joined.count(HISTORY.group(stream_of(TASKS))) == 1


async def test_whoever_leaves_a_busy_group_and_joins_it_again_has_lost_nothing(
    site: Site, observed: list[Observation]
) -> None:
    one, beside = await site.subscribe("g"), await site.subscribe("h")
    for number in range(5):
        await site.send((TASKS, "g", number))
        site.unsubscribe(one, "g")
        await site.send((TASKS, "g", "meanwhile"))
        await site.beat()
        await site.settled()
        site.gate.answer.xid = 20
        await site.subscribe("g", inbox=one.inbox)
    await site.send((TASKS, "g", "last"))
    await until(lambda: site.noted(one)[-1:] == [("g", "last")])
    await site.beat()
    await asyncio.sleep(0.03)
    await site.beat()
    await site.settled()
    assert RESYNC not in [*site.noted(one), *site.noted(beside)]
    assert of(MessagesMissing, observed) == []


@pytest.mark.parametrize(("expiry", "renews"), [(0.06, True), (0, False), (-1, False), (86_400, False)])
async def test_groups_are_joined_again_before_they_expire(site: Site, expiry: Any, renews: bool) -> None:
    """An expiry of 0 is none: so it is in channels_postgres."""
    site.layer.group_expiry = expiry
    await site.subscribe("g")
    if renews:
        await until(lambda: all(site.layer.joined.count(group) > 2 for group in site.layer.joined))
    else:
        await asyncio.sleep(20 * module.TICK)
        assert len(site.layer.joined) == 2


# -- losses --------------------------------------------------------------------------------------------------


async def lose(site: Site, *items: tuple[str, str, Any], upto: int | None = None) -> None:
    """Commit something that the layer drops."""
    site.layer.drops = True
    await site.send(*items, upto=upto)
    site.layer.drops = False


async def have_it_read(site: Site) -> None:
    """Lose 1 and send 2; the log is being read when this returns, and until the test has it go on."""
    site.log.going.clear()
    await lose(site, (TASKS, "g", 1))
    await site.send((TASKS, "g", 2))
    await until(lambda: site.log.read == 1)


async def test_what_was_lost_is_read_and_comes_before_what_is_behind_it(
    site: Site, observed: list[Observation]
) -> None:
    one, beside, elsewhere = [await site.subscribe("g", address) for address in (TASKS, BESIDE, ELSEWHERE)]
    await site.send((TASKS, "g", 1), (BESIDE, "g", 2), (ELSEWHERE, "g", 3))
    await lose(site, (TASKS, "g", 4), (BESIDE, "g", 5), (TASKS, "h", "for others"))
    await site.send((TASKS, "g", 6))
    await site.send((TASKS, "g", 7), (BESIDE, "g", 8), (ELSEWHERE, "g", 9))
    await until(lambda: site.noted(one) == [("g", 1), ("g", 4), ("g", 6), ("g", 7)])
    await until(lambda: site.noted(beside) == [("g", 2), ("g", 5), ("g", 8)])
    assert site.noted(elsewhere) == [("g", 3), ("g", 9)]
    assert not of(MessagesMissing, observed)
    assert {each.observer for each in of(MessagesReplayed, observed)} == {TASKS, BESIDE}
    spans = site.observers[TASKS].spans
    assert all(before.target == after.last for before, after in pairwise(dict.fromkeys(spans))), "a cursor has no hole"


async def test_of_a_delivery_that_was_lost_in_part_the_rest_is_read(site: Site) -> None:
    one = await site.subscribe("g")
    site.outbound = Outbound(HISTORY, 1, site.last, max_events=1, max_bytes=100_000)
    sent = 0

    async def put_some(group: str, text: Any, put: Any = site.put) -> None:
        nonlocal sent
        sent += 1
        if sent not in (3, 4):
            await put(group, text)

    site.put = put_some  # type: ignore[method-assign]
    await site.send(*[(TASKS, "g", number) for number in range(6)])
    await until(lambda: len(site.noted(one)) == 6)
    assert site.noted(one) == [("g", number) for number in range(6)], "nothing is left out, and nothing comes twice"


async def test_whoever_begins_after_a_loss_is_not_given_what_was_there(site: Site) -> None:
    early = await site.subscribe("g")
    await lose(site, (TASKS, "g", 1))
    late = await site.subscribe("g")
    await lose(site, (TASKS, "g", 2))
    await site.send((TASKS, "g", 3))
    await until(lambda: site.noted(early) == [("g", 1), ("g", 2), ("g", 3)])
    assert not late.has_loaded(25, NOON.isoformat())


async def test_what_comes_while_the_log_is_read_waits_and_comes_once(site: Site) -> None:
    one = await site.subscribe("g")
    await have_it_read(site)
    await site.send((TASKS, "g", 3))
    await site.settled()
    assert site.noted(one) == []
    site.log.going.set()
    await until(lambda: site.noted(one) == [("g", 1), ("g", 2), ("g", 3)])


async def test_what_is_lost_while_the_log_is_read_is_read_next(site: Site) -> None:
    one = await site.subscribe("g")
    await have_it_read(site)
    await site.send((TASKS, "g", 3))
    await lose(site, (TASKS, "g", 4))
    await site.send((TASKS, "g", 5))
    await site.settled()
    site.log.going.set()
    await until(lambda: site.noted(one) == [("g", number) for number in range(1, 6)])


@pytest.mark.parametrize("is_within", [False, True])
async def test_who_has_lost_what_is_in_no_log_loads_again(
    site: Site, is_within: bool, observed: list[Observation]
) -> None:
    site.is_within = is_within
    one = await site.subscribe("g")
    await site.send((TASKS, "g", 0))
    site.layer.drops = True
    await site.send_beside((TASKS, "g", "a row that is sent again"))
    site.layer.drops = False
    await site.send((TASKS, "g", 1))
    await until(lambda: site.noted(one) == [("g", 0), RESYNC])
    assert [each.why for each in of(MessagesMissing, observed)] == ["what was sent is not in the log"]
    await lose(site, (TASKS, "g", 2))
    await site.send((TASKS, "g", 3))
    await until(lambda: site.noted(one) == [("g", 0), RESYNC, ("g", 2), ("g", 3)])


async def test_what_was_read_ahead_of_the_leader_is_not_read_again_for_the_next_loss(site: Site) -> None:
    """Its heartbeats say where it is, which is before that."""
    one = await site.subscribe("g")
    await lose(site, (TASKS, "g", 1))
    site.log.entries.append((29, TASKS, "g", Event("update", 2, 2, 29, NOON.isoformat()).encode()))
    site.gate.answer.xid = 30  # committed, and not yet read by the leader
    await site.beat()
    await asyncio.sleep(2 * protocol.PATIENCE)
    await site.beat()
    await until(lambda: site.noted(one) == [("g", 1), ("g", 2)])
    await site.beat()
    await site.settled()
    await lose(site, (TASKS, "g", 2), upto=30)
    site.log.entries.pop()  # it is there already
    await lose(site, (TASKS, "g", 3))
    await site.send((TASKS, "g", 4))
    await until(lambda: site.noted(one)[-1] == ("g", 4))
    assert site.noted(one) == [("g", 1), ("g", 2), ("g", 3), ("g", 4)]


async def test_more_than_is_held_while_the_log_is_read_is_read_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "HELD_BYTES", 1)
    one = await site.subscribe("g")
    await have_it_read(site)
    for number in (3, 4, 5):
        await site.send((TASKS, "g", number))
    await site.settled()
    site.log.going.set()
    await until(lambda: site.noted(one) == [("g", number) for number in range(1, 6)])


async def test_a_log_that_cannot_be_read_is_read_later(site: Site) -> None:
    one = await site.subscribe("g")
    site.log.error = ConnectionError("away")
    await lose(site, (TASKS, "g", 1))
    await site.send((TASKS, "g", 2))
    await until(lambda: site.log.read > 2)
    await site.send((TASKS, "g", 3))
    await site.settled()
    assert site.noted(one) == []
    site.log.error = None
    await until(lambda: site.noted(one) == [("g", 1), ("g", 2), ("g", 3)])


@pytest.mark.parametrize("behind", [False, True])
async def test_where_the_log_may_not_be_read_a_loss_is_a_resync_at_once(
    site: Site, observed: list[Observation], monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    with override_settings(DJCRF_PG={"INBOX_EVENTS": 2}):
        one = await site.subscribe("g")
    site.log.error = ConfigurationError("no right")
    if behind:
        site.inboxes[0].hold()
        for number in range(5):
            await site.send((TASKS, "g", number))
        await site.settled()
        site.inboxes[0].release()
    else:

        async def denied(seconds: float) -> Collection[str]:
            raise ConfigurationError("no right")

        monkeypatch.setattr(site.log, "failed", denied)
        await lose(site, (TASKS, "g", 1))
        await site.send((TASKS, "g", 2))
    before = [("g", 0), ("g", 1)] if behind else []
    resync = ("resync", BEHIND if behind else CHANNEL_LAYER)
    await until(lambda: site.noted(one) == [*before, resync])
    await site.send((TASKS, "g", 9))
    await until(lambda: site.noted(one) == [*before, resync, ("g", 9)])
    assert not of(HubFailed, observed)


async def test_a_database_that_is_away_is_asked_later(site: Site) -> None:
    one = await site.subscribe("g")
    site.gate.error = ConnectionError("away")
    await lose(site, (TASKS, "g", 1))
    await site.send((TASKS, "g", 2))
    await until(lambda: site.gate.asked > 3)
    assert site.noted(one) == []
    site.gate.error = None
    await until(lambda: site.noted(one) == [("g", 1), ("g", 2)])


@pytest.mark.parametrize("hangs", [False, True])
async def test_whoever_could_not_be_given_it_for_long_loads_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    one = await site.subscribe("g")
    if hangs:
        site.log.going.clear()
    site.log.error = ConnectionError("away")
    await lose(site, (TASKS, "g", 1))
    await site.send((TASKS, "g", 2))
    await until(lambda: site.log.read)
    assert site.noted(one) == []
    monkeypatch.setattr(module, "_HEALS", 0.0)
    await until(lambda: site.noted(one) == [RESYNC])
    await site.send((TASKS, "g", 3))
    await until(lambda: site.noted(one) == [RESYNC, ("g", 3)])


async def test_whose_serializer_failed_lately_loads_again_for_a_loss(site: Site) -> None:
    """A resync for that may be what was lost, and it is not in the log."""
    one, beside = await site.subscribe("g"), await site.subscribe("g", BESIDE)
    site.log.failing = {TASKS}
    await lose(site, (TASKS, "g", 1), (BESIDE, "g", 2))
    await site.send((TASKS, "g", 3))
    await until(lambda: site.noted(one) == [RESYNC] and site.noted(beside) == [("g", 2)])
    await site.send((TASKS, "g", 4))
    await until(lambda: site.noted(one) == [RESYNC, ("g", 4)])


@pytest.mark.parametrize("is_within", [False, True])
@pytest.mark.parametrize("when", ["before", "held"])
async def test_what_is_not_in_the_log_and_comes_while_it_is_read_is_a_resync_where_it_is_dropped(
    site: Site, is_within: bool, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    site.is_within = is_within
    one, beside = await site.subscribe("g"), await site.subscribe("g", BESIDE)
    await lose(site, (TASKS, "g", 1), (BESIDE, "g", 2))
    if when == "before":
        site.gate.error = ConnectionError("away")
        await site.send((TASKS, "g", 3))
        await until(lambda: site.gate.asked > 2)
        await site.send_beside((TASKS, "g", "again"))
        await site.settled()
        site.gate.error = None
    else:
        monkeypatch.setattr(healing, "HELD_BYTES", 1)
        site.log.going.clear()
        await site.send((TASKS, "g", 3))
        await until(lambda: site.log.read == 1)
        await site.send_beside((TASKS, "g", "again"))
        await site.settled()
        site.log.going.set()
    await until(lambda: RESYNC in site.noted(one))
    await until(lambda: site.noted(beside) == [("g", 2)])
    await site.send((TASKS, "g", 4))
    await until(lambda: site.noted(one)[-2:] == [RESYNC, ("g", 4)])


@pytest.mark.parametrize("is_within", [False, True])
async def test_what_is_not_in_the_log_waits_while_that_is_read(site: Site, is_within: bool) -> None:
    site.is_within = is_within
    one = await site.subscribe("g")
    await lose(site, (TASKS, "g", 1))
    site.log.going.clear()
    await site.send((TASKS, "g", 2))
    await until(lambda: site.log.read == 1)
    await site.send_beside((TASKS, "g", "again"))
    await site.settled()
    site.log.going.set()
    await until(lambda: site.noted(one) == [("g", 1), ("g", 2), ("g", "again")])


async def test_a_database_that_becomes_another_while_the_log_is_read_is_a_resync(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await site.subscribe("g")
    await have_it_read(site)
    site.gate.answer.history = OTHER_DATABASE
    monkeypatch.setattr(module, "SILENCE", 0.02)
    await until(lambda: RESYNC in site.noted(one))
    monkeypatch.setattr(module, "SILENCE", 600)
    site.log.going.set()
    site.lead(OTHER_DATABASE, 1, 40)
    await site.send((TASKS, "g", 3))
    await until(lambda: site.noted(one) == [RESYNC, ("g", 3)])


async def test_what_was_lost_of_a_promoted_database_is_of_its_history(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await site.subscribe("g")
    promoted = HISTORY._replace(timeline=2)
    site.gate.answer.history = promoted
    monkeypatch.setattr(module, "SILENCE", 0.02)
    await until(lambda: site.noted(one) == [RESYNC])
    monkeypatch.setattr(module, "SILENCE", 600)
    site.lead(promoted, 1, 30)
    await site.send((TASKS, "g", 1))
    await lose(site, (TASKS, "g", 2))
    await site.send((TASKS, "g", 3))
    await until(lambda: site.noted(one) == [RESYNC, ("g", 1), ("g", 2), ("g", 3)])
    assert set(site.observers[TASKS].histories) == {promoted}, "what their cursors are of"


async def test_whoever_begins_while_the_log_is_read_in_vain_has_lost_nothing(site: Site) -> None:
    early = await site.subscribe("g")
    site.log.expired = True
    await have_it_read(site)
    late = await site.subscribe("g")
    site.log.going.set()
    await until(lambda: site.noted(early) == [RESYNC])
    await site.send((TASKS, "g", 3))
    await until(lambda: site.noted(early) == [RESYNC, ("g", 3)])
    assert site.noted(late) == [("g", 3)]


async def test_a_fault_of_ours_after_the_log_was_read_deafens_nobody(
    site: Site, observed: list[Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await site.subscribe("g")
    await have_it_read(site)
    await site.send((TASKS, "g", 3))
    await site.settled()
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "note", lambda *_: 1 / 0)
        site.log.going.set()
        await until(lambda: RESYNC in site.noted(one))
    assert len(of(HubFailed, observed)) == 1
    await site.send((TASKS, "g", 4))
    await until(lambda: site.noted(one)[-1] == ("g", 4))


async def test_an_inbox_that_was_full_has_what_it_missed_from_the_log(site: Site) -> None:
    with override_settings(DJCRF_PG={"INBOX_EVENTS": 2}):
        one, inbox = await site.subscribe("g"), site.inboxes[0]
        other = await site.subscribe("h", ELSEWHERE, inbox)
    inbox.hold()  # as long as the consumer is busy
    for number in range(6):
        await site.send((TASKS, "g", number))
    await site.send((ELSEWHERE, "h", "other"))
    await site.settled()
    inbox.release()
    await until(lambda: site.noted(one) == [("g", number) for number in range(6)])
    await until(lambda: site.noted(other) == [("h", "other")])
    await site.send((TASKS, "g", 6))
    await until(lambda: site.noted(one)[-1] == ("g", 6))
    assert len(site.noted(one)) == 7


@pytest.mark.parametrize("fault", ["expired", "error"])
async def test_an_inbox_that_was_full_loads_again_where_the_log_has_it_no_more(
    site: Site, observed: list[Observation], fault: str
) -> None:
    with override_settings(DJCRF_PG={"INBOX_EVENTS": 2}):
        one = await site.subscribe("g")
    site.inboxes[0].hold()
    for number in range(6):
        await site.send((TASKS, "g", number))
    await site.settled()
    setattr(site.log, fault, True if fault == "expired" else ZeroDivisionError("a fault of ours"))
    site.inboxes[0].release()
    await until(lambda: site.noted(one)[-1:] == [("resync", BEHIND)])
    assert len(of(HubFailed, observed)) == (fault == "error")
    await site.send((TASKS, "g", 6))
    await until(lambda: site.noted(one) == [("g", 0), ("g", 1), ("resync", BEHIND), ("g", 6)])


@pytest.mark.parametrize("is_within", [False, True])
async def test_an_inbox_that_was_full_of_what_is_not_in_the_log_loads_again(site: Site, is_within: bool) -> None:
    site.is_within = is_within
    with override_settings(DJCRF_PG={"INBOX_EVENTS": 3}):
        one = await site.subscribe("g")
    site.inboxes[0].hold()
    for number in range(5):
        await site.send((TASKS, "g", number))
    await site.send_beside((TASKS, "g", "again"))
    await site.settled()
    site.inboxes[0].release()
    await until(lambda: site.noted(one)[-1:] == [("resync", BEHIND)])


async def test_whoever_waits_for_long_for_what_an_inbox_has_missed_loads_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log may be read for others, or its server may be silent."""
    monkeypatch.setattr(module, "_HEALS", 0.1)
    with override_settings(DJCRF_PG={"INBOX_EVENTS": 2}):
        one = await site.subscribe("g")
    site.inboxes[0].hold()
    for number in range(6):
        await site.send((TASKS, "g", number))
    await site.settled()
    site.log.going.clear()
    site.inboxes[0].release()
    await until(lambda: site.noted(one)[-1:] == [("resync", BEHIND)])
    await site.send((TASKS, "g", 6))
    await until(lambda: site.noted(one) == [("g", 0), ("g", 1), ("resync", BEHIND), ("g", 6)])


async def test_much_that_was_read_for_many_leaves_others_their_turn(site: Site) -> None:
    subscriptions = [await site.subscribe("g") for _ in range(10)]
    await lose(site, *((TASKS, "g", number) for number in range(1_000)))
    parts = set()

    async def look() -> None:
        while True:
            parts.add(len(subscriptions[0].inbox._entries) + len(site.noted(subscriptions[0])))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(look())
        await site.send((TASKS, "g", "last"))
        await until(lambda: len(site.noted(subscriptions[-1])) == 1_001)
        task.cancel()
    assert len([part for part in parts if 0 < part < 1_001]) > 5
    assert [body for _, body in site.noted(subscriptions[0])] == [*range(1_000), "last"]


async def test_a_fault_of_ours_deafens_nobody(
    site: Site, observed: list[Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await site.subscribe("g")
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "put", lambda *_: 1 / 0)
        await site.send((TASKS, "g", "lost"))
        await until(lambda: site.noted(one) == [RESYNC])
    assert [each.error for each in of(HubFailed, observed)] == ["ZeroDivisionError('division by zero')"]
    await site.send((TASKS, "g", "next"))
    await until(lambda: site.noted(one) == [RESYNC, ("g", "next")])


async def test_a_loss_that_cannot_be_read_is_one_resync_for_those_that_are_older(
    site: Site, observed: list[Observation]
) -> None:
    site.log.expired = True
    early, beside = await site.subscribe("g"), await site.subscribe("h", BESIDE)
    unconcerned = await site.subscribe("g", ELSEWHERE)
    site.layer.drops = True
    await site.send((TASKS, "g", "lost"))
    site.layer.drops = False
    await site.send((TASKS, "g", "next"))
    await until(lambda: RESYNC in site.noted(early) and RESYNC in site.noted(beside))
    late = await site.subscribe("g")
    await site.send((TASKS, "g", "after"))
    for _ in range(3):
        await site.beat()
        await asyncio.sleep(0.03)
    await site.settled()
    assert site.noted(early) == [RESYNC, ("g", "after")]
    assert site.noted(beside) == [RESYNC], "who shares the stream may have lost something too"
    assert site.noted(late) == [("g", "after")]
    assert site.noted(unconcerned) == []
    assert early.has_loaded(29, NOON.isoformat()), "what comes of that is not for it any more"
    assert not early.has_loaded(30, NOON.isoformat())
    assert not late.has_loaded(29, NOON.isoformat())
    assert sorted((one.observer, one.consumers) for one in of(MessagesMissing, observed)) == sorted(
        [(TASKS, 1), (BESIDE, 1)]
    )


async def test_a_loss_is_read_when_the_channel_is_back_in_its_groups(site: Site, observed: list[Observation]) -> None:
    one = await site.subscribe("g")
    await site.send((TASKS, "g", 1))
    await until(lambda: site.noted(one) == [("g", 1)])
    site.layer.drops = True
    await site.send((TASKS, "g", "lost"))
    site.layer.drops, site.layer.refuses = False, True
    await site.send((TASKS, "g", 2), upto=30)
    await until(lambda: site.layer.refused > 2)
    assert not site.log.read
    site.layer.refuses = False
    await until(lambda: site.noted(one) == [("g", 1), ("g", "lost"), ("g", 2)])
    assert len(of(LayerUnreachable, observed)) == 1


async def test_a_layer_that_forgot_the_groups_is_joined_again_and_what_was_lost_is_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await site.subscribe("g")
    await site.beat()
    await site.settled()
    groups = site.groups
    site.layer.groups.clear()
    await site.send((TASKS, "g", "lost"))
    monkeypatch.setattr(module, "SILENCE", 0.02)
    await until(lambda: site.groups == groups)
    monkeypatch.setattr(module, "SILENCE", 600)
    await site.beat()
    await asyncio.sleep(0.03)
    await site.beat()
    await until(lambda: site.noted(one) == [("g", "lost")])


async def test_a_layer_that_cannot_be_received_from_is_reported_once_and_goes_on(
    site: Site, observed: list[Observation]
) -> None:
    one = await site.subscribe("g")
    await site.settled()
    site.layer.deaf = 3
    await site.send((TASKS, "g", 1))
    await until(lambda: site.layer.deaf == 0)
    await site.send((TASKS, "g", 2))
    await until(lambda: site.noted(one) == [("g", 1), ("g", 2)])
    failures = of(LayerUnreachable, observed)
    assert failures
    assert failures[0].error == "ConnectionError: broken"
    assert len(site.layer.joined) > 2, "its groups may be gone"


async def test_a_layer_that_cannot_be_joined_refuses_the_subscription_and_the_next_one_is_taken(site: Site) -> None:
    site.layer.refuses = True
    with pytest.raises(ConnectionError, match="refused"):
        await site.hub.join(TASKS, HISTORY)
    assert not site.hub.is_in(TASKS)
    site.layer.refuses = False
    one = await site.subscribe("g")
    await site.send((TASKS, "g", 1))
    await until(lambda: site.noted(one) == [("g", 1)])


async def test_a_layer_that_cannot_be_joined_again_and_again_is_made_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """channels_redis keeps each one that it has made until the loop is closed."""
    made = []

    def receiving_layer(**options: Any) -> Any:
        made.append(site.layer)
        return site.layer

    monkeypatch.setattr(module, "receiving_layer", receiving_layer)
    site.layer.refuses = True
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await site.hub.join(TASKS, HISTORY)
    site.layer.refuses = False
    await site.hub.join(TASKS, HISTORY)
    assert len(made) == 1
    assert site.hub.is_in(TASKS)


async def test_a_channel_that_stays_deaf_while_somebody_leads_is_made_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await site.subscribe("g")
    await site.beat()
    await site.settled()
    channel, groups = site.hub._channel, site.groups
    monkeypatch.setattr(module, "SILENCE", 0.03)
    await until(lambda: site.hub._channel != channel)
    monkeypatch.setattr(module, "SILENCE", 600)
    await until(lambda: site.groups == groups)
    await site.send((TASKS, "g", 1))
    await until(lambda: site.noted(one) == [("g", 1)])
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "djcrf_pg hub"]) == 1


async def test_a_channel_that_stays_deaf_is_made_anew_less_and_less_often(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a leader of 0.1.0: each layer of channels_redis stays in memory for as long as the loop."""
    monkeypatch.setattr(module, "_ANEW", 0.03, raising=False)
    hub = site.hub = module.Hub(site.gate, site.log, lambda *_: True)
    await site.subscribe("g")
    monkeypatch.setattr(module, "SILENCE", 0.03)
    channels = set()
    ends = asyncio.get_running_loop().time() + 3
    while asyncio.get_running_loop().time() < ends:
        channels.add(hub._channel)
        await asyncio.sleep(0.005)
    assert 3 <= len(channels) <= 12


async def test_all_load_again_where_asked(site: Site) -> None:
    one, other = await site.subscribe("g"), await site.subscribe("g", ELSEWHERE)
    site.hub.lose_all("failed")
    await until(lambda: site.noted(one) == site.noted(other) == [("resync", "failed")])


# -- leaders -------------------------------------------------------------------------------------------------


async def test_a_new_leader_is_received_once_the_database_names_it(site: Site) -> None:
    one = await site.subscribe("g")
    await site.settled()
    site.lead(HISTORY, 2)
    site.gate.error = ConnectionError("the database is away")
    await site.send((TASKS, "g", 1))
    await until(lambda: site.gate.asked > 2)
    assert site.noted(one) == []
    site.gate.answer.term = 2
    site.gate.error = None
    await until(lambda: site.noted(one) == [("g", 1)])


async def test_what_is_foreign_is_reported_once_and_harms_nobody(site: Site, observed: list[Observation]) -> None:
    one = await site.subscribe("g")
    ours, foreign = site.outbound, Outbound(OTHER_DATABASE, 99, at(10), max_events=10, max_bytes=10_000)
    for number in range(3):
        site.outbound = foreign
        await site.send((TASKS, "g", "foreign"))
        await site.beat()
        site.outbound = ours
        await site.send((TASKS, "g", number))
    await until(lambda: len(site.noted(one)) == 3)
    await site.settled()
    assert site.noted(one) == [("g", 0), ("g", 1), ("g", 2)]
    (reported,) = of(ForeignMessages, observed)
    assert (reported.database, reported.term) == (OTHER_DATABASE.group(None), 99)


async def test_two_that_are_foreign_at_once_keep_no_new_leader_out(site: Site) -> None:
    one = await site.subscribe("g")
    site.gate.error = ConnectionError("the database is away")
    for history in (OTHER_DATABASE, History(9, 5, 16_402, 1)):
        site.outbound = Outbound(history, 99, at(10), max_events=10, max_bytes=10_000)
        await site.send((TASKS, "g", "foreign"))
    await site.settled()
    site.gate.error = None
    await site.settled()
    site.gate.answer.term = 2
    site.lead(HISTORY, 2)
    await site.send((TASKS, "g", 1))
    await until(lambda: site.noted(one) == [("g", 1)])


async def test_what_cannot_be_read_is_reported_once_and_harms_nobody(site: Site, observed: list[Observation]) -> None:
    one = await site.subscribe("g")
    for number, text in enumerate(["junk", {"v": 1, "events": "[]"}, None]):
        await site.put(HISTORY.group(stream_of(TASKS)), text)
        await site.send((TASKS, "g", number))
    await until(lambda: site.noted(one) == [("g", 0), ("g", 1), ("g", 2)])
    await site.settled()
    assert len(of(MessagesUnreadable, observed)) == 1
    assert len(site.noted(one)) == 3


async def test_a_database_with_another_history_is_a_resync_and_its_leader_is_received(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await site.subscribe("g")
    await site.send((TASKS, "g", 1))
    await until(lambda: site.noted(one) == [("g", 1)])
    site.gate.answer.history = OTHER_DATABASE
    monkeypatch.setattr(module, "SILENCE", 0.02)
    await until(lambda: site.noted(one) == [("g", 1), RESYNC])
    monkeypatch.setattr(module, "SILENCE", 600)
    site.lead(OTHER_DATABASE, 1, 30)
    await site.send((TASKS, "g", 2))
    await until(lambda: site.noted(one) == [("g", 1), RESYNC, ("g", 2)])


@pytest.mark.parametrize("leader", ["of another version", None])
async def test_what_a_leader_sends_that_nothing_comes_of_is_read_now_and_then(
    site: Site, monkeypatch: pytest.MonkeyPatch, leader: str | None
) -> None:
    site.gate.answer.leader = leader
    one = await site.subscribe("g")
    monkeypatch.setattr(module, "SILENCE", 0.02)
    monkeypatch.setattr(module, "_SILENT", 0.1)
    if leader is None:
        await asyncio.sleep(0.3)
        assert site.gate.asked
        assert not site.log.read
    else:
        for number in range(3):
            await lose(site, (TASKS, "g", number))
            await until(lambda number=number: site.noted(one)[number:] == [("g", number)])


# -- the database --------------------------------------------------------------------------------------------


async def test_the_interest_of_the_process_is_that_of_its_lanes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETAIN", 0.02)
    one = await site.subscribe("g")
    await site.subscribe("h", ELSEWHERE)
    bits = {bit_of(*lane) for lane in [(TASKS, "g"), (TASKS, EVERYBODY), (ELSEWHERE, "h"), (ELSEWHERE, EVERYBODY)]}
    await until(lambda: site.gate.retained[-1:] == [bits])
    site.hub.forget(one)
    await until(lambda: site.gate.retained[-1:] == [{bit_of(ELSEWHERE, "h"), bit_of(ELSEWHERE, EVERYBODY)}])


async def test_whoever_was_not_known_to_be_interested_loads_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RENEW", 0.02)
    one, other = await site.subscribe("g"), await site.subscribe("g", ELSEWHERE)
    await until(lambda: site.gate.asked > 2)
    assert site.noted(one) == []
    site.gate.known = False
    await until(lambda: RESYNC in site.noted(one) and RESYNC in site.noted(other))


async def test_what_handlers_failed_on_is_recorded_also_where_the_database_is_away_first(site: Site) -> None:
    site.gate.error = ConnectionError("away")
    one = await site.subscribe("g")
    site.hub.record(["first"])
    await until(lambda: site.gate.asked)
    site.hub.forget(one)
    site.hub.record(["second"])
    site.gate.error = None
    await until(lambda: site.gate.recorded)
    await site.settled()
    assert site.gate.recorded == ["first", "second"]


async def test_failures_that_wait_have_a_bound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FAILURES", 3)
    site.gate.error = ConnectionError("away")
    await site.subscribe("g")
    for _ in range(3):
        site.hub.record(["a", "b"])
    site.gate.error = None
    await until(lambda: site.gate.recorded)
    assert site.gate.recorded == ["a", "b", "a"]


@pytest.mark.parametrize(
    "error",
    [ConnectionError("away"), ConfigurationError("a pooler"), ArithmeticError("unforeseen")],
    ids=["away", "pooler", "unforeseen"],
)
async def test_a_database_that_cannot_be_asked_ends_no_watch(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(module, "_RENEW", 0.02)
    one = await site.subscribe("g")
    site.gate.error = error
    await until(lambda: site.gate.asked > 2)
    monkeypatch.setattr(module, "_HEALS", 0.0)
    await lose(site, (TASKS, "g", "lost"))
    await site.send((TASKS, "g", 1))
    await until(lambda: RESYNC in site.noted(one))


# -- the end -------------------------------------------------------------------------------------------------


async def test_the_end_comes_also_where_the_layer_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    await site.subscribe("g")

    async def group_discard(group: str, channel: str) -> None:
        await asyncio.Event().wait()

    site.layer.group_discard = group_discard
    async with asyncio.timeout(1):
        await site.hub.close()


async def test_the_end_leaves_the_groups_and_no_task(site: Site) -> None:
    await site.subscribe("g")
    assert site.groups
    await site.hub.close()
    assert site.groups == set()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("djcrf_pg hub")]
