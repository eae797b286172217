"""A project whose ``AUTH_USER_MODEL`` is its own: it cannot change within a process, so each test has processes."""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.board import Board
from tests.project import Project
from tests.servers import AsgiServer

pytestmark = pytest.mark.processes

SETTINGS = """
from shelf_settings import *

AUTH_USER_MODEL = "shelf.member"
ASGI_APPLICATION = "shelf_asgi.application"
"""

MODELS = """
from django.contrib.auth.models import AbstractUser


class Member(AbstractUser):
    pass

class Staff(Member):
    class Meta:
        proxy = True
"""

# The password is in the table of a parent.
INHERITED = """
from django.contrib.auth.models import AbstractBaseUser, PermissionsMixin
from django.db import models

class Account(AbstractBaseUser):
    email = models.EmailField(unique=True)

class Member(Account, PermissionsMixin):
    USERNAME_FIELD = "email"
"""

CONSUMERS = """
from django.contrib.auth import get_user_model
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer

class Members(GenericAsyncAPIConsumer):
    @model_observer(get_user_model(), many_to_many=True)
    async def members(self, message, action, **kwargs):
        await self.send_json({"action": action, "body": message})

    @members.serializer
    def members(self, instance, action, changed, **kwargs):
        return {"name": instance.username, "changed": changed, "deferred": sorted(instance.get_deferred_fields())}

    @action()
    async def subscribe(self, **kwargs):
        await self.members.subscribe()
        return None, 201
"""

OBSERVES = """
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.observer import model_observer
from {module} import {model}

class Other(GenericAsyncAPIConsumer):
    @model_observer({model})
    async def others(self, message, **kwargs):
        ...
"""

ASGI = """
from django.core.asgi import get_asgi_application
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from shelf.consumers import Members

websocket = URLRouter([path("ws/members/", Members.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
"""

WRITE = """
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
member = get_user_model().objects.create_user("ada", password="secret")
member.groups.add(Group.objects.create(name="readers"))
member.set_password("other")
member.save()
member.delete()
"""


@pytest.fixture
def project(project: Project) -> Project:
    """A project with a user model of its own, an observer of it, and no migrations yet."""
    project.settings = "members_settings"
    project.write("members_settings.py", SETTINGS)
    project.write("shelf/models.py", MODELS)
    project.write("shelf/consumers.py", CONSUMERS)
    project.write("shelf_asgi.py", ASGI)
    (project.folder / "shelf/migrations/0001_initial.py").unlink()
    return project


@pytest.fixture
def server(project: Project) -> Iterator[AsgiServer]:
    """The project, migrated and served."""
    project.manage("makemigrations", "shelf", "--verbosity", "0")
    project.manage("migrate", "--verbosity", "0")
    with AsgiServer(project.env(), application="shelf_asgi:application") as server:
        yield server


def excluded(project: Project) -> dict[str, list[str]]:
    """The columns that never leave each table."""
    lines = json.loads(project.manage("djcrf_pg", "status", "--json").stdout)
    return {line["table"]: line["excluded"] for line in lines}


def test_the_user_model_of_a_project_is_told_with_its_groups_and_without_its_password(
    project: Project, server: AsgiServer, open_board: Callable[..., Board]
) -> None:
    assert {table for table, _ in project.triggers()} == {
        "shelf_member",
        "shelf_member_groups",
        "shelf_member_user_permissions",
    }
    board = open_board(server, "members")
    assert board.call("subscribe")["response_status"] == 201
    project.manage("shell", "-c", WRITE)
    told = board.runner.run(board.client.events(4))
    assert [(message["action"], message["body"]["changed"]) for message in told] == [
        ("create", []),
        ("update", ["groups"]),
        ("update", []),
        ("delete", []),
    ]
    for message in told:
        assert (message["body"]["name"], message["body"]["deferred"]) == ("ada", ["password"])
    images = project.rows("SELECT old::text, new::text FROM djcrf_pg_change")
    assert "ada" in str(images)
    assert "password" not in str(images)


def test_a_proxy_of_the_user_model_hides_the_password_as_well(project: Project) -> None:
    project.write("shelf/consumers.py", OBSERVES.format(module="shelf.models", model="Staff"))
    project.write("shelf_asgi.py", "")
    assert excluded(project) == {"shelf_member": ["password"]}


def test_the_password_is_excluded_in_the_table_that_has_it(project: Project) -> None:
    project.write("shelf/models.py", INHERITED)
    tables = excluded(project)
    assert tables["shelf_account"] == ["password"]
    assert tables["shelf_member"] == []


def test_the_model_that_was_swapped_out_is_refused_by_name(project: Project) -> None:
    project.write("shelf/consumers.py", OBSERVES.format(module="django.contrib.auth.models", model="User"))
    project.write("shelf_asgi.py", "")
    refused = project.manage("djcrf_pg", "status", check=False)
    assert refused.returncode == 1
    assert (
        "@model_observer on shelf.consumers.Other.others: auth.User is swapped out for shelf.member "
        "(AUTH_USER_MODEL), so it has no table: observe get_user_model()."
    ) in refused.stderr


@pytest.mark.parametrize("setting", [{"OBSERVE": ["auth.User"]}, {"EXCLUDE": {"auth.User": ["email"]}}])
def test_a_setting_that_names_the_model_that_was_swapped_out_is_an_error(
    project: Project, setting: dict[str, object]
) -> None:
    checked = project.manage("check", settings=setting, check=False)
    assert checked.returncode == 1
    assert "names 'auth.User', which has no table: it is swapped out for 'shelf.member'" in checked.stderr
