"""Instances of models, wherever their values come from: the log, the database, a message.

Django makes an instance of what a query selects, and the project's own code may run on the way: ``__init__``,
``from_db``, the receivers of ``post_init``. Here are the questions that this raises, asked of the model: does such code
run, which columns does a query select as something else than what is stored, and what is in the rows now.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db.models import Field, Model, Q, QuerySet
from django.db.models.base import ModelState
from django.db.models.expressions import Col
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init
from django.db.models.sql import Query

from djcrf_pg.observations import DefaultsGiven, emit, text_of
from djcrf_pg.registry import excluded_columns, family_of, own_columns

_FROM_DB = Model.from_db.__func__  # type: ignore[attr-defined]

#: What stands for a field at a class, and sets no more than the value.
PLACES = (DeferredAttribute, ForeignKeyDeferredAttribute)

#: Models that could not be made with deferred fields; True for those that recurse, with which it is not tried again.
_eager: dict[type[Model], bool] = {}


def runs_code(model: type[Model]) -> bool:
    """Whether code of the project's or of a package runs while an instance is made, and may read any of its fields.

    It is asked anew for each batch, because receivers come and go.
    """
    return _has_code(model) or _has_receivers(model)


def _has_code(model: type[Model]) -> bool:
    return (
        model.__init__ is not Model.__init__
        or model.__new__ is not Model.__new__
        or model.__setattr__ is not Model.__setattr__
        or getattr(model.from_db, "__func__", None) is not _FROM_DB
    )


def _has_receivers(model: type[Model]) -> bool:
    return pre_init.has_listeners(model) or post_init.has_listeners(model)


def make(model: type[Model], alias: str, values: Mapping[str, Any], *, has_code: bool | None = None) -> Model:
    """Make an instance as a queryset would that had selected these values.

    What is missing is deferred. Code that runs meanwhile may read such a field all the same, as ``__init__`` does to
    remember how the instance began. Django then loads it, which fails where the row is gone, and goes round in circles
    where two fields are read. The instance is then made with the defaults of these fields, as ``Model()`` would make
    it, and they are deferred afterwards.

    Args:
        model: The model.
        alias: The database that the instance says it comes from.
        values: By attribute, in the order of the model's fields.
        has_code: What :func:`runs_code` says; None to have it asked.

    Raises:
        DatabaseError, InterfaceError: The code asked a database that is gone.
        Exception: What the code raises, whatever the missing fields are.
    """
    if _copies_values(model) and not (runs_code(model) if has_code is None else has_code):
        return _copy(model, alias, values)
    if not _eager.get(model):
        try:
            return model.from_db(alias, list(values), list(values.values()))
        except Exception as error:
            complete = len(values) >= len(model._meta.concrete_fields)
            if complete or isinstance(error, DatabaseError | InterfaceError) or not runs_code(model):
                raise
            if isinstance(error, RecursionError):
                # It may have struck the driver in the middle of a query.
                connections.close_all()
            instance = _make_of_defaults(model, alias, values)
            _report(model, values, error)
            return instance
    return _make_of_defaults(model, alias, values)


@lru_cache(maxsize=1024)
def _copies_values(model: type[Model]) -> bool:
    """Whether Django, where no code runs, does no more to make an instance than :func:`_copy`, in a fifth of the time.

    So it is where nothing comes behind Django's class, whose ``__init__`` calls it, where no attribute of a field does
    more than keep the value (those of files and images do), and where it comes to the same when both are tried.
    """
    fields = model._meta.concrete_fields
    if (
        runs_code(model)
        or model.__mro__[model.__mro__.index(Model) :] != Model.__mro__
        or any(type(getattr(model, field.attname)) not in PLACES for field in fields)
    ):
        return False
    values: dict[str, Any] = {field.attname: None for field in fields}
    return all(_is_same(model, some) for some in (values, {name: values[name] for name in list(values)[:1]}))


def _is_same(model: type[Model], values: Mapping[str, Any]) -> bool:
    made = dict(vars(model.from_db("default", list(values), list(values.values()))))
    copied = dict(vars(_copy(model, "default", values)))
    names = list(made), list(copied)
    states = vars(made.pop("_state")), vars(copied.pop("_state"))
    return names[0] == names[1] and states[0] == states[1] and made == copied


def _copy(model: type[Model], alias: str, values: Mapping[str, Any]) -> Model:
    instance = object.__new__(model)
    state = ModelState()
    state.adding, state.db = False, alias
    attributes = vars(instance)
    attributes["_state"] = state
    attributes.update(values)
    return instance


def _make_of_defaults(model: type[Model], alias: str, values: Mapping[str, Any]) -> Model:
    fields = model._meta.concrete_fields
    complete = [values[field.attname] if field.attname in values else field.get_default() for field in fields]
    instance = model.from_db(alias, [field.attname for field in fields], complete)
    for field in fields:
        if field.attname not in values:
            instance.__dict__.pop(field.attname, None)
    return instance


def _report(model: type[Model], values: Mapping[str, Any], error: Exception) -> None:
    recurses = isinstance(error, RecursionError)
    if model not in _eager:
        missing = [field.name for field in model._meta.concrete_fields if field.attname not in values]
        emit(DefaultsGiven(model=model._meta.label, fields=", ".join(missing), error=text_of(error)))
    _eager[model] = _eager.get(model, False) or recurses


@lru_cache(maxsize=1024)
def sql_fields(model: type[Model], alias: str) -> "dict[str, Field[Any, Any]]":
    """The fields whose SELECT is SQL: a query gives something else than what is stored, and the log has what is stored.

    Encrypted fields are such (they select ``pgp_sym_decrypt(column, …)``); PostGIS's are not. What counts is the SQL
    that they make, not how.

    Args:
        model: The model, whose own table it is.
        alias: The database.

    Returns:
        The fields, by column.
    """
    return {column: field for column, field in own_columns(model).items() if not _is_plain(field, alias)}


def _is_plain(field: "Field[Any, Any]", alias: str) -> bool:
    """Whether a query selects the field's column itself."""
    table = field.model._meta.db_table
    try:
        column = field.get_col(table)
        format_select = getattr(type(column.output_field), "select_format", None)
        if type(column) is Col and column.target is field and format_select is Field.select_format:
            return True
        connection = connections[alias]
        compiler = Query(field.model).get_compiler(using=alias)
        sql, params = column.select_format(compiler, *compiler.compile(column))
        return not params and sql == Col(table, field).as_sql(compiler, connection)[0]
    except Exception:
        # It lacks a key, say, that this process need not have. What is no more than a column lacks nothing.
        return False


