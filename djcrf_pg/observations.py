"""What operators need to know, said once; logging and metrics subscribe.

A call site emits a small frozen dataclass. What becomes of it, a log line or a counter, is the business
of the sinks: the package brings one for :mod:`logging`, and :func:`add_sink` takes more.
"""

import dataclasses
import logging
import time
import traceback
from collections.abc import Callable
from typing import ClassVar

logger = logging.getLogger("djcrf_pg")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One fact. ``template`` is filled from the fields of the subclass."""

    level: ClassVar[int] = logging.INFO
    template: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.template.format(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leading(Observation):
    """This process took the lead for a database."""

    template = "listener of database {alias!r} leads (term {term})"
    alias: str
    term: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StandingBy(Observation):
    """Another process leads; this one waits for its lock."""

    template = "listener of database {alias!r} stands by"
    alias: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeaderEnded(Observation):
    """A standby ended the session of a leader that left work unread and gave no sign of life."""

    level = logging.WARNING
    template = "listener of database {alias!r}: {message}"
    alias: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Observation):
    """A listener ended as asked; its cursor is saved when it led."""

    template = "listener of database {alias!r} stopped"
    alias: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFailed(Observation):
    """The listener lost its connection or got none; it tries again."""

    level = logging.WARNING
    template = "listener of database {alias!r}: {error}; next try in {delay:.1f} s"
    alias: str
    error: str
    delay: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChangesGivenUp(Observation):
    """The leader failed at one place again and again; it goes on behind it, and the subscribers receive a resync."""

    level = logging.ERROR
    template = (
        "listener of database {alias!r} has failed at the same changes {tries} times in a row and goes on behind them; "
        "the subscribers of {observers} receive a resync: {error}"
    )
    alias: str
    observers: str
    tries: int
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFailed(Observation):
    """User code found its database gone; the listener tries the same events again."""

    level = logging.WARNING
    template = "groups or serializers failed in database {alias!r} (try {number}): {error}; again in {delay:.1f} s"
    alias: str
    error: str
    number: int
    delay: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CursorReset(Observation):
    """The saved cursor belongs to another cluster, or is damaged: what the log holds is read from its start."""

    level = logging.WARNING
    template = "listener of database {alias!r}: the saved cursor {fault}; the change log is read from its start"
    alias: str
    fault: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LookFailed(Observation):
    """The leader cannot look for changes that fired no trigger; said once, until it can again."""

    level = logging.WARNING
    template = (
        "listener of database {alias!r} does not notice changes that fire no trigger (a partition that is attached, a "
        "trigger that was disabled): djcrf_pg_look_v1() cannot be called ({error}); run `manage.py migrate`, and GRANT "
        "EXECUTE on it to the role of the listener"
    )
    alias: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PruneFailed(Observation):
    """The leader cannot delete old changes; said once, until it can again."""

    level = logging.WARNING
    template = (
        "listener of database {alias!r} cannot delete old changes: {error}; if it lacks a right, grant its role "
        "SELECT, UPDATE, DELETE on djcrf_pg_change, and EXECUTE on djcrf_pg_trim_v1(bigint)"
    )
    alias: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChangedUnseen(Observation):
    """The catalog shows that a table's rows may have changed without a trigger; its subscribers receive a resync."""

    level = logging.WARNING
    template = (
        "{table} (database {alias!r}) was altered, has other partitions or children, or had no working triggers for a "
        "while: its subscribers receive a resync"
    )
    alias: str
    table: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerFailed(Observation):
    """The channel layer took no message; the listener waits and sends it again."""

    level = logging.WARNING
    template = (
        "{layer} takes no messages ({error}); the listener sends again in {delay:.1f} s and skips nothing. Start its "
        "server, or correct CHANNEL_LAYERS"
    )
    layer: str
    error: str
    delay: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessagesMissing(Observation):
    """The channel layer dropped messages to this process, and what they said is not to be had from the log either.

    The consumers that they may have been for receive a resync.
    """

    level = logging.WARNING
    template = (
        "{observer}: the channel layer dropped messages or forgot a group, and the log does not have them ({why}), "
        "so {consumers} consumers receive a resync"
    )
    observer: str
    consumers: int
    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessagesReplayed(Observation):
    """The channel layer dropped messages to this process, and their events were read from the log."""

    level = logging.INFO
    template = "{observer}: the channel layer dropped messages or forgot a group; {events} events are read from the log"
    observer: str
    events: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObserversUnknown(Observation):
    """The leader's code lacks observers that this process has, so nobody makes their events; said once for each."""

    level = logging.WARNING
    template = (
        "the leader does not have {observers}: it runs other code than this process; restart it with the code of this "
        "one. Until then their subscribers receive a resync each 30 s"
    )
    observers: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolledBackTest(Observation):
    """A consumer has subscribed in a test whose transaction never commits."""

    level = logging.WARNING
    template = (
        "a consumer subscribes to changes in database {alias!r}, and this test runs in a transaction that is rolled "
        "back (Django's TestCase): what it writes is not committed, so no event comes. Use TransactionTestCase; or "
        "collect the events with djcrf_pg.testing.capture_changes(), and hand them over with deliver()"
    )
    alias: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListenerEnded(Observation):
    """The embedded listener ended for a reason that does not pass by itself; it is started again all the same."""

    level = logging.ERROR
    template = "listener of database {alias!r} ended: {error}; it starts again in {delay:.0f} s"
    alias: str
    error: str
    delay: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerRefused(Observation):
    """The channel layer will never take a message; the next one to that group is a resync."""

    level = logging.ERROR
    template = "channel layer refused a message for group {group}: {error}"
    group: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerUnreachable(Observation):
    """The channel layer failed the subscribers of this process; said once, until it works again."""

    level = logging.WARNING
    template = (
        "{layer} fails the subscribers of this process ({error}), which tries again and joins its groups when the "
        "layer works. Start its server, or correct CHANNEL_LAYERS"
    )
    layer: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HubFailed(Observation):
    """What looks after the subscriptions of this process failed in a way that nobody foresaw; it goes on."""

    level = logging.ERROR
    template = "looking after the subscriptions of this process failed, and is tried again: {error}"
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessagesUnreadable(Observation):
    """Messages of the channel layer cannot be read, and are missing; said once for each term of a leader."""

    level = logging.ERROR
    template = (
        "messages of the channel layer cannot be read, their subscribers receive a resync: {error}. Listener and "
        "consumers must run the same version of djcrf_pg."
    )
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ForeignMessages(Observation):
    """Messages claim to be of our database and are not, or of a term that it has not begun; they are ignored."""

    level = logging.ERROR
    template = (
        "the channel layer brings messages for {database} of a term ({term}) or a timeline that the database does not "
        "know; they are ignored. Does another site, restored from the same backup, use the same Redis and prefix?"
    )
    database: str
    term: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFailed(Observation):
    """User code (groups, serializer, handler) raised, twice; its subscribers get a resync, and the row is kept.

    ``manage.py djcrf_pg failures`` shows such rows, and has them sent again.
    """

    level = logging.ERROR
    template = "{observer} failed on {model} pk={pk} (change {change_id}): {error}"
    observer: str
    model: str
    pk: object
    change_id: int
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchFailed(Observation):
    """The relations that a serializer follows could not be loaded for a batch; said once for each observer.

    They are loaded event by event. ``prefetch=`` of the observer corrects what is loaded, or turns it off.
    """

    level = logging.WARNING
    template = "what the serializer of {observer} follows cannot be loaded by the batch ({error}): see its `prefetch=`"
    observer: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FailuresUnrecorded(Observation):
    """Failures of observers cannot be kept for ``manage.py djcrf_pg failures``, as where the table is missing."""

    level = logging.WARNING
    template = (
        "{count} failures of observers are not recorded ({error}); where it is the table or a right, run `manage.py "
        "migrate`, or grant SELECT, INSERT, UPDATE, DELETE on djcrf_pg_failure; their subscribers get their resync all "
        "the same"
    )
    count: int
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TouchFailed(Observation):
    """A signal or receiver that a project called by hand could not be made a touch; nobody receives that update."""

    level = logging.ERROR
    template = "{call} by hand, with pk={pk}, is no event: {error}"
    call: str
    pk: object
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallNotNeeded(Observation):
    """A project announces by hand that a row was created or deleted; said once for each such call."""

    level = logging.WARNING
    template = "{call} by hand announces a {action}, which is no event: triggers capture each of them. Remove the call."
    call: str
    action: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowUnreadable(Observation):
    """A row of the log could not be read, or its instances not loaded; its observers get a resync."""

    level = logging.ERROR
    template = (
        "change {change_id} of {what} (database {alias!r}) cannot be read, its subscribers receive a resync: {error}"
    )
    alias: str
    what: str
    change_id: int
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableUnknown(Observation):
    """A table was written that nobody here observes, and one that is observed does not exist: other code's name."""

    level = logging.WARNING
    template = (
        "nobody here knows {table} (database {alias!r}), and {observers} miss a table: if it was renamed, restart this "
        "process with the code of the migration; meanwhile their subscribers receive resyncs"
    )
    alias: str
    table: str
    observers: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FieldDeferred(Observation):
    """A column's value could not be decoded, so the field is deferred on the instance."""

    level = logging.WARNING
    template = "{model}.{field} is deferred: no decoder for column {column!r} of type {type} ({error})"
    model: str
    field: str
    column: str
    type: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContextTooLong(Observation):
    """A session said more of its changes than the log stores with each, so they carry no context."""

    level = logging.WARNING
    template = "changes of {table} carry no context: djcrf_pg.context was longer than 8192 bytes (transaction {xid})"
    table: str
    xid: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FieldSelectsSql(Observation):
    """A query selects a field as SQL, and the log has what is stored, so the field is deferred on the instance."""

    level = logging.WARNING
    template = "{model}.{field} is deferred: a query selects SQL of {kind}, and the log has what is stored"
    model: str
    field: str
    kind: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DefaultsGiven(Observation):
    """A model's code reads deferred fields while an instance is made, and got their defaults. Said once a model."""

    level = logging.WARNING
    template = (
        "{model} cannot be made with deferred fields ({error}): its __init__, from_db or receivers of post_init read "
        "the defaults of {fields}, which are deferred afterwards"
    )
    model: str
    fields: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RequestIdMissing(Observation):
    """A handler replies to request ids, and its observer was subscribed to without one. Said once for each observer."""

    level = logging.WARNING
    template = (
        "{observer} was subscribed to without a request_id, so its handler has no subscribing_request_ids, and nothing "
        "says that the client is to reload. Write subscribe(request_id=request_id), and have the client send one"
    )
    observer: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoGroups(Observation):
    """A subscription has no groups, so no event is for it. Said once for each observer."""

    level = logging.WARNING
    template = (
        "{observer} was subscribed to with ({given}), for which its groups_for_consumer yields no group: no event comes"
    )
    observer: str
    given: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentsIgnored(Observation):
    """A subscription was to be for some rows, and its observer has no groups. Said once for each observer."""

    level = logging.WARNING
    template = (
        "{observer} was subscribed to with ({given}), and has no groups_for_signal and groups_for_consumer to take "
        "that: the events of all rows come"
    )
    observer: str
    given: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GroupIsOdd(Observation):
    """A groups function gave what is no text. Said once for each function and type."""

    level = logging.WARNING
    template = (
        "the function for @….{decorator} of {observer} yielded {group}, which counts as the group {text!r}: yield "
        "text that says what the group is for"
    )
    observer: str
    decorator: str
    group: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignalsOnly(Observation):
    """An observer has Django's signals alone, as DCRF: its model is not on PostgreSQL. Said once for each observer."""

    level = logging.WARNING
    template = (
        "{observer} observes {model}, which is in database {alias!r}, {vendor}: no triggers there, so it receives the "
        "save() and delete() of processes that have imported it, and nothing else"
    )
    observer: str
    model: str
    alias: str
    vendor: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UserMissing(Observation):
    """A consumer asks permissions of REST framework, and its scope has no user. Said once for each consumer class."""

    level = logging.WARNING
    template = (
        "{consumer} has {permission} in permission_classes, and its scope has no user: djangochannelsrestframework "
        "then gives it the class AnonymousUser, whose is_authenticated counts as true. Wrap the WebSocket routes in "
        "channels.auth.AuthMiddlewareStack"
    )
    consumer: str
    permission: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObserverReplaced(Observation):
    """A class body defined two observers by one name, and the second one counts."""

    level = logging.WARNING
    template = "{observer} is defined twice: the one at line {line} replaces the one at line {lost}. Rename one of them"
    observer: str
    line: int
    lost: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignalsMissed(Observation):
    """Shadow mode: triggers captured changes that signals sent nothing of."""

    level = logging.WARNING
    template = (
        "shadow: signals missed {what} of {model} for {observer} ({times} in all, {model} {pk} the latest): its "
        "subscribers received nothing of it, and will once triggers deliver"
    )
    observer: str
    model: str
    pk: str
    times: int
    what: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignalsExtra(Observation):
    """Shadow mode: signals sent what no captured change stands behind."""

    level = logging.WARNING
    template = (
        "shadow: signals alone sent {what} of {model} for {observer} ({times} in all, {model} {pk} the latest): no "
        "such change was committed, or another event of its transaction covers it"
    )
    observer: str
    model: str
    pk: str
    times: int
    what: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShadowDiffers(Observation):
    """Shadow mode: signals and triggers made different events of a row."""

    level = logging.WARNING
    template = (
        "shadow: signals and triggers differ for {observer} in {what} ({times} in all, {model} {pk} the latest): "
        "`manage.py djcrf_pg shadow` shows both"
    )
    observer: str
    model: str
    pk: str
    times: int
    what: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShadowFailed(Observation):
    """Shadow mode cannot note or compare; signals deliver as before. Said once in a minute."""

    level = logging.WARNING
    template = (
        "shadow: what is to be compared cannot be kept in database {alias!r} ({error}), and `manage.py djcrf_pg "
        "shadow` does not count it; where it is a table or a right, run `manage.py migrate`, or grant SELECT, INSERT, "
        "UPDATE, DELETE on djcrf_pg_shadow_message and djcrf_pg_shadow_result"
    )
    alias: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSkipped(Observation):
    """Shadow mode cannot compare an observer: triggers would refuse it. Signals deliver as before."""

    level = logging.WARNING
    template = "shadow: {observer} is not compared, for triggers would not serve it: {error}"
    observer: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignalsUnrecorded(Observation):
    """Shadow mode could not note what signals sent; the report has some of it as missed. Said once in a minute."""

    level = logging.WARNING
    template = (
        "shadow: {count} messages of signals could not be noted in database {alias!r} ({error}), and `manage.py "
        "djcrf_pg shadow` lists their changes as missed. Signals deliver as before"
    )
    alias: str
    count: int
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Installed(Observation):
    """Triggers of a table were created, replaced or dropped."""

    template = "triggers {verb} on {table} (database {alias!r})"
    verb: str
    table: str
    alias: str


