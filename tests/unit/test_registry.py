"""Which tables ``OBSERVE`` brings, by itself and as an observer would need it."""

import gc
import threading
from typing import Any

import pytest
from django.test import override_settings

from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.observer import model_observer
from djcrf_pg.registry import Registry, named_by, observed_tables, registry
from tests.zoo.models import Car, Person, Team


async def handler(self, message, **kwargs):
    """The handler of an observer."""


def tables(entry: str) -> list[str]:
    """The tables that an entry brings."""
    return [model._meta.db_table for model in named_by(entry)]


@pytest.mark.parametrize(
    ("entry", "brought"),
    [
        ("auth.Group", ["auth_group"]),
        ("auth.group", ["auth_group"]),
        ("auth.Group.permissions", ["auth_group", "auth_group_permissions"]),
        ("auth.Group.user_set", ["auth_group", "auth_user_groups"]),
        ("zoo.Person.followers", ["zoo_person", "zoo_person_follows"]),
        ("zoo.Team.inviters", ["zoo_team", "zoo_membership"]),
        ("zoo.Person.memberships", ["zoo_person", "zoo_membership"]),
        ("zoo.Car", ["zoo_car", "zoo_vehicle"]),
        ("zoo.FastCar.drivers", ["zoo_car", "zoo_vehicle", "zoo_person_cars"]),
    ],
)
def test_an_entry_brings_the_tables_of_the_model_and_of_the_relation_that_it_names(
    entry: str, brought: list[str]
) -> None:
    assert tables(entry) == brought


@pytest.mark.parametrize("entry", ["auth.User.name", "auth.User.nothing"])
def test_a_relation_that_does_not_exist_is_named_with_those_that_do(entry: str) -> None:
    expected = rf"DJCRF_PG\['OBSERVE'\] names '{entry}': auth.User has no relation .*; it has .*groups, "
    with pytest.raises(ConfigurationError, match=expected):
        named_by(entry)
    with override_settings(DJCRF_PG={"OBSERVE": [entry]}):
        (problem,) = registry.problems()
    assert entry in problem


@pytest.mark.parametrize(("model", "relations"), [(Car, False), (Person, True), (Team, ["members"])])
def test_each_table_of_an_observer_comes_with_the_entry_that_is_said_to_bring_it(
    model: type, relations: bool | list[str]
) -> None:
    observer = model_observer(model, many_to_many=relations)(handler)
    needed = observed_tables(observer)
    assert len(needed) > 1
    for table, entry in needed.items():
        assert table in named_by(entry)
    with override_settings(DJCRF_PG={"OBSERVE": list(dict.fromkeys(needed.values()))}):
        assert {table._meta.db_table for table in needed} <= registry.tables("default").keys()


@pytest.mark.parametrize(
    ("label", "names", "key"),
    [
        ("testapp.Task", ["title", "id"], "id"),
        ("zoo.Car", ["vehicle_ptr_id"], "vehicle_ptr"),
        ("zoo.Person", ["name"], None),
    ],
)
def test_a_primary_key_cannot_be_excluded(label: str, names: list[str], key: str | None) -> None:
    with override_settings(DJCRF_PG={"EXCLUDE": {label: names}}):
        problems = registry.problems()
    expected = [] if key is None else [f"DJCRF_PG['EXCLUDE'][{label!r}] names {key!r}, its primary key"]
    assert [problem.partition(", without")[0] for problem in problems] == expected


class Cyclic:
    """What the garbage collector alone lets go of, as a class of consumers and its observers."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.me = self


def test_the_garbage_collector_may_come_while_an_observer_is_added() -> None:
    known: Any = Registry()
    kept: list[Cyclic] = []

    def define() -> None:
        for number in range(200):
            known.add(Cyclic(f"garbage {number}"))
            kept.append(Cyclic(f"kept {number}"))
            known.add(kept[-1])
            list(known)

    thresholds = gc.get_threshold()
    defining = threading.Thread(target=define, daemon=True)
    gc.set_threshold(1)
    try:
        defining.start()
        defining.join(30)
    finally:
        gc.set_threshold(*thresholds)
    assert not defining.is_alive()
    gc.collect()
    assert [observer.address for observer in known] == [observer.address for observer in kept]
