"""What is to be done about triggers: values in, values out."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcrf_pg.capture.plan import (
    TRIGGERS,
    Project,
    State,
    Table,
    Trigger,
    definition,
    drops,
    fingerprint,
    quote_literal,
    steps,
)

EVENTS = ("insert", "update", "delete", "truncate")
TABLE = Table(1, '"public"."task"', observed="task")
SCHEMA = '"public".'
PROJECT = Project("shop", {"task"})


def installed(table: Table, **changed: object) -> dict[str, Trigger]:
    """The triggers that the table should have, with something changed in each."""
    return {
        f"djcrf_pg_{event}": dataclasses.replace(
            Trigger(f"djcrf_pg_{event}", fingerprint(table, event), True),
            **changed,  # type: ignore[arg-type]
        )
        for event in EVENTS
    }


def plan(wanted: list[Table], there: dict[Table, dict[str, Trigger]]) -> list[tuple[Table, State, tuple[str, ...]]]:
    """The plan as tuples."""
    return [(step.table, step.state, step.statements) for step in steps(wanted, there, SCHEMA, PROJECT)]


def test_a_table_without_triggers_gets_all_four() -> None:
    ((table, state, statements),) = plan([TABLE], {})
    assert (table, state) == (TABLE, "missing")
    assert [line.split(" AFTER ")[0] for line in statements[::2]] == [
        f"CREATE OR REPLACE TRIGGER {name}" for name in TRIGGERS
    ]
    assert [line.split(" IS ")[0] for line in statements[1::2]] == [
        f'COMMENT ON TRIGGER {name} ON "public"."task"' for name in TRIGGERS
    ]


def test_where_everything_is_there_nothing_is_done() -> None:
    assert plan([TABLE], {TABLE: installed(TABLE)}) == [(TABLE, "installed", ())]


def test_nothing_wanted_and_nothing_there_is_no_plan() -> None:
    assert plan([], {}) == []


@pytest.mark.parametrize("comment", [None, "", "djcrf_pg:0000000000000000"])
def test_an_outdated_trigger_is_replaced_without_a_moment_without_it(comment: str | None) -> None:
    ((_, state, statements),) = plan([TABLE], {TABLE: installed(TABLE, comment=comment)})
    assert state == "outdated"
    assert not any("DROP" in line for line in statements)
    assert sum(line.startswith("CREATE OR REPLACE TRIGGER") for line in statements) == 4


def test_only_what_is_missing_is_created() -> None:
    there = installed(TABLE)
    del there["djcrf_pg_delete"]
    ((_, state, statements),) = plan([TABLE], {TABLE: there})
    assert state == "missing"
    assert [line.split()[4] for line in statements if line.startswith("CREATE")] == ["djcrf_pg_delete"]


def test_a_disabled_trigger_is_enabled_and_nothing_else() -> None:
    there = installed(TABLE)
    there["djcrf_pg_update"] = dataclasses.replace(there["djcrf_pg_update"], enabled=False)
    assert plan([TABLE], {TABLE: there}) == [
        (TABLE, "disabled", ('ALTER TABLE "public"."task" ENABLE TRIGGER djcrf_pg_update',))
    ]


def test_a_disabled_trigger_that_is_outdated_is_replaced_and_enabled() -> None:
    ((_, state, statements),) = plan([TABLE], {TABLE: installed(TABLE, comment=None, enabled=False)})
    assert state == "outdated"
    assert [line for line in statements if "ENABLE" in line] == [
        f'ALTER TABLE "public"."task" ENABLE TRIGGER {name}' for name in TRIGGERS
    ]


def test_a_table_that_nobody_wants_is_freed_of_what_it_has() -> None:
    assert plan([], {TABLE: {"djcrf_pg_insert": Trigger("djcrf_pg_insert", None, True)}}) == [
        (TABLE, "unwanted", ('DROP TRIGGER IF EXISTS "djcrf_pg_insert" ON "public"."task"',))
    ]


def test_a_table_is_known_by_its_oid_when_it_was_renamed() -> None:
    renamed = dataclasses.replace(TABLE, name='"public"."job"')
    assert plan([renamed], {TABLE: installed(TABLE)}) == [(renamed, "installed", ())]


def test_wanted_tables_come_first() -> None:
    other, third = Table(2, "b", observed="task"), Table(3, "c")
    found = plan([TABLE, third], {other: installed(other), third: installed(third)})
    assert [(table.oid, state) for table, state, _ in found] == [(1, "missing"), (3, "installed"), (2, "unwanted")]


def test_the_functions_are_called_in_their_schema_with_the_excluded_columns() -> None:
    table = Table(1, "t", ("password", "it's"))
    assert definition(table, "insert", '"my schema".') == (
        "CREATE OR REPLACE TRIGGER djcrf_pg_insert AFTER INSERT ON t REFERENCING NEW TABLE AS djcrf_pg_new "
        "FOR EACH STATEMENT EXECUTE FUNCTION \"my schema\".djcrf_pg_capture_insert_v2('password', 'it''s')"
    )
    assert "password" not in definition(table, "truncate", SCHEMA)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), min_size=1, max_size=3))
def test_excluded_columns_are_quoted_whatever_they_are_called(names: list[str]) -> None:
    """Reading the literals back, as PostgreSQL's scanner does, gives the names."""
    text = definition(Table(1, "t", tuple(names)), "update", "").partition("_update_v2(")[2].removesuffix(")")
    found, rest = [], text
    while rest:
        assert rest[0] == "'"
        end = 1
        while rest[end : end + 2] == "''" or rest[end] != "'":
            end += 2 if rest[end : end + 2] == "''" else 1
        found.append(rest[1:end].replace("''", "'"))
        rest = rest[end + 1 :].removeprefix(", ")
    assert found == names


