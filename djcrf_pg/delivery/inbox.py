"""What waits for one consumer, and the task that hands it over: one thing at a time, as in Channels.

The hub puts events into the inboxes of its consumers and goes on; a consumer that is slow delays itself alone. In
Channels, a consumer's handlers and actions run one after the other, for one task dispatches everything. Here another
task calls the handlers, so both take turns: :meth:`Inbox.begin` and :meth:`Inbox.end`, which stand around the
``dispatch`` of the consumer's class too (:mod:`djcrf_pg.observer.consumers`). What a handler raises ends the consumer
as it would there. Handlers have the context variables of their consumer, its language or its tenant, whichever
task puts the first event there.

An inbox is bounded. One that is full is *behind*: of each subscription it keeps the first event for which it had no
room. When the consumer has handled what waits, what it has missed is read from the log
(:mod:`djcrf_pg.delivery.healing`).
"""

import asyncio
import contextvars
import dataclasses
import math
from collections import deque
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Protocol

from djcrf_pg.changelog.cursor import Snapshot, Span
from djcrf_pg.conf import get_settings
from djcrf_pg.delivery.protocol import Loss, Origin, Point

#: Entries that are handed over before the consumer's actions and the other tasks of the loop have a turn.
_TURN = 100

#: The reason of a resync after an inbox overflowed, and what was in it is not to be had from the log.
BEHIND = "behind"


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """When a subscription began.

    Attributes:
        snapshot: What had been committed.
        at: What the server's clock said.
    """

    snapshot: Snapshot
    at: datetime

    def sees(self, xid: int, written: str) -> bool:
        """Whether a change had been committed by then, so that it is not for the subscription.

        A change that was written later cannot have been, whatever its transaction id says: after a restore, another
        server counts them from elsewhere.

        Args:
            xid: The transaction.
            written: When the row was written, ISO 8601.
        """
        if xid >= self.snapshot.xmax:
            return False
        return self.snapshot.sees(xid) and datetime.fromisoformat(written) <= self.at

    def covers(self, snapshot: Snapshot) -> bool:
        """Whether it is as late as a snapshot.

        Args:
            snapshot: The snapshot.
        """
        return Point.at(self.snapshot).covers(Point.at(snapshot))


class Receiver(Protocol):
    """An observer, as its subscriptions need it."""

    @property
    def address(self) -> str:
        """What tells it from others in messages."""

    @property
    def label(self) -> str:
        """Where it is defined."""

    async def receive(self, subscription: "Subscription", group: str, line: str, origin: Origin) -> None:
        """Have the consumer handle an event."""

    async def settle(self, subscription: "Subscription") -> None:
        """Do what is due: see :meth:`Inbox.remind`."""


