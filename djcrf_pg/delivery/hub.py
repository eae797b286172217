"""The process's end of delivery: one channel for all its subscriptions to a database, and who is in which lane *here*.

A hub is a registry. The first subscription of an observer joins the channel to the observer's stream, the last one that
goes leaves it, and one message serves everybody. It has two tasks:

- One does nothing but take messages off the layer and put their events into inboxes; nothing that a consumer does can
  hold it up, and a channel that is read at once is never over its capacity.
- The other *watches*, every :data:`TICK` seconds: it joins the groups again after a loss and before they expire, asks
  the database about leaders that it does not know, has the process's interest renewed, and looks after those that
  ended.

What is lost is decided by :class:`~djcrf_pg.delivery.protocol.Inbound`. The channel is back in its groups before a loss
is reported to the subscriptions that it concerns, so whoever loads then has it all.
"""

import asyncio
import contextlib
import contextvars
import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from channels.db import aclose_old_connections
from channels.layers import BaseChannelLayer

from djcrf_pg.changelog.cursor import BEGINNING, Position, Span
from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import CHANNEL_LAYER, UNOBSERVED, UNTOLD
from djcrf_pg.delivery.inbox import Moment, Subscription
from djcrf_pg.delivery.interest import bit_of
from djcrf_pg.delivery.layer import close, receiving_layer
from djcrf_pg.delivery.protocol import (
    EVERYBODY,
    SILENCE,
    Arrival,
    Doubt,
    Foreign,
    Happening,
    History,
    Inbound,
    Loss,
    Origin,
    Standing,
    Unreadable,
    stream_of,
)
from djcrf_pg.delivery.resume import digest
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.observations import (
    ForeignMessages,
    HubFailed,
    LayerUnreachable,
    MessagesMissing,
    MessagesUnreadable,
    ObserversUnknown,
    emit,
    text_of,
)

#: Seconds between looks.
TICK = 0.25

#: Seconds that a stream without subscriptions stays joined: whoever comes back at once finds it.
_LINGER = 10.0

#: Seconds between looks at whether the process is still known to be interested, and between clearings of what it is no
#: longer interested in.
_RENEW, _RETAIN = 2.0, 30.0

#: Seconds between two resyncs while a leader leads that nothing readable comes from.
_SILENT = 10.0

#: Seconds between two channels that are made anew, at least at first and at most. channels_redis keeps each layer that
#: it has made until the loop is closed, and closes one within the other.
_ANEW, _LONGEST_ANEW = 2.5, 120.0

#: Seconds that the layer has to put a channel into a group, or to take it out.
_PATIENCE = 2.0

#: Seconds between two resyncs for losses of one stream: a layer that is over its capacity drops for as long as a burst
#: lasts, and what it dropped in between is one cause.
_PACE = 1.0

#: Seconds between questions about messages of an unknown leader.
_ASK = 1.0

#: Seconds after which database connections are looked at again before handlers run, as Channels does for each message.
_CONNECTIONS = 1.0

#: Failures of handlers that wait to be recorded.
_MOST_FAILURES = 1_000

#: Groups that are left at the same time for consumers that ended.
_PARALLEL = 8

#: The group of the heartbeats among the streams.
_BEATS = None

#: What is foreseen of the database: a pooler that was put in front is the last.
_DATABASE_ERRORS = (*CONNECTION_ERRORS, ConfigurationError)


class Answer(Protocol):
    """What the database says when it is asked."""

    @property
    def moment(self) -> Moment:
        """What had been committed, and when."""

    @property
    def history(self) -> History:
        """Which database it is."""

    @property
    def term(self) -> int:
        """Of the leadership that began last."""

    @property
    def leader(self) -> str | None:
        """Who leads."""


class Gate(Protocol):
    """What asks the database on behalf of subscribers."""

    async def probe(self, tables: Iterable[str], bits: Iterable[int]) -> Answer:
        """Ask; see :meth:`djcrf_pg.listener.gate.Gate.probe`."""

    async def renew(self) -> bool:
        """See that the interest of this process is known; whether it was all the time."""

    async def retain(self, bits: Collection[int]) -> None:
        """Have the interest of this process be these bits."""

    async def record(self, failures: Sequence[Any]) -> None:
        """Keep what handlers failed on."""


