"""Everything djcrf_pg raises on purpose; each message names the thing, the place and the fix.

Errors that a client can cause or should receive (a refused subscription, say) are also
:class:`rest_framework.exceptions.APIException`, because that is what a DCRF consumer turns into an
error reply; anything else would close the socket.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from rest_framework.exceptions import APIException, ValidationError


class DjcrfPgError(Exception):
    """The base of all errors of this package."""


class ConfigurationError(DjcrfPgError, ImproperlyConfigured):
    """A setting, or the project around it, cannot work as it stands."""


class ObserverError(ConfigurationError):
    """``@model_observer`` was given something that has no table to watch."""


class InstallError(DjcrfPgError):
    """A trigger could not be created, changed or dropped."""


class LeadershipLost(DjcrfPgError):
    """Another listener has taken the lead, so this one must not send any more."""


class TouchError(DjcrfPgError):
    """``djcrf_pg.touch`` found no change log, or none that captures the table."""


class TokenError(DjcrfPgError):
    """``djcrf_pg.transaction_token`` was asked where no transaction is open, or of another database than PostgreSQL."""


class ReadError(DjcrfPgError):
    """``djcrf_pg.consistent_read`` stands inside a transaction, or reads another database than PostgreSQL; or a
    template asks for the cursor of one where none is open.
    """


class InspectionError(DjcrfPgError):
    """The change log cannot be looked at as it was asked for: a right is missing, say, or a key is none."""


class SubscribeError(DjcrfPgError, APIException):
    """A subscription was refused; nothing of it is left behind.

    A DCRF consumer answers it with ``response_status`` 503 and the message in ``errors``.
    """

    status_code = 503
    default_code = "subscribe_error"


class NotMigrated(SubscribeError):
    """The change log, or the observed table, does not exist in this database yet."""

    default_code = "not_migrated"


class TriggersMissing(SubscribeError):
    """An observed table has no triggers of ours, or they are disabled."""

    default_code = "triggers_missing"


class ListenerUnavailable(SubscribeError):
    """No listener came up within ``SUBSCRIBE_TIMEOUT``."""

    default_code = "listener_unavailable"


class ChannelLayerError(SubscribeError):
    """There is no channel layer, or none that can carry events to this process."""

    default_code = "channel_layer"


class TooManySubscriptions(SubscribeError):
    """The consumer has as many subscriptions as ``MAX_SUBSCRIPTIONS`` allows."""

    status_code = 429
    default_code = "too_many_subscriptions"


class GroupsError(SubscribeError, TypeError):
    """A groups function gave what names no group, or was not given what it takes. Also a ``TypeError``.

    In ``subscribe()`` it is the reply, with status 503; for an event, the observer has failed on the row.
    """

    default_code = "groups_error"


class ListError(SubscribeError):
    """``list_and_subscribe`` was asked for rows that are not those of the groups, so that events would not match them.

    A DCRF consumer answers with ``response_status`` 422.
    """

    status_code = 422
    default_code = "list_error"


class InvalidCursor(DjcrfPgError, ValidationError, ValueError):
    """A text that is no cursor, or is one of another database. A DCRF consumer answers with ``response_status`` 400."""

    default_code = "invalid_cursor"


class CursorExpired(DjcrfPgError, APIException):
    """The log no longer has what a cursor has not seen: reload, and subscribe without it.

    A DCRF consumer answers with ``response_status`` 410.
    """

    status_code = 410
    default_code = "cursor_expired"


class MalformedRequestId(DjcrfPgError, ValidationError, ValueError):
    """A ``request_id`` that cannot name a request: neither text nor a number, or too long."""

    default_code = "malformed_request_id"


@contextmanager
def ungrouped(kind: type[Exception]) -> Iterator[None]:
    """Raise the first exception of a kind in place of the group that a :class:`asyncio.TaskGroup` raises.

    Not ``except*``: before Python 3.11.4 what it raises arrives in a group of its own (CPython issue 103590).

    Args:
        kind: What to look for; a group without any is raised as it is.
    """
    try:
        yield
    except ExceptionGroup as group:
        found: Exception | None = group.subgroup(kind)
        while isinstance(found, ExceptionGroup):
            found = found.exceptions[0]
        if found is None:
            raise
        raise found from found.__cause__
