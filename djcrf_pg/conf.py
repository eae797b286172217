"""The ``DJCRF_PG`` setting: names, defaults, validation.

Values are read once and cached; ``override_settings(DJCRF_PG=…)`` resets the cache.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeGuard, get_args

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from djcrf_pg.exceptions import ConfigurationError

NotifyMode = Literal["auto", "elide", "always", "never"]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The validated content of ``settings.DJCRF_PG``.

    Attributes:
        DROP_IN: Make DCRF's own ``model_observer`` and ``ObserverModelInstanceMixin`` trigger-driven.
        SHADOW: Keep DCRF's observers and its signals, have triggers capture beside them, and report where what
            signals send differs from what triggers would have. DROP_IN has no say then.
        AUTO_INSTALL: Let ``migrate`` bring the triggers to the wanted state.
        OBSERVE: Models (``"app.Model"``) whose tables get triggers although no observer names them, and many-to-many
            relations of models (``"app.Model.name"``) whose join tables get them too.
        EXCLUDE: Model label to the names of fields that never leave the table.
        PROJECT: What names this project, in a database that several have djcrf_pg in; None for the first part of
            ``ROOT_URLCONF``.
        EMBEDDED: Start a listener inside the first process that subscribes.
        LISTENER_DATABASE: Alias in ``DATABASES`` that the listener connects to instead of ``default``, for one that
            is behind a pooler in transaction mode; or a mapping of alias to alias.
        NOTIFY: ``"elide"`` rings the doorbell only when the listener sleeps, ``"always"`` for each
            statement, ``"never"`` not at all (two-phase commit): the listener polls instead. ``"auto"`` is
            ``"never"`` where ``max_prepared_transactions`` of the server is above 0, else ``"elide"``.
        SUBSCRIBE_TIMEOUT: Seconds that ``subscribe()`` waits for a listener.
        LOCK_TIMEOUT: Seconds that an install waits for the lock on a table.
        RETENTION: Seconds that delivered changes stay in the log; a client that resumes may be away as long.
        REPLAY_LIMIT: Rows that a subscription which resumes receives at most.
        LOG_MAX_AGE: Seconds that changes stay in the log at most, delivered or not.
        LOG_MAX_ROWS: Changes in the log at most, delivered or not; about, as the log is not counted.
        LOG_MAX_BYTES: Bytes of the log at most; estimated.
        MASS_CHANGE: Send one resync for a transaction that changes more than so many rows of a table; None
            sends an event for each row.
        RELATED_LIMIT: Rows that a transaction may bring updates of by changing rows related to them, for one observer;
            more are one resync.
        SAFETY_POLL: Seconds between the reads of a listener that nobody wakes; so long it does not notice a
            connection that has gone silent.
        POLL_INTERVAL: Seconds between reads when nobody rings.
        BATCH_SIZE: Changes read and sent at a time.
        JOIN_GROUPS: Have ``subscribe()`` join the channel layer's groups as DCRF does, for the messages that the
            application itself sends to them; no event of djcrf_pg travels through them.
        MAX_SUBSCRIPTIONS: Subscriptions of one consumer at most: groups, each counted for each request id.
        INBOX_EVENTS: Events that wait for one consumer at most; more are read from the log when it is ready.
        INBOX_BYTES: Bytes of events that wait for one consumer at most.
        ENVELOPE_EVENTS: Events in one channel-layer message, at most.
        ENVELOPE_BYTES: Bytes of events in one channel-layer message; a larger single event travels alone.
    """

    DROP_IN: bool = True
    SHADOW: bool = False
    AUTO_INSTALL: bool = True
    OBSERVE: Sequence[str] = ()
    EXCLUDE: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    PROJECT: str | None = None
    EMBEDDED: bool = True
    LISTENER_DATABASE: str | Mapping[str, str] | None = None
    NOTIFY: NotifyMode = "auto"
    SUBSCRIBE_TIMEOUT: float = 10.0
    LOCK_TIMEOUT: float = 5.0
    RETENTION: float = 86_400.0
    REPLAY_LIMIT: int = 10_000
    LOG_MAX_AGE: float = 604_800.0
    LOG_MAX_ROWS: int = 10_000_000
    LOG_MAX_BYTES: int = 4_294_967_296
    MASS_CHANGE: int | None = None
    RELATED_LIMIT: int = 1_000
    SAFETY_POLL: float = 5.0
    POLL_INTERVAL: float = 0.1
    BATCH_SIZE: int = 10_000
    JOIN_GROUPS: bool = True
    MAX_SUBSCRIPTIONS: int = 1_000
    INBOX_EVENTS: int = 100_000
    INBOX_BYTES: int = 33_554_432
    ENVELOPE_EVENTS: int = 1_000
    ENVELOPE_BYTES: int = 1_048_576

    @property
    def project(self) -> str:
        """The name of this project: ``PROJECT``, or the package of ``ROOT_URLCONF``, else of the settings.

        ``ROOT_URLCONF`` first, because the settings of a worker or of a test that import all of another module's have
        the same one.
        """
        modules = (getattr(django_settings, "ROOT_URLCONF", None), getattr(django_settings, "SETTINGS_MODULE", None))
        return self.PROJECT or next((module.partition(".")[0] for module in modules if module), "django")

    def listener_alias(self, alias: str) -> str:
        """The alias whose server the listener of database ``alias`` connects to."""
        if isinstance(self.LISTENER_DATABASE, str):
            return self.LISTENER_DATABASE if alias == "default" else alias
        return (self.LISTENER_DATABASE or {}).get(alias, alias)


