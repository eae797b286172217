"""``scripts/lanes.sh``: the oldest and the newest interpreter of a machine, for CI."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import ROOT

Lanes = Callable[..., dict[str, str]]


@pytest.fixture
def lanes(tmp_path: Path) -> Lanes:
    """Names the lanes of a machine that also has interpreters of these versions, on its PATH and among pyenv's."""

    def look(*on_path: str, pyenv: tuple[str, ...] = ()) -> dict[str, str]:
        for version in (*on_path, *pyenv):
            minor = ".".join(version.split(".")[:2])
            folder = tmp_path / "versions" / version / "bin" if version in pyenv else tmp_path
            folder.mkdir(parents=True, exist_ok=True)
            program = folder / f"python{minor}"
            program.write_text(f"#!/bin/sh\necho {version} {program}\n")
            program.chmod(0o755)
        path = os.pathsep.join([str(tmp_path), "/usr/bin", "/bin"])
        command = ["bash", str(ROOT / "scripts" / "lanes.sh")]
        env = {**os.environ, "PATH": path, "PYENV_ROOT": str(tmp_path)}
        run = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        return {line.partition(" ")[0]: line for line in run.stdout.splitlines()}

    return look


def test_the_newest_python_has_the_newest_django_and_the_oldest_5_2(lanes: Lanes, tmp_path: Path) -> None:
    found = lanes("3.99.1", "3.11.0")
    assert found["newest"] == f"newest .venv-3.99 {tmp_path}/python3.99 -"
    assert found["oldest"] == f"oldest .venv-3.11-django-5.2 {tmp_path}/python3.11 5.2"
    assert "without" not in found


def test_versions_are_numbers_and_interpreters_of_pyenv_count(lanes: Lanes, tmp_path: Path) -> None:
    found = lanes("3.99.1", pyenv=("3.100.0",))
    assert found["newest"] == f"newest .venv-3.100 {tmp_path}/versions/3.100.0/bin/python3.100 -"


def test_what_requires_python_refuses_is_not_taken(lanes: Lanes) -> None:
    assert "python3.9" not in lanes("3.9.2", "3.99.1")["oldest"]


def test_an_interpreter_that_does_not_run_is_passed_over(lanes: Lanes, tmp_path: Path) -> None:
    broken = tmp_path / "python3.100"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    assert "python3.99" in lanes("3.99.1")["newest"]
