"""What user code reaches through the foreign keys of a row, when the same transaction has deleted it.

A delete by cascade, of the ORM's or of the database, removes the parent with the row. Groups or a serializer that ask
for ``instance.desk.place`` would get ``DoesNotExist``. But where the parents' tables have triggers, their rows are in
the same window of the log, as they were: the relations of the instance are set to them, several levels deep. Tables on
such a way that nobody observes get triggers by ``parents=["desk__place"]``.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.models import Model, QuerySet

from djcrf_pg import sql
from djcrf_pg.capture.catalog import schema_of_log
from djcrf_pg.changelog.net import Image, RowChange
from djcrf_pg.instances import make
from djcrf_pg.registry import Observed, alias_of, family_of

#: Foreign keys in a row that are followed from an instance.
_DEEPEST = 8

#: So many answers of the log are remembered from piece to piece of a window.
_MOST = 50_000

#: A column of a model's own table; and a row by its transaction and the text of such a column.
Column = tuple[type[Model], str]
Key = tuple[int, str]

#: From the row of a table to the attributes that it holds, as they were.
Read = Callable[[type[Model], RowChange], dict[str, Any]]


@lru_cache(maxsize=1024)
def foreign_keys(model: type[Model]) -> tuple[Any, ...]:
    """The foreign keys and one-to-one fields of a model, but for the links to models that it inherits from."""
    return tuple(
        field
        for field in model._meta.concrete_fields
        if (field.many_to_one or field.one_to_one)
        and field.remote_field is not None
        and not field.remote_field.parent_link
    )


class Parents:
    """Rows that the transactions of a batch have deleted.

    Args:
        aliases: Those that the database has; the listener's first.
        read: Reads a row.
    """

    def __init__(self, aliases: Sequence[str], read: Read) -> None:
        self._aliases = aliases
        self._read = read
        self._rows: dict[tuple[int, str], list[RowChange]] = {}
        self._xids: set[int] = set()
        self._made: dict[tuple[int, type[Model], str], dict[Any, Model]] = {}

    def add(self, table: str, row: RowChange) -> None:
        """Take in a row of a table that was deleted."""
        self._rows.setdefault((row.xid, table), []).append(row)
        self._xids.add(row.xid)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._rows)

    def complete(self, rows: Iterable[tuple[type[Model], RowChange]], elsewhere: "Elsewhere") -> None:
        """Take in what these rows refer to and other pieces of the window have, level by level.

        Also where this piece has the delete: another one may have what the row was before the transaction.

        Args:
            rows: Those of a piece, each with the model of its table.
            elsewhere: Asks the log.
        """
        for _ in range(_DEEPEST):
            wanted: dict[Column, dict[Key, None]] = {}
            for model, row in rows:
                for column, key in _references(model, row):
                    wanted.setdefault(column, {})[row.xid, key] = None
            rows = []
            for (parent, name), keys in wanted.items():
                for row in elsewhere.find(parent._meta.db_table, name, keys):
                    self.add(parent._meta.db_table, row)
                    rows.append((parent, row))
            if not rows:
                return

    def preset(self, instance: Model | None, xid: int) -> None:
        """Set the relations of an instance to what its transaction has deleted."""
        if instance is None or xid not in self._xids:
            return
        for field in foreign_keys(type(instance)):
            value = instance.__dict__.get(field.attname)
            if value is None or field.is_cached(instance):
                continue
            parent = self._find(xid, field.remote_field.model, field.target_field.attname, value)
            if parent is not None:
                field.set_cached_value(instance, parent)

    def _find(self, xid: int, model: type[Model], attname: str, value: Any) -> Model | None:
        place = (xid, model, attname)
        if place not in self._made:
            made = self._made[place] = {}
            for values in self._values(xid, model):
                if attname in values and values.keys() >= {field.attname for field in model._meta.pk_fields}:
                    try:
                        made[values[attname]] = make(model, alias_of(model, self._aliases), values)
                    except (OperationalError, InterfaceError):
                        raise
                    except Exception:
                        # Code of the model's own. The event is not about this row: who asks for it gets DoesNotExist.
                        continue
            # Not before they are all there: a table may refer to itself.
            for instance in made.values():
                self.preset(instance, xid)
        return self._made[place].get(value)

    def _values(self, xid: int, model: type[Model]) -> Iterator[dict[str, Any]]:
        """The attributes of the deleted instances of a model, with those that it inherits."""
        inherited = {
            (link.attname, parent): {values[parent._meta.pk.attname]: values for values in self._values(xid, parent)}
            for parent, link in model._meta.parents.items()
            if link is not None and not parent._meta.proxy
        }
        for row in self._rows.get((xid, model._meta.db_table), ()):
            values = self._read(model, row)
            for (link, _), parents in inherited.items():
                values |= parents.get(values.get(link), {})
            yield {
                field.attname: values[field.attname] for field in model._meta.concrete_fields if field.attname in values
            }


class Elsewhere:
    """Rows that transactions of a window have deleted, in whichever piece of it they are.

    Args:
        alias: The database of the log.
        tables: The oids of each table whose rows may be asked for: its own, and those of its partitions.
        parse: From an oid and the text of an image to the image.
    """

    def __init__(self, alias: str, tables: Mapping[str, Collection[int]], parse: Callable[[int, str], Image]) -> None:
        self._alias = alias
        self._tables = tables
        self._parse = parse
        self._schema: str | None = None
        self._emptied: dict[int, set[int]] = {}
        self._known: dict[tuple[str, str, Key], RowChange | None] = {}

    def forget(self) -> None:
        """Forget what was found: a window is over."""
        self._emptied.clear()
        self._known.clear()

    def emptied(self, xids: Collection[int]) -> set[int]:
        """The tables, by oid, that transactions have deleted rows of.

        Raises:
            OperationalError, InterfaceError: The database is gone.
        """
        if len(self._emptied) > _MOST:
            self._emptied.clear()
        if unknown := [xid for xid in xids if xid not in self._emptied]:
            rows = self._ask("emptied", list(map(str, unknown)))
            self._emptied |= {xid: set() for xid in unknown}
            for xid, oid in rows:
                self._emptied[int(xid)].add(oid)
        return set().union(*(self._emptied[xid] for xid in xids))

    def find(self, table: str, column: str, keys: Collection[Key]) -> list[RowChange]:
        """Return rows of a table by the texts of a column; where nothing of it was deleted, nothing is asked.

        Raises:
            OperationalError, InterfaceError: The database is gone.
        """
        oids = self._tables.get(table, ())
        self.emptied({xid for xid, _ in keys})
        keys = [key for key in keys if not self._emptied[key[0]].isdisjoint(oids)]
        if len(self._known) > _MOST:
            self._known.clear()
        if unknown := [key for key in keys if (table, column, key) not in self._known]:
            xids, texts = [str(xid) for xid, _ in unknown], [text for _, text in unknown]
            rows = self._ask("deleted", xids, texts, column, list(oids))
            self._known |= dict.fromkeys((table, column, key) for key in unknown)
            for xid, text, id, oid, old, context, at in rows:
                row = RowChange(id, int(xid), oid, self._parse(oid, old), None, context, at)
                self._known[table, column, (row.xid, text)] = row
        found = (self._known[table, column, key] for key in keys)
        return [row for row in found if row is not None]

    def _ask(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        connection = connections[self._alias]
        if self._schema is None:
            self._schema = schema_of_log(connection)
        queries = sql.queries("djcrf_pg.routing", "parents.sql", schema=self._schema or "")
        with transaction.atomic(self._alias), connection.cursor() as cursor:
            cursor.execute(queries["room"])
            cursor.execute(queries[query], arguments)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _references(model: type[Model], row: RowChange) -> Iterator[tuple[Column, str]]:
    """What the foreign keys in a row's images refer to, by its text."""
    for field in foreign_keys(model):
        target = field.target_field
        for image in (row.old, row.new):
            key = _text((image or {}).get(field.column))
            if key is None:
                continue
            for part in family_of(field.remote_field.model):
                # Parents and children by inheritance share their key.
                column = target if part is target.model else part._meta.pk if target.primary_key else None
                if column is not None and column.column is not None:
                    yield (part, column.column), key


