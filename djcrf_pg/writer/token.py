"""``djcrf_pg.transaction_token``: the name of a transaction, by which a page knows the events of its own write."""

from django.db import DEFAULT_DB_ALIAS, connections

from djcrf_pg.exceptions import TokenError


def transaction_token(*, using: str = DEFAULT_DB_ALIAS) -> str:
    """Name the transaction that is open, as its events will.

    ::

        with transaction.atomic():
            task.save()
            token = djcrf_pg.transaction_token()
        return JsonResponse({"transaction": token})

    Handlers that name ``transaction`` are given the same text, with each event of that transaction. A page that wrote
    over HTTP knows its own change by it.

    It is PostgreSQL's ``pg_current_xact_id()`` (manual, 9.27.8), so what writes in SQL has it by
    ``RETURNING pg_current_xact_id()::text``, also where the statement is a transaction by itself. A transaction that
    writes nothing is given an id by the question.

    Args:
        using: The alias of the database that is written to.

    Raises:
        TokenError: No transaction is open, or the database is not PostgreSQL.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        raise TokenError(
            f"djcrf_pg.transaction_token: database {using!r} is {connection.display_name}, and has no change log."
        )
    if connection.get_autocommit() and not connection.in_atomic_block:
        raise TokenError(
            f"djcrf_pg.transaction_token: no transaction is open on database {using!r}, so the question would be a "
            f"transaction of its own, and no event has its name. Write and ask inside one transaction.atomic() block"
            f"{'' if using == DEFAULT_DB_ALIAS else f' of {using!r}'}."
        )
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        return str(cursor.fetchone()[0])
