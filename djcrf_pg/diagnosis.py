"""Why a database does not have what it should, or does not let us at it: the sentence with the command that fixes it.

"Run migrate" is right for a table that no migration has made yet in this database. It leads nowhere where no migration
makes the table at all, where a router keeps it away, where it is in a schema that the connection does not look into, or
where the role has no right on it. PostgreSQL says of the last three that there is no such table, or only names it.
"""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import connections, router
from django.db.migrations.loader import MigrationLoader
from django.db.models import Model

from djcrf_pg import sql
from djcrf_pg.pages import see

#: The table that is there exactly where the app is migrated.
LOG = "djcrf_pg_change"

_TEXT = sql.texts("djcrf_pg", "log.sql")["whereabouts"]

#: Where tables of some names are; takes the names as an array.
WHEREABOUTS = sql.render(_TEXT, names="$1::text[]")

#: What a listener needs of each object of ours, as the page of rights has it.
GRANTS = {
    "djcrf_pg_change": "SELECT, INSERT, UPDATE, DELETE ON djcrf_pg_change",
    "djcrf_pg_cursor": "SELECT, INSERT, UPDATE ON djcrf_pg_cursor",
    "djcrf_pg_cap": "SELECT, UPDATE ON djcrf_pg_cap",
    "djcrf_pg_failure": "SELECT, INSERT, UPDATE, DELETE ON djcrf_pg_failure",
    "djcrf_pg_interest": "SELECT, INSERT, UPDATE, DELETE ON djcrf_pg_interest",
    "djcrf_pg_shadow_message": "SELECT, INSERT, UPDATE, DELETE ON djcrf_pg_shadow_message",
    "djcrf_pg_shadow_result": "SELECT, INSERT, UPDATE, DELETE ON djcrf_pg_shadow_result",
    "djcrf_pg_shorten_v1": "EXECUTE ON FUNCTION djcrf_pg_shorten_v1(bigint, timestamptz, bigint)",
    "djcrf_pg_look_v1": "EXECUTE ON FUNCTION djcrf_pg_look_v1()",
    "djcrf_pg_front_xid": "SELECT ON SEQUENCE djcrf_pg_front_xid",
    "djcrf_pg_front_id": "SELECT ON SEQUENCE djcrf_pg_front_id",
    "djcrf_pg_late": "SELECT ON SEQUENCE djcrf_pg_late",
    "djcrf_pg_reach_xid": "SELECT ON SEQUENCE djcrf_pg_reach_xid",
    "djcrf_pg_interest_version": "SELECT, USAGE ON SEQUENCE djcrf_pg_interest_version",
    "djcrf_pg_listener_awake": "SELECT, UPDATE ON SEQUENCE djcrf_pg_listener_awake",
    "djcrf_pg_rings": "SELECT, UPDATE ON SEQUENCE djcrf_pg_rings",
}

#: What a process with subscribers needs that has no listener.
SUBSCRIBER = GRANTS | {
    "djcrf_pg_change": "SELECT ON djcrf_pg_change",
    "djcrf_pg_cursor": "SELECT ON djcrf_pg_cursor",
    "djcrf_pg_failure": "SELECT, INSERT, UPDATE ON djcrf_pg_failure",
    "djcrf_pg_interest": "SELECT, INSERT, UPDATE ON djcrf_pg_interest",
}

_OURS = re.compile(r"\bdjcrf_pg_\w+")
_SCHEMA = re.compile(r"permission denied for schema (\S+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A table of a name that was asked for.

    Attributes:
        name: Its name.
        schema: Where it is, quoted.
        usable: Whether the role may look into the schema.
        visible: Whether an unqualified name means it.
    """

    name: str
    schema: str
    usable: bool
    visible: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where tables of some names are in a database, whoever may see them.

    Attributes:
        role: Who asked.
        path: The search_path of the connection.
        places: The tables, in any schema.
    """

    role: str
    path: str
    places: tuple[Place, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Any]) -> "Whereabouts":
        """Read the rows of :data:`WHEREABOUTS`, mappings by column; there is at least one."""
        rows = list(rows)
        names = [field.name for field in dataclasses.fields(Place)]
        places = tuple(Place(*(row[name] for name in names)) for row in rows if row["name"] is not None)
        return cls(rows[0]["role"], rows[0]["path"], places)

    def elsewhere(self, name: str) -> list[Place]:
        """The tables of a name that an unqualified name does not mean."""
        return [place for place in self.places if place.name == name and not place.visible]


