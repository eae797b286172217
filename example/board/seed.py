"""The rows that the board starts with."""

import random

from django.db import connection, transaction

from board.models import GRID_SIDE, Cell, Label, Task

LABELS = {"api": 250, "backend": 205, "bug": 25, "docs": 95, "frontend": 320, "infra": 165, "urgent": 5}

TITLES = {
    Task.Status.TODO: (
        "Explain snapshots in the manual",
        "Sort the feed by commit time",
        "Warn when a trigger is disabled",
        "Measure 32 concurrent writers",
        "Add a dark theme to the status page",
        "Name the pooler that swallows LISTEN",
        "Try the listener behind PgBouncer",
        "Let standbys report their lag",
        "Drop the nightly refresh job",
        "Write the upgrade notes",
        "Group events by customer",
        "Show labels in the export",
    ),
    Task.Status.DOING: (
        "Resume a subscription from a cursor",
        "Paint 10 000 rows without a hitch",
        "Send events in envelopes",
        "Keep the board usable on a phone",
        "Watch join tables of many-to-many fields",
        "Retry the channel layer with backoff",
        "Move billing off polling",
        "Review the retention settings",
    ),
    Task.Status.DONE: (
        "Log changes in statement triggers",
        "Read the log between two snapshots",
        "Elect one leader per database",
        "Stop ringing a doorbell nobody needs",
        "Merge two saves into one event",
        "Survive a restart of PostgreSQL",
        "Capture raw SQL",
        "Capture bulk_create()",
        "Capture queryset.update()",
        "Capture cascades",
    ),
}


def seed() -> bool:
    """Fill an empty board.

    Returns:
        Whether it filled the board. It leaves a board with labels as it is.
    """
    if Label.objects.exists():
        return False
    with transaction.atomic():
        fill_board()
        fill_grid()
    return True


def fill_board() -> list[int]:
    """Create the labels and tasks of the start.

    Returns:
        The primary keys of the tasks.
    """
    # The same board each time, as in the screenshot.
    dice = random.Random(2)
    labels = Label.objects.bulk_create(Label(name=name, hue=hue) for name, hue in LABELS.items())
    tasks = Task.objects.bulk_create(
        Task(title=title, status=status, points=dice.choice((1, 2, 3, 5, 8)))
        for status, titles in TITLES.items()
        for title in titles
    )
    through = Task.labels.through
    through.objects.bulk_create(
        through(task=task, label=label) for task in tasks for label in dice.sample(labels, dice.choice((0, 1, 1, 2)))
    )
    return [task.pk for task in tasks]


def fill_grid() -> int:
    """Insert all cells in one statement.

    Returns:
        The number of rows.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {Cell._meta.db_table} (x, y, value)"
            " SELECT x, y, (127.5 + 60 * sin(x / 9.0) + 60 * cos(y / 7.0))::int"
            " FROM generate_series(0, %(side)s - 1) AS y, generate_series(0, %(side)s - 1) AS x",
            {"side": GRID_SIDE},
        )
        return cursor.rowcount
