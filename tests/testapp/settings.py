"""Settings of the test application, in the tests and in the processes that they start.

Reading them starts no server: where ``DJCRF_PG_TEST_DSN`` is not set, the fixture ``pg`` fills the address
in. `tests.servers.app_env` sets the variables.
"""

import json
import os
from typing import Any

from tests import servers

SECRET_KEY = "only for tests"
DEBUG = False
USE_TZ = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.testapp.urls"
ASGI_APPLICATION = "tests.testapp.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.postgres",
    "channels",
    "rest_framework",
    "djangochannelsrestframework",
    "djcrf_pg",
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "tests.testapp",
    "tests.decodeapp",
    "tests.zoo",
]

# For the admin.
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
STATIC_URL = "/static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_server = servers.postgres_from_environment() or servers.PgParams("", 5432, "postgres", "", "postgres")
_name = os.environ.get(servers.DBNAME) or _server.dbname
DATABASES = {
    "default": _server.database(_name).django(),
    # A second database with a change log and a listener of its own.
    "second": _server.database(f"{_name}_second").django(),
    # A model that a router has on another vendor keeps DCRF's signals.
    "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
if servers.POOLER in os.environ:
    # What has a pooler in front, and the way around it.
    DATABASES["direct"] = DATABASES["default"]
    _pooler = servers.PgParams.from_dsn(os.environ[servers.POOLER]).database(_name).django()
    DATABASES["default"] = {**_pooler, "DISABLE_SERVER_SIDE_CURSORS": True}
DATABASE_ROUTERS = ["tests.testapp.routers.Router"]
SILENCED_SYSTEM_CHECKS = ["djcrf_pg.W021"]  # signals will do for notes

CHANNEL_LAYERS: dict[str, Any] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if servers.REDIS in os.environ:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [os.environ[servers.REDIS]]},
        }
    }
if servers.LAYERS in os.environ:
    CHANNEL_LAYERS = json.loads(os.environ[servers.LAYERS])

if servers.SETTINGS in os.environ:
    DJCRF_PG: dict[str, Any] = json.loads(os.environ[servers.SETTINGS])

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "djcrf_pg": {"level": "DEBUG"},
        "daphne": {"level": "INFO"},  # says when it is ready
    },
}
