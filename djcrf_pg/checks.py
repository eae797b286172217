"""System checks: what is missing, where, and the command or setting that fixes it."""

import inspect
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from channels.layers import InMemoryChannelLayer
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.management import get_commands, load_command_class
from django.db import DatabaseError, connections, router
from django.utils.module_loading import import_string

from djcrf_pg import conf
from djcrf_pg.capture.install import plan, unfit
from djcrf_pg.capture.tenancy import refusal, refuse_tenants
from djcrf_pg.delivery.layer import channel_layer
from djcrf_pg.discovery import discover, failures
from djcrf_pg.exceptions import ChannelLayerError, ConfigurationError, DjcrfPgError
from djcrf_pg.observer import ModelObserver, access, definitions, shadowed, silence
from djcrf_pg.observer.drop_in import early_birds
from djcrf_pg.observer.serializing import fault_of_fields, lacks, needs_request
from djcrf_pg.pages import see
from djcrf_pg.registry import lives_on, named_by, registry, why_not_here


def register_all() -> None:
    """Register the checks; those that ask a database run in ``migrate`` and ``check --database``."""
    register(check_settings)
    register(check_channel_layer)
    register(check_observers)
    register(check_definitions)
    register(check_access)
    register(check_drop_in)
    register(check_layer)
    register(check_application)
    register(check_consumers)
    register(check_runserver)
    register(check_serializers)
    register(check_tenants)
    register(check_triggers, Tags.database)
    register(check_rights, Tags.database)
    register(check_server, Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """``DJCRF_PG`` has known names and good values."""
    problems = conf.problems(getattr(settings, "DJCRF_PG", {}))
    if not problems:
        problems = registry.problems()
    return [Error(problem, hint=see("reference/settings.md"), id="djcrf_pg.E001") for problem in problems]


def check_channel_layer(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """There is a channel layer, events can reach it, and its client is one that works."""
    layers = getattr(settings, "CHANNEL_LAYERS", None) or {}
    backend = str(layers.get("default", {}).get("BACKEND", ""))
    if "default" not in layers:
        yield Error(
            "CHANNEL_LAYERS has no 'default', and events travel through that channel layer.",
            hint="Set CHANNEL_LAYERS['default']: to channels_redis.core.RedisChannelLayer, or for one process to "
            "channels.layers.InMemoryChannelLayer. "
            f"{see('how-to/run-in-production.md#take-a-channel-layer-that-reaches-other-processes')}",
            id="djcrf_pg.E002",
        )
        return
    try:
        layer = import_string(backend)
    except ImportError:
        return  # check_layer says it
    if inspect.isclass(layer) and issubclass(layer, InMemoryChannelLayer):
        if _is_configured() and not conf.get_settings().EMBEDDED and _discovered() and list(registry):
            yield Warning(
                "The channel layer is in memory, which reaches its own process alone, and DJCRF_PG['EMBEDDED'] is "
                "False, so no listener can reach any subscriber.",
                hint="Set CHANNEL_LAYERS['default'] to channels_redis.core.RedisChannelLayer, or EMBEDDED = True.",
                id="djcrf_pg.W025",
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
                hint="Run `pip install 'redis<8'`, or `pip install 'djcrf_pg[redis]'`, which asks for it.",
                id="djcrf_pg.W003",
            )


def check_layer(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """The channel layer that the settings name can be made; nothing connects."""
    if _is_about_the_project() and "default" in (getattr(settings, "CHANNEL_LAYERS", None) or {}):
        try:
            channel_layer()
        except ChannelLayerError as error:
            yield Warning(
                str(error),
                hint=see("how-to/run-in-production.md#take-a-channel-layer-that-reaches-other-processes"),
                id="djcrf_pg.W042",
            )


def check_application(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """``ASGI_APPLICATION`` names something that its module has."""
    module, name = _application()
    if not _is_about_the_project() or _discover() or module not in sys.modules:
        return
    if not hasattr(sys.modules[module], name):
        yield Warning(
            f"ASGI_APPLICATION = '{module}.{name}', and module {module} has no {name!r}: `runserver` cannot serve it.",
            hint=f"Name the variable of {module} that has the application. "
            f"{see('tutorial/from-nothing.md#2-the-files')}",
            id="djcrf_pg.W044",
        )


def check_drop_in(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """No consumer was defined with DCRF's own observer before the drop-in was in place."""
    if not _is_configured() or not (conf.get_settings().DROP_IN or conf.get_settings().SHADOW):
        return []
    compared = " alone, and is not compared" if conf.get_settings().SHADOW else ""
    return [
        Warning(
            f"{label} listens to Django's signals{compared}, for it was imported before djcrf_pg was loaded.",
            hint="Put 'djcrf_pg' before that app in INSTALLED_APPS, or import model_observer from djcrf_pg.observer. "
            f"{see('how-to/move-from-dcrf-signals.md#if-a-consumer-still-listens-to-signals')}",
            id="djcrf_pg.W004",
        )
        for label in early_birds()
    ]


def check_consumers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """The modules that define the project's observers can be imported.

    Warnings, not errors: no command fails of it that does not need the observers.
    """
    for failure in _discover():
        yield Warning(
            str(failure),
            hint=f"Correct that line. Until then `migrate` and the listener end with this error. "
            f"{see('how-to/observe-more-tables.md#a-consumer-in-another-module')}",
            id="djcrf_pg.W040",
        )


def check_runserver(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """There are observers, and the ``runserver`` that runs serves WebSockets."""
    if not _is_about_the_project() or _discover():
        return
    if not any(True for _ in registry):
        if (
            any(connections[alias].vendor == "postgresql" for alias in connections)
            and _is_configured()
            and not conf.get_settings().OBSERVE
        ):
            yield Warning(
                "No model observer was found in any app's module 'consumers' or behind ASGI_APPLICATION, so nothing is "
                "observed.",
                hint="Have the consumers in a module 'consumers' of an app in INSTALLED_APPS, or set ASGI_APPLICATION. "
                f"{see('how-to/observe-more-tables.md#a-consumer-in-another-module')}",
                id="djcrf_pg.W046",
            )
        return
    if _command() != "runserver":
        return
    kind = type(load_command_class(get_commands()["runserver"], "runserver"))
    if not any(base.__module__.partition(".")[0] in ("daphne", "channels") for base in kind.__mro__):
        yield Warning(
            "This `runserver` is Django's own and serves no WebSockets: a client that connects gets status 404.",
            hint="Run `pip install daphne`, and put 'daphne' first in INSTALLED_APPS; or serve with another ASGI "
            f"server, such as `uvicorn`. {see('tutorial/from-nothing.md#3-see-it')}",
            id="djcrf_pg.W041",
        )


def check_observers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """Each observer can be reached by events: its database has triggers, and its groups match."""
    if not _is_configured():
        return
    _discover()
    for observer in _observers():
        if why := silence.why_no_triggers(observer):
            yield Warning(
                f"No event of {observer.label} can come: {why}",
                hint="Tests that need no events may silence it: SILENCED_SYSTEM_CHECKS = ['djcrf_pg.W020'].",
                id="djcrf_pg.W020",
            )
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
            if observer.is_shadow:
                yield _not_compared(observer.label, why)
            else:
                yield Error(f"No event of {observer.label} can come: {why}", id="djcrf_pg.E022")
    for label, why in shadowed.skipped.items():
        yield _not_compared(label, why)
    for entry in conf.get_settings().OBSERVE:
        with suppress(ConfigurationError):  # check_settings says it
            model = named_by(entry)[0]
            if not any(lives_on(model, alias) for alias in connections):
                yield Warning(
                    f"DJCRF_PG['OBSERVE'] names {entry!r} in vain: {why_not_here(model)}",
                    hint="Tests that need no events may silence it: SILENCED_SYSTEM_CHECKS = ['djcrf_pg.W020'].",
                    id="djcrf_pg.W020",
                )


def _not_compared(label: str, why: str) -> CheckMessage:
    return Warning(
        f"Shadow mode does not compare {label}, for triggers would not serve it: {why}",
        hint=f"Correct it before SHADOW = False. {see('how-to/move-from-dcrf-signals.md#what-the-report-says')}",
        id="djcrf_pg.W047",
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
    module, name = _application()
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
                hint="Test self.context['request'] for None first, or give the observer a serializer of its own. "
                f"{see('reference/observer-api.md#bodies')}",
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
    """Import what has observers, see :func:`_discover`; whether the setting can be read."""
    _discover()
    return _is_configured()


def check_tenants(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> Iterable[CheckMessage]:
    """Nothing is observed in the schemas of tenants."""
    if not _is_configured():
        return
    for alias in connections:
        try:
            refuse_tenants(alias)
        except DjcrfPgError as error:
            yield Error(
                str(error), hint=see("how-to/observe-more-tables.md#a-schema-for-each-tenant"), id="djcrf_pg.E009"
            )


def check_triggers(
    app_configs: Sequence[AppConfig] | None, databases: Iterable[str] | None = None, **kwargs: Any
) -> Iterable[CheckMessage]:
    """Every observed table has its triggers, and they are enabled.

    Warnings, not errors: ``migrate`` runs the checks first, and it is the command that fixes them.
    """
    if not _is_configured():
        return
    for alias in databases or ():
        if connections[alias].vendor != "postgresql" or refusal(alias):
            continue
        try:
            discover()
            steps, others = plan(alias), unfit(alias)
        except (DjcrfPgError, DatabaseError) as error:
            start = "" if isinstance(error, DjcrfPgError) else f"djcrf_pg cannot look at database {alias!r}: "
            yield Warning(f"{start}{error}", id="djcrf_pg.W006")
            continue
        for step in steps:
            if step.state in ("missing", "outdated", "disabled"):
                yield Warning(
                    f"The djcrf_pg triggers on {step.table.name} (database {alias!r}) are {step.state}: "
                    f"they do not capture all of its changes.",
                    hint=_fix(alias),
                    id="djcrf_pg.W005",
                )
            elif step.state == "taken":
                yield Warning(
                    f"The djcrf_pg triggers on {step.table.name} (database {alias!r}) belong to project "
                    f"{step.project!r}, and differ from those that this one wants.",
                    hint=f"Run `manage.py djcrf_pg install --database {alias}`, which says what to do. "
                    f"{see('how-to/observe-more-tables.md#several-projects-on-one-database')}",
                    id="djcrf_pg.W005",
                )
            elif step.state == "unfit":
                yield Warning(
                    f"{step.table.name} (database {alias!r}) has a foreign table among its partitions or children, and "
                    f"djcrf_pg triggers: each statement on it that changes a row of the foreign table fails (cannot "
                    f"collect transition tuples from child foreign tables).",
                    hint=f"Run `manage.py djcrf_pg install --database {alias}`, which drops these triggers. "
                    f"{see('reference/limits.md#foreign-tables')}",
                    id="djcrf_pg.W005",
                )
        for project in sorted({step.project for step in steps if step.project and step.state != "taken"}):
            yield Warning(
                f"The change log of database {alias!r} is also that of project {project!r}, and this one is "
                f"{conf.get_settings().project!r}. One listener serves a log, with the observers of its own "
                f"project: it refuses the subscriptions of the other one.",
                hint="Give each project a schema of its own: OPTIONS = {'options': '-c search_path=…'}, then "
                "`manage.py migrate`. If they are one project, set the same DJCRF_PG['PROJECT'] in both. "
                f"{see('how-to/observe-more-tables.md#several-projects-on-one-database')}",
                id="djcrf_pg.W010",
            )
        for name, what in others.items():
            yield Warning(
                f"{name} (database {alias!r}) is {what}, and takes no djcrf_pg triggers: nothing captures its changes.",
                hint="Observe the tables behind it, or take it out of DJCRF_PG['OBSERVE']. "
                f"{see('reference/limits.md#changes-that-are-not-captured')}",
                id="djcrf_pg.W005",
            )


def check_rights(
    app_configs: Sequence[AppConfig] | None, databases: Iterable[str] | None = None, **kwargs: Any
) -> Iterable[CheckMessage]:
    """The role that is to make the change log may make tables; since PostgreSQL 15 that is not so by itself."""
    for alias in databases or ():
        if connections[alias].vendor != "postgresql" or not router.allow_migrate(alias, "djcrf_pg"):
            continue
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT current_user::text, quote_ident(current_schema()), current_schema() IS NULL "
                    "OR to_regclass('djcrf_pg_change') IS NOT NULL "
                    "OR has_schema_privilege(current_schema()::text, 'CREATE')"
                )
                role, schema, is_fine = cursor.fetchone()
        except DatabaseError:
            continue  # check_triggers says what is wrong
        if not is_fine:
            yield Warning(
                f"In database {alias!r}, role {role!r} may not make tables in schema {schema}: `migrate` fails.",
                hint=f'As the owner of the database, GRANT CREATE ON SCHEMA {schema} TO "{role}". '
                f"{see('reference/database-objects.md#rights')}",
                id="djcrf_pg.W045",
            )


def check_server(
    app_configs: Sequence[AppConfig] | None, databases: Iterable[str] | None = None, **kwargs: Any
) -> Iterable[CheckMessage]:
    """Settings of the server with which an event takes longer, or a large statement fails."""
    if not _is_configured():
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
                hint="If nothing prepares transactions there, set DJCRF_PG['NOTIFY'] = 'elide'; else set it to "
                f"'never', which silences this message. {see('how-to/run-in-production.md#two-phase-commit')}",
                id="djcrf_pg.I012",
            )
        if limit != "-1":
            yield Warning(
                f"The database user of {alias!r} has temp_file_limit = {limit}: a statement on an observed table fails "
                f"where its rows, before and after it, and their images take more than that.",
                hint="Raise work_mem or temp_file_limit, or write in smaller statements. "
                f"{see('reference/limits.md#large-statements-and-temp_file_limit')}",
                id="djcrf_pg.W013",
            )


def _discover() -> list[DjcrfPgError]:
    """Import what defines observers, in the commands that are about the project as a whole; what cannot be imported.

    Not in others that run the checks: a consumers module may need tables that ``migrate`` has yet to make.
    """
    if not _is_about_the_project() or not _is_configured():
        return []
    return list(failures())


def _is_about_the_project() -> bool:
    """Whether this process runs a command that is about the project as a whole."""
    return _command() in ("check", "runserver")


def _application() -> tuple[str, str]:
    """The module and the attribute that ``ASGI_APPLICATION`` names, empty where it names none."""
    module, _, name = str(getattr(settings, "ASGI_APPLICATION", None) or "").rpartition(".")
    return module, name


def _command() -> str:
    """The management command that this process runs; empty for another program, such as an ASGI server."""
    program, *arguments = sys.argv or [""]
    is_django = Path(program).name in ("manage.py", "django-admin", "django-admin.exe", "__main__.py")
    return arguments[0] if is_django and arguments else ""


def _fix(alias: str) -> str:
    if conf.get_settings().AUTO_INSTALL:
        return f"Run `manage.py migrate --database {alias}`."
    return (
        f"Run `manage.py djcrf_pg install --database {alias}`, or write a migration: "
        f"`manage.py djcrf_pg makemigrations`."
    )
