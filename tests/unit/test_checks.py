"""System checks that need no database. Those of the database are tested in tests/integration."""

import sys
import types
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

from djcrf_pg import checks


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
