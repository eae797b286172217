"""The commands that look at the log, as an operator runs them: what they print, and what they refuse."""

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone
from djangochannelsrestframework.consumers import AsyncAPIConsumer

import djcrf_pg
from djcrf_pg.models import Change, Cursor, Failure
from djcrf_pg.observer import model_observer
from tests.integration.log import sql
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Label, Remote, Task

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture(autouse=True)
def empty() -> None:
    """Nothing is in the log, nobody leads, and nothing was delivered, nor deleted over a cap."""
    for alias in ("default", "second"):
        with connections[alias].cursor() as cursor:
            cursor.execute("ALTER SEQUENCE djcrf_pg_reach_xid RESTART")
        Change.objects.using(alias).all().delete()
        Cursor.objects.using(alias).all().delete()


def run(*arguments: str, **options: Any) -> str:
    """Run a subcommand and return what it says."""
    out = io.StringIO()
    call_command("djcrf_pg", *arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


def explained(change: int | str, *arguments: str) -> dict[str, dict[str, Any]]:
    """The verdicts on a change, by the name of the observer in the board consumer."""
    (document,) = json.loads(run("explain", str(change), "--json", *arguments))
    prefix = "tests.testapp.consumers.BoardConsumer."
    return {
        each["observer"].removeprefix(prefix): each
        for each in document["observers"]
        if each["observer"].startswith(prefix)
    }


def newest() -> int:
    return Change.objects.order_by("-xid", "-id")[0].id


# -- history -------------------------------------------------------------------------------------------------


def test_history_is_a_line_for_each_change_and_how_far_back_it_goes() -> None:
    with djcrf_pg.context(user="ada", path="/x"):
        task = Task.objects.create(title="milk")
    Task.objects.filter(pk=task.pk).update(status="done")
    created, updated, reach = run("history", "testapp.task", str(task.pk)).splitlines()
    assert f"create  testapp.Task {task.pk}  " in created
    assert 'title: "milk"' in created
    assert " id: " not in created
    assert "[user=ada path=/x]" in created
    assert f'update  testapp.Task {task.pk}  status: "todo" → "done"' in updated
    assert "nothing was deleted from it" in reach
    lines = run("history", "testapp.Task", str(task.pk), "--json").splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["create", "update"]


def test_what_a_row_says_does_not_reach_the_terminal_as_it_is() -> None:
    with djcrf_pg.context(user="\x9b31m"):
        task = Task.objects.create(title="\x1b[2J\u202e")
    output = run("history", "testapp.Task", str(task.pk))
    assert all(line.isprintable() for line in output.splitlines())
    assert "\\u202e" in output


def test_wrong_models_and_keys_are_refused_with_what_is_near() -> None:
    task = Task.objects.create(title="t")
    with pytest.raises(CommandError, match=r"There is no model 'testapp.Tsak': did you mean testapp\.Task"):
        run("history", "testapp.Tsak", "1")
    with pytest.raises(CommandError, match=r"'x' is no key of testapp\.Task, whose id is bigint"):
        run("history", "testapp.Task", "x")
    with pytest.raises(CommandError, match="--pk is the key of a row of a model: name it with --model"):
        run("tail", "--pk", "1")
    output = run("history", "testapp.Task", "999999")
    assert "The log of 'default' has no change of testapp.Task 999999." in output
    assert f"It has changes of testapp.Task {task.pk}." in output


def test_history_finds_the_database_of_the_model() -> None:
    remote = Remote.objects.create(text="far")
    assert "The log of 'second' reaches back" in run("history", "testapp.Remote", str(remote.pk))
    with pytest.raises(CommandError, match=r"testapp\.Remote has its table in none of default"):
        run("history", "testapp.Remote", "1", "--database", "default")


# -- explain -------------------------------------------------------------------------------------------------


def test_explain_says_of_each_observer_why_it_has_no_event() -> None:
    Task.objects.create(title="milk")
    verdicts = explained(newest())
    assert verdicts["tasks"]["outcome"] == "unheard"
    assert verdicts["tasks"]["why"] == "nobody has subscribed to the observer"
    (delivery,) = verdicts["by_status"]["deliveries"]
    assert (delivery["action"], delivery["group"], delivery["processes"]) == ("create", "status__todo", [])
    assert verdicts["asking"]["outcome"] == "no event"
    assert verdicts["asking"]["why"] == "its groups yield none for this row"
    assert verdicts["projects"]["why"] == "it is for testapp.Project, not for this table"
    assert verdicts["remotes"]["why"] == "testapp.Remote is in another database, 'second'"


def test_explain_counts_no_process_whose_session_has_ended() -> None:
    sql("DELETE FROM djcrf_pg_interest")
    sql("INSERT INTO djcrf_pg_interest SELECT 5, chunk, ~(0::bit(1024)) FROM generate_series(0, 63) AS chunk")
    try:
        Task.objects.create(title="t")
        assert explained(newest())["tasks"]["outcome"] == "unheard"
        assert "The sessions of 1 more processes with subscribers have ended." in run("explain", str(newest()))
    finally:
        sql("DELETE FROM djcrf_pg_interest")


def test_explain_tells_a_row_that_changes_its_group() -> None:
    task = Task.objects.create(title="t")
    Task.objects.filter(pk=task.pk).update(status="done")
    deliveries = explained(newest())["by_status"]["deliveries"]
    assert {(each["action"], each["group"]) for each in deliveries} == {
        ("delete", "status__todo"),
        ("create", "status__done"),
    }


@pytest.mark.parametrize("part", ["groups", "serializer"])
def test_explain_shows_what_the_code_raises(part: str) -> None:
    Task.objects.create(title=f"raise in {part}")
    verdict = explained(newest())["moody"]
    assert verdict["outcome"] == "failed"
    assert f"RuntimeError('raise in {part}')" in verdict["why"]


def test_explain_knows_that_a_transaction_has_undone_a_change() -> None:
    with transaction.atomic():
        Task.objects.create(title="t").delete()
    assert explained(newest())["tasks"]["why"].startswith("the transaction has undone the change")
    assert "The same transaction made other changes to this row" in run("explain", str(newest()))


def test_explain_names_the_options_that_leave_an_update_out() -> None:
    class Picky(AsyncAPIConsumer):
        @model_observer(Task, fields=["title"])
        async def titles(self, message: Any, **kwargs: Any) -> None: ...

        @model_observer(Task, skip_unchanged=True)
        async def news(self, message: Any, **kwargs: Any) -> None: ...

    def why(name: str) -> tuple[str, str]:
        (document,) = json.loads(run("explain", str(newest()), "--json"))
        (verdict,) = (each for each in document["observers"] if each["observer"].endswith(f"Picky.{name}"))
        return verdict["outcome"], verdict["why"]

    task = Task.objects.create(title="t")
    Task.objects.filter(pk=task.pk).update(points=3)
    assert why("titles") == ("no event", "the update changed points, and the observer's fields are title")
    assert why("news")[0] == "unheard"
    Task.objects.filter(pk=task.pk).update(points=3)
    assert why("news") == ("no event", "the update changed nothing, and the observer has skip_unchanged")


@override_settings(DJCRF_PG={"MASS_CHANGE": 2})
def test_explain_tells_more_rows_than_mass_change_as_a_resync() -> None:
    Task.objects.bulk_create([Task(title=str(n)) for n in range(3)])
    verdict = explained(newest())["tasks"]
    assert (verdict["outcome"], verdict["why"]) == ("resync", "the rows are not told one by one (mass_change)")


def test_explain_shows_what_was_raised_when_the_event_was_sent() -> None:
    Task.objects.create(title="t")
    now = timezone.now()
    Failure.objects.create(
        observer=BoardConsumer.tasks.identity,
        address=BoardConsumer.tasks.address,
        part="serializer",
        model="testapp.Task",
        key="[1]",
        change_id=newest(),
        error="KeyError('colour')",
        traceback="",
        first_at=now,
        last_at=now,
    )
    verdict = explained(newest())["tasks"]
    assert verdict["outcome"] == "failed"
    assert "its serializer raised KeyError('colour') when it was sent" in verdict["why"]


def test_explain_tells_a_truncate_as_a_resync() -> None:
    sql("TRUNCATE testapp_task CASCADE")
    change = Change.objects.extra(where=["relation = 'testapp_task'::regclass"]).get().id
    assert explained(change)["tasks"]["outcome"] == "resync"


def test_explain_tells_the_owners_of_a_join_row() -> None:
    task, label = Task.objects.create(title="t"), Label.objects.create(name="l")
    task.labels.add(label)
    change = newest()
    verdicts = explained(change)
    assert [each["action"] for each in verdicts["tagged"]["deliveries"]] == ["update"]
    assert verdicts["tasks"]["outcome"] == "elsewhere"


def test_explain_lets_no_code_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(self: Any, instance: Task, **kwargs: Any):
        Task.objects.create(title="written by groups")
        yield "x"

    monkeypatch.setattr(BoardConsumer.__dict__["by_status"], "_group_names_for_signal", groups)
    Task.objects.create(title="t")
    verdict = explained(newest())["by_status"]
    assert (verdict["outcome"], "write to the database" in verdict["why"]) == ("unknown", True)
    assert Task.objects.count() == 1


def test_explain_says_what_may_have_become_of_a_change_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="has no change 5: The log of 'default' is empty"):
        run("explain", "5", "--database", "default")
    Task.objects.create(title="t")
    with pytest.raises(CommandError, match="it is not committed yet, or of another database"):
        run("explain", str(newest() + 1), "--database", "default")
    with pytest.raises(CommandError, match=r"was rolled back, or not captured: djcrf_pg\.suspend"):
        run("explain", "5", "--database", "default")
    with pytest.raises(CommandError, match="'five' is no id of a change"):
        run("explain", "five")


