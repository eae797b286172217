"""The writes behind the buttons: one function each, registered with what its button says.

None of them knows about subscribers, and half of them send no Django signal.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, F
from django.db.models.functions import Mod, Now

from board import seed
from board.models import Cell, Label, Task

TITLES = (
    "Fix the flaky deploy",
    "Call the customer back",
    "Rename the staging cluster",
    "Cache the pricing table",
    "Rotate the signing keys",
    "Translate the sign-up page",
    "Archive last year's invoices",
    "Upgrade to PostgreSQL 18",
    "Shrink the container image",
    "Invite the new team",
)
NAMES = ("chore", "idea", "later", "quick win", "risky", "urgent", "waiting")
BULK = "10 000 rows"
"""The heading of those that stand beside the grid."""
NOTHING_LEFT = "no such task is left: create some first"


@dataclass(frozen=True)
class Outcome:
    """What a write did.

    Attributes:
        pks: Primary keys of the tasks that it wrote, or that show what it wrote, where they are few.
        rows: How many rows it wrote.
        note: Something worth saying beside the number of rows.
    """

    pks: list[int] = field(default_factory=list)
    rows: int = 0
    note: str = ""

    @classmethod
    def of(cls, *pks: int) -> "Outcome":
        """Make the outcome of a write to these rows; of none, where the board had no suitable one."""
        return cls(pks=list(pks), rows=len(pks), note="" if pks else NOTHING_LEFT)


Run = Callable[[], Outcome]


@dataclass(frozen=True)
class Write:
    """A button.

    Attributes:
        name: Name in the address, and in the tests.
        group: Heading under which the button stands.
        label: What the button says.
        code: The code that it runs, in short.
        run: The function.
    """

    name: str
    group: str
    label: str
    code: str
    run: Run


WRITES: dict[str, Write] = {}


def write(name: str, *, group: str, label: str, code: str) -> Callable[[Run], Run]:
    """Register a function as a button; see `Write` for the arguments."""

    def register(run: Run) -> Run:
        WRITES[name] = Write(name, group, label, code, run)
        return run

    return register


def grouped() -> dict[str, list[Write]]:
    """Sort the buttons under their headings, in the order in which they are registered."""
    groups: dict[str, list[Write]] = {}
    for entry in WRITES.values():
        groups.setdefault(entry.group, []).append(entry)
    return groups


def _new(title: str) -> dict[str, Any]:
    return {"title": title, "status": Task.Status.TODO, "points": random.randint(1, 8)}


def _any_task(**filters: object) -> Task | None:
    return Task.objects.filter(**filters).order_by("?").first()


# --- the ORM, one row at a time


@write("create", group="ORM", label="Create", code="Task.objects.create(…)")
def create() -> Outcome:
    """Create one task."""
    return Outcome.of(Task.objects.create(**_new(random.choice(TITLES))).pk)


@write("save", group="ORM", label="Save", code="task.save()")
def save() -> Outcome:
    """Move one task to the next column."""
    task = _any_task()
    if task is None:
        return Outcome.of()
    order = Task.Status.values
    task.status = order[(order.index(task.status) + 1) % len(order)]
    task.save()
    return Outcome.of(task.pk)


@write("delete", group="ORM", label="Delete", code="task.delete()")
def delete() -> Outcome:
    """Delete one task."""
    task = _any_task()
    if task is None:
        return Outcome.of()
    pk = task.pk
    task.delete()
    return Outcome.of(pk)


# --- statements for which Django sends no signal


@write("bulk-create", group="No signals", label="Create five", code="Task.objects.bulk_create(…)")
def bulk_create() -> Outcome:
    """Create five tasks in one statement."""
    tasks = Task.objects.bulk_create(Task(**_new(title)) for title in random.sample(TITLES, 5))
    return Outcome.of(*(task.pk for task in tasks))


@write("update", group="No signals", label="Add a point", code='doing.update(points=F("points") + 1)')
def update() -> Outcome:
    """Add a point to each task of a column, in one statement."""
    doing = Task.objects.filter(status=Task.Status.DOING)
    pks = list(doing.values_list("pk", flat=True))
    Task.objects.filter(pk__in=pks).update(points=F("points") + 1, updated_at=Now())
    return Outcome.of(*pks)


@write("raw", group="No signals", label="Move three", code="UPDATE board_task SET status = …")
def raw() -> Outcome:
    """Move three tasks to their next columns with raw SQL."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE board_task
               SET status = CASE status WHEN 'todo' THEN 'doing' WHEN 'doing' THEN 'done' ELSE 'todo' END,
                   updated_at = now()
             WHERE id IN (SELECT id FROM board_task ORDER BY random() LIMIT 3)
            RETURNING id
            """
        )
        return Outcome.of(*(pk for (pk,) in cursor.fetchall()))


@write("label", group="No signals", label="Rename a label", code='label.update(name="…")')
def label() -> Outcome:
    """Give a label another name and colour; every card that shows it follows, though no task is written."""
    shown = Label.objects.annotate(count=Count("tasks")).order_by("-count", "?").first()
    free = sorted(set(NAMES) - set(Label.objects.values_list("name", flat=True)))
    if shown is None or not free:
        return Outcome.of()
    pks = list(shown.tasks.values_list("pk", flat=True))
    Label.objects.filter(pk=shown.pk).update(name=random.choice(free), hue=Mod(F("hue") + 67, 360))
    return Outcome(pks=pks, rows=1, note=f"1 row, which {len(pks)} {'card' if len(pks) == 1 else 'cards'} show")


# --- many-to-many: only the join table is written


@write("m2m-add", group="Many-to-many", label="Add a label", code="task.labels.add(label)")
def m2m_add() -> Outcome:
    """Add a label to a task that has not got all of them."""
    unfinished = Task.objects.alias(count=Count("labels")).filter(count__lt=Label.objects.count())
    task = unfinished.order_by("?").first()
    if task is None:
        return Outcome.of()
    task.labels.add(Label.objects.exclude(tasks=task).order_by("?").first())
    return Outcome.of(task.pk)


@write("m2m-set", group="Many-to-many", label="Set labels", code="task.labels.set([a, b])")
def m2m_set() -> Outcome:
    """Replace the labels of a task by two that are not both there yet."""
    task = _any_task()
    labels = list(Label.objects.all())
    if task is None or len(labels) < 3:
        return Outcome.of()
    before = set(task.labels.all())
    choice = random.sample(labels, 2)
    while set(choice) == before:
        choice = random.sample(labels, 2)
    task.labels.set(choice)
    return Outcome.of(task.pk)


@write("m2m-clear", group="Many-to-many", label="Clear labels", code="task.labels.clear()")
def m2m_clear() -> Outcome:
    """Take all labels off a task that has some."""
    task = _any_task(labels__isnull=False)
    if task is None:
        return Outcome.of()
    task.labels.clear()
    return Outcome.of(task.pk)


# --- transactions


@write("rollback", group="Transactions", label="Roll back", code="delete everything; ROLLBACK")
def rollback() -> Outcome:
    """Write to every task and take it all back: no subscriber may receive anything."""
    with transaction.atomic():
        Task.objects.update(points=0)
        rows, _ = Task.objects.all().delete()
        transaction.set_rollback(True)
    return Outcome(note=f"{rows} rows deleted and rolled back: no event")


@write("commits", group="Transactions", label="Commit 200 times", code="200 times UPDATE …; COMMIT")
def commits() -> Outcome:
    """Write 200 single rows in as many transactions."""
    pks = list(Task.objects.values_list("pk", flat=True))
    if not pks:
        return Outcome.of()
    with connection.cursor() as cursor:
        for _ in range(200):
            cursor.execute(
                "UPDATE board_task SET points = points + 1, updated_at = now() WHERE id = %s",
                [random.choice(pks)],
            )
    return Outcome(rows=200)


@write("reset", group="Transactions", label="Start over", code="delete everything; bulk_create(…)")
def reset() -> Outcome:
    """Put the board of the start back, in one transaction."""
    with transaction.atomic():
        Task.objects.all().delete()
        Label.objects.all().delete()
        pks = seed.fill_board()
    return Outcome.of(*pks)


# --- 10 000 rows at once


@write("bulk-update", group=BULK, label="Update", code="UPDATE board_cell SET value = …")
def bulk_update() -> Outcome:
    """Compute a new picture in one statement that writes every cell."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE board_cell
               SET value = 127.5
                         + 63 * sin(x / %(a)s + %(p)s)
                         + 64 * cos(y / %(b)s + x / %(c)s - %(p)s)
            """,
            {
                "a": random.uniform(4, 16),
                "b": random.uniform(4, 16),
                "c": random.uniform(10, 40) * random.choice((-1, 1)),
                "p": random.uniform(0, 6.28),
            },
        )
        return Outcome(rows=cursor.rowcount)


@write("bulk-insert", group=BULK, label="Replace", code="DELETE …; INSERT … SELECT …")
def bulk_insert() -> Outcome:
    """Delete all cells in one transaction, and insert 10 000 others in the next."""
    rows, _ = Cell.objects.all().delete()
    return Outcome(rows=rows + seed.fill_grid())
