"""Messages send their readers to pages of the documentation: all of these are there."""

import re
from pathlib import Path

import pytest

from djcrf_pg import pages
from tests.unit.test_docs import DOCS, ROOT, URLS, anchors

_SEE = re.compile(r"""\bsee\(\s*(["'])(.+?)\1""")
_CALL = re.compile(r"\bsee\(")


def linked() -> list[str]:
    """What the package's messages link to."""
    sources = [path for path in sorted((ROOT / "djcrf_pg").rglob("*.py")) if path != Path(pages.__file__)]
    texts = [path.read_text("utf-8") for path in sources]
    found = [target for text in texts for _, target in _SEE.findall(text)]
    assert len(found) == sum(len(_CALL.findall(text)) for text in texts), "see() takes a literal"
    return found


@pytest.mark.parametrize("target", sorted(set(linked())))
def test_the_page_and_the_heading_that_a_message_names_exist(target: str) -> None:
    path, _, anchor = target.partition("#")
    assert (DOCS / path).is_file()
    assert not anchor or anchor in anchors(DOCS / path)


def test_messages_link_to_the_project_s_own_address() -> None:
    assert pages.see("index.md") == f"See {URLS['Documentation']}"
