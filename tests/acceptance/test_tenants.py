"""A schema for each tenant is not supported: that is said by name, and nobody's triggers are touched."""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from tests.acceptance.board import Board
from tests.project import SETTINGS as SHELF
from tests.project import Project
from tests.servers import AsgiServer

pytestmark = pytest.mark.processes

SETTINGS = """
from shelf_settings import *

DATABASES["default"]["ENGINE"] = "django_tenants.postgresql_backend"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
TENANT_MODEL, TENANT_DOMAIN_MODEL = "landlord.Tenant", "landlord.Domain"
SHARED_APPS = ["django_tenants", "landlord", *INSTALLED_APPS[:-1]]
TENANT_APPS = ["shelf"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
MIGRATION_MODULES = {"landlord": None}
"""

LANDLORD = """
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin

class Tenant(TenantMixin):
    auto_create_schema = True

class Domain(DomainMixin):
    pass
"""

TENANTS = """
from landlord.models import Tenant
for name in ("north", "south"):
    Tenant.objects.create(schema_name=name)
"""

CONSUMERS = """
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

from shelf.models import Book

class Shelf(GenericAsyncAPIConsumer):
    @model_observer(Book)
    async def books(self, message, **kwargs):
        await self.send_json({"body": message})

    @action()
    async def subscribe(self, **kwargs):
        await self.books.subscribe()
        return None, 201
"""

ASGI = """
from django.core.asgi import get_asgi_application
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from shelf.consumers import Shelf

websocket = URLRouter([path("ws/shelf/", Shelf.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
"""

#: A trigger as a project with a migration for it would have in the schema of one tenant.
TRIGGER = """
CREATE TRIGGER djcrf_pg_insert AFTER INSERT ON north.shelf_book REFERENCING NEW TABLE AS djcrf_pg_new
FOR EACH STATEMENT EXECUTE FUNCTION public.djcrf_pg_capture_insert_v1()
"""

SIGNALS = {"DROP_IN": False}

NAMED = (
    "Database 'default' has a schema for each tenant, which djcrf_pg does not support yet: "
    "django_tenants.postgresql_backend.base.DatabaseWrapper sets search_path with each cursor"
)


@pytest.fixture
def tenants(project: Project) -> Project:
    """A project with django-tenants and two tenants, of the time when its observers were DCRF's; one has a trigger."""
    project.settings = "tenants_settings"
    project.write("tenants_settings.py", SETTINGS)
    project.write("landlord/__init__.py", "")
    project.write("landlord/models.py", LANDLORD)
    project.write("shelf/consumers.py", CONSUMERS)
    project.write("shelf_asgi.py", ASGI)
    project.manage("migrate_schemas", "--shared", "--run-syncdb", "--verbosity", "0", settings=SIGNALS)
    project.manage("shell", "--no-imports", "-c", TENANTS, settings=SIGNALS)
    project.rows(TRIGGER)
    return project


def refused(result: "CompletedProcess[str]") -> str:
    """What a command says that ends with an error."""
    assert result.returncode != 0, result.stdout
    return f"{result.stdout}{result.stderr}"


COMMANDS = [
    ("check",),
    ("migrate_schemas",),
    ("migrate_schemas", "--skip-checks"),
    ("migrate_schemas", "--skip-checks", "--schema", "south"),
    ("djcrf_pg", "install"),
    ("djcrf_pg", "status"),
]


def test_each_command_says_by_name_what_is_not_supported_and_touches_no_trigger(tenants: Project) -> None:
    before = tenants.triggers()
    assert before == {("north.shelf_book", "djcrf_pg_insert")}
    for command in COMMANDS:
        said = refused(tenants.manage(*command, check=False))
        assert NAMED in said, command
        assert "Traceback" not in said, command
        assert "djcrf_pg.W00" not in said, "nothing leads astray"
    # Also where `migrate` installs no triggers.
    said = refused(tenants.manage("migrate_schemas", "--skip-checks", settings={"AUTO_INSTALL": False}, check=False))
    assert NAMED in said
    assert tenants.triggers() == before


def test_a_migration_of_triggers_says_so_too(tenants: Project) -> None:
    settings = {"AUTO_INSTALL": False}
    tenants.manage("djcrf_pg", "makemigrations", "shelf", settings=settings)
    command = ("migrate_schemas", "--skip-checks", "--schema", "south")
    said = refused(tenants.manage(*command, settings=settings, check=False))
    assert NAMED in said
    assert tenants.triggers() == {("north.shelf_book", "djcrf_pg_insert")}


def test_a_subscription_is_refused_by_name(tenants: Project, open_board: Callable[..., Board]) -> None:
    with AsgiServer(tenants.env(), application="shelf_asgi:application") as server:
        board = open_board(server, "shelf")
        for _ in range(2):
            (error,) = board.call("subscribe")["errors"]
            assert NAMED in error
            assert "'DROP_IN': False" in error


def test_observers_of_signals_go_on_and_the_rest_of_djcrf_pg_can_be_removed(tenants: Project) -> None:
    tenants.manage("check", settings=SIGNALS)
    tenants.manage("migrate_schemas", "--verbosity", "0", settings=SIGNALS)
    tenants.manage("djcrf_pg", "uninstall")
    assert tenants.triggers() == set()


# -- other ways to several schemas ---------------------------------------------------------------------------

BY_ENVIRONMENT = f"""{SHELF}
import os
DATABASES["default"]["OPTIONS"]["options"] = f"-c search_path={{os.environ['SEARCH_PATH']}}"
"""


def test_no_install_touches_the_triggers_of_a_schema_that_another_search_path_reaches(
    migrated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ("shelf_author", "shelf_book", "shelf_book_authors")
    migrated.rows("CREATE SCHEMA north")
    migrated.rows("CREATE SCHEMA south")
    for table in tables:
        migrated.rows(f"ALTER TABLE {table} SET SCHEMA north")
        migrated.rows(f"CREATE TABLE south.{table} (LIKE north.{table} INCLUDING ALL)")
    north = migrated.triggers()
    assert {table for table, _ in north} == {"north.shelf_book", "north.shelf_book_authors"}
    migrated.write("shelf_settings.py", BY_ENVIRONMENT)
    south = {(table.replace("north", "south"), name) for table, name in north}
    for search_path in ("south,public", "north,public", "south,north,public"):
        monkeypatch.setenv("SEARCH_PATH", search_path)
        migrated.manage("migrate", "--verbosity", "0")
        assert migrated.triggers() == north | south
        migrated.manage("djcrf_pg", "status", "--check")
    # What nobody observes by any of them goes.
    migrated.write("shelf/consumers.py", "")
    migrated.manage("migrate", "--verbosity", "0")
    assert migrated.triggers() == set()
