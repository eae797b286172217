"""Consumers that let everybody in, since nobody has put a user into their scope."""

from collections.abc import Iterator
from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from django.urls import path
from djangochannelsrestframework import permissions as dcrf
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from rest_framework import permissions

from djcrf_pg.observer import model_observer
from djcrf_pg.observer.access import deceived, unguarded
from tests.testapp.models import Task


class Shop(AsyncAPIConsumer):
    """Is for users."""

    permission_classes: Any = (permissions.IsAuthenticated,)

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None: ...


@pytest.mark.django_db(databases=["default", "lite"])  # DCRF looks after the connections of its thread
async def test_dcrf_asks_rest_framework_with_a_class_for_which_everybody_is_authenticated() -> None:
    """What all of this is about; where it fails, DCRF has mended it."""
    (permission,) = await Shop().get_permissions("list")
    scope = {"type": "websocket", "path": "/", "headers": []}
    assert await permission.has_permission(scope=scope, consumer=Shop(), action="list")
    assert not await dcrf.IsAuthenticated().has_permission(scope, Shop(), "list")  # type: ignore[arg-type]


class Custom(dcrf.BasePermission):
    """Asks the scope itself."""


@pytest.mark.parametrize(
    ("classes", "is_deceived"),
    [
        ((permissions.IsAuthenticated,), True),
        ((permissions.IsAuthenticatedOrReadOnly,), True),
        ((permissions.AllowAny, permissions.IsAdminUser), True),
        ((permissions.IsAuthenticated & permissions.AllowAny,), True),
        ((~permissions.IsAuthenticated,), True),
        ((Custom | permissions.IsAuthenticated,), True),
        ((permissions.AllowAny,), False),
        ((dcrf.AllowAny, dcrf.IsAuthenticated, Custom), False),
        ((Custom & dcrf.IsAuthenticated,), False),
        ((), False),
        (None, False),
    ],
)
def test_permissions_of_rest_framework_are_deceived_and_no_others(classes: Any, is_deceived: bool) -> None:
    consumer = type("Consumer", (AsyncAPIConsumer,), {"permission_classes": classes})
    assert (deceived(consumer) is not None) == is_deceived


def middleware(inner: Any) -> Any:
    """One of the project's."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "user": 1}, receive, send)

    return application


def applications() -> Iterator[tuple[Any, bool]]:
    """ASGI applications, and whether nothing in them could know the user."""
    served = Shop.as_asgi()
    routes = URLRouter([path("", served)])
    yield served, True
    yield ProtocolTypeRouter({"websocket": routes}), True
    yield ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(SessionMiddlewareStack(routes))}), True
    yield ProtocolTypeRouter({"websocket": URLRouter([path("a/", URLRouter([path("", served)]))])}), True
    yield ProtocolTypeRouter({"websocket": AuthMiddlewareStack(routes)}), False
    yield ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(routes))}), False
    yield ProtocolTypeRouter({"websocket": URLRouter([path("", AuthMiddlewareStack(served))])}), False
    yield ProtocolTypeRouter({"websocket": middleware(routes)}), False
    yield ProtocolTypeRouter({"http": served}), False
    yield None, False


@pytest.mark.parametrize(("application", "is_unguarded"), list(applications()))
def test_an_application_is_unguarded_where_nothing_in_it_could_know_the_user(
    application: Any, is_unguarded: bool
) -> None:
    assert list(unguarded(application)) == ([Shop] if is_unguarded else [])
