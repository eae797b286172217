"""Every consumer of the apps' ``CONSUMERS`` at ``ws/<its name>/``."""

import os
from importlib import import_module

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.packages.settings")
http = get_asgi_application()  # sets Django up, which the consumers need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.conf import settings  # noqa: E402
from django.urls import path  # noqa: E402

routes = [
    path(f"ws/{name}/", consumer.as_asgi())
    for app in settings.APPS
    for name, consumer in import_module(f"tests.packages.{app}.consumers").CONSUMERS.items()
]
application = ProtocolTypeRouter({"http": http, "websocket": URLRouter(routes)})
