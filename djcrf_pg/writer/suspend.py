"""``djcrf_pg.suspend``: changes of a block that no observer receives."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, router, transaction
from django.db.models import Model
from psycopg.pq import TransactionStatus

from djcrf_pg import sql
from djcrf_pg.exceptions import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")


class suspend:
    """Capture nothing that is written to the tables of some models in a block, or by a function.

    ::

        with djcrf_pg.suspend(Task, Task.labels.through):
            Task.objects.bulk_create(imported)

    The block is an ``atomic()`` one, a savepoint if it is inside of another: it needs synchronous code, its
    ``on_commit`` hooks run after it, and a ``durable`` block cannot be inside of it. It holds for what its own
    transaction writes by whatever means (ORM, raw SQL, cascades, ``COPY``, triggers): the triggers read a setting
    of that transaction. Other connections are captured all the while. Blocks nest, and the inner one adds to the
    outer one. At the end, however it comes about, the outer one's tables are suspended, or none.

    Args:
        models: Whose tables: a model's own, those of its multi-table parents, and all their partitions. The join
            table of a many-to-many field is that of ``Model.field.through``. None means every table.
        using: The alias of the database; by default where each model is written to (``db_for_write`` of the
            routers), for every table ``default``.

    Raises:
        ConfigurationError: The database is not PostgreSQL; what is written there goes by Django's signals.
        TypeError: A coroutine function or a generator is decorated, or something is no model.
    """

    def __init__(self, *models: type[Model], using: str | None = None) -> None:
        if wrong := [model for model in models if not _has_table(model)]:
            raise TypeError(
                f"djcrf_pg.suspend takes models that have a table, not {wrong[0]!r}; "
                f"a many-to-many field's is its `through`."
            )
        self._models = models
        self._using = using
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for alias, tables in _by_alias(self._models, self._using).items():
                stack.enter_context(_suspended(alias, tables))
            self._entered.append(stack.pop_all())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Run ``function`` inside of the block, each time that it is called."""
        if any(
            is_kind(function)
            for is_kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        ):
            raise TypeError(
                f"djcrf_pg.suspend cannot decorate {function.__qualname__}: its body runs after the call has "
                f"returned. Use `with djcrf_pg.suspend(…):` inside of it, in synchronous code."
            )

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with type(self)(*self._models, using=self._using):
                return function(*args, **kwargs)

        return run


def _has_table(model: Any) -> bool:
    meta = getattr(model, "_meta", None) if isinstance(model, type) and issubclass(model, Model) else None
    return meta is not None and not meta.abstract


def _by_alias(models: Iterable[type[Model]], using: str | None) -> dict[str, list[str] | None]:
    """The tables to suspend by alias; None for every table."""
    models = tuple(models)
    if not models:
        return {using or DEFAULT_DB_ALIAS: None}
    found: dict[str, list[str] | None] = {}
    for model in models:
        alias = using or router.db_for_write(model)
        tables = found.setdefault(alias, [])
        assert tables is not None
        tables += _tables(model)
    return found


def _tables(model: type[Model]) -> list[str]:
    concrete = model._meta.concrete_model or model
    return [concrete._meta.db_table, *(parent._meta.db_table for parent in concrete._meta.get_parent_list())]


@contextmanager
def _suspended(alias: str, tables: list[str] | None) -> Iterator[None]:
    connection = connections[alias]
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"djcrf_pg.suspend: database {alias!r} is {connection.display_name}, which has no triggers of djcrf_pg; "
            f"what is written there goes by Django's signals."
        )
    queries = sql.queries("djcrf_pg.writer", "suspend.sql")
    names = [connection.ops.quote_name(table) for table in tables or ()]
    with transaction.atomic(using=alias):
        with connection.cursor() as cursor:
            cursor.execute(queries["suspend"], {"tables": names, "everything": tables is None})
            (before, _) = cursor.fetchone()
        # After an error the rollback of the block restores the setting: it was set after its start.
        yield
        if not _is_broken(connection):
            with connection.cursor() as cursor:
                cursor.execute(queries["resume"], {"tables": before})


def _is_broken(connection: Any) -> bool:
    """Whether nothing but a rollback is possible any more, because an error was swallowed in the block."""
    if connection.needs_rollback or connection.connection is None:
        return True
    return bool(connection.connection.pgconn.transaction_status == TransactionStatus.INERROR)
