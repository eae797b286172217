"""What a database lacks, or a role may not do, is named with the command that fixes it: in replies, and in commands."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.project import MODELS, Project
from tests.servers import DSN, ManagePy

CONSUMERS = """
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import {model}

class Consumer(GenericAsyncAPIConsumer):
    @model_observer({model}{options})
    async def rows(self, message, **kwargs):
        ...

    @action()
    async def subscribe(self, request_id, **kwargs):
        await self.rows.subscribe(request_id=request_id)
        return None, 201
"""

SUBSCRIBE = """
import json
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from shelf.consumers import Consumer

@async_to_sync
async def reply():
    client = WebsocketCommunicator(Consumer.as_asgi(), "/")
    await client.connect()
    await client.send_json_to({"action": "subscribe", "request_id": 1})
    reply = await client.receive_json_from(60)
    await client.disconnect()
    return reply

print(json.dumps(reply()))
"""

ROUTER = """
class Router:
    def allow_migrate(self, db, app_label, **hints):
        return app_label != "djcrf_pg"
"""


def refusal(project: Project, env: dict[str, str] | None = None, **settings: Any) -> str:
    """What a subscription in the project is refused with."""
    settings = {"SUBSCRIBE_TIMEOUT": 1, **settings}
    result = ManagePy.run("shell", "-v", "0", "-c", SUBSCRIBE, env={**project.env(settings), **(env or {})})
    reply = json.loads(result.stdout.splitlines()[-1])
    assert reply["response_status"] == 503, reply
    return str(reply["errors"][0])


def observe(project: Project, model: str, options: str = "") -> None:
    project.write("shelf/consumers.py", CONSUMERS.format(model=model, options=options))


@pytest.fixture
def role(migrated: Project) -> Iterator[dict[str, str]]:
    """The environment of a role that may connect to the project's database, and nothing else."""
    migrated.rows("DROP ROLE IF EXISTS shelf_guest")
    migrated.rows("CREATE ROLE shelf_guest LOGIN PASSWORD 'guest'")
    migrated.rows("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    yield {DSN: f"{migrated.pg.dsn()} user=shelf_guest password=guest"}
    migrated.rows("DROP OWNED BY shelf_guest")
    migrated.rows("DROP ROLE shelf_guest")


def test_a_database_that_is_not_migrated(project: Project) -> None:
    observe(project, "Book")
    assert refusal(project) == "Database 'default' lacks the change log djcrf_pg_change: run `manage.py migrate`."
    install = project.manage("djcrf_pg", "install", check=False).stderr
    assert "lacks the change log djcrf_pg_change: run `manage.py migrate`. Triggers write to it." in install


def test_a_log_of_an_older_version(migrated: Project) -> None:
    observe(migrated, "Book")
    migrated.manage("migrate", "djcrf_pg", "0006", "--verbosity", "0")
    assert refusal(migrated).endswith(
        "is that of an older version of djcrf_pg and lacks what this one adds to it: run `manage.py migrate`."
    )


def test_a_router_that_keeps_the_log_away(project: Project) -> None:
    observe(project, "Book")
    project.write("shelf/routers.py", ROUTER)
    settings = project.folder / "shelf_settings.py"
    settings.write_text(settings.read_text() + '\nDATABASE_ROUTERS = ["shelf.routers.Router"]\n')
    assert "have allow_migrate('default', 'djcrf_pg') return True or None" in refusal(project)


def test_a_model_without_a_migration(migrated: Project) -> None:
    migrated.write("shelf/models.py", f"{MODELS}\nclass Loan(models.Model):\n    pass\n")
    observe(migrated, "Loan")
    assert refusal(migrated) == (
        "Database 'default' lacks table \"shelf_loan\": no migration makes it yet. Run `manage.py makemigrations "
        "shelf`, and then `manage.py migrate`."
    )
    install = migrated.manage("djcrf_pg", "install").stderr
    assert "no migration makes it yet. Run `manage.py makemigrations shelf`" in install


def test_a_relation_without_a_migration(migrated: Project) -> None:
    models = MODELS.replace("class Book", "class Shop(models.Model):\n    pass\n\nclass Book")
    migrated.write("shelf/models.py", f"{models}    shops = models.ManyToManyField(Shop)\n")
    observe(migrated, "Book", ', many_to_many=["shops"]')
    assert '"shelf_book_shops": no migration makes it yet. Run `manage.py makemigrations shelf`' in refusal(migrated)


def test_a_migration_that_is_not_applied(project: Project) -> None:
    observe(project, "Book")
    project.manage("migrate", "djcrf_pg", "--verbosity", "0")
    assert refusal(project) == (
        "Database 'default' lacks table \"shelf_book\": a migration of shelf makes it, and is not applied: run "
        "`manage.py migrate`."
    )


def test_a_migration_that_is_written_while_the_process_runs(migrated: Project) -> None:
    """The files are looked at each time: what `makemigrations` has done is not asked for again."""
    migrated.write("shelf/models.py", f"{MODELS}\nclass Loan(models.Model):\n    pass\n")
    code = (
        "from django.core.management import call_command\n"
        "from djcrf_pg.diagnosis import without_tables\n"
        "print(without_tables('default', ['shelf_loan']))\n"
        "call_command('makemigrations', 'shelf', verbosity=0)\n"
        "print(without_tables('default', ['shelf_loan']))\n"
    )
    before, after = migrated.manage("shell", "-v", "0", "-c", code).stdout.splitlines()
    assert "no migration makes it yet" in before
    assert "is not applied: run `manage.py migrate`" in after


def test_a_log_and_a_table_in_another_schema(migrated: Project) -> None:
    observe(migrated, "Book")
    migrated.rows('CREATE SCHEMA "Else"')
    migrated.rows('ALTER TABLE shelf_book SET SCHEMA "Else"')
    assert 'There is one in schema "Else", which comes too late in the search_path of this connection' in refusal(
        migrated
    )
    migrated.rows('ALTER TABLE djcrf_pg_change SET SCHEMA "Else"')
    said = refusal(migrated)
    assert said.startswith(
        "Database 'default' lacks the change log djcrf_pg_change where this connection looks for it."
    )
    assert "OPTIONS = {'options': '-c search_path=\"Else\"'}" in said


def test_a_role_that_may_not_use_the_schema(migrated: Project, role: dict[str, str]) -> None:
    observe(migrated, "Book")
    assert "role 'shelf_guest' may not use: GRANT USAGE ON SCHEMA public TO shelf_guest." in refusal(migrated, role)


def test_a_role_without_rights_on_the_log(migrated: Project, role: dict[str, str]) -> None:
    observe(migrated, "Book")
    migrated.rows("GRANT USAGE ON SCHEMA public TO shelf_guest")
    said = refusal(migrated, role)
    assert "role 'shelf_guest' lacks a right (permission denied for table djcrf_pg_interest)" in said
    assert "GRANT SELECT, INSERT, UPDATE ON djcrf_pg_interest TO shelf_guest." in said
    # The GRANT works, and the next right that is missing is named in its turn, in the end one of the listener.
    grants = []
    for _ in range(5):
        grants.append(said[said.index("GRANT") :].partition(". See")[0])
        migrated.rows(grants[-1])
        said = refusal(migrated, role)
    assert len(set(grants)) == len(grants)
    assert any("djcrf_pg_change" in grant for grant in grants)


def test_migrate_as_a_role_without_rights_on_the_log(migrated: Project, role: dict[str, str]) -> None:
    migrated.rows("GRANT USAGE ON SCHEMA public TO shelf_guest")
    migrated.rows("GRANT ALL ON django_migrations, django_content_type, auth_permission TO shelf_guest")
    result = ManagePy.run("migrate", env={**migrated.env(), **role}, check=False)
    said = result.stderr.splitlines()[-1]
    assert said.startswith(
        "CommandError: In database 'default', role 'shelf_guest' lacks a right (permission denied for "
    )
    assert "GRANT SELECT, UPDATE ON SEQUENCE djcrf_pg_listener_awake TO shelf_guest." in said
    assert "Traceback" not in result.stderr


def test_commands_as_a_role_without_rights_on_the_log(migrated: Project, role: dict[str, str]) -> None:
    migrated.rows("GRANT USAGE ON SCHEMA public TO shelf_guest")
    said = ManagePy.run("djcrf_pg", "failures", env={**migrated.env(), **role}, check=False).stderr
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON djcrf_pg_failure TO shelf_guest." in said
