"""System checks that need no database. Those of the database are tested in tests/integration."""

import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from rest_framework.permissions import IsAuthenticated
from rest_framework.serializers import ModelSerializer

from djcrf_pg import checks
from djcrf_pg.observer import ModelObserver, model_observer
from djcrf_pg.registry import registry
from tests.testapp.consumers import BoardConsumer
from tests.testapp.models import Document, Note, Task
from tests.zoo.models import Car, FastCar, Vehicle


@pytest.fixture(autouse=True)
def _without_the_observers_of_other_tests() -> Iterator[None]:
    """Those that tests have made last as long as anybody holds them: an event loop that was closed, an error."""
    gc.collect()
    known = registry._observers
    hidden = [each for each in known if (observer := each()) is None or "<locals>" in observer.identity]
    registry._observers = [each for each in known if each not in hidden]
    registry.renamed()
    yield
    registry._observers = [*hidden, *registry._observers]
    registry.renamed()


def ours() -> list[CheckMessage]:
    """What our checks say of the project as it stands."""
    found = run_checks()
    return [message for message in found if str(message.id).startswith("djcrf_pg.") and not message.is_silenced()]


def fake_redis(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Install a redis-py of this version, or none."""
    module: Any = None
    if version is not None:
        module = types.ModuleType("redis")
        module.__version__ = version
    monkeypatch.setitem(sys.modules, "redis", module)


REDIS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}


def test_a_good_project_has_nothing_to_hear() -> None:
    assert ours() == []


@override_settings(DJCRF_PG={"NOTFY": "elide", "RETENTION": 0})
def test_each_problem_of_the_setting_is_an_error() -> None:
    found = ours()
    assert [message.id for message in found] == ["djcrf_pg.E001"] * 2
    assert "did you mean 'NOTIFY'?" in found[0].msg


@pytest.mark.parametrize("raw", [None, [], "x", {1: 2}])
def test_a_setting_of_the_wrong_type_breaks_no_check(raw: Any) -> None:
    with override_settings(DJCRF_PG=raw):
        assert {message.id for message in ours()} == {"djcrf_pg.E001"}


@pytest.mark.parametrize("layers", [{}, None, {"other": {"BACKEND": "x"}}])
def test_no_channel_layer_is_an_error_with_the_setting_to_set(layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        (message,) = ours()
    assert message.id == "djcrf_pg.E002"
    assert "CHANNEL_LAYERS['default']" in str(message.hint)
    assert "InMemoryChannelLayer" in str(message.hint)


@pytest.mark.parametrize(("version", "warned"), [("8.0.0", True), ("10.1", True), ("7.9.9", False), (None, False)])
def test_a_redis_client_that_drops_idle_connections_is_warned_of(
    version: str | None, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_redis(monkeypatch, version)
    with override_settings(CHANNEL_LAYERS=REDIS):
        found = list(checks.check_channel_layer(None))
    assert [message.id for message in found] == (["djcrf_pg.W003"] if warned else [])
    if warned:
        assert "redis<8" in str(found[0].hint)


def test_an_observer_that_was_imported_too_early_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "early_birds", lambda: ["shop.consumers.Board.tasks"])
    (message,) = ours()
    assert message.id == "djcrf_pg.W004"
    assert message.msg.startswith("shop.consumers.Board.tasks ")
    assert "INSTALLED_APPS" in str(message.hint)
    with override_settings(DJCRF_PG={"DROP_IN": False}):
        assert ours() == []


def test_the_checks_that_ask_a_database_run_only_when_asked() -> None:
    assert list(checks.check_triggers(None, databases=None)) == []
    assert list(checks.check_triggers(None, databases=[])) == []


# -- observers -----------------------------------------------------------------------------------------------


async def handler(self: Any, message: Any, **kwargs: Any) -> None:
    """A handler."""


def test_a_model_on_another_vendor_is_an_error_unless_a_router_has_it_there() -> None:
    found = [message for message in checks.check_observers(None) if "BoardConsumer.notes " in message.msg]
    assert [message.id for message in found] == ["djcrf_pg.W021"]
    assert "testapp.Note, which the router has in database 'lite', SQLite" in found[0].msg


@pytest.mark.parametrize(("entry", "ids"), [("testapp.Note", ["djcrf_pg.W020"]), ("testapp.Task", [])])
def test_observe_of_a_model_on_another_vendor_is_an_error(entry: str, ids: list[str]) -> None:
    with override_settings(DJCRF_PG={"OBSERVE": [entry]}):
        found = ours()
    assert [message.id for message in found] == ids
    assert all(
        "OBSERVE'] names 'testapp.Note' in vain: testapp.Note is in database 'lite'" in each.msg for each in found
    )


@pytest.mark.parametrize(
    ("has", "lacks"), [("groups_for_signal", "groups_for_consumer"), ("groups_for_consumer", "groups_for_signal")]
)
def test_half_of_the_groups_is_an_error_that_names_the_other_half(has: str, lacks: str) -> None:
    observer = getattr(model_observer(Task)(handler), has)(lambda self, **kwargs: ["a"])
    (message,) = ours()
    assert message.id == "djcrf_pg.E022"
    assert message.msg.startswith(f"No event of {observer.label} can come: it has @….{has} and no @….{lacks}")
    assert f"@handler.{lacks} too" in message.msg
    getattr(observer, lacks)(lambda self, **kwargs: ["a"])
    assert ours() == []


class WithNames(ModelObserver):
    """Knows the names of both sides."""

    def group_names(self, *args: Any, **kwargs: Any) -> Any:
        """One."""
        yield "group"


def test_half_of_the_groups_is_none_where_a_subclass_has_the_other() -> None:
    observer = WithNames(handler, Task).groups_for_signal(lambda self, **kwargs: ["a"])
    assert ours() == []
    del observer


@override_settings(DJCRF_PG={"EMBEDDED": False})
def test_a_layer_that_no_listener_reaches_is_warned_of() -> None:
    (message,) = ours()
    assert message.id == "djcrf_pg.W025"
    assert "EMBEDDED = True" in str(message.hint)
    with override_settings(CHANNEL_LAYERS=REDIS):
        assert [each.id for each in ours() if each.id != "djcrf_pg.W003"] == []


def test_a_serializer_that_returns_nothing_is_warned_of() -> None:
    def forgets(self: Any, instance: Any, action: Any, **kwargs: Any) -> Any:
        {"id": instance.pk}  # noqa: B018

    observer = model_observer(Task)(handler).serializer(forgets)
    (message,) = ours()
    assert (message.id, message.msg.startswith(f"The serializer of {observer.label} ret")) == ("djcrf_pg.W028", True)


class NoteSerializer(ModelSerializer[Note]):
    """Of another model."""

    class Meta:
        model = Note
        fields = ("id", "text")


def test_a_serializer_of_another_model_is_warned_of_that_shows_what_this_one_lacks() -> None:
    observer = model_observer(Task, serializer_class=NoteSerializer)(handler)
    (message,) = ours()
    assert (message.id, message.msg) == (
        "djcrf_pg.W029",
        f"{observer.label} observes testapp.Task, and its serializer_class NoteSerializer, which is for testapp.Note, "
        f"shows 'text', which that does not have: each event fails.",
    )


@pytest.mark.parametrize(
    ("model", "other", "fields"),
    [
        (Car, Vehicle, "__all__"),
        (FastCar, Car, "__all__"),
        (Car, FastCar, "__all__"),
        (Vehicle, Car, ("id",)),
        (Task, Note, ("id",)),
        (Document, Task, ("id", "title")),
    ],
)
def test_a_serializer_of_another_model_with_these_fields_is_not_warned_of(model: Any, other: Any, fields: Any) -> None:
    meta = type("Meta", (), {"model": other, "fields": fields})
    serializer: Any = type("Serializer", (ModelSerializer,), {"Meta": meta})
    observer = model_observer(model, serializer_class=serializer)(handler)
    assert ours() == []
    del observer


class Misspelt(ModelSerializer[Task]):
    """Has a field that there is not."""

    class Meta:
        model = Task
        fields = ("id", "titel")


class MadeByCode(Misspelt):
    """Has what its code says."""

    def get_fields(self) -> Any:
        raise AssertionError("nobody is to ask")


def test_a_serializer_whose_fields_do_not_exist_is_warned_of() -> None:
    observer = model_observer(Task, serializer_class=Misspelt)(handler)
    (message,) = ours()
    assert message.id == "djcrf_pg.W030"
    assert message.msg.startswith(f"{observer.label} has serializer_class=Misspelt")
    assert "Field name `titel` is not valid for model `Task`" in message.msg


def test_fields_that_code_makes_are_not_asked_for() -> None:
    observer = model_observer(Task, serializer_class=MadeByCode)(handler)
    assert ours() == []
    del observer


def test_a_handler_that_waits_for_a_request_id_is_warned_of() -> None:
    async def tasks(self: Any, message: Any, request_id: Any = None, **kwargs: Any) -> None: ...

    observer = model_observer(Task)(tasks)
    (message,) = ours()
    assert (message.id, message.msg) == (
        "djcrf_pg.W031",
        f"The handler of {observer.label} takes request_id, which no event has.",
    )
    assert "subscribing_request_ids" in str(message.hint)


def test_an_observer_that_is_lost_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.definitions, "lost", lambda: iter([("shop.Shop.rows", 8, "a function at line 11")]))
    (message,) = ours()
    assert (message.id, message.msg) == (
        "djcrf_pg.W023",
        "The observer shop.Shop.rows at line 8 is lost: its class has a function at line 11 by that name.",
    )


def test_observers_of_two_bases_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.definitions, "clashes", lambda kind: iter([(Car, "rows", [Vehicle, FastCar])]))
    (message,) = ours()
    assert message.id == "djcrf_pg.W024"
    assert "Car inherits an observer 'rows' of Vehicle and of FastCar: that of Vehicle counts" in message.msg


def test_an_observer_in_place_of_a_method_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.definitions, "covered", lambda kind: iter([(BoardConsumer, "reply", AsyncAPIConsumer)]))
    (message,) = ours()
    assert message.id == "djcrf_pg.W032"
    assert "'reply' of tests.testapp.consumers.BoardConsumer stands in place of AsyncAPIConsumer.reply()" in message.msg


class Guarded(BoardConsumer):
    """Is for users."""

    permission_classes: Any = (IsAuthenticated,)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_consumer_whose_scope_has_no_user_is_warned_of(guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("served")
    served = Guarded.as_asgi()
    module.application = AuthMiddlewareStack(served) if guarded else served  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "served", module)
    with override_settings(ASGI_APPLICATION="served.application"):
        found = ours()
    assert [message.id for message in found] == ([] if guarded else ["djcrf_pg.W027"])
    assert all("Guarded has rest_framework.permissions.IsAuthenticated in" in message.msg for message in found)
