"""What somebody sees who sets a project up and makes the mistakes of a first day."""

import pytest

from tests.project import Project

BROKEN = {
    "import nothing_here\n": "ModuleNotFoundError: No module named 'nothing_here' ({}, line 1).",
    "\n\nnames = undefined\n": "NameError: name 'undefined' is not defined ({}, line 3).",
    "\nclass (\n": "SyntaxError: invalid syntax (consumers.py, line 2) ({}, line 2).",
    "import json\n\njson.loads('{')\n": "line 1 column 2 (char 1) ({}, line 3).",
}


@pytest.mark.parametrize(("text", "said"), BROKEN.items(), ids=["import", "name", "syntax", "inside a library"])
def test_check_names_the_line_of_a_consumers_module_that_cannot_be_imported(
    project: Project, text: str, said: str
) -> None:
    path = project.write("shelf/consumers.py", text)
    output = project.manage("check").stderr
    (warning,) = [line for line in output.splitlines() if "djcrf_pg.W040" in line]
    assert "djcrf_pg looks for observers in shelf.consumers, which cannot be imported: " in warning
    assert warning.endswith(said.format(path))


def test_only_commands_about_the_project_as_a_whole_import_the_consumers(project: Project) -> None:
    project.write("shelf/consumers.py", "import nothing_here\n")
    for arguments in (["makemigrations", "--dry-run"], ["shell", "-c", "1"], ["showmigrations"]):
        assert "nothing_here" not in project.manage(*arguments).stderr
    assert "shelf.consumers, which cannot be imported" in project.manage("migrate", check=False).stderr
    assert project.rows("SELECT to_regclass('shelf_book') IS NOT NULL") == [(True,)], "the tables are made"


def test_runserver_without_websockets_is_warned_of(project: Project) -> None:
    # The warning comes first; the server itself ends with an address that it cannot have.
    settings = project.folder / "shelf_settings.py"
    text = f"{settings.read_text()}\nDEBUG = True\n"
    settings.write_text(text)

    def said() -> str:
        return project.manage("runserver", "--noreload", "256.0.0.1:1", check=False).stderr

    assert "(djcrf_pg.W041) This `runserver` is Django's own and serves no WebSockets" in said()
    assert "W041" not in project.manage("check").stderr
    settings.write_text(f'{text}\nINSTALLED_APPS = ["daphne", *INSTALLED_APPS]\nASGI_APPLICATION = "shelf.asgi.none"\n')
    project.write("shelf/asgi.py", "none = None\n")
    assert "W041" not in said()
    settings.write_text(text)
    project.write("shelf/consumers.py", "")
    assert "W041" not in said(), "nothing is observed"


def test_makemigrations_shows_where_it_wrote_as_django_does(project: Project) -> None:
    code = (
        f"import os; from django.core.management import call_command; os.chdir({str(project.folder)!r})\n"
        "call_command('djcrf_pg', 'makemigrations', 'shelf')"
    )
    output = project.manage("shell", "-v", "0", "-c", code).stdout
    assert output.splitlines()[-1] == "Written: shelf/migrations/0002_djcrf_pg_triggers.py"