def ask(alias: str, names: Collection[str]) -> Whereabouts:
    """Where tables of some names are, asked over Django's connection.

    Args:
        alias: The database.
        names: Of tables, without a schema.
    """
    with connections[alias].cursor() as cursor:
        cursor.execute(sql.render(_TEXT, names="%s::text[]"), [list(names)])
        columns = [column[0] for column in cursor.description]
        return Whereabouts.of(dict(zip(columns, row, strict=True)) for row in cursor.fetchall())


def migrate(alias: str) -> str:
    """The command that migrates a database."""
    return "`manage.py migrate`" if alias == "default" else f"`manage.py migrate --database {alias}`"


def without_log(alias: str, whereabouts: Whereabouts | None = None) -> str:
    """Why a connection finds no change log, or an old one.

    Args:
        alias: The database.
        whereabouts: Of :data:`LOG`; asked for where it is None.
    """
    whereabouts = whereabouts or ask(alias, [LOG])
    if any(place.visible for place in whereabouts.places if place.name == LOG):
        return (
            f"The change log of database {alias!r} is that of an older version of djcrf_pg and lacks what this one "
            f"adds to it: run {migrate(alias)}."
        )
    start = f"Database {alias!r} lacks the change log {LOG}"
    if found := whereabouts.elsewhere(LOG):
        return f"{start} where this connection looks for it. {_elsewhere(alias, found[0], whereabouts)}"
    if not apps.is_installed("djcrf_pg"):
        return f"{start}, for INSTALLED_APPS lacks the app: add 'djcrf_pg' to it, and run {migrate(alias)}."
    if not router.allow_migrate(alias, "djcrf_pg"):
        return (
            f"{start}, for a router of DATABASE_ROUTERS keeps the app away: have allow_migrate({alias!r}, 'djcrf_pg') "
            f"return True or None, and run {migrate(alias)}."
        )
    return f"{start}: run {migrate(alias)}."


def without_tables(alias: str, tables: Collection[str], whereabouts: Whereabouts | None = None) -> str:
    """Why a connection does not find observed tables.

    Args:
        alias: The database.
        tables: By ``db_table``.
        whereabouts: Of these; asked for where it is None.
    """
    whereabouts = whereabouts or ask(alias, tables)
    quote = connections[alias].ops.quote_name
    why = dict.fromkeys(_no_table(alias, table, whereabouts) for table in sorted(tables))
    return f"Database {alias!r} lacks table {', '.join(map(quote, sorted(tables)))}: {' '.join(why)}"


def without_migration(tables: Iterable[str]) -> list[str]:
    """The tables, out of some by ``db_table``, that a model here has and no migration makes."""
    models = {model._meta.db_table: model for model in _models() if _owner(model)._meta.managed}
    return [table for table in tables if table in models and not _is_migrated_by_files(models[table])]


def _no_table(alias: str, table: str, whereabouts: Whereabouts) -> str:
    if found := whereabouts.elsewhere(table):
        return _elsewhere(alias, found[0], whereabouts)
    model = next((each for each in _models() if each._meta.db_table == table), None)
    if model is None:
        return f"run {migrate(alias)}."
    owner = _owner(model)
    label, app = owner._meta.label, owner._meta.app_label
    if not owner._meta.managed:
        return f"{label} is unmanaged, so no migration makes it: make it yourself, or correct Meta.db_table."
    if not router.allow_migrate_model(alias, owner):
        return f"a router of DATABASE_ROUTERS keeps {label} away: see what its allow_migrate() returns for {alias!r}."
    if not _is_migrated_by_files(model):
        return f"no migration makes it yet. Run `manage.py makemigrations {app}`, and then {migrate(alias)}."
    return f"a migration of {app} makes it, and is not applied: run {migrate(alias)}."


