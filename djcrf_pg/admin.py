"""Pages in Django's admin: what the change log has, who leads, which tables have triggers, what shadow mode has found.

They read only, and cost as little as :mod:`djcrf_pg.inspection.log` says: pages go on from a key, and nothing is
counted. One button installs triggers, as ``manage.py djcrf_pg install`` does. A superuser sees them; others need the
permission ``djcrf_pg.view_changelog``, which shows what is written to *all* tables that have triggers, and
``djcrf_pg.install_triggers`` for the button.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import wraps
from itertools import groupby, zip_longest
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
from djcrf_pg.inspection.shadow import Found, found_without_samples, has_results, samples
from djcrf_pg.management.status import Line, look
from djcrf_pg.models import ChangeLog
from djcrf_pg.observer import shadowed
from djcrf_pg.registry import registry

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ChangeLog]
else:
    _ModelAdmin = admin.ModelAdmin

#: Changes on a page.
PER_PAGE = 50

#: Characters of a value that a page has, most of them in a tooltip.
_LONG = 2_000

#: Differences of shadow mode on a page, lines of one of their samples, and characters of each side of a line.
DIFFERENCES, _LINES, _SIDE = 25, 60, 300

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


class Side(NamedTuple):
    """A line of what signals have sent and triggers would have: None where one of them has nothing there.

    Attributes:
        part: ``action``, ``groups``, ``field`` or ``body``.
        name: The field's.
        signals: What signals have sent, as text.
        triggers: What triggers would have sent.
        differs: Whether both have sent something, and not the same here.
    """

    part: str
    name: str
    signals: str | None
    triggers: str | None
    differs: bool


class Sample(NamedTuple):
    """A change that signals and triggers have not sent alike.

    Attributes:
        origin: The change or the process that it is of: ``change``, ``transaction``, ``context``, ``at``, ``process``.
        key: Of the row; None for all rows of the model.
        history: The page with the changes of the row; empty where it has none.
        log: The page with the changes of the transaction.
        lines: What was sent.
        left_off: How many more lines there are.
        by_signals: Whether signals have sent something.
        by_triggers: Whether triggers would have.
    """

    origin: dict[str, str]
    key: str | None
    history: str
    log: str
    lines: list[Side]
    left_off: int
    by_signals: bool
    by_triggers: bool


class Difference(NamedTuple):
    """What shadow mode has found, with its samples."""

    found: Found
    samples: list[Sample]


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
            "shadow/": ("shadow", self.shadow),
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

    @_guarded("GET", "HEAD")
    def shadow(self, request: HttpRequest) -> HttpResponse:
        """What shadow mode has found, observer by observer, some differences to a page."""
        given = request.GET.get("from", "")
        begin = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
        databases, total = [], 0
        for alias in _aliases():
            first, last = (max(begin + room - total, 0) for room in (0, DIFFERENCES))
            databases.append(self._compared(alias, slice(first, last)))
            total += databases[-1]["total"]
        return self._page(
            request,
            "shadow",
            "Shadow mode",
            databases=databases,
            total=total,
            begin=begin,
            end=min(begin + DIFFERENCES, total),
            earlier=max(begin - DIFFERENCES, 0),
            is_on=shadowed.is_on(),
            has_any=any(database["has_any"] for database in databases),
            skipped=sorted(shadowed.skipped.items()),
        )

    def _compared(self, alias: str, place: slice) -> dict[str, Any]:
        """What was compared in a database; of the differences those at a place among them."""
        result: dict[str, Any] = {"alias": alias, "total": 0, "has_any": False}
        try:
            found = found_without_samples(alias)
            if not found:
                return result | {"nobody_leads": Log(alias).leader().name is None}
            differences = [id for id, each in found.items() if each.is_difference]
            texts = samples(alias, differences[place])
        except (DjcrfPgError, DatabaseError) as error:
            return result | {"error": str(error).strip()}
        equal: Counter[str] = Counter()
        for each in found.values():
            equal[each.observer] += 0 if each.is_difference else each.times
        differing = {found[id].observer for id in differences}
        here = [
            Difference(found[id], [self._sample(each, found[id], alias) for each in texts[id]])
            for id in differences[place]
        ]
        return result | {
            "total": len(differences),
            "has_any": True,
            "observers": [
                (label, equal[label], list(some)) for label, some in groupby(here, lambda each: each.found.observer)
            ],
            "alike": [each for each in found.values() if each.observer not in differing],
        }

    def _sample(self, sample: dict[str, Any], found: Found, alias: str) -> Sample:
        signals, triggers, origin = sample.get("signals"), sample.get("triggers"), sample["origin"]
        said = {name: "" if value is None else _as_text(value) for name, value in origin.items()}
        said["at"] = _moment(said.get("at", ""))
        key = _writable(",".join(json.loads(sample["pk"]))) if sample["pk"] else None
        history = history_url(self.admin_site.name, found.model, key, alias) if key and _has_model(found.model) else ""
        transaction = urlencode({"transaction": said.get("transaction", ""), "database": alias})
        log = f"{reverse(f'{self.admin_site.name}:djcrf_pg_changelog_log')}?{transaction}"
        lines, left_off = _sides(signals, triggers)
        return Sample(said, key, history, log, lines, left_off, signals is not None, triggers is not None)

    def _page(self, request: HttpRequest, name: str, title: str, **context: Any) -> HttpResponse:
        context["has_shadow"] = name == "shadow" or _has_shadow()
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
    text = _writable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _moment(text: str) -> str:
    """A time that is ISO 8601, in the project's time zone as the pages write it; else the text."""
    try:
        found = datetime.fromisoformat(text)
        local = timezone.localtime(found) if timezone.is_aware(found) else found
    except (ValueError, OverflowError):
        return text
    return f"{local:%Y-%m-%d %H:%M:%S.%f}"


