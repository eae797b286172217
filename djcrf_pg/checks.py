"""System checks: what is missing, where, and the command or setting that mends it."""

import inspect
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from channels.layers import InMemoryChannelLayer
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.db import DatabaseError, connections, router
from django.utils.module_loading import import_string

from djcrf_pg import conf
from djcrf_pg.capture.install import plan, unfit
from djcrf_pg.capture.tenancy import refusal, refuse_tenants
from djcrf_pg.discovery import discover
from djcrf_pg.exceptions import ConfigurationError, DjcrfPgError
from djcrf_pg.observer import ModelObserver, access, definitions, silence
from djcrf_pg.observer.drop_in import early_birds
from djcrf_pg.observer.serializing import fault_of_fields, lacks, needs_request
from djcrf_pg.registry import lives_on, named_by, registry, why_not_here


def register_all() -> None:
    """Register the checks; those that ask a database run in ``migrate`` and ``check --database``."""
    register(check_settings)
    register(check_channel_layer)
    register(check_observers)
    register(check_definitions)
    register(check_access)
    register(check_drop_in)
    register(check_serializers)
    register(check_tenants)
    register(check_triggers, Tags.database)
    register(check_server, Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """``DJCRF_PG`` has known names and good values."""
    problems = conf.problems(getattr(settings, "DJCRF_PG", {}))
    if not problems:
        problems = registry.problems()
    return [Error(problem, hint="See the reference of settings.", id="djcrf_pg.E001") for problem in problems]


def check_channel_layer(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """There is a channel layer, events can reach it, and its client is one that works."""
    layers = getattr(settings, "CHANNEL_LAYERS", None) or {}
    backend = str(layers.get("default", {}).get("BACKEND", ""))
    if "default" not in layers:
        yield Error(
            "There is no default channel layer, and events travel through it.",
            hint="Set CHANNEL_LAYERS['default']: to channels_redis.core.RedisChannelLayer, or for one process to "
            "channels.layers.InMemoryChannelLayer.",
            id="djcrf_pg.E002",
        )
        return
    try:
        layer = import_string(backend)
    except ImportError as error:
        yield Error(
            f"CHANNEL_LAYERS['default']['BACKEND'] is {backend!r}, which cannot be imported: {error}",
            hint="Correct the name, or install the package: `pip install djcrf_pg[redis]` brings channels_redis.",
            id="djcrf_pg.E026",
        )
        return
    if inspect.isclass(layer) and issubclass(layer, InMemoryChannelLayer):
        if _is_configured() and not conf.get_settings().EMBEDDED and _discovered() and list(registry):
            yield Error(
                "The channel layer is in memory, which reaches its own process alone, and DJCRF_PG['EMBEDDED'] is "
                "False, so no listener can reach any subscriber.",
                hint="Set CHANNEL_LAYERS['default'] to channels_redis.core.RedisChannelLayer, or EMBEDDED = True.",
                id="djcrf_pg.E025",
            )
    elif backend.startswith("channels_redis."):
        try:
            import redis
        except ImportError:
            return
        if int(redis.__version__.partition(".")[0]) >= 8:
            yield Warning(
                f"redis {redis.__version__} closes the idle connections of channels_redis after 5 seconds "
                f"('Timeout reading from …').",
                hint="Install redis<8, as `pip install djcrf_pg[redis]` does.",
                id="djcrf_pg.W003",
            )


def check_drop_in(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """No consumer was defined with DCRF's own observer before the drop-in was in place."""
    raw = getattr(settings, "DJCRF_PG", {})
    if conf.problems(raw) or not conf.get_settings().DROP_IN:
        return []
    return [
        Warning(
            f"{label} listens to Django's signals: it was imported before djcrf_pg was loaded.",
            hint="Put 'djcrf_pg' before that app in INSTALLED_APPS, or import from djcrf_pg.observer.",
            id="djcrf_pg.W004",
        )
        for label in early_birds()
    ]


def check_observers(
    app_configs: Sequence[AppConfig] | None, databases: Iterable[str] | None = None, **kwargs: Any
) -> Iterable[CheckMessage]:
    """Each observer can be reached by events: its database has triggers, and its groups match."""
    if not _is_configured():
        return
    try:
        discover()
    except DjcrfPgError as error:
        # With a database it is check_triggers that says it.
        if not any(connections[alias].vendor == "postgresql" for alias in databases or ()):
            yield Warning(f"Not all observers are known: {error}", id="djcrf_pg.W006")
    for observer in _observers():
        if why := silence.why_no_triggers(observer):
            yield _elsewhere(f"No event of {observer.label} can come: {why}")
        elif not observer.trigger_driven:
            model = observer.model_cls
            alias = router.db_for_write(model)
            yield Warning(
                f"{observer.label} observes {model._meta.label}, which the router has in database {alias!r}, "
                f"{connections[alias].display_name}: no triggers there. It receives the save() and delete() of "
                f"processes that have imported it, as with djangochannelsrestframework alone, and nothing else.",
                hint="Have the model in a PostgreSQL database. If signals will do, silence this check.",
                id="djcrf_pg.W021",
            )
        if why := silence.why_no_match(observer):
            yield Error(f"No event of {observer.label} can come: {why}", id="djcrf_pg.E022")
    for entry in conf.get_settings().OBSERVE:
        with suppress(ConfigurationError):  # check_settings says it
            model = named_by(entry)[0]
            if not any(lives_on(model, alias) for alias in connections):
                yield _elsewhere(f"DJCRF_PG['OBSERVE'] names {entry!r} in vain: {why_not_here(model)}")


def _elsewhere(problem: str) -> CheckMessage:
    return Error(
        problem,
        hint="Settings of tests that need no events may silence it: SILENCED_SYSTEM_CHECKS = ['djcrf_pg.E020'].",
        id="djcrf_pg.E020",
    )


def check_definitions(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """No observer has been lost to something else of its name."""
    if not _discovered():
        return
    for label, line, found in definitions.lost():
        yield Warning(
            f"The observer {label} at line {line} is lost: its class has {found} by that name.",
            hint="Rename one of the two. Only what an observer's own decorators decorate has its name.",
            id="djcrf_pg.W023",
        )
    for consumer, name, owners in definitions.clashes(ModelObserver):
        first, *others = (owner.__qualname__ for owner in owners)
        yield Warning(
            f"{consumer.__module__}.{consumer.__qualname__} inherits an observer {name!r} of {first} and of "
            f"{', '.join(others)}: that of {first} counts.",
            hint="Rename one of them, or define the one that is meant in the class itself.",
            id="djcrf_pg.W024",
        )

    for consumer, name, owner in definitions.covered(ModelObserver):
        yield Warning(
            f"The observer {name!r} of {consumer.__module__}.{consumer.__qualname__} stands in place of "
            f"{owner.__name__}.{name}(), which nobody can call any more.",
            hint="Give its handler another name.",
            id="djcrf_pg.W032",
        )


def check_access(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """No consumer asks permissions about a user whom nothing has put into the scope."""
    if not _discovered():
        return
    module, _, name = str(getattr(settings, "ASGI_APPLICATION", None) or "").rpartition(".")
    served = list(access.unguarded(getattr(sys.modules.get(module), name, None)))
    for consumer in dict.fromkeys(served):
        has_observers = any(
            isinstance(value, ModelObserver) for base in consumer.__mro__ for value in vars(base).values()
        )
        if has_observers and (permission := access.deceived(consumer)):
            yield Warning(
                f"{consumer.__module__}.{consumer.__qualname__} has {permission} in permission_classes, and no "
                f"middleware puts a user into its scope: djangochannelsrestframework then gives it the class "
                f"AnonymousUser, whose is_authenticated counts as true.",
                hint="In ASGI_APPLICATION, wrap the routes: channels.auth.AuthMiddlewareStack(URLRouter([…])).",
                id="djcrf_pg.W027",
            )


def check_serializers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """Each observer makes bodies: its serializer asks no request and is for its model, its handler takes what comes."""
    if not _discovered():
        return
    for observer in _observers():
        serializer_class: Any = observer.serializer_class
        if serializer_class is not None and (method := needs_request(serializer_class)):
            yield Warning(
                f"{observer.label} has serializer_class={serializer_class.__name__}, and {method}() needs the request, "
                f"which is None when an event is made: each event fails.",
                hint="Ask whether there is a request first, or give the observer a serializer of its own.",
                id="djcrf_pg.W008",
            )
        if observer.makes_no_body:
            yield Warning(
                f"The serializer of {observer.label} returns nothing, so the message of each event is null.",
                hint='Return the body: `return {"id": instance.pk, …}`.',
                id="djcrf_pg.W028",
            )
        if observer.awaits_a_request_id:
            yield Warning(
                f"The handler of {observer.label} takes request_id, which no event has.",
                hint="An event has those of all requests: `for request_id in subscribing_request_ids`.",
                id="djcrf_pg.W031",
            )
        if serializer_class is not None and (fault := fault_of_fields(serializer_class)):
            yield Warning(
                f"{observer.label} has serializer_class={serializer_class.__name__}, which cannot be used, so each "
                f"event fails: {fault}",
                hint="Correct its Meta.",
                id="djcrf_pg.W030",
            )
        if serializer_class is not None and (lacking := lacks(observer.model_cls, serializer_class)):
            yield Warning(
                f"{observer.label} observes {observer.model_cls._meta.label}, and its serializer_class "
                f"{serializer_class.__name__}, which is for {serializer_class.Meta.model._meta.label}, shows "
                f"{lacking[0]!r}, which that does not have: each event fails.",
                hint=f"Give it a serializer whose Meta.model is {observer.model_cls.__name__}.",
                id="djcrf_pg.W029",
            )


def _observers() -> list[ModelObserver]:
    known = [*registry, *registry.without_triggers]
    return sorted((each for each in known if isinstance(each, ModelObserver)), key=lambda each: each.label)


def _is_configured() -> bool:
    """Whether the setting can be read; if not, check_settings says so."""
    return not conf.problems(getattr(settings, "DJCRF_PG", {}))


def _discovered() -> bool:
    """Import what has observers; where something cannot be imported, check_observers or check_triggers says so."""
    if not _is_configured():
        return False
    with suppress(DjcrfPgError):
        discover()
    return True


def check_tenants(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """Nothing is observed in the schemas of tenants."""
    if conf.problems(getattr(settings, "DJCRF_PG", {})):
        return
    for alias in connections:
        try:
            refuse_tenants(alias)
        except DjcrfPgError as error:
            yield Error(str(error), id="djcrf_pg.E009")


def check_triggers(
    app_configs: Sequence[AppConfig] | None, databases: Iterable[str] | None = None, **kwargs: Any
) -> Iterable[CheckMessage]:
    """Every observed table has its triggers, and they are enabled.

    Warnings, not errors: ``migrate`` runs the checks first, and it is the command that mends them.
    """
    if conf.problems(getattr(settings, "DJCRF_PG", {})):
        return
    for alias in databases or ():
        if connections[alias].vendor != "postgresql" or refusal(alias):
            continue
        try:
            discover()
            steps, others = plan(alias), unfit(alias)
        except (DjcrfPgError, DatabaseError) as error:
            yield Warning(f"The triggers of database {alias!r} cannot be looked at: {error}", id="djcrf_pg.W006")
            continue
        for step in steps:
            if step.state in ("missing", "outdated", "disabled"):
                yield Warning(
                    f"The djcrf_pg triggers on {step.table.name} (database {alias!r}) are {step.state}: "
                    f"not all of its changes are captured.",
                    hint=_mend(alias),
                    id="djcrf_pg.W005",
                )
            elif step.state == "taken":
                yield Warning(
                    f"The djcrf_pg triggers on {step.table.name} (database {alias!r}) belong to project "
                    f"{step.project!r}, and are not those that this one wants.",
                    hint=f"`manage.py djcrf_pg install --database {alias}` says what can be done.",
                    id="djcrf_pg.W005",
                )
            elif step.state == "unfit":
                yield Warning(
                    f"{step.table.name} (database {alias!r}) has a foreign table among its partitions or children, and "
                    f"djcrf_pg triggers: each statement on it that changes a row of the foreign table fails (cannot "
                    f"collect transition tuples from child foreign tables).",
                    hint=f"Run `manage.py djcrf_pg install --database {alias}`, which drops these triggers.",
                    id="djcrf_pg.W005",
                )
        for project in sorted({step.project for step in steps if step.project and step.state != "taken"}):
            yield Warning(
                f"The change log of database {alias!r} is also that of project {project!r}, and this one is "
                f"{conf.get_settings().project!r}. One listener serves a log, with the observers of its own project: "
                f"subscriptions of the other one are refused.",
                hint="Give each project a schema of its own: OPTIONS = {'options': '-c search_path=…'}, then "
                "`manage.py migrate`. If they are one project, set the same DJCRF_PG['PROJECT'] in both.",
                id="djcrf_pg.W010",
            )
        for name, what in others.items():
            yield Warning(
                f"{name} (database {alias!r}) is {what}, and takes no djcrf_pg triggers: its changes are not captured.",
                hint="Observe the tables behind it, or take it out of DJCRF_PG['OBSERVE'].",
                id="djcrf_pg.W005",
            )


def check_server(
    app_configs: Sequence[AppConfig] | None, databases: Iterable[str] | None = None, **kwargs: Any
) -> Iterable[CheckMessage]:
    """Settings of the server with which an event takes longer, or a large statement fails."""
    if conf.problems(getattr(settings, "DJCRF_PG", {})):
        return
    for alias in databases or ():
        if connections[alias].vendor != "postgresql":
            continue
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT current_setting('max_prepared_transactions')::int, current_setting('temp_file_limit')"
                )
                prepared, limit = cursor.fetchone()
        except DatabaseError:
            continue  # check_triggers says what is wrong
        if prepared and conf.get_settings().NOTIFY == "auto":
            yield Info(
                f"The server of database {alias!r} has max_prepared_transactions = {prepared}, and PREPARE TRANSACTION "
                f"fails after NOTIFY. So no trigger rings, and the leader reads each POLL_INTERVAL.",
                hint="If nothing prepares transactions there, set DJCRF_PG['NOTIFY'] = 'elide'; else to 'never'.",
                id="djcrf_pg.I012",
            )
        if limit != "-1":
            yield Warning(
                f"The database user of {alias!r} has temp_file_limit = {limit}: a statement on an observed table fails "
                f"where its rows, before and after it, and their images take more than that.",
                hint="See the reference of limits: raise work_mem or temp_file_limit, or write in smaller statements.",
                id="djcrf_pg.W013",
            )


def _mend(alias: str) -> str:
    if conf.get_settings().AUTO_INSTALL:
        return f"Run `manage.py migrate --database {alias}`."
    return (
        f"Run `manage.py djcrf_pg install --database {alias}`, or write a migration: "
        f"`manage.py djcrf_pg makemigrations`."
    )
