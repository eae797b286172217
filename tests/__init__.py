"""Tests of djcrf_pg, and the servers that they run against."""

from importlib.util import find_spec
from pathlib import Path

import djcrf_pg

if find_spec("djcrf_pg.migrations_templates") is None:
    # A checkout that is not installed; see setup.py for what an install does.
    djcrf_pg.__path__.append(str(Path(__file__).resolve().parent.parent))