def _text(value: Any) -> str | None:
    """A value of an image as ``->>`` gives it."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def rescue(instance: Model | None, depth: int = 0) -> None:
    """Set the relations of an instance to rows that are gone to instances with the key alone: more is not known.

    For code that asks ``instance.user.id``. What it asks beyond that raises ``DoesNotExist`` as before.

    Raises:
        OperationalError, InterfaceError: The database is gone.
    """
    if instance is None or depth > _DEEPEST:
        return
    for field in foreign_keys(type(instance)):
        value = instance.__dict__.get(field.attname)
        if value is None:
            continue
        if field.is_cached(instance):
            rescue(field.get_cached_value(instance), depth + 1)
            continue
        model, target, alias = field.remote_field.model, field.target_field, instance._state.db
        is_gone = not QuerySet(model, using=alias).filter(**{target.attname: value}).exists()
        if is_gone and target.primary_key and alias is not None:
            field.set_cached_value(instance, make(model, alias, {target.attname: value}))


def hint(observer: Observed, error: BaseException) -> str | None:
    """What lets an observer find a row that was deleted in the same transaction; None where that is not the fault."""
    if not isinstance(error, ObjectDoesNotExist):
        return None
    for path, model in _paths(observer.model_cls):
        if type(error) is vars(model).get("DoesNotExist"):
            if model in observer.parents:
                return None
            return (
                f"If the {model._meta.label} was deleted in the same transaction, let the log have it as it was: "
                f"@model_observer({observer.model_cls.__name__}, parents=[{path!r}]), then `manage.py migrate`."
            )
    return None


def _paths(model: type[Model]) -> Iterator[tuple[str, type[Model]]]:
    """The models that foreign keys lead to, each with a shortest way there."""
    seen, queue = {model}, deque([("", model)])
    while queue:
        path, here = queue.popleft()
        for field in foreign_keys(here):
            there = field.remote_field.model
            way = f"{path}__{field.name}" if path else field.name
            yield way, there
            if there not in seen and way.count("__") < _DEEPEST:
                seen.add(there)
                queue.append((way, there))
