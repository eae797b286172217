"""The process's end of delivery: one channel for all its subscriptions to a database, and who is in which lane *here*.

A hub is a registry. The first subscription of an observer joins the channel to the observer's stream, the last one that
goes leaves it, and one message serves everybody. It has two tasks:

- One does nothing but take messages off the layer and put their events into inboxes; nothing that a consumer does can
  hold it up, and a channel that is read at once is never over its capacity.
- The other *watches*, every :data:`TICK` seconds: it joins the groups again after a loss and before they expire, asks
  the database about leaders that it does not know, has the process's interest renewed, and looks after those that
  ended.

What is lost is decided by :class:`~djcrf_pg.delivery.protocol.Inbound`. It is read from the log
(:mod:`djcrf_pg.delivery.healing`). Where it is not to be had there, the subscriptions that it concerns get a resync.
The channel is back in its groups before either, so nothing is left out behind it.
"""

import asyncio
import contextlib
import contextvars
import dataclasses
import json
import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from channels.db import aclose_old_connections
from channels.layers import BaseChannelLayer

from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.changelog.reader import CONNECTION_ERRORS
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.backoff import Backoff
from djcrf_pg.delivery.envelope import CHANNEL_LAYER, UNOBSERVED, UNTOLD, Event
from djcrf_pg.delivery.healing import Healing, Progress, Replayer, before
from djcrf_pg.delivery.inbox import BEHIND, Moment, Subscription
from djcrf_pg.delivery.interest import bit_of
from djcrf_pg.delivery.layer import channel_layer, close, describe, receiving_layer
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
    Point,
    Standing,
    Unreadable,
    stream_of,
)
from djcrf_pg.delivery.resume import Cursor, digest
from djcrf_pg.exceptions import ConfigurationError, CursorExpired
from djcrf_pg.observations import (
    ForeignMessages,
    HubFailed,
    LayerUnreachable,
    MessagesMissing,
    MessagesReplayed,
    MessagesUnreadable,
    ObserversUnknown,
    cause_of,
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

#: Seconds between two reads of the log while a leader leads that nothing readable comes from.
_SILENT = 2.5

#: Seconds between two channels that are made anew, at least at first and at most. channels_redis keeps each layer that
#: it has made until the loop is closed, and closes one within the other.
_ANEW, _LONGEST_ANEW = 2.5, 120.0

#: Seconds that the layer has to put a channel into a group, or to take it out.
_PATIENCE = 2.0

#: Seconds between two times that a stream is healed, and how many times as long as it took: a layer that is over its
#: capacity drops for as long as a burst lasts, and what it dropped in between is one cause.
_PACE, _REST = 0.25, 4.0

#: Changes of an observer that are read when its stream is healed; for more, its subscribers receive a resync.
_MOST_LOST = 100_000

#: Events of those that were read that are put into inboxes before the other tasks of the loop have a turn.
_TURN = 1_000

#: Seconds after which those receive a resync whose stream could not be healed.
_HEALS = UNTOLD

#: Why those receive a resync whose stream we failed to heal; the observation HubFailed says more.
_FAULT = "a fault of ours"

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
        log: Reads what was lost.
        is_ours: Whether who leads a history in a term is in this process, and has the observers that are here.
    """

    def __init__(self, gate: Gate, log: Replayer, is_ours: Callable[[History, int], bool]) -> None:
        self._gate = gate
        self._log = log
        self._is_ours = is_ours
        #: Observers that the leader does not have, to when their subscriptions last received a resync.
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
        self._progress: dict[int, Progress] = {}
        self._healing: dict[int, Healing] = {}
        #: Stream to the moment up to which it was healed last, and to when it may be again.
        self._healed: dict[int, Moment] = {}
        self._heals_at: dict[int, float] = {}
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
        """Send all subscriptions a resync."""
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

    @property
    def groups(self) -> set[str]:
        """The names, in the channel layer, of the groups of these streams."""
        return set() if self._history is None else {self._history.group(stream) for stream in self.streams}

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
            for healing in self._healing.values():
                if healing.task is not None:
                    healing.task.cancel()
            self._healing, self._healed, self._progress = {}, {}, {}
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
        """Resync those, now and then, whose observer the leader does not have; and once when one has it.

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
                case Loss(stream):
                    if (healing := self._healing.get(stream)) is None:
                        self._healing[stream] = Healing(happening, time.monotonic())
                    else:
                        healing.lose(happening)
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
        if (healing := self._healing.get(arrival.stream)) is not None:
            healing.hold(arrival)
            return
        arrival = self._news(arrival)
        self._progress.setdefault(arrival.stream, Progress()).note(arrival)
        origin = arrival.origin
        lanes = list(arrival.to.items())
        if len(lanes) == 1:
            ((lane, places),) = lanes
            for place in places:
                self.put(lane, arrival.lines[place], origin)
        else:  # who is in several lanes receives in the order of the lines, and that of marks
            entries = [(place, digest(lane[1]), lane) for lane, places in lanes for place in places]
            for place, _, lane in sorted(entries):
                self.put(lane, arrival.lines[place], origin)

    def _news(self, arrival: Arrival) -> Arrival:
        """What of a message was not read from the log when its stream was healed."""
        healed, span = self._healed.get(arrival.stream), arrival.origin.span
        if healed is None or span.is_empty or not healed.covers(span.last) or healed.snapshot == span.last:
            return arrival
        news = {
            lane: [place for place in places if not _is_in(healed, arrival.events[place])]
            for lane, places in arrival.to.items()
        }
        origin = arrival.origin._replace(span=span._replace(last=healed.snapshot))
        return dataclasses.replace(arrival, origin=origin, to={lane: places for lane, places in news.items() if places})

    def put(self, lane: tuple[str, str], line: str, origin: Origin) -> int:
        """Put an event into the inboxes of those in a lane.

        Args:
            lane: The observer's address, and the group.
            line: The event.
            origin: What it is made of.

        Returns:
            How many those are.
        """
        observer, group = lane
        members = list(self._lanes.get(observer, {}).get(group, ()))
        for subscription in members:
            subscription.inbox.put(subscription, group, line, origin)
        return len(members)

    def has(self, snapshot: Snapshot) -> bool:
        """Whether all that a snapshot sees has come here, and nothing of it is still to be read from the log."""
        streams = {stream_of(address) for address in self._lanes}
        return not (self._healing or self._broken) and all(self._inbound.has(stream, snapshot) for stream in streams)

    async def handled(self) -> None:
        """Wait until all that is in inboxes has been handed over; see :meth:`Inbox.handled`."""
        for inbox in {id(one.inbox): one.inbox for one in self.subscriptions()}.values():
            await inbox.handled()

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
            lossy: list[int] = []
            try:
                lossy = await self._mind_the_layer()
            except Exception as error:
                self._layer_failed(error)
                await asyncio.sleep(backoff.delay())
            else:
                backoff.reset()
            self._stop_healing()
            try:
                if lossy:
                    await self._begin_to_heal(lossy)
                await self._mind_the_database()
            except _DATABASE_ERRORS:
                pass  # asked again with the next look
            except Exception as error:
                emit(HubFailed(error=text_of(error)), error)
                await asyncio.sleep(backoff.delay())

    async def _mind_the_layer(self) -> list[int]:
        """See that the channel is in its groups.

        Returns:
            The streams that are to be healed now.
        """
        now = time.monotonic()
        due = [
            stream
            for stream, healing in self._healing.items()
            if healing.task is None and now >= self._heals_at.get(stream, -math.inf)
        ]
        silent = now - max(self._heard_at, self._rejoined_at) > SILENCE
        if self._broken or due or silent or self._expires(now):
            await self._rejoin()
            self._reachable = True
        used = set(map(stream_of, self._lanes))
        for stream in [stream for stream in self.streams if stream not in used]:
            if now - self._unused.setdefault(stream, now) >= _LINGER:
                await self._leave_stream(stream)
        if self._left and not self._is_leaving:
            self._is_leaving = True
            self._spawn(self._leave_groups())
        return due

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
                self._progress.pop(stream, None)
                async with asyncio.timeout(_PATIENCE):  # whoever subscribes waits meanwhile
                    await self._layer.group_discard(self._history.group(stream), self._channel)

    # Healing.

    async def _begin_to_heal(self, streams: Collection[int]) -> None:
        """Ask what is committed, now that the channel is in its groups, and have what was lost of that read."""
        asked = [healing for stream in streams if (healing := self._healing.get(stream)) is not None]
        for healing in asked:
            healing.ask()
        try:
            async with asyncio.timeout(_ASK):
                moment = (await self._question()).moment
        except Exception:
            for healing in asked:
                healing.lose()
            raise  # they are healed with the next look; who loads now would fail too
        for healing in asked:
            if self._healing.get(stream := healing.loss.stream) is healing:
                healing.task = _start(self._heal(healing, moment), f"djcrf_pg hub heals stream {stream}")

    def _stop_healing(self) -> None:
        """Resync those for whom the log cannot be read: a list that is old and says nothing is worse."""
        now = time.monotonic()
        for stream, healing in list(self._healing.items()):
            if now - healing.begun >= _HEALS:
                del self._healing[stream]
                if healing.task is not None:
                    healing.task.cancel()
                why = f"it took longer than {_HEALS:g} s"
                self._report(healing.loss, None, self.subscriptions({stream}), why)

    async def _heal(self, healing: Healing, moment: Moment) -> None:
        stream, begun = healing.loss.stream, time.monotonic()
        try:
            if addresses := [address for address in self._lanes if stream_of(address) == stream]:
                try:
                    failed = await self._log.failed(begun - healing.loss.known_at)
                except ConfigurationError:
                    failed = addresses  # nobody can say
                for address in addresses:
                    await self._heal_observer(healing, moment, address, has_failed=address in failed)
        except _DATABASE_ERRORS:
            healing.task = None
            healing.lose()
            self._heals_at[stream] = time.monotonic() + _ASK
            return
        except Exception as error:
            emit(HubFailed(error=text_of(error)), error)
            self._report(healing.loss, moment, self.subscriptions({stream}), _FAULT)
        took = time.monotonic() - begun
        self._heals_at[stream] = time.monotonic() + max(_PACE, took * _REST)
        self._healed[stream] = moment
        self._progress.pop(stream, None)
        self._inbound.healed(stream, moment.snapshot, begun)
        del self._healing[stream]
        if healing.again:
            loss = dataclasses.replace(healing.loss, since=Position(moment.snapshot), known_at=begun)
            self._healing[stream] = Healing(loss, time.monotonic(), aside=healing.aside)
            self._wanted.set()
        try:
            for arrival in healing.held or ():
                self._deliver(arrival)
        except Exception as error:
            emit(HubFailed(error=text_of(error)), error)
            self._report(healing.loss, None, self.subscriptions({stream}), _FAULT)

    async def _heal_observer(self, healing: Healing, moment: Moment, address: str, *, has_failed: bool) -> None:
        """Hand over what the subscriptions of an observer have lost, or have them load it."""
        loss, standing = healing.loss, self._standing
        if (lanes := self._lanes.get(address)) is None or standing is None:
            return
        members = list(lanes[EVERYBODY])
        observer = members[0].observer
        found: Sequence[tuple[str, str, Any]] | None = None
        why = "the database is not the one that it was" if loss.since is None else "it has failed on something lately"
        if loss.beside or address in healing.aside:
            healing.aside.discard(address)
            why = "what was sent is not in the log"
        elif loss.since is not None and not has_failed:
            cursor = healing.cursors.get(address)
            if cursor is None:
                since, healed = loss.since, self._healed.get(loss.stream)
                if healed is not None and Point.of(Position(healed.snapshot)).covers(Point.of(since)):
                    since = Position(healed.snapshot)  # heartbeats say where the leader is, which may be before that
                progress = self._progress.get(loss.stream) or Progress()
                cursor = progress.cursor(standing.history, since, address)
            groups = [group for group in lanes if group != EVERYBODY]
            try:
                found = await self._log.replay(cursor, moment.snapshot, observer, groups, lost=_MOST_LOST)
            except (CursorExpired, ConfigurationError) as error:
                why = text_of(error)
        healing.cursors[address] = Cursor.at(standing.history, moment.snapshot)
        if found is None:
            self._report(loss, moment, members, why)
            return
        puts = 0
        for group, line, origin in found:
            self.put((address, group), line, origin)
            puts += 1 + len(self._lanes.get(address, {}).get(group, ()))
            if puts >= _TURN:
                puts = 0
                await asyncio.sleep(0)
        if found:
            emit(MessagesReplayed(observer=observer.label, events=len(found)))

    def _report(self, loss: Loss, moment: Moment | None, members: Iterable[Subscription], why: str) -> None:
        """Resync those whom a loss concerns, and with that what had been committed by a moment."""
        # Nothing was handed on since. What began in another history cannot be compared.
        until = None if moment is None or loss.since is None else Point.at(moment.snapshot)
        loss = dataclasses.replace(loss, until=until)
        observers: dict[str, int] = {}
        for subscription in members:
            if subscription.is_concerned(loss):
                subscription.lose(CHANNEL_LAYER, moment)
                label = subscription.observer.label
                observers[label] = observers.get(label, 0) + 1
        for label, count in observers.items():
            emit(MessagesMissing(observer=label, consumers=count, why=why))

    async def missed(
        self, subscription: Subscription, group: str, line: str, origin: Origin
    ) -> list[tuple[str, str, Origin | Moment]]:
        """What a subscription has missed that was behind, from an event on; and the moment up to which it is that.

        Args:
            subscription: The subscription.
            group: The group that the event came through.
            line: The event.
            origin: What it is made of.
        """
        backoff, begun = Backoff(0.1, 2.0), time.monotonic()
        while not subscription.inbox.gone and time.monotonic() - begun < _HEALS:
            try:
                # The log may be read for others all the time.
                async with asyncio.timeout(max(begun + _HEALS - time.monotonic(), 0.0)):
                    return await self._missed(subscription, group, line, origin)
            except _DATABASE_ERRORS:
                await asyncio.sleep(backoff.delay())
            except Exception as error:
                emit(HubFailed(error=text_of(error)), error)
                break
        subscription.lose(BEHIND)
        return []

    async def _missed(
        self, subscription: Subscription, group: str, line: str, origin: Origin
    ) -> list[tuple[str, str, Origin | Moment]]:
        answer = await self._question()
        moment = answer.moment
        origin = origin._replace(span=subscription.rest_of(origin.span))
        cursor = before(Event(*json.loads(line)), group, origin)
        groups, most = subscription.groups, get_settings().REPLAY_LIMIT
        try:
            if origin.span.is_empty or origin.history != answer.history:
                raise CursorExpired("It is made of nothing that is in the log.")
            found = await self._log.replay(cursor, moment.snapshot, subscription.observer, groups, lost=most)
        except (CursorExpired, ConfigurationError):
            subscription.lose(BEHIND, moment)
            return []
        return [*found, ("", "", moment)]

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
            emit(LayerUnreachable(layer=describe(channel_layer()), error=cause_of(error)))

    async def close(self) -> None:
        """End, and leave the groups."""
        tasks, self._tasks = [*self._tasks, *self._background], []
        tasks += [healing.task for healing in self._healing.values() if healing.task is not None]
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


def _is_in(moment: Moment, event: Event) -> bool:
    return moment.sees(event.xid, event.committed_at)


def _start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task of the hub's own, which has nothing of the context of whoever subscribed first."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())
