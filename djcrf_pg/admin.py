"""Pages in Django's admin: what the change log has, who leads, and which tables have triggers.

They read only, and cost as little as :mod:`djcrf_pg.inspection.log` says: pages go on from a key, and nothing is
counted. One button installs triggers, as ``manage.py djcrf_pg install`` does. A superuser sees them; others need the
permission ``djcrf_pg.view_changelog``, which shows what is written to *all* tables that have triggers, and
``djcrf_pg.install_triggers`` for the button.
"""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import urlencode

from django.apps import apps
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connections, router, transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from djcrf_pg.capture.install import VERBS, install, log_schema
from djcrf_pg.discovery import discover, failures
from djcrf_pg.exceptions import DjcrfPgError
from djcrf_pg.inspection.entries import Entry, Key
from djcrf_pg.inspection.log import Filters, Log, Page
from djcrf_pg.management.status import Line, look
from djcrf_pg.models import ChangeLog
from djcrf_pg.registry import registry

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ChangeLog]
else:
    _ModelAdmin = admin.ModelAdmin

#: Changes on a page.
PER_PAGE = 50

#: Characters of a value that a page has, most of them in a tooltip.
_LONG = 2_000

View = TypeVar("View", bound=Callable[..., HttpResponse])

#: What of the query string is a filter.
_FILTERS = ("model", "pk", "transaction", "context", "since", "until")


class Field(NamedTuple):
    """What a change did to a field: the values before and after, as text; None where there is none."""

    name: str
    old: str | None
    new: str | None


class Row(NamedTuple):
    """A change as the page shows it."""

    entry: Entry
    fields: list[Field]
    context: str
    history: str


