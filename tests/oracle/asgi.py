"""The ASGI application: the oracle's consumer at ``ws/``."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.oracle.settings")
http = get_asgi_application()  # sets Django up, which the consumers need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from tests.oracle.consumers import OracleConsumer  # noqa: E402

websocket = URLRouter([path("ws/", OracleConsumer.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