def _writable(text: str) -> str:
    """A text that a response can have: JSON may hold halves of surrogate pairs, which are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _has_shadow() -> bool:
    """Whether there is anything to see of shadow mode."""
    return shadowed.is_on() or any(map(_has_results, _aliases()))


def _has_results(alias: str) -> bool:
    try:
        return has_results(alias)
    except (DjcrfPgError, DatabaseError):
        return False  # the page itself says what is wrong


def _has_model(label: str) -> bool:
    try:
        apps.get_model(label)
    except (LookupError, ValueError):
        return False
    return True


def _sides(signals: dict[str, Any] | None, triggers: dict[str, Any] | None) -> tuple[list[Side], int]:
    """What was sent, line by line, and how many lines were left off. Of too many, those that differ stay."""
    left, right = signals or {}, triggers or {}
    both = [action for action in left if action in right]
    alone = ([action for action in side if action not in both] for side in (left, right))
    lines: list[Side] = []
    for one, other in [*zip(both, both, strict=True), *zip_longest(*alone)]:
        lines += _of_event(dict(_parts(left, one)), dict(_parts(right, other)), bool(left and right))
    places = sorted(range(len(lines)), key=lambda place: (lines[place].part == "field", not lines[place].differs))
    return [lines[place] for place in sorted(places[:_LINES])], max(len(lines) - _LINES, 0)


def _of_event(one: dict[tuple[str, str], str], other: dict[tuple[str, str], str], are_two: bool) -> Iterator[Side]:
    for part, name in {**one, **other}:
        mine, theirs = (side.get((part, name)) for side in (one, other))
        # Where one has no such event at all, that is said once.
        differs = mine != theirs and are_two and (bool(one and other) or part == "action")
        yield Side(part, _writable(name), _cut(mine, theirs), _cut(theirs, mine), differs)


def _parts(side: dict[str, Any], action: str | None) -> Iterator[tuple[tuple[str, str], str]]:
    """What a side has of an action: what it is of it, with the name of a field; and the text."""
    if action is None:
        return
    groups, *body = side[action]
    yield ("action", ""), action
    yield ("groups", ""), "\n".join(groups)
    if not body:
        yield ("body", ""), "too long to be kept"
    elif isinstance(body[0], dict):
        for name, value in body[0].items():
            yield ("field", name), json.dumps(value, ensure_ascii=False, sort_keys=True)
    else:
        yield ("body", ""), json.dumps(body[0], ensure_ascii=False, sort_keys=True)


def _cut(text: str | None, other: str | None) -> str | None:
    """The part of a text that is worth the room: its start, or where it begins to differ from another."""
    if text is None:
        return None
    text = _writable(text)
    if len(text) <= _SIDE:
        return text
    other = text if other is None else _writable(other)
    pairs = enumerate(zip(text, other, strict=False))
    end = 0 if text == other else min(len(text), len(other))
    unlike = next((place for place, (one, another) in pairs if one != another), end)
    begin = max(unlike - 40, 0)
    return f"{'…' if begin else ''}{text[begin : begin + _SIDE]}{'…' if begin + _SIDE < len(text) else ''}"


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
