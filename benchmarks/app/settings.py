"""Settings of the application, from the environment that `tests.servers.app_env` makes."""

import json
import os
from importlib.util import find_spec
from typing import Any

from tests import servers

SECRET_KEY = "only for benchmarks"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "benchmarks.app.urls"
ASGI_APPLICATION = "benchmarks.app.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "channels", "rest_framework"]
INSTALLED_APPS += ["djangochannelsrestframework", "djcrf_pg", "benchmarks.app"]
MIGRATION_MODULES = {"bench": None}
if find_spec("pgpubsub"):
    INSTALLED_APPS += ["pgtrigger", "pgpubsub"]
    # The application has no migrations that could have its triggers.
    PGTRIGGER_MIGRATIONS = False
    PGTRIGGER_INSTALL_ON_MIGRATE = True

_server = servers.postgres_from_environment() or servers.PgParams("", 5432, "postgres", "", "postgres")
DATABASES = {"default": _server.database(os.environ.get(servers.DBNAME) or _server.dbname).django()}
CHANNEL_LAYERS: dict[str, Any] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if servers.LAYERS in os.environ:
    CHANNEL_LAYERS = json.loads(os.environ[servers.LAYERS])

# Not the drop-in: DCRF's own observer is measured beside ours.
DJCRF_PG: dict[str, Any] = {
    "DROP_IN": False,
    "EMBEDDED": False,
    **json.loads(os.environ.get(servers.SETTINGS, "{}")),
}
# Our listener's process has no observer of DCRF's: its receiver of `post_init` would cost each instance that we make.
BENCH_SIGNALS = os.environ.get("BENCH_SIGNALS", "1") == "1"
BENCH_GROUPS = int(os.environ.get("BENCH_GROUPS", "1000"))
BENCH_OBSERVERS = int(os.environ.get("BENCH_OBSERVERS", "1"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"djcrf_pg": {"level": "INFO"}},
}