def as_of_now(
    model: type[Model], alias: str, attname: str, keys: Collection[Any]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Load rows as they are now, without the columns that must not leave their tables and those of `sql_fields`.

    The model's managers are passed by: one may hide rows (soft deletion), or give instances of other classes.

    Args:
        model: The model.
        alias: The database.
        attname: The attribute that is looked up, which may be that of a parent.
        keys: Its values.

    Yields:
        Its value, and the values of an instance for :func:`make`.
    """
    names = _names(model, alias)
    for row in QuerySet(model, using=alias).order_by().values(*names, attname).filter(**{f"{attname}__in": keys}):
        yield row[attname], {name: row[name] for name in names}


def find_related(
    model: type[Model], alias: str, lookup: str, values: Collection[Any], most: int | None = None
) -> list[tuple[Any, Any]]:
    """Find the rows that rows of other tables belong to, as things are now, whatever the models' managers hide.

    Args:
        model: Whose rows are found.
        alias: The database.
        lookup: A field, or a path of relations and a field at its end.
        values: Of that field.
        most: One more than so many are read.

    Returns:
        Values and keys.
    """
    # First the filter, for of a relation to many it would have a join of its own beside that of the columns.
    rows = _each_once(_rows_of(model, alias, {lookup: values}).values_list(lookup, "pk"))
    return list(rows if most is None else rows[: most + 1])


def count_related(model: type[Model], alias: str, values: Mapping[str, Collection[Any]]) -> int:
    """Count what :func:`find_related` finds, each row once.

    Args:
        model: Whose rows are counted.
        alias: The database.
        values: By lookup.
    """
    return _each_once(_rows_of(model, alias, values).values("pk")).count()


def _each_once(rows: "QuerySet[Any]") -> "QuerySet[Any]":
    """Without a join they are different rows; to say so costs a sort of them all, of which a few may be wanted."""
    joined = sum(count > 0 for count in rows.query.alias_refcount.values())
    return rows.distinct() if joined > 1 else rows


def _rows_of(model: type[Model], alias: str, values: Mapping[str, Collection[Any]]) -> "QuerySet[Any]":
    by_any = Q.create([(f"{lookup}__in", some) for lookup, some in values.items()], connector=Q.OR)
    return QuerySet(model, using=alias).filter(by_any).order_by()


def find(model: type[Model], alias: str, key: Mapping[str, Any]) -> Model | None:
    """Load one instance as :func:`as_of_now` loads rows; None where there is none.

    Args:
        model: The model.
        alias: The database.
        key: The fields of its primary key.
    """
    row = QuerySet(model, using=alias).values(*_names(model, alias)).filter(**key).first()
    return None if row is None else make(model, alias, row)


def _names(model: type[Model], alias: str) -> list[str]:
    withheld = _withheld(model, alias)
    return [field.attname for field in model._meta.concrete_fields if field.attname not in withheld]


def _withheld(model: type[Model], alias: str) -> set[str]:
    """The attributes that instances lack, wherever they come from; keys are not among them."""
    withheld: set[str] = set()
    for part in family_of(model):
        columns = {*excluded_columns(part), *sql_fields(part, alias)}
        keys = part._meta.pk_fields
        withheld |= {
            field.attname for column, field in own_columns(part).items() if column in columns and field not in keys
        }
    return withheld
