"""How commands print changes: a line for people, an object for programs; and which model and row somebody means."""

import difflib
import json
import os
import select
import sys
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model
from django.utils import timezone

from djcrf_pg.inspection.entries import Entry
from djcrf_pg.inspection.log import Log
from djcrf_pg.registry import family_of, lives_on

#: Characters of a value, a key, a context, and fields of a row that a line shows.
_VALUE, _KEY, _CONTEXT, _FIELDS = 40, 60, 80, 6

#: What stands in a line in place of fields.
_SAYS = {
    "touch": "to be sent again as it is",
    "truncate": "all rows",
    "unreadable": "a row whose image could not be written or read",
    "overflow": "changes that the log lost over its caps before they were delivered",
    "unseen": "rows may have changed without a trigger: a partition that was attached, say",
    "mass_change": "more rows than MASS_CHANGE",
    "unordered": "rows whose order the log does not say",
}

_STYLES = {"create": "SUCCESS", "update": "WARNING", "delete": "ERROR"}


class Printer:
    """Writes to the command's output, in its colours.

    Args:
        command: The command.
        as_json: Write objects instead of lines.
        databases: Name the database in each line.
    """

    def __init__(self, command: BaseCommand, *, as_json: bool, databases: bool = False) -> None:
        self._command = command
        self._as_json = as_json
        self._databases = databases
        self._arrow = "→" if _can_write("→…", command) else "->"

    def entry(self, alias: str, entry: Entry) -> None:
        """Write one change."""
        self._command.stdout.write(as_json(alias, entry) if self._as_json else self.line(alias, entry))

    def note(self, text: str) -> None:
        """Say something beside the changes, on stderr."""
        self._command.stderr.write(text, lambda plain: plain)

    def line(self, alias: str, entry: Entry) -> str:
        """One change as a line."""
        style = self._command.style
        parts = [moment(entry.at), style.HTTP_INFO(f"{entry.id}"), f"tx {entry.xid}"]
        if self._databases:
            parts.insert(0, alias)
        parts.append(getattr(style, _STYLES.get(entry.action, "NOTICE"))(f"{entry.action:<6}"))
        parts.append(style.MIGRATE_HEADING(name_of(entry)))
        if says := _SAYS.get(entry.action) or self._fields(entry):
            parts.append(says)
        if entry.context is not None:
            parts.append(style.HTTP_INFO(f"[{_who(entry.context)}]"))
        return "  ".join(parts)

    def _fields(self, entry: Entry) -> str:
        names = entry.changed
        if entry.action != "update" and entry.model is not None:  # the key is in the line already
            keys = {field.name for field in apps.get_model(entry.model)._meta.pk_fields}
            names = [name for name in names if name not in keys]
        shown = [self._field(entry, name) for name in names[:_FIELDS]]
        if len(names) > _FIELDS:
            shown.append(f"and {len(names) - _FIELDS} more")
        if not names and entry.action == "update":
            return "nothing that may be seen has changed"
        return ", ".join(shown)

    def _field(self, entry: Entry, name: str) -> str:
        found = [values[name] for values in (entry.old, entry.new) if name in values]
        texts = [_short(json.dumps(value, ensure_ascii=False, cls=DjangoJSONEncoder), _VALUE) for value in found]
        return f"{clean(name)}: {f' {self._arrow} '.join(texts)}"


def name_of(entry: Entry) -> str:
    """The row of a change, ``app.Model 7``."""
    name = clean(entry.model or entry.table)
    if entry.pk is None:
        return name
    former = "" if entry.former_pk is None else f" (before: {_short(clean(entry.former_pk), _KEY)})"
    return f"{name} {_short(clean(entry.pk), _KEY)}{former}"


