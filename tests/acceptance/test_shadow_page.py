"""The page of shadow mode in the admin, of a project that is in shadow mode."""

import html
import re
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.board import Board
from tests.acceptance.test_shadow import BOOKS, SHADOW, Shelf, prepare, serving
from tests.project import SETTINGS, Project

ADMIN = """
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS += [f"django.contrib.{app}" for app in ("admin", "messages", "sessions")]
MIDDLEWARE, TEMPLATES = base.MIDDLEWARE, base.TEMPLATES
ROOT_URLCONF = "shelf_urls"
"""

URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""

READ = """
from django.contrib.auth.models import User
from django.test import Client

user, _ = User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)
client = Client()
client.force_login(user)
print(client.get("/admin/djcrf_pg/changelog/{page}").content.decode())
"""


@pytest.fixture
def shelf(project: Project, open_board: Callable[..., Board]) -> Iterator[Shelf]:
    project.write("shelf_settings.py", SETTINGS + ADMIN)
    project.write("shelf_urls.py", URLS)
    prepare(project)
    with serving(project, open_board) as shelf:
        yield shelf


def read(shelf: Shelf, page: str = "shadow/") -> str:
    """A page as people read it, from a process of its own."""
    shown = shelf.project.manage("shell", "--verbosity", "0", "-c", READ.format(page=page), settings=SHADOW).stdout
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", shown.partition('id="content-main"')[2]).split()))


def test_what_was_compared_is_on_the_page_without_what_is_excluded(shelf: Shelf) -> None:
    found = read(shelf)
    assert "Nothing was compared yet." in found
    assert "Nobody leads" not in found
    shelf.run("Book.objects.create(title='alpha', secret='hidden one')")
    shelf.find({("equal", ""): 1})
    shelf.run("Book.objects.bulk_create([Book(title='amber', secret='hidden two')])")
    shelf.find({("equal", ""): 1, ("missed", "create"): 1})
    found = read(shelf)
    assert f"{BOOKS} shelf.Book: 1 equal" in found
    assert "missed by signals create 1" in found
    assert "Signals sent nothing" in found
    assert '"amber"' in found
    assert '"(left out)"' in found
    assert "hidden" not in found
    assert "Shadow" in read(shelf, "log/").split()
