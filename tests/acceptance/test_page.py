"""A page that Django renders prints a cursor, and its script subscribes from there: nothing is missed or told twice."""

import html
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.test import Client as Browser
from django.test import override_settings
from django.urls import path
from django.views.generic import ListView

from djcrf_pg import consistent_read
from djcrf_pg.exceptions import ReadError
from djcrf_pg.listener import embedded
from tests.acceptance.test_listing import Client
from tests.testapp.models import Task

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

PAGE = """{% load djcrf_pg %}<ul data-cursor="{% cursor %}">{% for task in tasks %}
<li data-pk="{{ task.pk }}">{{ task.points }}</li>{% endfor %}</ul>"""


def read(request: HttpRequest) -> dict[str, object]:
    """What the page shows; others write while the view has it, and a lazy queryset is read by the template."""
    tasks = Task.objects.filter(status="todo")
    if "lazy" not in request.GET:
        len(tasks)
    writer = threading.Thread(target=write_meanwhile)
    writer.start()
    writer.join()
    return {"tasks": tasks}


def write_meanwhile() -> None:
    Task.objects.filter(title="before").update(points=1)
    Task.objects.create(title="meanwhile", points=2)
    connections.close_all()


def rendered(request: HttpRequest) -> HttpResponse:
    with consistent_read():
        return render(request, "page.html", read(request))


def rendered_response(request: HttpRequest) -> HttpResponse:
    with consistent_read():
        return TemplateResponse(request, "page.html", read(request)).render()


class Recipe(ListView):  # type: ignore[type-arg]
    """As in the documentation."""

    template_name = "page.html"
    context_object_name = "tasks"

    def get_queryset(self) -> Any:
        """The same rows."""
        return read(self.request)["tasks"]

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Render in the block."""
        with consistent_read():
            return super().get(request, *args, **kwargs).render()  # type: ignore[attr-defined, no-any-return]


def returned_response(request: HttpRequest) -> HttpResponse:
    """Django renders it when the block has ended."""
    with consistent_read():
        return TemplateResponse(request, "page.html", read(request))


urlpatterns = [path(f"{view.__name__}/", view) for view in (rendered, rendered_response, returned_response)]
urlpatterns += [path("list_view/", Recipe.as_view())]


@pytest.fixture(autouse=True)
def templates() -> Iterator[None]:
    """The page. And the thread of sync_to_async keeps a connection."""
    loader = ("django.template.loaders.locmem.Loader", {"page.html": PAGE})
    backend = "django.template.backends.django.DjangoTemplates"
    with override_settings(TEMPLATES=[{"BACKEND": backend, "OPTIONS": {"loaders": [loader]}}]):
        yield
    async_to_sync(sync_to_async(connections.close_all))()


@pytest.mark.parametrize("url", ["/rendered/", "/rendered/?lazy", "/rendered_response/?lazy", "/list_view/?lazy"])
async def test_a_script_that_subscribes_since_the_cursor_of_its_page_gets_what_was_written_after_the_read(
    url: str,
) -> None:
    before = await Task.objects.acreate(title="before")
    page = (await sync_to_async(Browser().get)(url)).content.decode()
    client = Client("todo")
    client.rows = {int(pk): int(points) for pk, points in re.findall(r'data-pk="(\d+)">(\d+)<', page)}
    assert client.rows == {before.pk: 0}, "the snapshot's"
    (cursor,) = re.findall(r'data-cursor="(.*?)"', page)
    after = await Task.objects.acreate(title="after", points=3)
    await client.connect()
    await client.list(since=html.unescape(cursor))
    told = [await client.next() for _ in range(3)]
    assert sorted(each["event"] for each in told) == ["create", "create", "update"]
    meanwhile = await Task.objects.aget(title="meanwhile")
    assert client.rows == {before.pk: 1, meanwhile.pk: 2, after.pk: 3}
    live = await Task.objects.acreate(title="live")
    assert (await client.next())["body"]["id"] == live.pk
    assert await client.nothing()
    await client.drop()
    await embedded.close_all()


def test_a_response_that_is_rendered_behind_the_block_is_an_error_that_names_the_fix() -> None:
    with pytest.raises(ReadError, match=r"TemplateResponse is rendered when .* return response\.render\(\)"):
        Browser().get("/returned_response/")
