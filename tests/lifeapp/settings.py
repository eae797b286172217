"""Settings of a project that has only this app; its migrations are `migrations` or `squashed`."""

import os
from typing import Any

from tests.testapp.settings import (  # noqa: F401 - they are settings
    CHANNEL_LAYERS,
    DATABASES,
    DEFAULT_AUTO_FIELD,
    LOGGING,
    SECRET_KEY,
    USE_TZ,
)

DATABASES = {"default": DATABASES["default"]}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "channels",
    "rest_framework",
    "djangochannelsrestframework",
    "djcrf_pg",
    "tests.lifeapp",
]
MIGRATION_MODULES = {"lifeapp": os.environ.get("LIFEAPP_MIGRATIONS", "tests.lifeapp.migrations")}
ASGI_APPLICATION = "tests.lifeapp.asgi.application"
DJCRF_PG: dict[str, Any] = {"OBSERVE": ["lifeapp.Item"]}
