"""Signals and receivers that a project calls by hand: what becomes a touch, and what goes wrong with it."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, ProgrammingError, connection, transaction
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

import djcrf_pg
from djcrf_pg.observations import CallNotNeeded, Observation, TouchFailed, add_sink
from djcrf_pg.observer import by_hand
from tests.integration.log import sql as run
from tests.integration.writer.conftest import Log
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Project, Task

autocommit = pytest.mark.django_db(transaction=True)


def create(title: str = "task", **values: Any) -> Task:
    return Task.objects.create(title=title, **values)


def keys(log: Log) -> list[dict[str, Any]]:
    """The keys of the rows that were touched since the last call; nothing else was logged."""
    changes = log.take()
    assert all((change.op, change.depth, change.old) == ("U", 0, change.new) for change in changes)
    return [change.new for change in changes]


@pytest.fixture
def observations() -> Iterator[list[Observation]]:
    """What is observed."""
    seen: list[Observation] = []
    by_hand._said.clear()
    remove = add_sink(lambda observation, error: seen.append(observation))
    yield seen
    remove()


def sent(instance: Any, **values: Any) -> None:
    post_save.send(sender=Task, instance=instance, **{"created": False, **values})


def test_only_sends_that_django_would_not_make_are_touches(log: Log, observations: list[Observation]):
    task = create()
    task.save()
    Task.objects.update_or_create(pk=task.pk, defaults={"points": 1})
    assert log.ops() == "IUU"
    sent(task)
    sent(task, using="default")
    sent(task, raw=False)
    post_save.send(sender=Task, instance=task)
    post_save.send_robust(sender=Task, instance=task, created=False)
    assert keys(log) == [{"id": task.pk}] * 5
    sent(task, raw=False, using="default", update_fields=None)
    assert keys(log) == []
    assert observations == []


def test_creates_and_deletes_by_hand_are_nothing_and_that_is_said_once(log: Log, observations: list[Observation]):
    task = create()
    log.take()
    for _ in range(2):
        sent(task, created=True)
        BoardConsumer.full.post_init_receiver(task)
        BoardConsumer.full.post_save_receiver(task, created=True)
        BoardConsumer.full.post_delete_receiver(task)
    assert keys(log) == []
    assert [(each.call, each.action) for each in observations if isinstance(each, CallNotNeeded)] == [
        ("post_save.send(sender=testapp.Task, …)", "create"),
        ("a receiver of tests.testapp.consumers.BoardConsumer.full", "create"),
        ("a receiver of tests.testapp.consumers.BoardConsumer.full", "delete"),
    ]
    assert len(observations) == 3


def test_receivers_by_hand_are_touches(log: Log):
    task = create()
    log.take()
    BoardConsumer.full.post_save_receiver(task, created=False)
    BoardConsumer.tagged.m2m_changed_receiver(
        sender=Task.labels.through, instance=task, action="post_add", reverse=False, model=Task, pk_set={1}
    )
    assert keys(log) == [{"id": task.pk}] * 2


def test_a_receiver_that_the_project_has_connected_itself_is_nothing(log: Log, observations: list[Observation]):
    post_save.connect(BoardConsumer.full.post_save_receiver, sender=Project)
    try:
        Project.objects.create(name="p").save()
    finally:
        post_save.disconnect(BoardConsumer.full.post_save_receiver, sender=Project)
    assert log.ops() == "IU"
    assert observations == []


class Fails:
    """A router that fails for whatever it is asked."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        raise ZeroDivisionError


def test_a_lazy_object_is_what_it_stands_for(log: Log, observations: list[Observation]):
    task = create()
    log.take()
    sent(SimpleLazyObject(lambda: task))
    assert (log.ops(), observations) == ("U", [])


def test_a_lazy_object_that_is_not_ready_is_observed_and_not_raised(log: Log, observations: list[Observation]):
    def fail() -> Any:
        raise ValueError("accessed before it is ready")

    sent(SimpleLazyObject(fail))
    assert [type(each) for each in observations] == [TouchFailed]


@pytest.mark.parametrize("instance", [None, object(), Task(title="unsaved"), Task])
def test_what_goes_wrong_by_hand_is_observed_and_not_raised(
    instance: Any, log: Log, observations: list[Observation], settings: Any
):
    sent(instance)
    assert [type(each) for each in observations] == [TouchFailed]
    create()
    assert log.ops() == "I"
    settings.DATABASE_ROUTERS = [Fails()]
    sent(Task(pk=1))
    assert len(observations) == 2


@autocommit
@pytest.mark.parametrize("in_transaction", [True, False])
def test_an_error_of_the_database_ends_no_transaction(in_transaction: bool, log: Log, observations: list[Observation]):
    task = create()
    run("ALTER FUNCTION djcrf_pg_touch_v2(regclass, jsonb) RENAME TO hidden")
    run(
        "CREATE FUNCTION djcrf_pg_touch_v2(regclass, jsonb) RETURNS boolean LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE 'it fails'; END $$"
    )
    try:
        if in_transaction:
            with transaction.atomic():
                sent(task)
                task.save()
        else:
            sent(task)
            task.save()
        with pytest.raises(DatabaseError, match="it fails"):
            djcrf_pg.touch(task)
    finally:
        run("DROP FUNCTION djcrf_pg_touch_v2(regclass, jsonb)")
        run("ALTER FUNCTION hidden(regclass, jsonb) RENAME TO djcrf_pg_touch_v2")
    assert log.ops() == "IU"
    ((failed,),) = [observations]
    assert str(failed).startswith("post_save.send(sender=testapp.Task, …) by hand, with pk=")
    assert "it fails" in str(failed)


def test_a_transaction_that_will_be_rolled_back_is_left_alone(log: Log, observations: list[Observation]):
    task = create()
    with transaction.atomic():
        transaction.set_rollback(True)
        sent(task)
    with transaction.atomic():
        with pytest.raises(ProgrammingError):
            run("SELECT nothing")
        sent(task)  # nobody has told Django that it is broken
        transaction.set_rollback(True)
    assert [type(each) for each in observations] == [TouchFailed]
    sent(task)
    assert log.ops() == "IU"


def test_a_savepoint_keeps_it_apart_and_nothing_else_is_held(log: Log):
    task = create()
    with CaptureQueriesContext(connection) as queries:
        sent(task)
    (begin, _, touch, end) = (query["sql"] for query in queries)
    assert (begin.split()[0], end.split()[0]) == ("SAVEPOINT", "RELEASE")
    assert "djcrf_pg_touch_v2" in touch
    assert len(log.take()) == 2
    assert not run("SELECT FROM pg_locks WHERE relation = 'testapp_task'::regclass AND mode = 'RowShareLock'")


@autocommit
async def test_by_hand_in_an_event_loop_it_is_observed(observations: list[Observation]):
    sent(Task(pk=1))
    assert [type(each) for each in observations] == [TouchFailed]
    assert "sync_to_async" in str(observations[0])


@autocommit
def test_before_the_migration_it_is_observed_and_the_rest_works(log: Log, observations: list[Observation]):
    task = create()
    try:
        for target in ("0001", "zero"):
            call_command("migrate", "djcrf_pg", target, verbosity=0)
            with transaction.atomic():
                sent(task)
                task.save()
    finally:
        call_command("migrate", verbosity=0)
    failed = [each for each in observations if isinstance(each, TouchFailed)]
    assert len(failed) == 2
    assert "run `manage.py migrate`" in str(failed[0])