@dataclasses.dataclass(slots=True, eq=False, weakref_slot=True)
class Subscription:
    """What a consumer has of one observer; it lives and goes with the consumer.

    Attributes:
        observer: The observer.
        consumer: The consumer.
        inbox: Where its events wait.
        since: Group to when it was joined: what had been committed by then is not for it, however late it arrives.
        later: The same for a request that went on behind a cursor in a group that others had joined before.
        waiting: Group to the number of calls of ``subscribe`` that wait for a listener.
        loaded: When it last received a resync, or what it had missed was last read from the log. What had been
            committed by then is not for it any more, as if it had begun then: if of that more is lost, it is no other
            cause.
        lost: The body of a resync that the consumer has not handled yet.
        tries: How often it has failed.
        failed: What the handler failed on since the consumer last got a resync for it, by group.
        failed_at: When that was, by ``time.monotonic``.
        reminded: Whether an entry that has :meth:`Receiver.settle` called is in the inbox.
        timer: What puts it there later.
        changing: Held while groups are left.
        hub: That whose lanes it is in, or was.
    """

    observer: Any
    consumer: Any
    inbox: "Inbox"
    since: dict[str, Moment] = dataclasses.field(default_factory=dict)
    later: dict[tuple[str, Any], Moment] = dataclasses.field(default_factory=dict)
    waiting: dict[str, int] = dataclasses.field(default_factory=dict)
    loaded: Moment | None = None
    lost: dict[str, Any] | None = None
    tries: int = 0
    failed: dict[str, list[Any]] | None = None
    failed_at: float = -math.inf
    reminded: bool = False
    timer: asyncio.TimerHandle | None = None
    changing: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    hub: Any = None

    @property
    def groups(self) -> list[str]:
        """The groups that it is in, or about to be in."""
        return [*self.since, *(group for group in self.waiting if group not in self.since)]

    def holds(self, group: str) -> bool:
        """Whether it is in a group, or about to be."""
        return group in self.since or group in self.waiting

    def wait(self, groups: list[str]) -> None:
        """Note that a call waits for groups."""
        for group in groups:
            self.waiting[group] = self.waiting.get(group, 0) + 1

    def waited(self, groups: list[str]) -> None:
        """Note that it waits no longer."""
        for group in groups:
            count = self.waiting.pop(group) - 1
            if count:
                self.waiting[group] = count

    def is_concerned(self, loss: Loss) -> bool:
        """Whether it may have lost something for which it has received no resync since."""
        if self.loaded is not None and not loss.concerns(self.loaded.snapshot):
            return False
        return bool(self.waiting) or any(loss.concerns(moment.snapshot) for moment in self.since.values())

    def has_loaded(self, xid: int, written: str) -> bool:
        """Whether a change is in what the consumer loads, or has loaded, after the last resync; see `Moment.sees`."""
        return self.loaded is not None and self.loaded.sees(xid, written)

    def rest_of(self, span: Span, group: str | None = None) -> Span:
        """A span less what it had when it began, or last received a resync, for that did not come as events.

        Args:
            span: The span.
            group: The group of the event that is in it; with None, it may have begun in the middle.
        """
        if self.loaded is not None and self.loaded.covers(span.last):
            span = span._replace(last=self.loaded.snapshot)
        own = None if group is None else self.since.get(group)
        if own is not None and own.covers(span.last):
            # What the others have not had is not to be left out.
            first = min(self.since.values(), key=lambda moment: Point.at(moment.snapshot))
            if first.covers(span.last):
                span = span._replace(last=first.snapshot)
        return span

    def has_read(self, moment: Moment) -> None:
        """Note that what was missed up to a moment has been handed over."""
        if self.loaded is None or not self.loaded.covers(moment.snapshot):
            self.loaded = moment

    def lose(self, reason: str, moment: Moment | None = None) -> None:
        """Have the consumer receive a resync: events may be lost, and those that come from now on are not.

        Args:
            reason: Of the resync.
            moment: What had been committed before now, so that the consumer loads it.
        """
        self.loaded = moment
        if self.lost is None:
            self.lost = {"reason": reason, "model": self.observer.model_cls._meta.label}
        self.tries = 0
        self.inbox.remind(self)

    def settle_in(self, delay: float) -> None:
        """Have what is due looked at after so many seconds."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(delay, self.inbox.remind, self)


#: What waits: an event and what it is made of; or the moment up to which what was missed is before it; or None for what
#: is due.
_Entry = tuple[Subscription, str, str, Origin | Moment | None]


class Inbox:
    """The events that wait for one consumer, ``INBOX_EVENTS`` and ``INBOX_BYTES`` at most.

    Attributes:
        subscriptions: By the observer's id.
        gone: Whether the client is: its socket is closed, or closing. Nothing more is handed over.
        closed: Whether the consumer has ended.
        error: What a handler has raised to end the consumer.
        dispatching: Whether the ``dispatch`` of the consumer's class has the turn, for what it calls of other classes.
    """

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.gone = self.closed = self.dispatching = False
        self.error: BaseException | None = None
        self._most_events = self._most_bytes = self._holds = 0
        self._is_reading = False
        #: What was read from the log comes before what is live, and has bounds of its own.
        self._first: deque[_Entry] = deque()
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        #: While it is behind: the first event of each subscription for which there was no room.
        self._missed: dict[Subscription, tuple[str, str, Origin]] | None = None
        self._turns = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._consumer: asyncio.Task[Any] | None = None
        self._context: contextvars.Context | None = None

    def subscribe(self, key: str, observer: Receiver, consumer: Any) -> Subscription:
        """What the consumer has of an observer; made when there is nothing yet.

        Args:
            key: The observer's id.
            observer: The observer.
            consumer: The consumer.

        Raises:
            ConfigurationError: A setting is wrong. Later nobody would learn of it.
        """
        found = self.subscriptions.get(key)
        if found is None:
            settings = get_settings()
            self._most_events, self._most_bytes = settings.INBOX_EVENTS, settings.INBOX_BYTES
            found = self.subscriptions[key] = Subscription(observer, consumer, self)
        return found

    # What the hub does.

    def put(self, subscription: Subscription, group: str, line: str, origin: Origin) -> None:
        """Have an event handled. One that is larger than the limit waits alone.

        Args:
            subscription: Whose it is.
            group: The group that it came through.
            line: The event.
            origin: What it is made of.
        """
        waiting, size = len(self._entries), self._bytes + len(line)
        if self._missed is None and waiting and (waiting >= self._most_events or size > self._most_bytes):
            self._missed = {}
        if self._missed is None:
            self._append(subscription, group, line, origin)
        elif not self.gone and (subscription not in self._missed or origin.span.is_empty):
            # The first event; or one that is not in the log, for it cannot be read from there and has to be sent.
            self._missed[subscription] = group, line, origin

    def hold(self) -> None:
        """Hand nothing over until :meth:`release`: what somebody has missed comes before what is live."""
        self._holds += 1

    def release(self) -> None:
        """End a :meth:`hold`."""
        self._holds -= 1
        self._wake()

    def put_first(self, subscription: Subscription, entries: Sequence[tuple[str, str, Origin]]) -> None:
        """Have events handled before all that waits.

        Args:
            subscription: Whose they are.
            entries: The group, the event, and what it is made of.
        """
        if not self.gone:
            self._first.extendleft((subscription, *entry) for entry in reversed(entries))
            self._wake()

    def withdraw(self, subscription: Subscription, groups: Collection[str], request: Any = None) -> None:
        """Drop what waits of replays for a subscription that ends: the next one has replays of its own.

        Args:
            subscription: Whose they are.
            groups: Those that are left.
            request: The request id that they are for; None for all.
        """
        self._first = deque(
            entry
            for entry in self._first
            if entry[0] is not subscription
            or entry[1] not in groups
            or not isinstance(entry[3], Origin)
            or (request is not None and entry[3].requests != (request,))
        )

    def remind(self, subscription: Subscription) -> None:
        """Have an observer look, in its turn, at what is due for a subscription: a resync, or one after failures."""
        if not subscription.reminded:
            subscription.reminded = True
            self._append(subscription, "", "", None)

    def _append(self, subscription: Subscription, group: str, line: str, origin: Origin | None) -> None:
        if self.gone:
            return
        self._entries.append((subscription, group, line, origin))
        self._bytes += len(line)
        self._wake()

    @property
    def _is_due(self) -> bool:
        """Whether there is something to do."""
        return not self._holds and bool(self._first or self._entries or self._missed is not None)

    def _wake(self) -> None:
        if self.gone or not self._is_due:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="djcrf_pg inbox", context=self._context)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _catch_up(self) -> None:
        """Have what was missed read from the log. What comes meanwhile waits behind it."""
        missed, self._missed = self._missed or {}, None
        self._is_reading = True
        for subscription, (group, line, origin) in missed.items():
            if not subscription.groups:
                continue  # left meanwhile
            found = await subscription.hub.missed(subscription, group, line, origin)
            if not self.gone:
                self._first.extend((subscription, *entry) for entry in found)
        self._is_reading = False

    async def handled(self) -> None:
        """Wait until all that waits has been handed over, and what hands it over has returned."""
        while not self.gone:
            if await self.begin():
                self.end()
            if not (self._is_due or self._is_reading or self._holds):
                return
            await asyncio.sleep(0.001)

    # What the consumer's own task does.

    def attach(self) -> None:
        """Take the running task for that of the consumer: what a handler raises ends it."""
        self._consumer = asyncio.current_task()
        self.share_context()

    def share_context(self) -> None:
        """Have handlers called with the context variables of the running task.

        Before Python 3.12 no task gives its context away: they have those that were there when the consumer last ended
        a turn of its own before the first event.
        """
        get_context = getattr(asyncio.current_task(), "get_context", contextvars.copy_context)
        self._context = get_context()

    async def begin(self) -> bool:
        """Wait for the turn; whether it was not ours already."""
        task = asyncio.current_task()
        if self._holder is task:
            return False
        await self._turns.acquire()
        self._holder = task
        return True

    def end(self) -> None:
        """Give the turn back."""
        self._holder = None
        self._turns.release()

    def leave(self) -> None:
        """Note that the client is gone."""
        self.gone = True
        self._first.clear()
        self._entries.clear()
        self._bytes, self._missed = 0, None

    async def close(self) -> None:
        """End; the consumer has."""
        self.closed = True
        self._consumer = None
        self.leave()
        try:
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            for subscription in self.subscriptions.values():
                if subscription.timer is not None:
                    subscription.timer.cancel()

    # Its own task.

    async def _run(self) -> None:
        try:
            while not self.gone:
                if not self._is_due:
                    self._waiter = asyncio.get_running_loop().create_future()
                    await self._waiter
                await self.begin()
                try:
                    await self._hand_over()
                finally:
                    self.end()
                if self._missed is not None and not self._first and not self._entries:
                    await self._catch_up()
                elif self._is_due:
                    await asyncio.sleep(0)
        except BaseException as error:
            # Also a handler's CancelledError, of something that it awaited: nobody would read the inbox any more.
            self.error = error
            self.leave()
            if self._consumer is not None:
                self._consumer.cancel()
            if not isinstance(error, Exception):
                raise

    async def _hand_over(self) -> None:
        for _ in range(_TURN):
            waiting = self._first or self._entries
            if not waiting or self.gone or self._holds:
                return
            subscription, group, line, origin = waiting.popleft()
            if isinstance(origin, Origin):
                if waiting is self._entries:
                    self._bytes -= len(line)
                await subscription.observer.receive(subscription, group, line, origin)
            elif isinstance(origin, Moment):
                subscription.has_read(origin)
            else:
                subscription.reminded = False
                await subscription.observer.settle(subscription)