class Hub:
    """The subscriptions of an event loop to one database.

    Args:
        gate: Asks the database.
        is_ours: Whether who leads a history in a term is in this process, and has the observers that are here.
    """

    def __init__(self, gate: Gate, is_ours: Callable[[History, int], bool]) -> None:
        self._gate = gate
        self._is_ours = is_ours
        #: Observers that the leader does not have, to when their subscriptions last had to load again.
        self._unobserved: dict[str, float] = {}
        #: Observer to group to who is there; all subscriptions of the observer are in :data:`EVERYBODY` as well.
        self._lanes: dict[str, dict[str, dict[Subscription, None]]] = {}
        self._inbound = Inbound(lambda observer, group: group in self._lanes.get(observer, ()))
        self._layer: Any = None
        self._channel = ""
        self._history: History | None = None
        self._standing: Standing | None = None
        #: Stream to when it was joined, by ``time.monotonic``.
        self._joined: dict[int | None, float] = {}
        self._joining = asyncio.Lock()
        self._unused: dict[int, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._wanted = asyncio.Event()
        self._losses: dict[int, Loss] = {}
        self._reported: dict[int, float] = {}
        self._doubt: Doubt | None = None
        self._broken = self._deaf = False
        self._reachable = True
        now = time.monotonic()
        self._heard_at = self._asked_at = self._rejoined_at = self._renewed_at = self._retained_at = now
        self._tidied_at = self._silent_at = self._anew_at = -math.inf
        self._anew = Backoff(_ANEW, _LONGEST_ANEW)
        self._failures: list[Any] = []
        self._left: list[tuple[BaseChannelLayer, str, list[str]]] = []
        self._is_leaving = False

    # Who is here.

    def enter(self, subscription: Subscription, group: str) -> None:
        """Put a subscription into a lane, if it is not there."""
        subscription.hub = self
        address = subscription.observer.address
        groups = self._lanes.setdefault(address, {})
        for name in (group, EVERYBODY):
            groups.setdefault(name, {})[subscription] = None
        self._unused.pop(stream_of(address), None)

    def leave(self, subscription: Subscription, group: str) -> None:
        """Take a subscription out of a lane, and out of that of everybody where it is in no other."""
        self._remove(subscription, group)
        if not subscription.groups:
            self._remove(subscription, EVERYBODY)

    def _remove(self, subscription: Subscription, group: str) -> None:
        address = subscription.observer.address
        groups = self._lanes.get(address, {})
        members = groups.get(group, {})
        members.pop(subscription, None)
        if not members:
            groups.pop(group, None)
        if not groups:
            self._lanes.pop(address, None)

    def forget(self, subscription: Subscription) -> None:
        """Take a subscription out of all lanes: its consumer has ended."""
        for group in [*subscription.groups, EVERYBODY]:
            self._remove(subscription, group)

    def abandon(self, layer: Any, channel: str, groups: Iterable[str]) -> None:
        """Leave groups on behalf of a consumer that ended without leaving them."""
        self._left.append((layer, channel, list(groups)))
        self._wanted.set()

    def subscriptions(self, streams: Collection[int] | None = None) -> list[Subscription]:
        """All that are here, or those of observers in some streams."""
        return [
            one
            for address, groups in self._lanes.items()
            if streams is None or stream_of(address) in streams
            for one in groups[EVERYBODY]
        ]

    def record(self, failures: Sequence[Any]) -> None:
        """Have what a handler failed on recorded with the next look."""
        self._failures += failures[: max(_MOST_FAILURES - len(self._failures), 0)]
        self._wanted.set()

    def lose_all(self, reason: str) -> None:
        """Have all subscriptions load again."""
        for subscription in self.subscriptions():
            subscription.lose(reason)

    def knows(self, address: str) -> bool | None:
        """Whether the leader has an observer; None where it has not said so yet."""
        if self._standing is not None and self._is_ours(*self._standing[:2]):
            return True
        return self._inbound.knows(address)

    # Joining streams.

    def is_in(self, address: str) -> bool:
        """Whether what is sent for an observer comes here, as far as is known."""
        return stream_of(address) in self._joined and not self._broken

    @property
    def streams(self) -> list[int]:
        """The streams that the channel is in."""
        return [stream for stream in self._joined if stream is not _BEATS]

    async def join(self, address: str, history: History) -> None:
        """Have what is sent for an observer come here from now on. The database is to be asked after this.

        Raises:
            Exception: The layer's, which cannot be reached.
        """
        async with self._joining:
            await self._begin(history)
            if self._broken:
                await self._join_again()
            stream = stream_of(address)
            if stream not in self._joined:
                await self._add(stream)
                self._inbound.join(stream)

    async def _begin(self, history: History) -> None:
        if not self._tasks:
            if self._layer is None:  # else a former try could not join
                self._layer = receiving_layer()
            self._channel = await self._layer.new_channel()
            self._history = history
            await self._add(_BEATS)
            self._heard_at = time.monotonic()
            self._tasks = [_start(self._receive(), "djcrf_pg hub"), _start(self._watch(), "djcrf_pg hub's watch")]

    async def _add(self, stream: int | None) -> None:
        assert self._history is not None
        now = time.monotonic()
        async with asyncio.timeout(_PATIENCE):  # a socket may be frozen, and the next try is another one
            await self._layer.group_add(self._history.group(stream), self._channel)
        self._joined[stream] = now

    async def _rejoin(self) -> None:
        async with self._joining:
            await self._join_again()

    async def _join_again(self) -> None:
        self._broken, self._rejoined_at = False, time.monotonic()
        try:
            if self._deaf:
                await self._replace_channel()
            for stream in list(self._joined):
                await self._add(stream)
        except BaseException:
            self._broken = True  # it may be in some of them
            raise

    async def _replace_channel(self) -> None:
        """Receive on a channel that is made anew, over connections that are, where the layer allows it.

        Nothing came although the channel was in its groups: the layer has another one under its name, or the sockets
        are frozen. Nothing that concerns the former one may be waited for.
        """
        self._deaf = False
        self._anew_at = time.monotonic() + self._anew.delay()
        self._tasks[0].cancel()
        former, channel = self._layer, self._channel
        self._layer = receiving_layer(anew=True)
        self._channel = await self._layer.new_channel()
        self._tasks[0] = _start(self._receive(), "djcrf_pg hub")
        if self._history is not None:
            self.abandon(self._layer, channel, [self._history.group(stream) for stream in self._joined])
        if former is not self._layer:
            self._spawn(close(former))

    def learn(self, answer: Answer, streams: Collection[int], doubt: Doubt | None = None) -> None:
        """Take an answer of the database.

        Args:
            answer: The answer.
            streams: Those that the channel was in when the question was asked.
            doubt: For what it was asked.
        """
        standing = Standing(answer.history, answer.term, answer.moment.snapshot)
        if self._history is not None and answer.history.group(_BEATS) != self._history.group(_BEATS):
            self._history = answer.history  # its groups have other names
            self._broken = True
            self._wanted.set()
        before, self._standing = self._standing, standing
        if before is not None and not standing.continues(before):
            for subscription in self.subscriptions():
                subscription.loaded = None  # what was committed in another course of events
        self._happen(self._inbound.learn(standing, streams, time.monotonic(), doubt))

    async def _question(self, doubt: Doubt | None = None) -> Answer:
        streams = self.streams
        answer = await self._gate.probe((), ())
        self.learn(answer, streams, doubt)
        return answer

    # Taking messages.

    async def _receive(self) -> None:
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                message = await self._layer.receive(self._channel)
            except Exception as error:
                self._layer_failed(error)
                self._broken = True
                self._wanted.set()
                await asyncio.sleep(backoff.delay())
            else:
                backoff.reset()
                try:
                    self._take(message)
                except Exception as error:
                    # A fault of ours. Without this task everybody would be deaf, and who misses what is not known.
                    emit(HubFailed(error=text_of(error)), error)
                    self.lose_all(CHANNEL_LAYER)

    def _take(self, message: Any) -> None:
        beats = self._inbound.beats
        self._happen(self._inbound.take(message, time.monotonic()))
        if self._inbound.beats != beats:
            self._heard_at = time.monotonic()
            self._anew.reset()
            self._see_who_is_unobserved(self._heard_at)

    def _see_who_is_unobserved(self, now: float) -> None:
        """Have those load again, now and then, whose observer the leader does not have; and once when one has it.

        What that one begins behind was not delivered.
        """
        former, self._unobserved = self._unobserved, {}
        found = []
        for address, groups in self._lanes.items():
            if self.knows(address) is False:
                due = now - former.get(address, -math.inf) >= UNTOLD
                self._unobserved[address] = now if due else former[address]
                if address not in former:
                    found += [next(iter(groups[EVERYBODY])).observer.label]
            else:
                due = address in former
            if due:
                for subscription in groups[EVERYBODY]:
                    if subscription.since:  # else it waits for a leader that has it
                        subscription.lose(UNOBSERVED)
        if found:
            emit(ObserversUnknown(observers=", ".join(sorted(found))))

    def _happen(self, happenings: Iterable[Happening]) -> None:
        for happening in happenings:
            match happening:
                case Arrival():
                    self._deliver(happening)
                case Loss():
                    former = self._losses.get(happening.stream)
                    self._losses[happening.stream] = happening if former is None else former.merge(happening)
                    self._wanted.set()
                case Doubt():
                    self._doubt = happening
                    self._wanted.set()
                case Foreign(history, term):
                    emit(ForeignMessages(database=history.group(None), term=term))
                case Unreadable(error):
                    emit(MessagesUnreadable(error=error), None)

    def _deliver(self, arrival: Arrival) -> None:
        if time.monotonic() - self._tidied_at >= _CONNECTIONS:
            # In the thread that handlers use, before anything that they do there; nobody has to wait for it.
            self._tidied_at = time.monotonic()
            self._spawn(aclose_old_connections())
        origin = self._origin(arrival)
        lanes = list(arrival.to.items())
        if len(lanes) == 1:
            ((lane, places),) = lanes
            for place in places:
                self._put(lane, arrival.lines[place], origin)
        else:  # who is in several lanes receives in the order of the lines, and that of marks
            entries = [(place, digest(lane[1]), lane) for lane, places in lanes for place in places]
            for place, _, lane in sorted(entries):
                self._put(lane, arrival.lines[place], origin)

    def _origin(self, arrival: Arrival) -> Origin:
        """What events are made of; of a stream with a loss that nobody was told of, that which was not lost.

        Whoever goes on behind such an event, and did not live to see the resync, misses nothing then.
        """
        loss = self._losses.get(arrival.stream)
        if loss is None:
            return arrival.origin
        return arrival.origin._replace(span=Span.before(loss.since or Position(BEGINNING)))

    def _put(self, lane: tuple[str, str], line: str, origin: Origin) -> None:
        observer, group = lane
        for subscription in list(self._lanes.get(observer, {}).get(group, ())):
            subscription.inbox.put(subscription, group, line, origin)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Watching.

    async def _watch(self) -> None:
        backoff = Backoff(0.1, 1.0)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._mind_the_layer()
            except Exception as error:
                self._layer_failed(error)
                await asyncio.sleep(backoff.delay())
            else:
                backoff.reset()
            try:
                await self._mind_the_database()
            except _DATABASE_ERRORS:
                pass  # asked again with the next look
            except Exception as error:
                emit(HubFailed(error=text_of(error)), error)
                await asyncio.sleep(backoff.delay())

    async def _mind_the_layer(self) -> None:
        now = time.monotonic()
        due = [stream for stream in self._losses if now - self._reported.get(stream, -math.inf) >= _PACE]
        silent = now - max(self._heard_at, self._rejoined_at) > SILENCE
        if self._broken or due or silent or self._expires(now):
            await self._rejoin()
            self._reachable = True
        if due:
            self._reported.update(dict.fromkeys(due, now))
            # What was dropped up to here, in the streams or on the way into them, is the same cause.
            moment = None
            with contextlib.suppress(Exception):  # a resync too many, then
                async with asyncio.timeout(_ASK):
                    moment = (await self._question()).moment
            self._report([self._losses.pop(stream) for stream in due], moment)
        used = set(map(stream_of, self._lanes))
        for stream in [stream for stream in self.streams if stream not in used]:
            if now - self._unused.setdefault(stream, now) >= _LINGER:
                await self._leave_stream(stream)
        if self._left and not self._is_leaving:
            self._is_leaving = True
            self._spawn(self._leave_groups())

    async def _leave_groups(self) -> None:
        """Leave groups for those that ended; where the layer is silent this takes long, and nobody waits for it."""
        try:
            while self._left:
                layer, channel, groups = self._left.pop()
                for start in range(0, len(groups), _PARALLEL):
                    part = groups[start : start + _PARALLEL]
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_PATIENCE):
                            discards = (layer.group_discard(group, channel) for group in part)
                            await asyncio.gather(*discards, return_exceptions=True)
        finally:
            self._is_leaving = False

    def _expires(self, now: float) -> bool:
        """Whether memberships are old enough to be renewed; a layer whose ``group_expiry`` is 0 keeps them for ever."""
        expiry = getattr(self._layer, "group_expiry", None) or 0
        return expiry > 0 and now - min(self._joined.values(), default=now) > expiry / 3

    async def _leave_stream(self, stream: int) -> None:
        async with self._joining:
            if stream not in map(stream_of, self._lanes) and self._history is not None:
                self._unused.pop(stream, None)
                self._joined.pop(stream, None)
                self._inbound.leave(stream)
                async with asyncio.timeout(_PATIENCE):  # whoever subscribes waits meanwhile
                    await self._layer.group_discard(self._history.group(stream), self._channel)

    def _report(self, losses: Sequence[Loss], moment: Moment | None) -> None:
        """Have those load again whom losses concern, and with that what had been committed."""
        observers: dict[str, int] = {}
        for subscription in self.subscriptions({loss.stream for loss in losses}):
            stream = stream_of(subscription.observer.address)
            if any(subscription.is_concerned(loss) for loss in losses if loss.stream == stream):
                subscription.lose(CHANNEL_LAYER, moment)
                label = subscription.observer.label
                observers[label] = observers.get(label, 0) + 1
        for label, count in observers.items():
            emit(MessagesMissing(observer=label, consumers=count))

    async def _mind_the_database(self) -> None:
        now = time.monotonic()
        silent = now - self._heard_at > SILENCE
        if (self._doubt or silent) and now - self._asked_at >= _ASK:
            self._asked_at = now
            doubt = self._doubt
            answer = await self._question(doubt)
            if doubt is self._doubt:
                self._doubt = None
            if silent and answer.leader is not None:
                self._deaf = self._rejoined_at > self._heard_at + SILENCE and now >= self._anew_at
                if now - self._silent_at >= _SILENT:
                    self._silent_at = now
                    self._happen(self._inbound.silence(now))
        if failures := self._failures:
            count = len(failures)  # more may come meanwhile
            await self._gate.record(failures[:count])
            del failures[:count]
        if self._lanes and now - self._renewed_at >= _RENEW:
            self._renewed_at = now
            if not await self._gate.renew():
                self.lose_all(CHANNEL_LAYER)
        if now - self._retained_at >= _RETAIN:
            self._retained_at = now
            await self._gate.retain(
                {bit_of(address, group) for address in self._lanes for group in self._lanes[address]}
            )

    def _layer_failed(self, error: Exception) -> None:
        if self._reachable:
            self._reachable = False
            emit(LayerUnreachable(error=repr(error)))

    async def close(self) -> None:
        """End, and leave the groups."""
        tasks, self._tasks = [*self._tasks, *self._background], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._layer is not None and self._history is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_PATIENCE):
                    for stream in list(self._joined):
                        await self._layer.group_discard(self._history.group(stream), self._channel)
                    await close(self._layer)
        self._joined.clear()


def _start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task of the hub's own, which has nothing of the context of whoever subscribed first."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())
