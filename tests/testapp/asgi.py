"""The ASGI application: every consumer of `consumers.CONSUMERS` at ``ws/<its name>/``."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.testapp.settings")
http = get_asgi_application()  # sets Django up, which the consumers need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from tests.testapp.bodies import CONSUMERS as BODIES  # noqa: E402
from tests.testapp.consumers import CONSUMERS  # noqa: E402
from tests.testapp.failing import FailingConsumer  # noqa: E402
from tests.testapp.instances import CONSUMERS as INSTANCES  # noqa: E402
from tests.testapp.plain import CONSUMERS as PLAIN  # noqa: E402
from tests.testapp.related import CONSUMERS as RELATED  # noqa: E402
from tests.testapp.roaming import CONSUMERS as ROAMING  # noqa: E402
from tests.testapp.turns import CONSUMERS as TURNS  # noqa: E402
from tests.testapp.twins import CONSUMERS as TWINS  # noqa: E402
from tests.testapp.twins import ChatConsumer  # noqa: E402
from tests.zoo.consumers import CONSUMERS as ZOO  # noqa: E402

consumers = {**CONSUMERS, **BODIES, **INSTANCES, **PLAIN, **RELATED, **ROAMING, **TURNS, **TWINS, **ZOO}
routes = [path(f"ws/{name}/", consumer.as_asgi()) for name, consumer in consumers.items()]
routes.append(path("ws/chat/<room>/", ChatConsumer.as_asgi()))
routes.append(path("ws/failing/<status>/", FailingConsumer.as_asgi()))
websocket = URLRouter(routes)
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
