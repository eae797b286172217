"""Looks into a built wheel: does it hold what an installed djcrf_pg needs, and can it be imported from there?

Usage: ``python scripts/check_wheel.py dist/djcrf_pg-*.whl``. Run it in an environment that has the
dependencies; the package itself is taken from the wheel, also where an editable install is present.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"djcrf_pg": ROOT / "djcrf_pg", "djcrf_pg/migrations_templates": ROOT / "migrations_templates"}
SHIPPED = {".py", ".sql", ".py-tmpl", ".typed", ".html", ".css", ".js"}

IMPORT = """
import importlib.resources, sys
import djcrf_pg, djcrf_pg.migrations_templates as templates
for module in (djcrf_pg, templates):
    assert module.__file__.startswith(sys.argv[1]), f"{module.__name__} was taken from {module.__file__}"
assert importlib.resources.files("djcrf_pg").joinpath("py.typed").is_file()
"""


def wanted() -> set[str]:
    """Returns what the wheel must hold: every module, SQL file, type marker, template and static file."""
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for prefix, folder in SOURCES.items()
        for path in folder.rglob("*")
        if path.suffix in SHIPPED or path.name == "py.typed"
    }


def problems(wheel: Path) -> list[str]:
    """Returns what is wrong with ``wheel``, one sentence each; nothing when it can be shipped."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        found = [f"{name} is in the source tree and not in the wheel" for name in sorted(wanted() - names)]
        foreign = {n.split("/")[0] for n in names} - {"djcrf_pg"}
        found += [f"{n}/ does not belong into the wheel" for n in foreign if not n.endswith(".dist-info")]
        if not any(name.endswith(".sql") for name in names):
            found.append("there is no .sql file in the wheel")
        if "djcrf_pg/py.typed" not in names:
            found.append("djcrf_pg/py.typed is missing: type checkers would ignore the annotations")
        if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
            found.append("the licence is missing")
        with tempfile.TemporaryDirectory() as folder:
            archive.extractall(folder)
            run = subprocess.run(
                [sys.executable, "-c", IMPORT, folder],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if run.returncode:
                found.append(f"the unpacked wheel cannot be imported:\n{run.stdout}")
    return found


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    status = 0
    for argument in arguments:
        found = problems(Path(argument))
        for problem in found:
            print(f"{argument}: {problem}", file=sys.stderr)
        if not found:
            print(f"{argument}: complete, and importable")
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
