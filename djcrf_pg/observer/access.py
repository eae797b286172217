"""Consumers that let everybody in, because nobody says who comes.

Where a scope has no user, DCRF asks permissions of REST framework with the class ``AnonymousUser`` in place of an
instance (``scope_utils.request_from_scope``), and ``AnonymousUser.is_authenticated`` is a property, which counts as
true. ``IsAuthenticated`` of REST framework then admits anybody. DCRF's own asks the scope, and admits nobody.
"""

import inspect
import weakref
from collections.abc import Iterator
from typing import Any

from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from djangochannelsrestframework.consumers import AsyncAPIConsumer
from rest_framework.permissions import AllowAny, BasePermission

from djcrf_pg.observations import UserMissing, emit

#: What stands around consumers and says nothing of a user.
_KNOWN = (CookieMiddleware, OriginValidator, SessionMiddleware)

_said: weakref.WeakSet[type] = weakref.WeakSet()


def warn_of_no_user(consumer_class: type) -> None:
    """Say once of a consumer class whose scope has no user that its permissions take everybody for authenticated."""
    if consumer_class in _said:
        return
    _said.add(consumer_class)
    if (permission := deceived(consumer_class)) is not None:
        name = f"{consumer_class.__module__}.{consumer_class.__qualname__}"
        emit(UserMissing(consumer=name, permission=permission))


def deceived(consumer_class: Any) -> str | None:
    """A permission of a consumer class that is asked with the class ``AnonymousUser``; None where there is none."""
    if not issubclass(consumer_class, AsyncAPIConsumer):
        return None
    for permission in getattr(consumer_class, "permission_classes", None) or ():
        for part in _parts(permission):
            if inspect.isclass(part) and issubclass(part, BasePermission) and not issubclass(part, AllowAny):
                return f"{part.__module__}.{part.__qualname__}"
    return None


def _parts(permission: Any) -> Iterator[Any]:
    """A permission, or those that it is composed of with ``&``, ``|`` and ``~``."""
    operands = [getattr(permission, name) for name in ("op1_class", "op2_class") if hasattr(permission, name)]
    if not operands:
        yield permission
    for operand in operands:
        yield from _parts(operand)


def unguarded(application: Any) -> Iterator[type[AsyncConsumer]]:
    """The consumer classes that an ASGI application serves with nothing around them that could know the user.

    Args:
        application: What ``ASGI_APPLICATION`` names. Middleware that is not known may know the user.
    """
    if isinstance(application, ProtocolTypeRouter):
        inner = [application.application_mapping.get("websocket")]
    elif isinstance(application, URLRouter):
        inner = [getattr(route, "callback", None) for route in application.routes]
    elif type(application) in _KNOWN:
        inner = [getattr(application, name, None) for name in ("inner", "application")]
    else:
        consumer_class = getattr(application, "consumer_class", None)
        if inspect.isclass(consumer_class):
            yield consumer_class
        return
    for each in inner:
        if each is not None:
            yield from unguarded(each)
