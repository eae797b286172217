"""The documentation says what the code does: settings, errors, checks, links, and code that compiles."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement

from benchmarks import report
from benchmarks.runner import OURS, Result
from djcrf_pg import conf, exceptions, observations
from tests import servers

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
TUTORIAL = DOCS / "tutorial" / "from-nothing.md"
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]

#: The files of the tutorial's project, each a line with its name and a block.
_FILE = re.compile(r"^\*\*`([\w./]+)`\*\*\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NAMED_LINK = re.compile(r"^\[([\w-]+)\]: (\S+)$", re.MULTILINE)
_USE_OF_NAME = re.compile(r"\]\[([\w-]+)\]")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def cells(page: Path) -> dict[str, list[str]]:
    """The rows of a page's tables, by what is between backquotes at the start of their first cell."""
    rows = {}
    for line in page.read_text("utf-8").splitlines():
        if match := re.match(r"\| `([\w.]+)`", line):
            rows[match[1]] = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
    return rows


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as both mkdocs and GitHub name them for headings of plain words."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("field", dataclasses.fields(conf.Settings), ids=lambda field: field.name)
def test_every_setting_is_there_with_its_default(field: dataclasses.Field):
    row = cells(DOCS / "reference" / "settings.md")[field.name]
    assert ast.literal_eval(row[3].strip("`")) == getattr(conf.Settings(), field.name)
    assert row[4].endswith("."), "no description"


def test_no_setting_is_there_that_does_not_exist():
    documented = cells(DOCS / "reference" / "settings.md").keys()
    assert documented == {field.name for field in dataclasses.fields(conf.Settings)}


def test_every_check_and_every_error_is_there_and_no_other():
    rows = cells(DOCS / "reference" / "errors-and-checks.md").keys()
    source = (ROOT / "djcrf_pg" / "checks.py").read_text("utf-8")
    ids = set(re.findall(r'id="(djcrf_pg\.[EWI]\d+)"', source))
    errors = {
        name
        for name, value in inspect.getmembers(exceptions, inspect.isclass)
        if value.__module__ == exceptions.__name__
    }
    assert ids
    assert errors
    assert rows == ids | errors | {kind.__name__ for kind in observations.Observation.__subclasses__()}


def test_the_page_of_messages_is_what_the_code_says() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "messages.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_observation_is_there_with_its_level():
    rows = cells(DOCS / "how-to" / "run-in-production.md")
    levels = {20: "info", 30: "warning", 40: "error"}
    for kind in observations.Observation.__subclasses__():
        assert rows[kind.__name__][1] == levels[kind.level]


def links(page: Path) -> list[str]:
    """The targets of a page's links, those at its end that the text names among them."""
    text = _FENCED.sub("", page.read_text("utf-8"))
    return _LINK.findall(text) + [target for _, target in _NAMED_LINK.findall(text)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path):
    for target in links(page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        # What mkdocs builds has to stay within docs/.
        assert DOCS in linked.resolve().parents, target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("target", [*links(README), *URLS.values()])
def test_every_link_that_pypi_shows_leads_somewhere(target: str):
    assert "://" in target, "relative links lead nowhere on PyPI"
    if not target.startswith(URLS["Repository"]):
        return
    path, _, anchor = target.removeprefix(URLS["Repository"]).partition("#")
    if path not in ("", "/issues"):
        kind = "raw" if target.endswith(".png") else "blob"
        linked = ROOT / path.removeprefix(f"/{kind}/main/")
        assert linked.exists()
        assert not anchor or anchor in anchors(linked)


def test_the_project_has_one_address():
    assert {url.partition("/blob/")[0].removesuffix("/issues") for url in URLS.values()} == {URLS["Repository"]}
    for page in (README, DOCS / "index.md", ROOT / "mkdocs.yml"):
        found = re.findall(r"https://github\.com/[\w-]+/djcrf_pg", page.read_text("utf-8"))
        assert set(found) == {URLS["Repository"]}


def test_the_readme_is_two_screens_and_names_its_links():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert set(_USE_OF_NAME.findall(text)) == {name for name, _ in _NAMED_LINK.findall(text)}


def test_the_screenshot_is_no_burden():
    assert (DOCS / "images" / "demo.png").stat().st_size < 200_000


@pytest.mark.parametrize("image", sorted((DOCS / "images").glob("*.svg")), ids=lambda image: image.name)
def test_a_diagram_is_text_for_the_light_and_the_dark_and_some_page_shows_it(image: Path):
    source = image.read_text("utf-8")
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(source).iter()}
    assert {"title", "desc", "text"} <= tags
    assert "image" not in tags
    assert "prefers-color-scheme: dark" in source
    assert any(f"images/{image.name})" in page.read_text("utf-8") for page in PAGES)


def test_the_figures_are_those_of_the_results():
    results, about = report.from_json((DOCS / "benchmarks" / "results.json").read_text("utf-8"))
    assert (DOCS / "benchmarks" / "index.md").read_text("utf-8") == report.page(results, about)
    figures = report.headline(results, about)
    assert figures
    assert f"{report.BEGIN}\n{figures}{report.END}" in README.read_text("utf-8")


def test_what_was_counted_may_all_be_nothing():
    missing = Result("churn", "missing", OURS, [0.0, 0.0], "missing", "changes", [10.0, 10.0])
    assert "<svg" in report.plot([missing])


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(navigation) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES[1:])


def test_the_tutorial_s_project_is_whole_and_compiles():
    files = dict(_FILE.findall(TUTORIAL.read_text("utf-8")))
    assert files.keys() == {
        *("manage.py", "settings.py", "urls.py", "asgi.py", "watch.py"),
        *("notes/models.py", "notes/consumers.py"),
    }
    for name, text in files.items():
        tree = ast.parse(text, name)
        assert set(_modules_of_the_project(tree)) <= {path.removesuffix(".py").replace("/", ".") for path in files}


def _modules_of_the_project(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("notes"):
            yield node.module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_all_python_compiles(page: Path):
    for indent, text in _PYTHON.findall(page.read_text("utf-8")):
        # An ellipsis stands for the other entries of a dict, `{..., "key": 1}`, which is not Python.
        code = re.sub(rf"^{indent}", "", text, flags=re.MULTILINE).replace("{..., ", "{")
        compile(code, name_of(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_test_that_the_fault_table_names_is_there():
    text = (DOCS / "reference" / "faults.md").read_text("utf-8")
    named = re.findall(r"`((?:acceptance|integration)/\w+\.py)(?:::(\w+))?`", text)
    assert len(named) > 20
    for file, test in named:
        source = (ROOT / "tests" / file).read_text("utf-8")
        assert not test or re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{file}::{test}"


def test_the_packages_that_the_tests_run_are_on_their_page_with_a_version_that_is_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {entry.name: entry for entry in map(Requirement, project["optional-dependencies"]["packages"])}
    page = (DOCS / "reference" / "works-with.md").read_text("utf-8")
    rows = re.findall(r"^\| \[([\w-]+)\]\(\S+\) \| (\S+) \|", page, re.MULTILINE)
    assert [name for name, _ in rows] == sorted(required)
    assert all(version in required[name].specifier for name, version in rows)


def test_everything_passed_on_each_version_that_the_page_names() -> None:
    lines = (DOCS / "reference" / "compatibility.md").read_text("utf-8").splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    runs = [dict(zip(head, row, strict=True)) for row in rows]
    assert {run["PostgreSQL"].partition(".")[0] for run in runs} == set(servers.VERSIONS)
    assert {run["failed"] for run in runs} == {"0"}
    assert all(int(run["passed"]) > 500 for run in runs)