@pytest.mark.parametrize("name", ['"a  b"', '"REFERENCING  "', '"   "'])
def test_the_name_of_the_table_is_left_as_it_is(name: str) -> None:
    for event in EVENTS:
        assert f" ON {name} " in definition(Table(1, name), event, SCHEMA)


def test_a_literal_is_quoted() -> None:
    assert quote_literal("it's") == "'it''s'"


@pytest.mark.parametrize("event", EVENTS)
def test_the_fingerprint_does_not_depend_on_what_the_table_is_called_and_where_it_is(event: str) -> None:
    renamed = Table(77, '"other"."name"')
    assert fingerprint(TABLE, event) == fingerprint(renamed, event)


def test_the_fingerprint_depends_on_the_excluded_columns() -> None:
    other = dataclasses.replace(TABLE, excluded=("password",))
    third = dataclasses.replace(TABLE, excluded=("password", "token"))
    for event in ("insert", "update", "delete"):
        assert len({fingerprint(table, event) for table in (TABLE, other, third)}) == 3
    assert fingerprint(TABLE, "truncate") == fingerprint(other, "truncate"), "there is nothing to exclude from it"


def test_each_event_has_a_fingerprint_of_its_own() -> None:
    assert len({fingerprint(TABLE, event) for event in EVENTS}) == 4


def test_changed_exclusions_are_outdated_triggers() -> None:
    table = dataclasses.replace(TABLE, excluded=("password",))
    ((_, state, statements),) = plan([table], {TABLE: installed(TABLE)})
    assert state == "outdated"
    assert [line.split()[4] for line in statements if line.startswith("CREATE")] == [
        f"djcrf_pg_{event}" for event in ("insert", "update", "delete")
    ]


def test_drops_are_in_the_order_of_names() -> None:
    assert drops(TABLE, {"b", "a"}) == (
        'DROP TRIGGER IF EXISTS "a" ON "public"."task"',
        'DROP TRIGGER IF EXISTS "b" ON "public"."task"',
    )


# -- projects ------------------------------------------------------------------------------------------------


def owned(project: str, table: str, **changed: object) -> dict[str, Trigger]:
    """The triggers of the table as a project has installed them for a table of that name."""
    return {
        name: dataclasses.replace(trigger, comment=f"{trigger.comment}:{project}:{table}", **changed)  # type: ignore[arg-type]
        for name, trigger in installed(TABLE).items()
    }


@pytest.mark.parametrize(
    ("there", "state"),
    [
        (owned("shop", "task"), "unwanted"),
        (owned("shop", "another_app"), "other"),
        (owned("blog", "task"), "other"),
        (installed(TABLE), "unwanted"),
    ],
)
def test_what_nobody_wants_is_dropped_where_it_is_this_project_s_and_of_a_model_that_is_here(
    there: dict[str, Trigger], state: State
) -> None:
    assert [step[1] for step in plan([], {TABLE: there})] == [state]
    (step,) = steps([], {TABLE: there}, SCHEMA, dataclasses.replace(PROJECT, prune=True))
    assert (step.state, len(step.statements)) == ("unwanted", 4)


def test_a_table_that_two_projects_want_alike_is_left_alone_and_fixed_by_both() -> None:
    there = owned("blog", "task")
    assert plan([TABLE], {TABLE: there}) == [(TABLE, "installed", ())]
    del there["djcrf_pg_insert"]
    ((_, state, statements),) = plan([TABLE], {TABLE: there})
    assert state == "missing"
    assert statements[1].endswith(":blog:task'")


def test_another_project_s_triggers_are_not_replaced_by_other_ones() -> None:
    table = dataclasses.replace(TABLE, excluded=("secret",))
    there = owned("blog", "task")
    del there["djcrf_pg_insert"]
    assert plan([table], {TABLE: there}) == [(table, "taken", ())]
    (step,) = steps([table], {TABLE: owned("blog", "task")}, SCHEMA, dataclasses.replace(PROJECT, prune=True))
    assert (step.state, len(step.statements)) == ("outdated", 6)
    assert step.statements[1].endswith(":shop:task'")
