"""The test kit in a project's own test run: pytest with its plugin, several workers, and Django's runner."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT
from tests.project import Project

pytestmark = pytest.mark.processes

CONSUMERS = """
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.observer import model_observer

from shelf.models import Book

class BookConsumer(AsyncAPIConsumer):
    @action()
    async def subscribe(self, request_id, **kwargs):
        await self.books.subscribe(request_id=request_id)
        return {}, 201

    @model_observer(Book, many_to_many=True)
    async def books(self, message, action, **kwargs):
        await self.send_json({"action": action, "data": message})
"""

CLIENT = """
import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.test import TestCase, TransactionTestCase
from shelf.consumers import BookConsumer
from shelf.models import Author, Book

async def subscribe():
    client = WebsocketCommunicator(BookConsumer.as_asgi(), "/ws/")
    await client.connect()
    await client.send_json_to({"action": "subscribe", "request_id": 1})
    assert (await client.receive_json_from(timeout=20))["response_status"] == 201
    return client
"""

KIT = """
from djcrf_pg.testing import capture_changes, deliver, settled
"""


def run(project: Project, *command: str, tests: str) -> str:
    """Run a project's tests to their end, and return what was written."""
    project.write("shelf/consumers.py", CONSUMERS)
    project.write("test_books.py", CLIENT + tests)
    env: dict[str, Any] = {**os.environ, **project.env()}
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(ROOT)])
    for name in [name for name in env if name.startswith("PYTEST_")]:
        del env[name]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project.folder,
        env={name: value for name, value in env.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    return done.stdout


def by_pytest(project: Project, *arguments: str, tests: str) -> str:
    """Run a project's tests by pytest."""
    project.write("pytest.ini", "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    return run(project, "pytest", "-p", "no:cacheprovider", *arguments, tests=tests)


def test_tests_of_each_kind_run_beside_each_other_in_several_workers(project: Project):
    output = by_pytest(
        project,
        "-n2",
        tests=KIT
        + """
@pytest.mark.django_db
@pytest.mark.parametrize("number", range(6))
def test_that_is_rolled_back(number):
    with capture_changes() as changes:
        book = Book.objects.create(title="a")
        book.authors.add(Author.objects.create(name="b"))
    assert [(each.action, each.changed) for each in changes] == [("create", []), ("update", ["authors"])]

@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", range(6))
async def test_that_commits(number):
    client = await subscribe()
    await Book.objects.acreate(title="a")
    await settled()
    assert (await client.receive_json_from(timeout=0))["action"] == "create"
    assert await client.receive_nothing(timeout=0)
    await client.disconnect()
    assert await Book.objects.acount() == 1

class OfDjango(TestCase):
    async def test_a_coroutine(self):
        client = await subscribe()
        async with capture_changes() as changes:
            await Book.objects.acreate(title="a")
        await deliver(changes)
        assert (await client.receive_json_from(timeout=0))["action"] == "create"
        await client.disconnect()

class Committing(TransactionTestCase):
    async def test_a_coroutine(self):
        client = await subscribe()
        await Book.objects.acreate(title="a")
        await settled()
        assert (await client.receive_json_from(timeout=0))["action"] == "create"
        await client.disconnect()
""",
    )
    assert "14 passed" in output, output
    assert "warning" not in output.lower(), output  # no test database is left because of a connection


FORGETFUL = """
async def talk():
    client = await subscribe()
    await Book.objects.acreate(title="a")
    await client.receive_json_from(timeout=0.5)

class OfDjango(TestCase):
    async def test_waits_for_what_does_not_come(self):
        await talk()

@pytest.mark.django_db
def test_waits_for_what_does_not_come():
    async_to_sync(talk)()

@pytest.mark.django_db
def test_fails_for_another_reason():
    async_to_sync(subscribe)()
    assert Book.objects.exists()
"""


def test_a_timeout_in_a_test_that_is_rolled_back_is_explained(project: Project):
    output = by_pytest(project, tests=FORGETFUL)
    assert "3 failed" in output, output
    assert output.count("This test runs in a transaction that is rolled back") == 2, output
    assert "capture_changes()" in output


def test_django_s_runner_says_it_too(project: Project):
    output = run(project, "django", "test", "--noinput", "test_books.OfDjango", tests=FORGETFUL)
    assert "TimeoutError" in output, output
    assert "this test runs in a transaction that is rolled back (Django's TestCase)" in output, output


def test_a_coroutine_that_commits_although_its_test_is_rolled_back_is_told_so(project: Project):
    output = by_pytest(
        project,
        tests=KIT
        + """
@pytest.mark.django_db
async def test_commits():
    client = await subscribe()
    await Book.objects.acreate(title="a")
    assert (await client.receive_json_from(timeout=20))["action"] == "create"
    await client.disconnect()
    assert await Book.objects.acount() == 1

@pytest.mark.django_db
async def test_captures():
    async with capture_changes():
        pass
""",
    )
    assert "1 failed, 1 passed, 1 warning" in output, output
    assert "RuntimeError: capture_changes(): this test runs in a transaction that is rolled back, but its" in output
    assert "PytestWarning: djcrf_pg: this test runs in a transaction that is rolled back, but its" in output


def test_a_project_without_settings_does_not_notice_the_plugin(tmp_path: Path):
    (tmp_path / "test_it.py").write_text("import djcrf_pg.apps\n\ndef test_it():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:django"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTEST_"))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout
