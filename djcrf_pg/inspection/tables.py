"""What tables are called, which models they are of, and what of them must not be seen."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django.apps import apps
from django.db import connections, router
from django.db.models import Model

from djcrf_pg import sql
from djcrf_pg.changelog.net import Image
from djcrf_pg.listener.election import HOLDER
from djcrf_pg.registry import excluded_columns, family_of, lives_on, own_columns


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table as people know it.

    Attributes:
        name: Qualified and quoted; of a partition, that of the partitioned table.
        part: The partition, or the table that inherits, where the rows are in; None where that is the table itself.
        model: The model whose own table it is, or None.
        fields: Column to field name.
        key: The columns of the primary key.
        hidden: The columns that no image may show.
        is_known: Whether the catalog has the table. Of one that is gone nobody knows what must not be seen.
        has_triggers: Whether triggers of djcrf_pg capture what is written to it.
    """

    name: str
    part: str | None = None
    model: type[Model] | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    is_known: bool = True
    has_triggers: bool = False

    @property
    def label(self) -> str | None:
        """The model's, ``app.Model``."""
        return None if self.model is None else self.model._meta.label

    def seen(self, image: Image) -> Image:
        """What may be seen of an image, by column."""
        if not self.is_known:
            return {}
        return {column: value for column, value in image.items() if column not in self.hidden}

    def key_of(self, image: Image) -> tuple[Any, ...] | None:
        """The primary key in an image; None where it is not in there, or must not be seen."""
        if not self.key or any(column not in image or column in self.hidden for column in self.key):
            return None
        return tuple(image[column] for column in self.key)


class Tables:
    """The tables of one database, looked up once each.

    Args:
        alias: The Django database alias.
        schema: The schema of the log, quoted and with its dot.
    """

    def __init__(self, alias: str, schema: str) -> None:
        self._alias = alias
        self._schema = schema
        self._found: dict[int, Table] = {}
        self._models: dict[int, type[Model]] | None = None

    def named(self, oids: Iterable[int], cursor: Any) -> Mapping[int, Table]:
        """The tables with some oids; those that are gone are known by the number alone.

        Args:
            oids: Theirs.
            cursor: Of Django's connection.
        """
        if unknown := [oid for oid in dict.fromkeys(oids) if oid not in self._found]:
            if self._models is None:
                self._models = self._of_models(cursor)
            cursor.execute(query("tables", self._schema), {"oids": unknown})
            lines: dict[int, list[tuple[Any, ...]]] = {}
            for oid, *rest in cursor.fetchall():
                lines.setdefault(oid, []).append(tuple(rest))
            for oid in unknown:
                self._found[oid] = self._table(oid, lines.get(oid, []))
        return self._found

    def forget(self) -> None:
        """Look again from now on: tables were made, renamed or attached, or exclusions have changed."""
        self._found.clear()
        self._models = None

    def parts(self, model: type[Model], cursor: Any) -> dict[int, type[Model]]:
        """The oids of the tables that a model's rows are in, each with the model whose own table it is.

        With multi-table inheritance these are the tables of its parents too; and of each table, its partitions and the
        tables that inherit from it.
        """
        quote = connections[self._alias].ops.quote_name
        models = {quote(part._meta.db_table): part for part in family_of(model)}
        cursor.execute(query("oids", self._schema), {"names": list(models)})
        return {oid: models[name] for name, oid, _ in cursor.fetchall()}

    def _of_models(self, cursor: Any) -> dict[int, type[Model]]:
        quote = connections[self._alias].ops.quote_name
        models: dict[str, type[Model]] = {}
        for model in apps.get_models(include_auto_created=True):
            if not model._meta.proxy and not model._meta.swapped and self._is_here(model):
                models.setdefault(quote(model._meta.db_table), model)
        cursor.execute(query("oids", self._schema), {"names": list(models)})
        return {oid: models[name] for name, oid, is_named in cursor.fetchall() if is_named}

    def _is_here(self, model: type[Model]) -> bool:
        return lives_on(model, self._alias) or router.db_for_write(model) == self._alias

    def _table(self, oid: int, line: list[tuple[Any, ...]]) -> Table:
        if not line:
            return Table(f"a table that is gone (oid {oid})", is_known=False)
        assert self._models is not None
        # Of a partition the topmost counts; of a table that inherits, the nearest with a model.
        top = next((place for place, (_, _, is_partition, *_) in enumerate(line) if not is_partition), len(line) - 1)
        relid, name, _, key, _ = line[top]
        place = next((number for number, row in enumerate(line[top:], top) if row[0] in self._models), top)
        model = self._models.get(line[place][0])
        hidden = {column for *_, arguments in line for column in _arguments(arguments)}
        hidden.update(*(excluded_columns(self._models[row[0]]) for row in line if row[0] in self._models))
        fields: dict[str, str] = {}
        columns = tuple(key)
        if model is not None:
            fields = {column: field.name for column, field in own_columns(model).items()}
            relid, name, *_ = line[place]
            columns = key_columns(model)
        return Table(
            name,
            None if relid == oid else line[0][1],
            model,
            fields,
            columns,
            frozenset(hidden),
            has_triggers=bool(line[0][-1]),
        )


def key_columns(model: type[Model]) -> tuple[str, ...]:
    """The columns of a model's key in its own table."""
    own = own_columns(model)
    return tuple(field.column for field in model._meta.pk_fields if field.column in own)


def _arguments(arguments: Collection[bytes]) -> set[str]:
    """The columns that triggers leave out: their arguments, each with a NUL behind it."""
    return {column.decode(errors="replace") for each in arguments for column in bytes(each).split(b"\0")[:-1] if column}


def query(name: str, schema: str, **places: str) -> str:
    """A query of ``inspection.sql``, for Django's cursors.

    Args:
        name: Its name.
        schema: The schema of the log, quoted and with its dot.
        places: SQL for its other places.
    """
    # The driver reads placeholders: what is no query of this module has none, and its percent signs are doubled.
    others = {"schema": schema, "oid": sql.oid_of("name"), "holder": HOLDER}
    places |= {place: text.replace("%", "%%") for place, text in others.items()}
    return sql.render(sql.texts("djcrf_pg.inspection", "inspection.sql")[name], **places)