def _guarded(*methods: str) -> Callable[[View], View]:
    """Let a page be seen by those alone who have the permission, and be asked for by these methods."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(self: "ChangeLogAdmin", request: HttpRequest) -> HttpResponse:
            if not request.user.has_perm(_VIEW):
                raise PermissionDenied
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            found = list(failures())
            response = view(self, request)
            if isinstance(response, TemplateResponse):  # rendered later; the figures would pile messages up
                for failure in found:
                    messages.error(request, str(failure))
            return response

        return cast(View, guarded)

    return decorate


_VIEW, _INSTALL = "djcrf_pg.view_changelog", "djcrf_pg.install_triggers"


@admin.register(ChangeLog)
class ChangeLogAdmin(_ModelAdmin):
    """The pages; with a site of your own, ``site.register(ChangeLog, ChangeLogAdmin)``."""

    def has_view_permission(self, request: HttpRequest, obj: ChangeLog | None = None) -> bool:
        """Whether the user has the permission ``view_changelog``."""
        return request.user.has_perm(_VIEW)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """The same."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ChangeLog | None = None) -> bool:
        """Nobody changes."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ChangeLog | None = None) -> bool:
        """Nobody deletes."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """The pages."""
        site = self.admin_site
        pages = {
            "": ("changelist", self.overview),
            "state/": ("state", self.state),
            "log/": ("log", self.log),
            "triggers/": ("triggers", self.triggers),
        }
        return [
            path(url, site.admin_view(view), name=f"djcrf_pg_changelog_{name}") for url, (name, view) in pages.items()
        ]

    @_guarded("GET", "HEAD")
    def overview(self, request: HttpRequest) -> HttpResponse:
        """Who leads, the lag, the rate, and whether the tables have their triggers."""
        databases = [_overview(alias) for alias in _aliases()]
        return self._page(request, "overview", "Change log", databases=databases)

    @_guarded("GET", "HEAD")
    def state(self, request: HttpRequest) -> HttpResponse:
        """What of the overview changes all the time, as JSON."""
        found = {alias: _state(alias) for alias in _aliases()}
        return JsonResponse({alias: state for alias, state in found.items() if state is not None})

    @_guarded("GET", "HEAD")
    def log(self, request: HttpRequest) -> HttpResponse:
        """The log, the newest change first, by filters."""
        alias, aliases = _chosen(request)
        given = {name: value for name in _FILTERS if (value := request.GET.get(name, ""))}
        rows: list[Row] = []
        links: dict[str, str] = {}
        error, reach = "", None
        try:
            log = Log(alias)
            before, after = (_key(request, name) for name in ("before", "after"))
            page = log.page(_filters(given), before=None if after else before, after=after, limit=PER_PAGE)
            rows = [self._row(entry, alias) for entry in page.entries]
            if after:
                rows.reverse()
            links = _links(page, before, after)
            reach = log.reach()
        except (DjcrfPgError, DatabaseError, _Wrong) as failure:
            error = str(failure).strip()
        kept = {**given, **({"database": alias} if len(aliases) > 1 else {})}
        return self._page(
            request,
            "log",
            f"History of {given['model']} {given['pk']}" if {"model", "pk"} <= given.keys() else "Changes",
            rows=rows,
            error=error,
            reach=reach,
            given=given,
            alias=alias,
            aliases=aliases,
            models=_models(alias),
            links={name: f"?{urlencode({**kept, **({name: key} if key else {})})}" for name, key in links.items()},
            is_filtered=bool(given),
        )

    @_guarded("GET", "HEAD", "POST")
    def triggers(self, request: HttpRequest) -> HttpResponse:
        """The state of the triggers, table by table; a POST installs them."""
        may_install = request.user.has_perm(_INSTALL)
        if request.method == "POST":
            if not may_install:
                raise PermissionDenied
            return self._install(request)
        lines, errors = _states(_aliases())
        return self._page(request, "triggers", "Triggers", lines=lines, errors=errors, may_install=may_install)

    def _install(self, request: HttpRequest) -> HttpResponse:
        alias = request.POST.get("database", "")
        if alias not in _aliases():
            raise PermissionDenied
        try:
            discover()
            steps = install(alias)
        except (DjcrfPgError, DatabaseError) as error:
            messages.error(request, str(error).strip())
        else:
            for step in steps:
                messages.success(request, f"Triggers {VERBS[step.state]} on {step.table.name} (database {alias!r}).")
            if not steps:
                messages.info(request, f"The triggers of database {alias!r} are as they should be.")
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:djcrf_pg_changelog_triggers"))

    # Each table has a transaction of its own, so that no lock is held while the next one is waited for.
    for _alias in connections:
        transaction.non_atomic_requests(_alias)(triggers)
    del _alias

    def _page(self, request: HttpRequest, name: str, title: str, **context: Any) -> HttpResponse:
        context |= {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "page": name}
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/djcrf_pg/changelog/{name}.html", context)

    def _row(self, entry: Entry, alias: str) -> Row:
        fields = [Field(name, *(_text(image, name) for image in (entry.old, entry.new))) for name in entry.changed]
        history = ""
        if entry.model is not None and entry.pk is not None:
            history = history_url(self.admin_site.name, entry.model, entry.pk, alias)
        context = "" if entry.context is None else _as_text(entry.context)
        return Row(entry, fields, context, history)


def history_url(site: str, label: str, pk: str, alias: str) -> str:
    """The page with the changes of a row.

    Args:
        site: The name of the admin site.
        label: That of the model.
        pk: The key, the parts of a composite one with commas between.
        alias: The database.

    Raises:
        NoReverseMatch: The site does not have these pages.
    """
    # Always with the database: to ask whether there are others would connect to each of them.
    query = urlencode({"model": label, "pk": pk, "database": alias})
    return f"{reverse(f'{site}:djcrf_pg_changelog_log')}?{query}"


def history_url_of(request: HttpRequest, instance: Model) -> str:
    """The page with the changes of a row that the admin shows; empty where this user, or nobody, has one.

    Args:
        request: Of a page of the admin.
        instance: The row.
    """
    model = instance._meta.concrete_model
    if model is None or not request.user.has_perm(_VIEW):
        return ""
    alias = instance._state.db or router.db_for_write(model)
    try:
        if model._meta.db_table not in registry.tables(alias):
            return ""
        values = [field.value_from_object(instance) for field in model._meta.pk_fields]
        site = getattr(request, "current_app", None) or "admin"
        return history_url(site, model._meta.label, ",".join(map(str, values)), alias)
    except (NoReverseMatch, DjcrfPgError):
        return ""  # a site without these pages, or a setting that is wrong: the form is shown all the same


class _Wrong(Exception):
    """What somebody has typed is no value of a filter."""


def _aliases() -> list[str]:
    """The databases with observed models, or with a change log that can be asked."""
    found = []
    for alias in connections:
        if connections[alias].vendor != "postgresql":
            continue
        try:
            if registry.tables(alias) or log_schema(alias) is not None:
                found.append(alias)
        except (DjcrfPgError, DatabaseError):
            found.append(alias)  # its page says what is wrong
    return found


def _chosen(request: HttpRequest) -> tuple[str, list[str]]:
    aliases = _aliases()
    alias = request.GET.get("database", "")
    return (alias if alias in aliases else next(iter(aliases), "default")), aliases


def _models(alias: str) -> list[str]:
    """The models that are observed in a database."""
    try:
        return sorted(model._meta.label for model in registry.models(alias))
    except DjcrfPgError:
        return []


def _filters(given: dict[str, str]) -> Filters:
    model: type[Model] | None = None
    if "model" in given:
        try:
            model = apps.get_model(given["model"])
        except (LookupError, ValueError):
            raise _Wrong(f"There is no model {given['model']!r}; one is named app.Model.") from None
    elif "pk" in given:
        raise _Wrong("A key is that of a row of a model: choose the model too.")
    return Filters(
        model=model,
        pk=given.get("pk"),
        transaction=_number(given.get("transaction")),
        context=given.get("context"),
        since=_time("since", given.get("since")),
        until=_time("until", given.get("until")),
    )


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    # Python refuses to convert a text of thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63):
        raise _Wrong(f"{text[:60]!r} is no transaction; that is a number, such as 771.")
    return int(text)


def _time(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = parse_datetime(text if "T" in text or " " in text else f"{text}T00:00")
    except ValueError:
        found = None
    if found is None:
        raise _Wrong(f"{text[:60]!r} is no time ({name}); one looks like 2026-11-28T09:30.")
    return found if timezone.is_aware(found) else timezone.make_aware(found)


def _key(request: HttpRequest, name: str) -> Key | None:
    text = request.GET.get(name)
    if not text:
        return None
    try:
        return Key.parse(text)
    except ValueError as error:
        raise _Wrong(str(error)) from None


def _links(page: Page, before: Key | None, after: Key | None) -> dict[str, str]:
    """Where the pages beside this one begin: ``before`` leads to older changes, ``after`` to newer ones."""
    entries = page.entries[::-1] if after else page.entries
    links = {}
    if after:
        links["before"] = str(entries[-1].key if entries else after)
        if page.more:
            links["after"] = str(page.more)
    else:
        if page.more:
            links["before"] = str(page.more)
        if before:
            links["after"] = str(entries[0].key if entries else before)
    if before or after:
        links["newest"] = ""
    return links


def _text(image: Any, name: str) -> str | None:
    return _as_text(image[name]) if name in image else None


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _overview(alias: str) -> dict[str, Any]:
    found: dict[str, Any] = {"alias": alias}
    try:
        lines = look(alias)
        found["tables"] = len(lines)
        found["wrong"] = [line for line in lines if line.state not in ("installed", "other")]
        if log_schema(alias) is not None:
            log = Log(alias)
            found |= {"leader": log.leader(), "reach": log.reach(), "activity": log.activity()}
    except (DjcrfPgError, DatabaseError) as error:
        found["error"] = str(error).strip()
    return found


def _state(alias: str) -> dict[str, Any] | None:
    """What of the overview changes all the time; None where there is no log."""
    try:
        if log_schema(alias) is None:
            return None
        log = Log(alias)
        leader, activity = log.leader(), log.activity()
    except (DjcrfPgError, DatabaseError) as error:
        return {"error": str(error).strip()}
    return {
        "written": activity.written,
        "size": activity.size,
        "at": activity.now.timestamp(),
        "lag": leader.lag,
        "leader": leader.name,
    }


def _states(aliases: Iterable[str]) -> tuple[list[Line], list[str]]:
    lines: list[Line] = []
    errors: list[str] = []
    for alias in aliases:
        try:
            lines += look(alias)
        except (DjcrfPgError, DatabaseError) as error:
            errors.append(str(error).strip())
    return lines, errors
