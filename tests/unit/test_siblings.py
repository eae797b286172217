"""Which aliases may reach the same database, as far as their settings say."""

from typing import Any

import pytest
from django.db.utils import ConnectionHandler

from djcrf_pg.capture import siblings

POSTGRESQL = {"ENGINE": "django.db.backends.postgresql"}

DATABASES: dict[str, dict[str, Any]] = {
    "default": {**POSTGRESQL, "HOST": "db", "NAME": "shop"},
    "same": {**POSTGRESQL, "HOST": "db", "NAME": "shop", "USER": "reader"},
    "other": {**POSTGRESQL, "HOST": "db", "NAME": "other"},
    "service": {**POSTGRESQL, "OPTIONS": {"service": "shop"}},
    "local": {**POSTGRESQL, "NAME": "shop"},
    "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}


@pytest.fixture(autouse=True)
def _databases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "connections", ConnectionHandler(DATABASES))


@pytest.mark.parametrize("other", ["same", "service", "local"])
def test_what_may_be_the_same_database_has_to_be_asked(other: str) -> None:
    assert siblings.may_be_siblings("default", other)
    assert siblings.may_be_siblings(other, "default")


def test_a_service_may_be_any_database_of_any_server() -> None:
    assert siblings.may_be_siblings("service", "local")
    assert not siblings.look_alike("service", "local")


@pytest.mark.parametrize("other", ["default", "other", "lite"])
def test_another_database_of_the_server_need_not_be_asked(other: str) -> None:
    assert not siblings.may_be_siblings("default", other)


def test_two_aliases_with_one_address_look_alike() -> None:
    assert siblings.look_alike("default", "same")
