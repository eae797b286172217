"""The demo's ASGI application: HTTP to Django, WebSockets to the DCRF consumer."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
http = get_asgi_application()

# Consumers import models, which need the app registry that the line above has filled.
from board.consumers import BoardConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": ASGIStaticFilesHandler(http),
        "websocket": AllowedHostsOriginValidator(URLRouter([path("ws/board/", BoardConsumer.as_asgi())])),
    }
)
