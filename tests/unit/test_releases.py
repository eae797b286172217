"""What a release contains of migrations and SQL stays as it is: databases have run it."""

import re
import zipfile

import pytest

from tests.processes import ROOT

RELEASES = sorted((ROOT / "tests" / "releases").glob("*.whl"))
FROZEN = re.compile(r"djcrf_pg/(migrations/\d{4}_\w+\.py|capture/sql/\d{4}_\w+\.sql)")


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_migrations_and_their_sql_are_those_of_the_release(release):
    with zipfile.ZipFile(release) as wheel:
        released = {name: wheel.read(name) for name in wheel.namelist() if FROZEN.fullmatch(name)}
    assert len(released) >= 3
    changed = [name for name, text in released.items() if (ROOT / name).read_bytes() != text]
    assert not changed, f"{release.name} has these; what changes the database is a new migration (CONTRIBUTING.md)"
