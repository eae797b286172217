"""What somebody sees who sets a project up and makes the mistakes of a first day."""

import pytest

from tests.project import Project
from tests.servers import DSN, ManagePy

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
    said_then = said()
    assert "W041" not in said_then
    assert "(djcrf_pg.W046) No model observer was found in any app's module 'consumers'" in said_then


def test_makemigrations_shows_where_it_wrote_as_django_does(project: Project) -> None:
    code = (
        f"import os; from django.core.management import call_command; os.chdir({str(project.folder)!r})\n"
        "call_command('djcrf_pg', 'makemigrations', 'shelf')"
    )
    output = project.manage("shell", "-v", "0", "-c", code).stdout
    assert output.splitlines()[-1] == "Written: shelf/migrations/0002_djcrf_pg_triggers.py"


MISTAKES = {
    'CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisLayer"}}': (
        "W042",
        "CHANNEL_LAYERS['default'] cannot be made (InvalidChannelLayerError: Cannot import BACKEND",
    ),
    'CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"host": "x"}}}': (
        "W042",
        "unexpected keyword argument 'host'",  # Python 3.13 adds what it thinks is meant
    ),
    'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}': (
        "W020",
        "No event of shelf.consumers.BookConsumer.books can come: shelf.Book is in database 'default', which is SQLite",
    ),
    'ASGI_APPLICATION = "shelf.models.application"': ("W044", "module shelf.models has no 'application'"),
    "DJCRF_PG = {'RETENTION': '1d'}; ASGI_APPLICATION = 'shelf.asgi.application'": ("E001", "RETENTION"),
    'ASGI_APPLICATION = "shelf"': ("W040", "write 'module.attribute', such as 'shelf.application'."),
    'ASGI_APPLICATION = "nowhere.application"': ("W040", "ModuleNotFoundError: No module named 'nowhere'"),
}


@pytest.mark.parametrize(("line", "said"), MISTAKES.items(), ids=[f"{said[0]}" for said in MISTAKES.values()])
def test_check_names_a_setting_that_cannot_work(project: Project, line: str, said: tuple[str, str]) -> None:
    settings = project.folder / "shelf_settings.py"
    settings.write_text(f"{settings.read_text()}\n{line}\n")
    output = project.manage("check", check=False).stderr
    found = [each for each in output.splitlines() if "djcrf_pg." in each and "HINT" not in each]
    assert len(found) == 1
    assert f"(djcrf_pg.{said[0]})" in found[0]
    assert said[1] in found[0]


def test_listen_names_a_channel_layer_that_cannot_be_made(project: Project) -> None:
    settings = project.folder / "shelf_settings.py"
    settings.write_text(f"{settings.read_text()}\n{next(iter(MISTAKES))}\n")
    error = project.manage("djcrf_pg", "listen", check=False).stderr
    assert error.startswith("CommandError: CHANNEL_LAYERS['default'] cannot be made (InvalidChannelLayerError")


def test_migrate_says_which_right_its_role_lacks_to_make_tables(project: Project) -> None:
    project.rows("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    project.rows("DROP ROLE IF EXISTS shelf_guest")
    project.rows("CREATE ROLE shelf_guest LOGIN PASSWORD 'guest'")
    try:
        env = {**project.env(), DSN: f"{project.pg.dsn()} user=shelf_guest password=guest"}
        said = ManagePy.run("migrate", env=env, check=False).stderr
        assert "(djcrf_pg.W045) In database 'default', role 'shelf_guest' may not make tables in schema public" in said
        assert 'GRANT CREATE ON SCHEMA public TO "shelf_guest".' in said
        project.rows('GRANT CREATE ON SCHEMA public TO "shelf_guest"')
        assert "W045" not in ManagePy.run("migrate", env=env).stderr
    finally:
        project.rows("DROP OWNED BY shelf_guest CASCADE")
        project.rows("DROP ROLE shelf_guest")


def test_a_project_that_forgot_the_app_is_told_so(migrated: Project) -> None:
    settings = migrated.folder / "shelf_settings.py"
    settings.write_text(f"{settings.read_text()}\nINSTALLED_APPS.remove('djcrf_pg')\n")
    migrated.rows("ALTER TABLE djcrf_pg_change RENAME TO hidden")
    code = "from djcrf_pg.diagnosis import without_log; print(without_log('default'))"
    said = migrated.manage("shell", "-v", "0", "-c", code).stdout
    assert "INSTALLED_APPS lacks the app: add 'djcrf_pg' to it, and run `manage.py migrate`." in said
