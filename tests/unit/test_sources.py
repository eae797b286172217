"""What the package's source must not have, since a supported Python has a fault there."""

import ast
from pathlib import Path

import djcrf_pg

ROOT = Path(djcrf_pg.__file__).parent


def test_no_except_star() -> None:
    """Before Python 3.11.4 what it raises arrives in a group of its own: see `djcrf_pg.exceptions.ungrouped`."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.TryStar)
    ]
    assert not found
