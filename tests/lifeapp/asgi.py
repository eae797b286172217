"""The consumer at ``ws/items/``."""

from django.core.asgi import get_asgi_application

http = get_asgi_application()  # sets Django up, which the consumer needs

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from tests.lifeapp.consumers import ItemConsumer  # noqa: E402

websocket = URLRouter([path("ws/items/", ItemConsumer.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
