"""Which databases the subcommands mean, in a project that has three."""

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.django_db(databases=["default", "second"])


def run(*arguments: str, **options: Any) -> str:
    """Run a subcommand and return what it says."""
    out = io.StringIO()
    call_command("djcrf_pg", *arguments, stdout=out, **options)
    return out.getvalue()


def test_without_the_option_it_is_every_postgresql_database_with_something_to_say() -> None:
    lines = [line.split()[:2] for line in run("status").splitlines() if "public." in line]
    assert ["default", "public.testapp_task"] in lines
    assert ["second", "public.testapp_remote"] in lines
    assert ["default", "public.testapp_remote"] not in lines


def test_the_option_chooses_and_naming_one_twice_is_naming_it_once() -> None:
    lines = run("status", "--database", "second", "--database", "second").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["second", "public.testapp_remote", "installed"]]


@pytest.mark.parametrize("command", ["status", "install", "uninstall"])
def test_another_vendor_is_refused_by_name(command: str) -> None:
    with pytest.raises(CommandError, match="The database 'lite' is sqlite, and djcrf_pg works on PostgreSQL"):
        run(command, "--database", "lite")


def test_tables_could_be_in_either_database() -> None:
    with pytest.raises(CommandError, match="Name it: --database default or second"):
        run("uninstall", "--tables", "testapp_task", "--dry-run")
    output = run("uninstall", "--tables", "testapp_task", "--dry-run", "--database", "default")
    assert "-- default: public.testapp_task is unwanted" in output
    assert "DROP TRIGGER" in output
    assert "testapp_project" not in output
