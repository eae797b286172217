"""What waits for one consumer: bounded, one thing at a time, and it ends with the consumer.

The consumers are real ones, called as a server calls them; the observer notes what it is given.
"""

import asyncio
import contextlib
import contextvars
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from django.test import override_settings

from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.delivery import inbox as module
from djcrf_pg.delivery.envelope import CHANNEL_LAYER, Event
from djcrf_pg.delivery.inbox import Inbox, Moment, Subscription
from djcrf_pg.delivery.protocol import Loss, Origin, Point
from djcrf_pg.observer import handling
from djcrf_pg.observer.consumers import attach, inbox_of
from tests.processes import until
from tests.testapp.models import Task
from tests.unit.origin import ORIGIN

EVENTS, BYTES = 3, 20


class Observer:
    """Notes events, and the resyncs that are due; where it may not go on it waits in its handler.

    Attributes:
        noted: What it was given, in order.
        calls: So many times it was called.
        looks: So many times it was to look at what is due.
        busy: So many calls run.
        open: While it is not set, a handler does not return.
        error: What the next handler raises.
    """

    model_cls = Task
    label = "app.tasks"

    def __init__(self, address: str = "tasks") -> None:
        self.address = address
        self.noted: list[Any] = []
        self.calls = self.looks = self.busy = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: BaseException | None = None
        self.forgotten: list[Subscription] = []

    async def receive(self, subscription: Subscription, group: str, line: str, origin: Origin) -> None:
        """An event."""
        await self._note(line)

    async def settle(self, subscription: Subscription) -> None:
        """A resync."""
        self.looks += 1
        if subscription.lost is not None:
            reason, subscription.lost = subscription.lost["reason"], None
            await self._note((self.address, reason))

    async def _note(self, what: Any) -> None:
        self.calls += 1
        self.busy += 1
        try:
            assert self.busy == 1, "two handlers at once"
            await self.open.wait()
            if self.error is not None:
                raise self.error
            self.noted.append(what)
        finally:
            self.busy -= 1

    def forget(self, subscription: Subscription) -> None:
        """The end."""
        self.forgotten.append(subscription)


class Hub:
    """Gives what was missed, as two events.

    Attributes:
        asked: From which events on it was to give it.
        open: While it is not set, it does not answer.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def missed(
        self, subscription: Subscription, group: str, line: str, origin: Origin
    ) -> list[tuple[str, str, Any]]:
        """As the hub's."""
        self.asked.append((subscription.observer.address, line))
        await self.open.wait()
        return [("g", "read", ORIGIN), ("g", "also read", ORIGIN), ("", "", moment(50 + len(self.asked)))]


def subscribe(inbox: Inbox, observer: Observer) -> Subscription:
    """What ``subscribe()`` makes."""
    subscription = inbox.subscribe(observer.address, observer, None)
    subscription.hub = Hub()
    subscription.since["g"] = moment(1)
    return subscription


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    with override_settings(DJCRF_PG={"INBOX_EVENTS": EVENTS, "INBOX_BYTES": BYTES}):
        yield


@pytest.fixture
async def observer() -> Observer:
    return Observer()


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    inbox = Inbox()
    yield inbox
    await inbox.close()


# -- bounds --------------------------------------------------------------------------------------------------