Sink = Callable[[Observation, BaseException | None], None]


#: Seconds after which the traceback of an error that comes again is written again, and how many are remembered.
TRACEBACK_AFTER = 60.0
_MOST_TRACEBACKS = 1_000

_written: dict[object, float] = {}


def log_sink(observation: Observation, error: BaseException | None) -> None:
    """Write an observation to the ``djcrf_pg`` logger, with the traceback of ``error`` if there is one.

    An error of the same way through the code that comes again within a minute is a line without one: a serializer that
    fails for each of 100 000 rows is 100 000 lines, and not as many tracebacks.
    """
    is_written = error is not None and _is_news(observation, error)
    logger.log(observation.level, "%s", observation, exc_info=error if is_written else None)


def _is_news(observation: Observation, error: BaseException) -> bool:
    way = tuple((frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__))
    what, now = (type(observation), type(error), way), time.monotonic()
    if now - _written.get(what, -TRACEBACK_AFTER) < TRACEBACK_AFTER:
        return False
    if len(_written) >= _MOST_TRACEBACKS:
        _written.clear()
    _written[what] = now
    return True


def text_of(error: BaseException) -> str:
    """The ``repr()`` of an error that code of the project's has raised, which may have one of its own that fails."""
    try:
        return repr(error)
    except Exception:
        return f"<{type(error).__module__}.{type(error).__qualname__}, whose repr() raises>"


def text_of_value(value: object) -> str:
    """The ``repr()`` of what code of the project's gave, a few words of it; some have one of their own that fails."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = f"<{type(value).__module__}.{type(value).__qualname__}, whose repr() raises>"
    return text if len(text) <= 100 else f"{text[:100]}…"


def cause_of(error: BaseException) -> str:
    """The kind of an error and what it says: ``repr()`` of redis-py's leaves out the host and the reason."""
    kind = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:
        return kind
    return f"{kind}: {text}" if text else kind


_sinks: list[Sink] = [log_sink]


def emit(observation: Observation, error: BaseException | None = None) -> None:
    """Hand an observation to every sink; a sink that fails is logged and harms nobody."""
    for sink in tuple(_sinks):
        try:
            sink(observation, error)
        except Exception:
            logger.exception("a djcrf_pg observation sink failed")


def add_sink(sink: Sink) -> Callable[[], None]:
    """Have ``sink(observation, error)`` called for each observation.

    Returns:
        A function that removes the sink again.
    """
    _sinks.append(sink)
    return lambda: _sinks.remove(sink)
