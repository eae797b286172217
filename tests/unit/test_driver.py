"""A project without a driver that works says what to install, whichever app would have missed it first."""

import subprocess
import sys

import pytest

_SETUP = """
import django
from django.conf import settings

settings.configure(
    # An app with models before ours: its import asks for Django's backend.
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "channels", "rest_framework", "djcrf_pg"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "none"}},
)
django.setup()
"""

_NONE = "import sys; sys.modules['psycopg'] = None"
_TWO = f"{_NONE}; import types; sys.modules['psycopg2'] = two = types.ModuleType('psycopg2'); two.__version__ = '2.9.9'"
_NO_LIBPQ = """
import ctypes.util, sys
sys.modules["psycopg_c"] = sys.modules["psycopg_binary"] = None
ctypes.util.find_library = lambda name: None
"""


def last_line(*code: str) -> str:
    """What a process says in the end that loads a project."""
    result = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False)
    return (result.stderr.splitlines() or [""])[-1]


@pytest.mark.parametrize(
    ("before", "cause"),
    [(_NONE, "psycopg"), (_TWO, "psycopg"), (_NO_LIBPQ, "libpq library not found")],
    ids=["no driver", "psycopg2 in its place", "no libpq"],
)
def test_a_driver_that_is_not_there_is_named_with_its_cause_and_the_command(before: str, cause: str) -> None:
    said = last_line(before, _SETUP)
    assert said.startswith("django.core.exceptions.ImproperlyConfigured: djcrf_pg needs psycopg, version 3")
    assert cause in said.partition("cannot import it: ")[2]
    assert "pip install 'psycopg[binary]'" in said
    assert sys.executable in said


def test_a_driver_that_works_is_no_matter() -> None:
    assert last_line(_SETUP) == ""