async def test_events_are_handed_over_in_order(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    for line in "abc":
        inbox.put(one, "g", line, ORIGIN)
    await until(lambda: observer.noted == ["a", "b", "c"])


async def fill(inbox: Inbox, observer: Observer, one: Subscription, *lines: str) -> None:
    """Have a handler stuck in an event, and these wait behind it."""
    observer.open.clear()
    inbox.put(one, "g", "first", ORIGIN)
    await until(lambda: observer.busy)
    for line in lines:
        inbox.put(one, "g", line, ORIGIN)


@pytest.mark.parametrize(
    "lines",
    [
        ["x"] * EVENTS,
        ["x" * (BYTES // 2)] * 2,
        ["x" * 10 * BYTES],
    ],
)
async def test_what_is_within_the_limits_waits(inbox: Inbox, observer: Observer, lines: list[str]) -> None:
    """One that is larger than the limit waits alone."""
    one = subscribe(inbox, observer)
    await fill(inbox, observer, one, *lines)
    observer.open.set()
    await until(lambda: observer.noted == ["first", *lines])


@pytest.mark.parametrize(
    "lines",
    [
        ["x"] * EVENTS + ["over"],
        ["x" * (BYTES // 2)] * 2 + ["over"],
        ["x" * 10 * BYTES, "over"],
        ["x", "y" * BYTES],
    ],
)
async def test_what_is_over_a_limit_is_read_from_the_log(inbox: Inbox, observer: Observer, lines: list[str]) -> None:
    *waiting, over = lines
    one, other = subscribe(inbox, observer), subscribe(inbox, Observer("labels"))
    await fill(inbox, observer, one, *lines)
    inbox.put(one, "g", "last", ORIGIN)
    one.hub.open.clear()
    observer.open.set()
    await until(lambda: one.hub.asked == [("tasks", over)])
    inbox.put(one, "g", "later", ORIGIN)
    inbox.put(other, "g", "beside", ORIGIN)
    assert observer.noted == ["first", *waiting]
    one.hub.open.set()
    await until(lambda: observer.noted == ["first", *waiting, "read", "also read", "later"])
    await until(lambda: other.observer.noted == ["beside"])
    assert not other.hub.asked, "of this one nothing was dropped"
    assert one.loaded == moment(51), "what it was read up to is not for it any more"


async def test_an_inbox_that_overflows_again_and_again_reads_once(inbox: Inbox, observer: Observer) -> None:
    one, other = subscribe(inbox, observer), subscribe(inbox, Observer("labels"))
    await fill(inbox, observer, one, *map(str, range(100)))
    inbox.put(other, "g", "also", ORIGIN)
    inbox.put(other, "g", "missed", ORIGIN)
    observer.open.set()
    waiting = [*map(str, range(EVENTS))]
    await until(lambda: observer.noted == ["first", *waiting, "read", "also read"])
    await until(lambda: other.observer.noted == ["read", "also read"])
    assert one.hub.asked + other.hub.asked == [("tasks", str(EVENTS)), ("labels", "also")]


async def test_an_inbox_that_overflows_while_the_log_is_read_reads_again(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    await fill(inbox, observer, one, *map(str, range(10)))
    one.hub.open.clear()
    observer.open.set()
    await until(lambda: one.hub.asked == [("tasks", str(EVENTS))])
    for number in range(10, 20):
        inbox.put(one, "g", str(number), ORIGIN)
    one.hub.open.set()
    await until(lambda: len(one.hub.asked) == 2)
    assert one.hub.asked == [("tasks", str(EVENTS)), ("tasks", str(10 + EVENTS))]
    read = ["read", "also read"]
    waiting = [[str(begin + number) for number in range(EVENTS)] for begin in (0, 10)]
    await until(lambda: observer.noted == ["first", *waiting[0], *read, *waiting[1], *read])
    assert one.loaded == moment(52)


async def test_a_subscription_that_has_ended_is_given_nothing_that_was_missed(inbox: Inbox, observer: Observer) -> None:
    one, other = subscribe(inbox, observer), subscribe(inbox, Observer("labels"))
    await fill(inbox, observer, one, *map(str, range(10)))
    inbox.put(other, "g", "missed", ORIGIN)
    one.since.clear()
    observer.open.set()
    await until(lambda: other.observer.noted == ["read", "also read"])
    assert not one.hub.asked


async def test_a_client_that_is_gone_is_given_nothing_that_was_missed(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    await fill(inbox, observer, one, *map(str, range(10)))
    one.hub.open.clear()
    observer.open.set()
    await until(lambda: one.hub.asked == [("tasks", str(EVENTS))])
    inbox.leave()
    one.hub.open.set()
    await until(lambda: inbox._task is not None and inbox._task.done())
    assert observer.noted == ["first", *map(str, range(EVENTS))]


async def test_what_is_due_is_done_also_in_an_inbox_that_is_full(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    await fill(inbox, observer, one, "a")
    one.lose("channel_layer")
    for line in "bcdef":
        inbox.put(one, "g", line, ORIGIN)
    observer.open.set()
    resync = ("tasks", "channel_layer")
    await until(lambda: observer.noted == ["first", "a", resync, "b", "read", "also read"])


async def test_a_replay_is_no_reason_to_overflow_and_is_not_dropped(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    inbox.hold()
    replay = [str(number) for number in range(10)]
    inbox.put_first(one, [("g", line, ORIGIN) for line in replay])
    for line in ("live", "more", "and more"):
        inbox.put(one, "g", line, ORIGIN)
    inbox.release()
    await until(lambda: observer.noted == [*replay, "live", "more", "and more"])
    inbox.hold()
    inbox.put_first(one, [("g", line, ORIGIN) for line in replay])
    for line in ("live", "more", "and more", "too many"):
        inbox.put(one, "g", line, ORIGIN)
    observer.noted.clear()
    inbox.release()
    await until(lambda: observer.noted == [*replay, "live", "more", "and more", "read", "also read"])
    assert one.hub.asked == [("tasks", "too many")]


async def test_bytes_that_were_handed_over_make_room(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    for number in range(5):
        inbox.put(one, "g", "x" * BYTES, ORIGIN)
        await until(lambda number=number: len(observer.noted) == number + 1)
    inbox.put(one, "g", "x" * (BYTES - 1), ORIGIN)
    inbox.put(one, "g", "y", ORIGIN)
    await until(lambda: observer.noted[-1:] == ["y"])


async def test_a_resync_that_waits_is_not_a_second_one_and_keeps_its_reason(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    await fill(inbox, observer, one)
    one.lose("channel_layer")
    one.lose("other")
    inbox.put(one, "g", "a", ORIGIN)
    observer.open.set()
    await until(lambda: observer.noted == ["first", ("tasks", "channel_layer"), "a"])


async def test_a_resync_is_behind_what_came_before_the_loss(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    await fill(inbox, observer, one, "before")
    one.lose("channel_layer")
    one.lose("channel_layer")
    inbox.put(one, "g", "after", ORIGIN)
    observer.open.set()
    await until(lambda: observer.noted == ["first", "before", ("tasks", "channel_layer"), "after"])
    assert observer.looks == 1


async def test_a_replay_of_a_subscription_that_has_ended_is_not_handed_over(inbox: Inbox, observer: Observer) -> None:
    one, other = subscribe(inbox, observer), subscribe(inbox, Observer("labels"))
    inbox.hold()
    for request in ("first", "second"):
        inbox.put_first(one, [(group, f"{group} {request}", ORIGIN._replace(requests=(request,))) for group in "gh"])
    inbox.put_first(other, [("g", "of another observer", ORIGIN._replace(requests=("first",)))])
    inbox.withdraw(one, ["g"], "first")
    inbox.withdraw(one, ["h"])
    inbox.release()
    await until(lambda: observer.noted == ["g second"])
    await until(lambda: other.observer.noted == ["of another observer"])


# -- turns ---------------------------------------------------------------------------------------------------


async def test_a_turn_is_had_by_one_task_and_the_same_one_may_ask_again(inbox: Inbox) -> None:
    assert await inbox.begin()
    assert not await inbox.begin()
    other = asyncio.create_task(inbox.begin())
    await asyncio.sleep(0)
    assert not other.done()
    inbox.end()
    assert await other
    mine = asyncio.create_task(inbox.begin())
    await asyncio.sleep(0)
    assert not mine.done(), "it is not had for ever by who had it once"
    mine.cancel()
    inbox.end()


async def test_a_handler_waits_for_the_consumer_s_own_turn(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    await inbox.begin()
    inbox.put(one, "g", "a", ORIGIN)
    for _ in range(10):
        await asyncio.sleep(0)
    assert observer.calls == 0
    inbox.end()
    await until(lambda: observer.noted == ["a"])


async def test_the_consumer_has_its_turn_among_many_events(
    inbox: Inbox, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TURN", 2)
    one = subscribe(inbox, observer)
    await fill(inbox, observer, one, "b", "c", "d")
    turn = asyncio.create_task(inbox.begin())
    await asyncio.sleep(0)
    observer.open.set()
    assert await turn
    assert observer.noted == ["first", "b"]
    inbox.end()
    await until(lambda: observer.noted == ["first", "b", "c", "d"])


async def test_what_was_missed_comes_before_what_waits(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    inbox.hold()
    inbox.put(one, "g", "live", ORIGIN)
    for _ in range(10):
        await asyncio.sleep(0)
    assert observer.noted == []
    inbox.put_first(one, [("g", line, ORIGIN) for line in ("first", "second", "third")])
    inbox.release()
    await until(lambda: len(observer.noted) == 4)
    assert observer.noted == ["first", "second", "third", "live"]


async def test_two_holds_are_two_releases(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    inbox.hold()
    inbox.hold()
    inbox.put(one, "g", "a", ORIGIN)
    inbox.release()
    for _ in range(10):
        await asyncio.sleep(0)
    assert observer.noted == []
    inbox.release()
    await until(lambda: observer.noted == ["a"])


# -- consumers -----------------------------------------------------------------------------------------------


class Consumer(AsyncConsumer):  # type: ignore[misc]
    """As Channels has them."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log
        self.open = asyncio.Event()

    async def websocket_slow(self, message: Any) -> None:
        """An action."""
        self.log.append("begins")
        await self.open.wait()
        self.log.append("ends")

    async def websocket_again(self, message: Any) -> None:
        """An action that dispatches another one, as a demultiplexer does."""
        await self.dispatch({"type": "websocket.inner"})
        self.log.append("outer")

    async def websocket_inner(self, message: Any) -> None:
        """That one."""
        self.log.append("inner")

    async def websocket_close(self, message: Any) -> None:
        """An action that closes the socket."""
        await self.send({"type": "websocket.close"})

    async def websocket_write(self, message: Any) -> None:
        """An action that sends, and minds no client that is gone."""
        with contextlib.suppress(OSError):
            await self.send({"type": "websocket.send", "text": ""})

    async def websocket_disconnect(self, message: Any) -> None:
        """The end."""
        self.log.append("disconnects")
        raise StopConsumer


attach(Consumer)


@dataclasses.dataclass
class Served:
    """A consumer and what serves it."""

    consumer: Consumer
    task: asyncio.Task[None]
    messages: asyncio.Queue[Any]
    sent: list[Any]

    @property
    def inbox(self) -> Inbox:
        """Its inbox."""
        return inbox_of(self.consumer)

    def send(self, type: str) -> None:
        """What comes from the client."""
        self.messages.put_nowait({"type": type})

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for that, or raise what it ended with meanwhile."""
        await until(lambda: self.task.done() or condition())
        if self.task.done():
            self.task.result()

    async def end(self) -> BaseException | None:
        """Wait for its end; what it ended with."""
        await asyncio.wait([self.task], timeout=10)
        assert self.task.done()
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Served]]:
    """Serves a consumer until the end of the test; its client may be gone, which the server says when it sends."""
    tasks, thread = [], ThreadSensitiveContext()

    def start(*, client_gone: bool = False) -> Served:
        consumer, messages, sent = Consumer([]), asyncio.Queue[Any](), []  # type: ignore[var-annotated]

        async def send(message: Any) -> None:
            if client_gone:
                raise OSError("the client is gone")
            sent.append(message)

        scope: dict[str, Any] = {"type": "websocket"}
        # Channels looks at the connections of the thread before each handler: here of one that no other test has used.
        context = contextvars.copy_context()
        context.run(SyncToAsync.thread_sensitive_context.set, thread)
        task = asyncio.create_task(consumer(scope, messages.get, send), context=context)
        tasks.append(task)
        return Served(consumer, task, messages, sent)

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if (executor := SyncToAsync.context_to_thread_executor.pop(thread, None)) is not None:
        executor.shutdown()


async def began(served: Served, observer: Observer) -> Subscription:
    """Subscribe when the consumer runs."""
    served.send("websocket.inner")
    await served.until(lambda: served.consumer.log == ["inner"])
    served.consumer.log.clear()
    return subscribe(served.inbox, observer)


async def test_an_action_and_a_handler_are_never_run_at_once(serve: Any, observer: Observer) -> None:
    served = serve()
    one = await began(served, observer)
    served.send("websocket.slow")
    await served.until(lambda: served.consumer.log == ["begins"])
    served.inbox.put(one, "g", "a", ORIGIN)
    for _ in range(10):
        await asyncio.sleep(0)
    assert observer.calls == 0
    served.consumer.open.set()
    await served.until(lambda: observer.noted == ["a"])
    observer.open.clear()
    served.inbox.put(one, "g", "b", ORIGIN)
    await served.until(lambda: observer.busy)
    served.send("websocket.inner")
    for _ in range(10):
        await asyncio.sleep(0)
    assert served.consumer.log == ["begins", "ends"]
    observer.open.set()
    await served.until(lambda: served.consumer.log == ["begins", "ends", "inner"])


async def test_an_action_may_dispatch_another_one(serve: Any) -> None:
    served = serve()
    served.send("websocket.again")
    served.send("websocket.again")
    await served.until(lambda: served.consumer.log == ["inner", "outer"] * 2)


async def test_a_handler_that_stops_the_consumer_ends_it(serve: Any, observer: Observer) -> None:
    served = serve()
    one = await began(served, observer)
    observer.error = StopConsumer()
    for line in "ab":
        served.inbox.put(one, "g", line, ORIGIN)
    assert await served.end() is None
    assert observer.calls == 1
    assert observer.forgotten == [one]


@pytest.mark.parametrize("error", [KeyError("broken"), asyncio.CancelledError()])
async def test_what_a_handler_raises_ends_the_consumer(serve: Any, observer: Observer, error: BaseException) -> None:
    """The observer lets through what is no failure of one event. What it awaits may have been cancelled."""
    served = serve()
    one = await began(served, observer)
    observer.error = error
    for line in "ab":
        served.inbox.put(one, "g", line, ORIGIN)
    assert type(await served.end()) is type(error)
    assert observer.calls == 1
    assert observer.forgotten == [one]


async def test_a_server_that_cancels_the_consumer_is_not_given_a_handler_s_error(
    serve: Any, observer: Observer
) -> None:
    served = serve()
    one = await began(served, observer)

    async def receive(subscription: Subscription, group: str, line: str, origin: Origin) -> None:
        served.task.cancel()
        raise KeyError("broken")

    observer.receive = receive  # type: ignore[method-assign]
    served.inbox.put(one, "g", "a", ORIGIN)
    assert isinstance(await served.end(), asyncio.CancelledError)
    assert observer.forgotten == [one]


async def test_a_disconnect_drops_what_waits_and_comes_when_the_handler_has_returned(
    serve: Any, observer: Observer
) -> None:
    served = serve()
    one = await began(served, observer)
    await fill(served.inbox, observer, one, "second")
    served.send("websocket.disconnect")
    await until(lambda: served.inbox.gone)
    assert served.consumer.log == []
    assert not served.inbox._entries
    observer.open.set()
    assert await served.end() is None
    assert served.consumer.log == ["disconnects"]
    assert observer.noted == ["first"]


@pytest.mark.parametrize(
    ("what", "client_gone"), [("websocket.close", False), ("websocket.write", True), ("websocket.close", True)]
)
async def test_a_client_that_is_gone_is_given_nothing_more(
    serve: Any, observer: Observer, what: str, client_gone: bool
) -> None:
    served = serve(client_gone=client_gone)
    inbox, one = served.inbox, await began(served, observer)
    await fill(inbox, observer, one, "second")
    served.send(what)
    await asyncio.sleep(0)
    observer.open.set()
    await until(lambda: inbox.gone)
    count = observer.calls
    inbox.put(one, "g", "late", ORIGIN)
    one.lose("channel_layer")
    for _ in range(10):
        await asyncio.sleep(0)
    assert observer.calls == count
    assert not inbox._entries, "nothing is kept for it"


async def test_nothing_of_it_runs_on_when_the_consumer_has_ended(serve: Any, observer: Observer) -> None:
    served = serve()
    one = await began(served, observer)
    await fill(served.inbox, observer, one, "second")
    one.settle_in(0.01)
    timer = one.timer
    served.task.cancel()
    await served.end()
    assert observer.busy == 0
    assert timer is not None
    assert timer.cancelled()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "djcrf_pg inbox"]


async def test_a_server_that_cancels_again_while_a_handler_ends_leaves_no_subscription(
    serve: Any, observer: Observer
) -> None:
    """As daphne does each second; a handler's query in a thread ends when it has its answer."""
    served, asked = serve(), asyncio.Event()
    one = await began(served, observer)

    async def receive(subscription: Subscription, group: str, line: str, origin: Origin) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asked.set()
            await observer.open.wait()
            raise

    observer.receive = receive  # type: ignore[method-assign]
    observer.open.clear()
    served.inbox.put(one, "g", "a", ORIGIN)
    one.settle_in(600)
    await asyncio.sleep(0)
    served.task.cancel()
    await asked.wait()
    served.task.cancel()
    assert isinstance(await served.end(), asyncio.CancelledError)
    observer.open.set()
    assert observer.forgotten == [one]
    assert one.timer is not None
    assert one.timer.cancelled()


async def test_a_handler_has_the_context_variables_of_its_consumer(serve: Any, observer: Observer) -> None:
    """The language, or the tenant, as middleware and ``connect()`` have set it; not those of who subscribed first."""
    users = contextvars.ContextVar[str]("user", default="nobody")
    seen = []

    async def receive(subscription: Subscription, group: str, line: str, origin: Origin) -> None:
        seen.append((line, users.get()))

    async def connect(consumer: Consumer, user: str) -> None:
        users.set(user)
        consumer.log.append("connected")

    observer.receive = receive  # type: ignore[method-assign]
    for user in ("one", "other"):
        served = serve()
        served.consumer.websocket_connect = lambda message, served=served, user=user: connect(served.consumer, user)
        served.send("websocket.connect")
        await served.until(lambda served=served: served.consumer.log == ["connected"])
        users.set("the hub's")
        served.inbox.put(subscribe(served.inbox, observer), "g", user, ORIGIN)
    await until(lambda: len(seen) == 2)
    assert seen == [("one", "one"), ("other", "other")]


async def test_a_timer_is_one_and_brings_what_is_due(inbox: Inbox, observer: Observer) -> None:
    one = subscribe(inbox, observer)
    one.settle_in(600)
    former = one.timer
    one.lost = {"reason": "failed"}
    one.settle_in(0)
    assert former is not None
    assert former.cancelled()
    await until(lambda: observer.noted == [("tasks", "failed")])


# -- subscriptions -------------------------------------------------------------------------------------------


def moment(xid: int) -> Moment:
    """When all below a transaction had ended."""
    return Moment(Snapshot(xid, xid), module.datetime.fromisoformat("2026-01-01T12:00:00+00:00"))


@pytest.mark.parametrize(
    ("xid", "written", "sees"),
    [
        (9, "2026-01-01T11:00:00+00:00", True),
        (10, "2026-01-01T11:00:00+00:00", False),
        (9, "2026-01-01T13:00:00+00:00", False),
        (9, "2026-01-01T13:30:00+02:00", True),
    ],
)
def test_a_moment_sees_what_was_committed_and_written_before_it(xid: int, written: str, sees: bool) -> None:
    assert moment(10).sees(xid, written) is sees


def test_a_loss_concerns_who_is_older_than_what_was_lost_or_not_begun_yet() -> None:
    one = Subscription(None, None, Inbox())
    loss = Loss(0, Position(Snapshot(5, 5)), Point(10))
    assert not one.is_concerned(loss)
    one.since["late"] = moment(10)
    assert not one.is_concerned(loss)
    assert one.is_concerned(Loss(0, None, None))
    one.since["early"] = moment(9)
    assert one.is_concerned(loss)
    del one.since["early"]
    one.wait(["g"])
    assert one.is_concerned(loss)
    one.waited(["g"])
    assert not one.is_concerned(loss)


async def test_what_a_consumer_loads_after_a_loss_does_not_come_once_more(
    observer: Observer, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several old events the last may be lost, and then the others would stay over the newer row that was loaded."""

    async def note(observer: Observer, subscription: Subscription, group: str, event: Event, origin: Origin) -> None:
        observer.noted.append(event.body)

    async def receive(*xids: int) -> list[Any]:
        observer.noted.clear()
        for xid in xids:
            event = Event("update", xid, 1, xid, "2026-01-01T11:00:00+00:00")
            await handling.receive(observer, one, "g", event.encode(), ORIGIN)
        return observer.noted

    monkeypatch.setattr(handling, "_call", note)
    one = subscribe(inbox, observer)
    one.since["g"] = moment(5)
    assert await receive(4, 5, 9, 10) == [5, 9, 10]
    one.lose(CHANNEL_LAYER, moment(10))
    assert not one.is_concerned(Loss(0, None, Point(10)))
    assert await receive(4, 5, 9, 10) == [10]
    # It is not known what the consumer will load: so a loss of anything since it began concerns it.
    one.lose(CHANNEL_LAYER)
    assert one.is_concerned(Loss(0, None, Point(10)))
    assert await receive(4, 5, 9, 10) == [5, 9, 10]


def test_a_group_that_several_calls_wait_for_is_held_until_the_last() -> None:
    one = Subscription(None, None, Inbox())
    one.wait(["g", "h"])
    one.wait(["g"])
    one.waited(["g", "h"])
    assert one.holds("g")
    assert not one.holds("h")
    assert one.groups == ["g"]
    one.since["g"] = moment(9)
    assert one.groups == ["g"], "once"