def test_explain_says_that_nobody_leads() -> None:
    Task.objects.create(title="t")
    change = Change.objects.get()
    assert "NOT delivered: nobody leads" in run("explain", f"{change.xid}.{change.id}")


# -- prune ---------------------------------------------------------------------------------------------------


def deliver_all() -> None:
    """What a leader has when it saves its cursor."""
    sql("INSERT INTO djcrf_pg_cursor (name, snapshot, term) VALUES ('leader', pg_current_snapshot(), 1)")


def age(hours: float) -> None:
    sql("UPDATE djcrf_pg_change SET at = at - %s", timedelta(hours=hours))


def test_prune_deletes_what_was_delivered_and_is_older_than_the_retention() -> None:
    Task.objects.bulk_create(Task(title=str(number)) for number in range(20))
    age(25)
    deliver_all()
    Task.objects.create(title="new")
    assert "default: 20 changes would be deleted" in run("prune", "--dry-run", "--database", "default")
    assert Change.objects.count() == 21
    assert "default: 20 changes deleted" in run("prune", "--database", "default")
    assert Change.objects.count() == 1


def test_prune_keeps_what_was_not_delivered_however_old_it_is() -> None:
    Task.objects.create(title="old")
    age(1000)
    assert "nothing was delivered yet" in run("prune", "--older-than", "0", "--database", "default")
    deliver_all()
    Task.objects.create(title="after the cursor")
    age(1000)
    assert "default: 1 changes deleted" in run("prune", "--older-than", "0", "--database", "default")
    assert Change.objects.get().new["title"] == "after the cursor"


def test_prune_takes_many_batches_and_says_that_clients_cannot_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("djcrf_pg.management.prune._BATCH", 3)
    Task.objects.bulk_create(Task(title=str(number)) for number in range(10))
    deliver_all()
    output = run("prune", "--older-than", "0", "--database", "default")
    assert "default: 10 changes deleted" in output
    assert "cannot resume now: they reload" in output
    assert Cursor.objects.filter(name="pruned").exists()


@pytest.mark.parametrize(
    "arguments", [["prune", "--older-than", "-1"], ["tail", "--interval", "0"], ["tail", "--since", "x"]]
)
def test_numbers_and_times_that_are_none_are_refused(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=r"is no (number|time)"):
        run(*arguments)
