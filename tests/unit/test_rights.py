"""The GRANT that a message names is the one of the page of rights."""

import re

from djcrf_pg.diagnosis import GRANTS
from tests.unit.test_docs import DOCS

_GRANT = re.compile(r"^GRANT ([\w, ]+) ON (?:SEQUENCE |FUNCTION |SCHEMA )?(.*) TO listener;$", re.MULTILINE)


def test_each_right_that_a_listener_needs_is_in_the_grant_that_a_message_names() -> None:
    page = (DOCS / "reference" / "database-objects.md").read_text("utf-8")
    documented = {
        name: set(rights.split(", "))
        for rights, names in _GRANT.findall(page)
        for name in re.findall(r"djcrf_pg_\w+", names)
    }
    named = {name: set(grant.partition(" ON ")[0].split(", ")) for name, grant in GRANTS.items()}
    assert documented.keys() == named.keys()
    assert all(rights <= named[name] for name, rights in documented.items())
