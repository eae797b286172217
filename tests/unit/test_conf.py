"""The setting DJCRF_PG."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from djcrf_pg.conf import Settings, get_settings, problems
from djcrf_pg.exceptions import ConfigurationError

GOOD: list[dict[str, Any]] = [
    {},
    {"DROP_IN": False, "AUTO_INSTALL": True, "EMBEDDED": False},
    {"NOTIFY": "elide"},
    {"NOTIFY": "always"},
    {"NOTIFY": "never"},
    {"OBSERVE": ["testapp.Task"]},
    {"OBSERVE": ("testapp.Task", "auth.User", "auth.User.groups")},
    {"EXCLUDE": {"testapp.Task": ["body"], "auth.User": ()}},
    {"LISTENER_DATABASE": None},
    {"LISTENER_DATABASE": "default"},
    {"LISTENER_DATABASE": {"default": "default"}},
    {"BATCH_SIZE": 1, "ENVELOPE_EVENTS": 5, "ENVELOPE_BYTES": 100},
    {"LOG_MAX_AGE": 60, "LOG_MAX_ROWS": 1_000, "LOG_MAX_BYTES": 1_000_000, "MASS_CHANGE": 1},
    {"MASS_CHANGE": None},
    {"RETENTION": 1, "SAFETY_POLL": 0.5, "LOCK_TIMEOUT": 2},
]

BAD: list[tuple[str, Any]] = [
    ("DROP_IN", 1),
    ("AUTO_INSTALL", "yes"),
    ("EMBEDDED", None),
    ("NOTIFY", "sometimes"),
    ("NOTIFY", ["elide"]),
    ("OBSERVE", "testapp.Task"),
    ("OBSERVE", ["Task"]),
    ("OBSERVE", ["auth.User.groups.name"]),
    ("OBSERVE", [5]),
    ("OBSERVE", {"testapp.Task": []}),
    ("EXCLUDE", ["testapp.Task"]),
    ("EXCLUDE", {"Task": ["body"]}),
    ("EXCLUDE", {"testapp.Task.labels": ["body"]}),
    ("EXCLUDE", {"testapp.Task": "body"}),
    ("EXCLUDE", {"testapp.Task": [5]}),
    ("LISTENER_DATABASE", "nowhere"),
    ("LISTENER_DATABASE", {"default": "nowhere"}),
    ("LISTENER_DATABASE", {"nowhere": "default"}),
    ("LISTENER_DATABASE", ["default"]),
    ("LISTENER_DATABASE", {"default": ["default"]}),
    ("LISTENER_DATABASE", 5),
    ("RETENTION", 0),
    ("RETENTION", -1),
    ("RETENTION", "3600"),
    ("RETENTION", True),
    ("RETENTION", float("nan")),
    ("MASS_CHANGE", 0),
    ("MASS_CHANGE", "many"),
    ("LOG_MAX_ROWS", 1.5),
    ("BATCH_SIZE", 1.5),
    ("ENVELOPE_EVENTS", 10.0),
    ("ENVELOPE_BYTES", None),
]


@pytest.mark.parametrize("raw", GOOD)
def test_good_settings_are_taken_as_they_are(raw: dict[str, Any]) -> None:
    assert problems(raw) == []
    with override_settings(DJCRF_PG=raw):
        settings = get_settings()
    assert {name: getattr(settings, name) for name in raw} == raw


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_wrong_value_is_told_with_its_name_and_itself(name: str, value: Any) -> None:
    (problem,) = problems({name: value})
    assert problem.startswith(f"DJCRF_PG[{name!r}] must ")
    assert problem.endswith(f", not {value!r}.")


@pytest.mark.parametrize(
    ("name", "near"),
    [("NOTFY", "NOTIFY"), ("notify", "NOTIFY"), ("RETENTION_SECONDS", "RETENTION"), ("observe", "OBSERVE")],
)
def test_an_unknown_name_gets_the_nearest_as_a_suggestion(name: str, near: str) -> None:
    assert problems({name: 1}) == [f"DJCRF_PG has no setting {name!r}: did you mean {near!r}?"]


@pytest.mark.parametrize("name", ["QQQQ", 5, None])
def test_a_name_like_no_other_gets_the_list(name: Any) -> None:
    (problem,) = problems({name: 1})
    assert problem.startswith(f"DJCRF_PG has no setting {name!r}: known are DROP_IN, SHADOW, AUTO_INSTALL, OBSERVE, ")


@pytest.mark.parametrize("raw", [None, [], "DROP_IN", 5])
def test_what_is_no_dict_is_told(raw: object) -> None:
    assert problems(raw) == [f"DJCRF_PG must be a dict, not {type(raw).__name__}."]


def test_all_problems_are_told_at_once() -> None:
    raw = {"NOTFY": "elide", "RETENTION": 0, "DROP_IN": True}
    assert len(problems(raw)) == 2
    with override_settings(DJCRF_PG=raw), pytest.raises(ConfigurationError, match=r"(?s)NOTFY.*RETENTION") as caught:
        get_settings()
    assert isinstance(caught.value, ImproperlyConfigured)


def test_override_settings_resets_what_was_read() -> None:
    before = get_settings()
    with override_settings(DJCRF_PG={"BATCH_SIZE": 5}):
        assert get_settings().BATCH_SIZE == 5
        with override_settings(DJCRF_PG={"BATCH_SIZE": 6}):
            assert get_settings().BATCH_SIZE == 6
        assert get_settings().BATCH_SIZE == 5
    assert get_settings() == before


def test_settings_are_read_once() -> None:
    assert get_settings() is get_settings()


@pytest.mark.parametrize(
    ("setting", "alias", "listener"),
    [
        (None, "default", "default"),
        ("direct", "default", "direct"),
        ("direct", "other", "other"),
        ({"other": "direct"}, "other", "direct"),
        ({"other": "direct"}, "default", "default"),
    ],
)
def test_the_listener_may_connect_elsewhere(setting: Any, alias: str, listener: str) -> None:
    assert Settings(LISTENER_DATABASE=setting).listener_alias(alias) == listener
