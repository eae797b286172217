"""What pytest loads by itself where djcrf_pg is installed: see ``docs/how-to/test-your-consumers.md``.

It is loaded before there are settings, and before coverage measures anything, so it imports the rest when a test needs
it. A project that does not have djcrf_pg among its apps does not notice it.
"""

import inspect
import sys
import unittest
from collections.abc import Generator
from typing import Any

import pytest

#: Seconds that closing may take.
_PATIENCE = 10.0


#: Whether a test that is rolled back has made a subscription.
_SUBSCRIBED = pytest.StashKey[bool]()


def _loops() -> set[Any]:
    """The event loops on which somebody has subscribed."""
    embedded = sys.modules.get("djcrf_pg.listener.embedded")
    return set() if embedded is None else embedded.loops()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note whether the test is rolled back, and whether a consumer of it subscribes."""
    if "djcrf_pg.models" not in sys.modules:  # not among the apps: importing djcrf_pg.apps takes no settings
        return (yield)
    from djcrf_pg.listener.embedded import is_in_a_rolled_back_test
    from djcrf_pg.testing import isolation

    isolation.in_a_rolled_back_test = is_rolled_back = is_in_a_rolled_back_test()
    before = _loops()
    try:
        return (yield)
    finally:
        isolation.in_a_rolled_back_test = False
        # On a loop that is there for several tests, an earlier one may have.
        has_subscribed = any(loop not in before or not loop.is_closed() for loop in _loops())
        item.stash[_SUBSCRIBED] = is_rolled_back and has_subscribed
        if has_subscribed:
            _close_connections()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say why nothing came to a consumer in a test that is rolled back, or what such a test has left."""
    report = yield
    if call.when == "call" and item.stash.get(_SUBSCRIBED, False):
        from djcrf_pg.testing import isolation

        if _commits(item):
            item.warn(pytest.PytestWarning(f"djcrf_pg: {isolation.COMMITS}"))
        elif call.excinfo is not None and call.excinfo.errisinstance(TimeoutError):
            report.sections.append(("djcrf_pg", isolation.ADVICE))
    return report


def _commits(item: pytest.Item) -> bool:
    """Whether a test makes its queries in another thread than its transaction, as those of pytest-asyncio do."""
    test = getattr(item, "function", None)
    is_of_unittest = issubclass(getattr(item, "cls", None) or object, unittest.TestCase)
    return inspect.iscoroutinefunction(test) and not is_of_unittest


def _close_connections() -> None:
    """Close those of the thread that asgiref runs the database code of coroutines in: the test database has to go."""
    from asgiref.sync import SyncToAsync
    from django.db import connections

    SyncToAsync.single_thread_executor.submit(connections.close_all).result(_PATIENCE)
