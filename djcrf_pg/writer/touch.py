"""``djcrf_pg.touch``: tell observers of rows whose columns have not changed."""

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections, router
from django.db.models import Model, QuerySet

from djcrf_pg import sql
from djcrf_pg.diagnosis import without_log
from djcrf_pg.exceptions import TouchError
from djcrf_pg.registry import family_of

#: Rows that one call of the SQL function takes.
_ROWS = 1_000


def touch(rows: Model | QuerySet[Any], *, using: str | None = None) -> None:
    """Send observers an ``update`` of rows that nobody has written to.

    ::

        with transaction.atomic():
            Message.objects.create(chat=chat, text=text)
            djcrf_pg.touch(chat)

        djcrf_pg.touch(Chat.objects.filter(members=user))

    For rows whose columns are as they were, while what is shown of them has changed, since it is in other tables.

    The touch is in the change log, in the caller's transaction: it commits, rolls back and has its place with the rest.
    It locks nothing, writes nothing to the table and fires no trigger. The row is loaded when the event is made, and
    what the caller's instance has unsaved is no part of it; a row that is gone by then has no event. In a transaction
    that also writes to the row the two are one event.

    One statement for an instance, or for all rows of a queryset: the keys do not leave the server. The caller needs the
    rights of an ``UPDATE``. In asynchronous code call ``await sync_to_async(djcrf_pg.touch)(chat)``.

    Args:
        rows: A saved instance, or a queryset, which may be sliced, ordered and joined. With multi-table inheritance
            the rows of the parents are touched too, as ``save()`` writes them.
        using: The alias of the database; by default where the instance or the queryset would be written to.

    Raises:
        TypeError: It is neither an instance nor a queryset.
        ValueError: The instance has no primary key.
        TouchError: The database is not PostgreSQL or not migrated, or nobody observes the model.
    """
    if not isinstance(rows, Model | QuerySet):
        raise TypeError(f"djcrf_pg.touch takes a model instance or a queryset, not {rows!r:.200}.")
    queryset = _queryset(rows, using)
    model, alias = queryset.model, queryset.db
    connection = connections[alias]
    label = model._meta.label
    if connection.vendor != "postgresql":
        raise TouchError(
            f"djcrf_pg.touch: {label} is in database {alias!r}, which is {connection.display_name} and has no change "
            f"log; observers of what is there listen to Django's signals, so send post_save."
        )
    function = _function(connection)
    if function is None:
        raise TouchError(f"djcrf_pg.touch: {without_log(alias)}")
    try:
        statement, parameters = _statement(queryset, function)
    except EmptyResultSet:
        return
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        found = cursor.fetchone()
    if found is not None and not any(found):
        raise TouchError(
            f"djcrf_pg.touch: {model._meta.db_table} (database {alias!r}) has no triggers of djcrf_pg, so nobody can "
            f"receive it. Observe {label}, or name it in DJCRF_PG['OBSERVE'], and run `manage.py migrate`."
        )


def _queryset(rows: Model | QuerySet[Any], using: str | None) -> QuerySet[Any]:
    """The rows as a queryset of the database that they are written to."""
    if isinstance(rows, QuerySet):
        return rows.using(using or rows._db or router.db_for_write(rows.model, **rows._hints))  # type: ignore[attr-defined]
    if any(getattr(rows, field.attname) is None for field in rows._meta.pk_fields):
        raise ValueError(
            f"djcrf_pg.touch: this {rows._meta.label} has no primary key, so it is no row yet. Save it first; its "
            f"observers receive that."
        )
    # Not type(): `request.user` is a lazy object that stands for the instance.
    model: type[Model] = rows.__class__
    alias = using or router.db_for_write(model, instance=rows)
    # Not by a manager, which may hide the row.
    return QuerySet(model).using(alias).filter(pk=rows.pk)


def _function(connection: Any) -> str | None:
    """The SQL function, qualified and quoted; None where there is none."""
    with connection.cursor() as cursor:
        cursor.execute(sql.texts("djcrf_pg.writer", "touch.sql")["find"])
        row = cursor.fetchone()
    return None if row is None else str(row[0])


def _statement(queryset: QuerySet[Any], function: str) -> tuple[str, list[Any]]:
    """The statement that touches the rows of a queryset, and its parameters."""
    connection = connections[queryset.db]
    attnames: list[str] = []
    columns: list[str] = []
    calls: list[str] = []
    parameters: list[Any] = []
    for model in family_of(queryset.model):
        parameters.append(connection.ops.quote_name(model._meta.db_table))
        pairs = []
        for field in model._meta.pk_fields:
            attnames.append(field.attname)
            columns.append(f"key_{len(columns)}")
            parameters.append(field.column)
            pairs.append(f"%s::text, {columns[-1]}")
        key = f"jsonb_build_object({', '.join(pairs)})"
        calls.append(f"{function.replace('%', '%%')}(to_regclass(%s), jsonb_agg({key} ORDER BY place))")
    query, given = queryset.values_list(*attnames).query.get_compiler(using=queryset.db).as_sql()
    statement = sql.render(
        sql.texts("djcrf_pg.writer", "touch.sql")["touch"],
        columns=", ".join(columns),
        query=query,
        calls=", ".join(calls),
        rows=str(_ROWS),
    )
    return statement, [*given, *parameters]
