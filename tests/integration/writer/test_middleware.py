"""The middleware: whose request it was that wrote."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path
from django.utils.functional import SimpleLazyObject

from djcrf_pg.middleware import ContextMiddleware
from tests.integration.writer.conftest import Log
from tests.testapp.models import Project, Task

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Loads:
    """A ``request.user`` that counts how often it is loaded, as that of AuthenticationMiddleware is lazy."""

    def __init__(self, user: Any) -> None:
        self.count = 0
        self._user = user
        self.user = SimpleLazyObject(self._load)

    def _load(self) -> Any:
        self.count += 1
        return User.objects.get(pk=self._user.pk)


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create(username="writer")


def write(request: HttpRequest) -> HttpResponse:
    Task.objects.create(title="task")
    return HttpResponse()


def request_with(user: Any = None, **headers: str) -> HttpRequest:
    request = RequestFactory().get("/", headers=headers)
    if user is not None:
        request.user = user
    return request


def test_a_write_carries_the_user_and_the_id_of_its_request(user: User, log: Log):
    loads = Loads(user)
    ContextMiddleware(write)(request_with(loads.user, **{"X-Request-ID": "from-the-proxy"}))
    Project.objects.create(name="after")
    assert log.contexts() == [{"user": user.pk, "request_id": "from-the-proxy"}, None]
    assert loads.count == 1


@pytest.mark.parametrize("given", ["", "x" * 201, "two words", "ünïcode", "line\n"])
def test_a_strange_id_is_replaced(log: Log, given: str):
    ContextMiddleware(write)(request_with(**({"X-Request-ID": given} if given else {})))
    (context,) = log.contexts()
    assert UUID.fullmatch(context["request_id"])
    assert context["user"] is None


def test_every_request_has_an_id_of_its_own(log: Log):
    def create(request: HttpRequest) -> HttpResponse:
        Project.objects.create(name="1")
        Project.objects.create(name="2")
        return HttpResponse()

    for _ in range(2):
        ContextMiddleware(create)(request_with(AnonymousUser()))
    ids = [context["request_id"] for context in log.contexts()]
    assert (ids[0], ids[2]) == (ids[1], ids[3])
    assert len(set(ids)) == 2


def test_a_request_that_only_reads_never_loads_its_user(user: User, django_assert_num_queries: Any):
    def read(request: HttpRequest) -> HttpResponse:
        assert list(Task.objects.filter(title="a")) == []
        assert [row.n for row in Task.objects.raw("SELECT id, pg_backend_pid() AS n FROM testapp_task")] == []
        return HttpResponse()

    loads = Loads(user)
    with django_assert_num_queries(2):
        ContextMiddleware(read)(request_with(loads.user))
    assert loads.count == 0


def test_a_function_that_a_select_calls_carries_a_user_who_is_loaded(user: User, log: Log):
    def call(request: HttpRequest) -> HttpResponse:
        list(Task.objects.raw("SELECT writes() AS id"))
        assert request.user.is_authenticated
        list(Task.objects.raw("SELECT writes() AS id"))
        return HttpResponse()

    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION writes() RETURNS bigint LANGUAGE sql AS "
            "$$ INSERT INTO testapp_project (name) VALUES ('x') RETURNING id $$"
        )
    ContextMiddleware(call)(request_with(Loads(user).user, **{"X-Request-ID": "r"}))
    assert log.contexts() == [{"request_id": "r"}, {"request_id": "r", "user": user.pk}]


def test_a_login_in_the_view_counts_from_there(user: User, log: Log):
    def login(request: HttpRequest) -> HttpResponse:
        Project.objects.create(name="before")
        request.user = user
        Project.objects.create(name="after")
        return HttpResponse()

    ContextMiddleware(login)(request_with(SimpleLazyObject(AnonymousUser)))
    assert [context["user"] for context in log.contexts()] == [None, user.pk]


def test_loading_the_user_may_write(log: Log, user: User):
    def load() -> User:
        Project.objects.create(name="session flushed")
        return user

    ContextMiddleware(write)(request_with(SimpleLazyObject(load), **{"X-Request-ID": "r"}))
    assert log.contexts() == [{"request_id": "r"}, {"request_id": "r", "user": user.pk}]


def test_an_error_ends_it(log: Log):
    def fail(request: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ContextMiddleware(fail)(request_with())
    write(request_with())
    assert log.contexts() == [None]


@pytest.mark.django_db(transaction=True)
async def test_asynchronous_views(transactional_db: None, thread_connections: Iterator[None]):
    log = await sync_to_async(Log)()
    user = await User.objects.acreate(username="writer")

    async def view(request: HttpRequest) -> HttpResponse:
        await Task.objects.acreate(title="task")
        return HttpResponse("done")

    middleware = ContextMiddleware(view)
    assert iscoroutinefunction(middleware)
    request = AsyncRequestFactory().get("/", headers={"X-Request-ID": "r"})
    request.user = Loads(user).user
    response: Any = await middleware(request)  # type: ignore[misc]
    await Project.objects.acreate(name="after")
    assert response.content == b"done"
    assert await sync_to_async(log.contexts)() == [{"user": user.pk, "request_id": "r"}, None]


urlpatterns = [path("write/", write)]


@pytest.mark.urls(__name__)
def test_it_is_part_of_djangos_stack(settings: Any, log: Log):
    settings.MIDDLEWARE = ["djcrf_pg.middleware.ContextMiddleware"]
    assert Client().get("/write/", headers={"X-Request-ID": "r"}).status_code == 200
    assert log.contexts() == [{"user": None, "request_id": "r"}]


@pytest.mark.urls(__name__)
@pytest.mark.django_db(transaction=True)
async def test_it_is_part_of_djangos_asynchronous_stack(
    settings: Any, transactional_db: None, thread_connections: Iterator[None]
):
    settings.MIDDLEWARE = ["djcrf_pg.middleware.ContextMiddleware"]
    log = await sync_to_async(Log)()
    response = await AsyncClient().get("/write/", headers={"X-Request-ID": "r"})
    assert response.status_code == 200
    assert await sync_to_async(log.contexts)() == [{"user": None, "request_id": "r"}]