def as_dict(alias: str, entry: Entry) -> dict[str, Any]:
    """One change as JSON data."""
    return {
        "database": alias,
        "change_id": entry.id,
        "transaction": str(entry.xid),
        "at": entry.at.isoformat(),
        "action": entry.action,
        "table": entry.table,
        "partition": entry.part,
        "model": entry.model,
        "pk": entry.pk,
        "former_pk": entry.former_pk,
        "old": entry.old,
        "new": entry.new,
        "context": entry.context,
    }


def as_json(alias: str, entry: Entry) -> str:
    """One change as a JSON object, in one line."""
    return json.dumps(as_dict(alias, entry), cls=DjangoJSONEncoder)


def moment(at: datetime) -> str:
    """A time in the project's time zone; with the date, unless that is today's."""
    local = timezone.localtime(at) if timezone.is_aware(at) else at
    today = timezone.localdate() if timezone.is_aware(at) else date.today()
    text = local.strftime("%H:%M:%S.%f")[:-3]
    return text if local.date() == today else f"{local.date().isoformat()} {text}"


def clean(text: str) -> str:
    """What a terminal shows as it is: whatever stands in a row, it moves no cursor and changes no colour."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _short(text: str, most: int) -> str:
    text = clean(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _who(context: Any) -> str:
    if context == "":
        return "a context of more than 8 192 bytes, which the log does not keep"
    if isinstance(context, Mapping):
        parts = (
            f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            for name, value in context.items()
        )
        return _short(" ".join(parts), _CONTEXT)
    return _short(context if isinstance(context, str) else json.dumps(context, ensure_ascii=False), _CONTEXT)


def _can_write(text: str, command: BaseCommand) -> bool:
    """Whether an output has some characters; what else it lacks is written as escapes."""
    stream: Any = getattr(command.stdout, "_out", command.stdout)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# -- the other end of the output -----------------------------------------------------------------------------


def is_closed(command: BaseCommand) -> bool:
    """Whether nobody reads the output any more: ``| head`` has what it wants."""
    stream: Any = getattr(command.stdout, "_out", command.stdout)
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError, ValueError):
        return False  # no file, or no poll()
    return any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))


def give_up_output() -> None:
    """Have the interpreter, which flushes at its end, find something to flush to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- what somebody means -------------------------------------------------------------------------------------


def model_named(label: str) -> type[Model]:
    """The model with a label, in whatever case.

    Raises:
        CommandError: There is none, or it has no table; the message names those that are near.
    """
    models = {model._meta.label: model for model in apps.get_models(include_auto_created=True)}
    folded = {name.lower(): name for name in models}
    found = models.get(folded.get(label.lower(), ""))
    if found is None:
        names = {name.rpartition(".")[2]: full for name, full in folded.items()}
        near = [folded[name] for name in difflib.get_close_matches(label.lower(), folded, 3, 0.7)]
        near += [names[name] for name in difflib.get_close_matches(label.lower().rpartition(".")[2], names, 3, 0.7)]
        hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "models are named app.Model."
        raise CommandError(f"There is no model {label!r}: {hint}")
    if found._meta.swapped:
        raise CommandError(f"{found._meta.label} has no table: it is swapped out for {found._meta.swapped}.")
    return found._meta.concrete_model or found


def databases_of(model: type[Model], aliases: list[str]) -> list[str]:
    """Those databases, out of some, that have the model's table.

    Raises:
        CommandError: None of them has it.
    """
    found = [alias for alias in aliases if lives_on(model, alias)]
    if not found:
        among = f"none of {', '.join(aliases)}" if aliases else "no PostgreSQL database with a change log"
        raise CommandError(f"{model._meta.label} has its table in {among}.")
    return found


def warn_of_triggers(printer: Printer, log: Log, model: type[Model]) -> None:
    """Say so where nothing that is written to a model is logged."""
    if bare := [part._meta.label for part in family_of(model) if not log.is_captured(part)]:
        printer.note(
            f"Nothing that is written to {' and '.join(bare)} is logged now: there are no triggers on the table. "
            f"Observe the model, or name it in DJCRF_PG['OBSERVE'], and run `manage.py migrate`."
        )