_POSITIVE = (
    "SUBSCRIBE_TIMEOUT",
    "LOCK_TIMEOUT",
    "RETENTION",
    "REPLAY_LIMIT",
    "LOG_MAX_AGE",
    "LOG_MAX_ROWS",
    "LOG_MAX_BYTES",
    "MASS_CHANGE",
    "RELATED_LIMIT",
    "SAFETY_POLL",
    "POLL_INTERVAL",
    "BATCH_SIZE",
    "MAX_SUBSCRIPTIONS",
    "INBOX_EVENTS",
    "INBOX_BYTES",
    "ENVELOPE_EVENTS",
    "ENVELOPE_BYTES",
)


def problems(raw: object) -> list[str]:
    """Say everything that is wrong with a value of ``settings.DJCRF_PG``.

    Args:
        raw: The setting as the user wrote it.

    Returns:
        One sentence for each problem; empty when the setting is good.
    """
    if not isinstance(raw, Mapping):
        return [f"DJCRF_PG must be a dict, not {type(raw).__name__}."]
    known = {field.name: field for field in dataclasses.fields(Settings)}
    found = []
    for name, value in raw.items():
        if name not in known:
            near = difflib.get_close_matches(str(name).upper(), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            found.append(f"DJCRF_PG has no setting {name!r}: {hint}")
        elif complaint := _complaint(name, value):
            found.append(f"DJCRF_PG[{name!r}] {complaint}, not {value!r}.")
    return found


def _complaint(name: str, value: Any) -> str | None:
    match name:
        case "DROP_IN" | "SHADOW" | "AUTO_INSTALL" | "EMBEDDED" | "JOIN_GROUPS":
            return None if isinstance(value, bool) else "must be True or False"
        case "NOTIFY":
            modes = get_args(NotifyMode)
            return None if value in modes else f"must be one of {', '.join(map(repr, modes))}"
        case "PROJECT":
            good = value is None or (isinstance(value, str) and value.isprintable() and value and ":" not in value)
            return None if good else "must be a name without colons"
        case "OBSERVE":
            good = _is_list(value) and all(_is_label(entry) or _is_relation(entry) for entry in value)
            return None if good else 'must be a list of models "app.Model" and of their relations "app.Model.name"'
        case "EXCLUDE":
            good = isinstance(value, Mapping) and all(
                _is_label(label) and _is_names(names) for label, names in value.items()
            )
            return None if good else 'must map model labels to lists of field names, {"app.Model": ["field"]}'
        case "LISTENER_DATABASE":
            aliases: Any = [] if value is None else [value]
            if isinstance(value, Mapping):
                aliases = [*value.keys(), *value.values()]
            good = all(isinstance(alias, str) and alias in django_settings.DATABASES for alias in aliases)
            return None if good else "must name an alias in DATABASES, or map alias to alias"
    if name == "MASS_CHANGE" and value is None:
        return None
    if name in _POSITIVE:
        kinds = (int, float) if isinstance(getattr(Settings(), name), float) else (int,)
        good = isinstance(value, kinds) and not isinstance(value, bool) and value > 0
        return None if good else f"must be a positive {'number' if float in kinds else 'whole number'}"
    return None


def _is_label(value: object) -> bool:
    return isinstance(value, str) and value.count(".") == 1


def _is_relation(value: object) -> bool:
    return isinstance(value, str) and value.count(".") == 2


def _is_names(value: object) -> bool:
    return _is_list(value) and all(isinstance(name, str) for name in value)


def _is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...] | set[Any]]:
    return isinstance(value, list | tuple | set)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the validated settings.

    Raises:
        ConfigurationError: ``settings.DJCRF_PG`` has unknown names or wrong values; all are listed.
    """
    raw = getattr(django_settings, "DJCRF_PG", {})
    if found := problems(raw):
        raise ConfigurationError(" ".join(found))
    return Settings(**raw)


def _reset(*, setting: str, **kwargs: Any) -> None:
    if setting == "DJCRF_PG":
        get_settings.cache_clear()


setting_changed.connect(_reset, dispatch_uid="djcrf_pg.conf")
