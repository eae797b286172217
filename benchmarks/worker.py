"""A process that writes or subscribes when told to: one JSON line asks, one JSON line answers.

``python -m benchmarks.worker`` with the environment of `tests.servers.app_env`; it ends with its standard input.
"""

import functools
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import django

COMMANDS: dict[str, Callable[..., Any]] = {}


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let the runner call a function by its name."""
    COMMANDS[function.__name__] = function
    return function


def _model(name: str) -> Any:
    from django.apps import apps

    return apps.get_model("bench", name)


@command
def save(table: str, seconds: float) -> float:
    """``save()`` one after the other; returns how many a second."""
    rows = list(_model(table).objects.order_by("pk")[:100])
    begin = time.monotonic()
    for count, row in enumerate(itertools.cycle(rows), 1):
        row.n += 1
        row.save()
        if (took := time.monotonic() - begin) >= seconds:
            return count / took
    raise RuntimeError(f"{table} has no rows")


@command
def save_rows(table: str, count: int) -> float:
    """``save()`` the first so many rows once each; returns when the first one began."""
    rows = list(_model(table).objects.order_by("pk")[:count])
    begin = time.monotonic()
    for row in rows:
        row.n += 1
        row.save()
    return begin


@command
def update(table: str, count: int, after: int = 0) -> list[float]:
    """``update()`` of so many rows after a key in one statement; returns when it began and when it was committed."""
    from django.db.models import F

    begin = time.monotonic()
    changed = _model(table).objects.filter(pk__gt=after, pk__lte=after + count).update(n=F("n") + 1)
    end = time.monotonic()
    if changed != count:
        raise RuntimeError(f"{changed} rows and not {count}")
    return [begin, end]


@command
def update_often(table: str, key: int, count: int) -> None:
    """Update one row so many times, a hundred to a transaction."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(
            f"""DO $$ BEGIN
                FOR number IN 1..{int(count)} LOOP
                    UPDATE {_model(table)._meta.db_table} SET n = n + 1 WHERE id = {int(key)};
                    IF number % 100 = 0 THEN COMMIT; END IF;
                END LOOP;
            END $$"""
        )
        cursor.execute("RESET synchronous_commit")


@command
def bulk_create(table: str, count: int) -> float:
    """``bulk_create()`` of so many rows, which are deleted afterwards; returns the seconds that it took."""
    from django.db import connection

    model = _model(table)
    rows = [model(pk=10_000_000 + number, title=f"title {number}", body="x" * 200) for number in range(count)]
    begin = time.monotonic()
    model.objects.bulk_create(rows, batch_size=5_000)
    took = time.monotonic() - begin
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        model.objects.filter(pk__gte=10_000_000).delete()
        cursor.execute("SET session_replication_role = origin")
    return took


@command
def paced(table: str, rate: float, seconds: float, threads: int) -> list[tuple[int, float, float]]:
    """``save()`` at a rate, another row each time.

    Returns:
        The key, when ``save()`` was called, and when it returned, by the clock that all processes share. A save
        begins late where the one before took too long; the count tells.
    """
    from django.db import connection

    total = int(rate * seconds)
    rows = list(_model(table).objects.order_by("pk")[:total])
    found: list[tuple[int, float, float]] = []
    begin = time.monotonic() + 0.1

    def work(number: int) -> None:
        connection.ensure_connection()
        for place in range(number, total, threads):
            due = begin + place / rate
            now = time.monotonic()
            if now > begin + seconds:
                break
            time.sleep(max(0.0, due - now))
            rows[place].n += 1
            started = time.monotonic()
            rows[place].save()
            found.append((rows[place].pk, started, time.monotonic()))
        connection.close()

    workers = [threading.Thread(target=work, args=[number]) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


@command
def published_channel() -> str:
    """The NOTIFY channel of django-pgpubsub's trigger."""
    from benchmarks.app.channels import PublishedChannel

    return PublishedChannel.listen_safe_name()


@command
def crowd(what: str, **arguments: Any) -> Any:
    """A measurement of `benchmarks.crowd`."""
    from benchmarks import crowd

    return getattr(crowd, what)(**arguments)


@functools.cache
def _load() -> Any:
    from benchmarks.load import Load

    return Load()


@command
def load(call: str, **arguments: Any) -> Any:
    """A method of this process's `benchmarks.load.Load`."""
    return getattr(_load(), call)(**arguments)


def main() -> None:
    """Answer until there are no more questions."""
    django.setup()
    import benchmarks.app.consumers  # noqa: F401 - the observers, of which DCRF's listen to signals

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": COMMANDS[asked.pop("command")](**asked)}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
