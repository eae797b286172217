"""The middleware that gives the changes of a request its user and its id."""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import empty

from djcrf_pg.writer.context import context

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")


class ContextMiddleware:
    """Run each request in ``djcrf_pg.context(user=…, request_id=…)``.

    Put ``"djcrf_pg.middleware.ContextMiddleware"`` into ``MIDDLEWARE``, anywhere; ``user`` is there if
    ``AuthenticationMiddleware`` is.

    - ``user``: the primary key of ``request.user`` at the time of the write (a view may log somebody in), null
      if there is none. It is asked for when something is written, so a request that only reads costs no query.
    - ``request_id``: the header ``X-Request-ID``, or a new UUID where there is none or it is not 1 to 200
      printable ASCII characters. The client chooses the header unless a proxy sets it: it is a label, no proof.

    What a streaming response writes while it is sent comes after the middleware, and carries no context.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._call_async(request)
        with _context_of(request):
            return self.get_response(request)

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        with _context_of(request):
            response: Any = self.get_response(request)
            return await response  # type: ignore[no-any-return]


def _context_of(request: HttpRequest) -> context:
    given = request.headers.get("X-Request-ID", "")
    return context(user=_User(request), request_id=given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4()))


class _User:
    """The primary key of a request's user, asked for as late as possible."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def __call__(self) -> Any:
        """The key now; loads the session and the user if nobody has yet."""
        return getattr(getattr(self._request, "user", None), "pk", None)

    def peek(self) -> Any:
        """The key, or None if it would have to be loaded."""
        user = getattr(self._request, "user", None)
        return None if getattr(user, "_wrapped", user) is empty else self()
