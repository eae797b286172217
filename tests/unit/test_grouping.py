"""What groups functions may give: what is text on both sides, and nothing that strangers would share."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db.models import TextChoices
from django.utils.translation import gettext_lazy

from djcrf_pg.exceptions import GroupsError, SubscribeError
from djcrf_pg.observations import GroupIsOdd, Observation, add_sink
from djcrf_pg.observer import ModelObserver, grouping, model_observer
from djcrf_pg.observer.dcrf import DCRFModelObserver
from tests.testapp.models import Task


class Status(TextChoices):
    """A choice."""

    OPEN = "open"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Observation]]:
    """What operators receive, who have received nothing before."""
    monkeypatch.setattr(grouping, "_said", set())
    seen: list[Observation] = []
    remove = add_sink(lambda observation, error: seen.append(observation))
    yield seen
    remove()


def groups(given: Any, decorator: str = "groups_for_signal") -> list[str]:
    """The groups of what a function returned."""
    return list(grouping.groups_of("shop.consumers.Shop.orders", decorator, given))


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("open", "open"),
        (5, "5"),
        (True, "True"),
        (1.5, "1.5"),
        (UUID(int=1), str(UUID(int=1))),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.50"), "1.50"),
        (Status.OPEN, "open"),
        (gettext_lazy("yes"), "yes"),
    ],
)
def test_what_has_one_text_is_the_group_that_dcrf_makes_of_it(group: Any, text: str, said: list[Observation]) -> None:
    assert groups([group]) == [text] == [f"{group}"]
    assert said == []


@pytest.mark.parametrize("given", ["open", b"open", ""])
def test_text_that_is_returned_is_no_list_of_its_letters(given: Any) -> None:
    with pytest.raises(
        GroupsError, match=r"@….groups_for_signal of shop\.consumers\.Shop\.orders returned the text b?'"
    ) as e:
        groups(given)
    assert "Write `yield` in place of `return`" in str(e.value)
    assert isinstance(e.value, TypeError)
    assert isinstance(e.value, SubscribeError)


@pytest.mark.parametrize("given", [None, 5, Task()])
def test_what_is_no_list_is_refused_and_shown(given: Any) -> None:
    with pytest.raises(
        GroupsError, match=r"@….groups_for_consumer of .* returned .*, which is no groups\. Write `yield`"
    ):
        groups(given, "groups_for_consumer")


@pytest.mark.filterwarnings("error")
def test_a_coroutine_that_a_wrapper_returns_is_refused_and_closed() -> None:
    async def late() -> list[str]:
        return ["a"]

    with pytest.raises(GroupsError, match="returned <coroutine object"):
        groups(late())


def test_an_object_that_is_printed_with_its_address_matches_nothing() -> None:
    with pytest.raises(GroupsError, match=r"yielded <object object at .*, whose text differs each time"):
        groups([object()])


class Unprintable:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError

    def __str__(self) -> str:
        return "group"


@pytest.mark.parametrize(("group", "text"), [(None, "None"), ([1], "[1]"), (b"a", "b'a'"), (Unprintable(), "group")])
def test_what_matches_by_luck_works_as_before_and_is_said_once(group: Any, text: str, said: list[Observation]) -> None:
    for _ in range(2):
        assert groups([group]) == [text]
    (observation,) = said
    assert isinstance(observation, GroupIsOdd)
    assert observation.text == text
    groups([group], "groups_for_consumer")
    assert len(said) == 2, "the other side is another function"


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """A handler."""


def test_both_sides_look_at_what_they_are_given() -> None:
    observer: ModelObserver = model_observer(Task)(handler).groups(lambda self, **kwargs: "open")
    with pytest.raises(GroupsError, match=r"@….groups_for_signal of .*handler returned the text 'open'"):
        list(observer.group_names_for_signal(instance=Task()))
    with pytest.raises(GroupsError, match=r"@….groups_for_consumer of .*handler returned the text 'open'"):
        list(observer.group_names_for_consumer(consumer=None))


def test_the_names_of_groups_are_dcrfs() -> None:
    ours: ModelObserver = model_observer(Task)(handler).groups(lambda self, **kwargs: ["a", 5, None])
    theirs = object.__new__(DCRFModelObserver)
    theirs.__dict__.update(ours.__dict__)
    assert list(ours.group_names_for_signal(instance=Task())) == list(theirs.group_names_for_signal(instance=Task()))
    assert list(ours.group_names_for_consumer(consumer=None)) == list(theirs.group_names_for_consumer(consumer=None))


def test_what_subscribe_was_not_given_is_named() -> None:
    observer: ModelObserver = model_observer(Task)(handler).groups_for_consumer(lambda self, status, **kwargs: [status])
    with pytest.raises(GroupsError, match=r"subscribed to with \(room\), .* \(missing a required argument: 'status'\)"):
        observer.group_names_for_consumer(consumer=None, room=5)


def test_a_type_error_of_the_function_s_own_stays_what_it_is() -> None:
    observer: ModelObserver = model_observer(Task)(handler).groups_for_consumer(lambda self, **kwargs: [len(5)])
    with pytest.raises(TypeError, match="has no len") as caught:
        observer.group_names_for_consumer(consumer=None)
    assert not isinstance(caught.value, GroupsError)