def _models() -> list[type[Model]]:
    return [model for model in apps.get_models(include_auto_created=True) if not model._meta.proxy]


def _elsewhere(alias: str, place: Place, whereabouts: Whereabouts) -> str:
    if not place.usable:
        return (
            f"It is in schema {place.schema}, which role {whereabouts.role!r} may not use: GRANT USAGE ON SCHEMA "
            f"{place.schema} TO {_quoted(whereabouts.role)}. {see('reference/database-objects.md#rights')}"
        )
    return (
        f"There is one in schema {place.schema}, which comes too late in the search_path of this connection "
        f"({whereabouts.path}) or is not in it: if it is meant, say so in DATABASES[{alias!r}], OPTIONS = {{'options': "
        f"'-c search_path={place.schema}'}}; if it is not, run {migrate(alias)}."
    )


def denied(error: BaseException, alias: str, role: str | None = None, grants: Mapping[str, str] = GRANTS) -> str | None:
    """Which right a role lacks, and the GRANT.

    Args:
        error: What the driver raised, or Django in its place.
        alias: The database.
        role: Who asked; by default what ``DATABASES`` says.
        grants: What the role needs of each object.

    Returns:
        The sentences; None where the error is another one.
    """
    if _sqlstate(error) != "42501":
        return None
    role = role or str(connections[alias].settings_dict.get("USER") or "")
    text = str(error).strip()
    name = next((name for name in _OURS.findall(text) if name in grants), None)
    if name is not None:
        grant = f"GRANT {grants[name]}"
    elif match := _SCHEMA.search(text):
        grant = f"GRANT USAGE ON SCHEMA {match[1]}"
    else:
        grant = "GRANT it"
    who, to = (f"role {role!r}", _quoted(role)) if role else ("the role", "the role")
    return (
        f"In database {alias!r}, {who} lacks a right ({text.splitlines()[0]}): as the owner, {grant} TO {to}. "
        f"{see('reference/database-objects.md#rights')}"
    )


def _sqlstate(error: BaseException | None) -> str | None:
    while error is not None:
        if (state := getattr(error, "sqlstate", None)) is not None:
            return str(state)
        error = error.__cause__
    return None


def _quoted(role: str) -> str:
    return role if re.fullmatch(r"[a-z_][a-z0-9_]*", role) else '"' + role.replace('"', '""') + '"'


def _is_migrated_by_files(model: type[Model]) -> bool:
    """Whether the migrations of an app, as they are on the disk just now, make the table of one of its models."""
    owner = _owner(model)
    state = _states(_stamp()).get((owner._meta.app_label, str(owner._meta.model_name)))
    if state is None:
        return False
    if owner is model:
        given: dict[str, Any] = vars(model._meta)["original_attrs"]
        return bool(state[0].get("db_table") == given.get("db_table"))
    return {field.name for field in owner._meta.local_many_to_many if field.remote_field.through is model} <= state[1]


def _owner(model: type[Model]) -> type[Model]:
    """The model that the table of a join table is made with; else the model itself."""
    owner: Any = model._meta.auto_created  # django-stubs say that it is True
    return owner or model


def _stamp() -> tuple[tuple[str, int], ...]:
    """What changes when somebody writes a migration."""
    found = []
    for app in apps.get_app_configs():
        name, _ = MigrationLoader.migrations_module(app.label)
        try:
            paths = import_module(name).__path__ if name else []
        except ImportError:
            continue
        found += [(path, Path(path).stat().st_mtime_ns) for path in paths]
    return tuple(found)


@lru_cache(maxsize=1)
def _states(stamp: tuple[tuple[str, int], ...]) -> dict[tuple[str, str], tuple[dict[str, Any], set[str]]]:
    """The options and the names of the fields of each model, at the end of all migrations."""
    models = MigrationLoader(None).project_state().models
    return {key: (state.options, set(state.fields)) for key, state in models.items()}
