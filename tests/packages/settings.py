"""Settings of a project with packages: each folder here with a ``models`` module is an app.

No table comes from a migration but ours, so that an app needs none: ``migrate --run-syncdb`` makes them all.
"""

import os
import warnings
from ctypes.util import find_library
from pathlib import Path
from typing import Any

from tests import servers
from tests.testapp.settings import *  # noqa: F403 - they are settings
from tests.testapp.settings import DATABASES

# Packages are slower than Django: what their classes still use of its past is theirs to change.
for category in (DeprecationWarning, PendingDeprecationWarning):
    warnings.simplefilter("ignore", category)

#: Whether the server is Debian's with PostGIS, and GeoDjango finds its libraries; else the app of places is left out.
SPATIAL = (
    os.environ.get(servers.VERSION) == servers.DEBIAN
    and any(Path("/usr/share/postgresql").glob("*/extension/postgis_raster.control"))
    and all(map(find_library, ("gdal", "geos_c")))
)

#: The folders here that are apps.
APPS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/models.py"))

#: What the apps need beside themselves.
PACKAGES = ["parler", "pgcrypto", "polymorphic", "safedelete", "simple_history", "sortedm2m", "taggit"]

if SPATIAL:
    PACKAGES += ["django.contrib.gis", "rest_framework_gis"]
    SILENCED_SYSTEM_CHECKS = ["gis.W001"]  # of a GDAL before 3.9, as Debian has it
else:
    APPS.remove("places")

ROOT_URLCONF = "tests.packages.urls"
ASGI_APPLICATION = "tests.packages.asgi.application"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "channels",
    "rest_framework",
    "djangochannelsrestframework",
    "djcrf_pg",
    *PACKAGES,
    *(f"tests.packages.{app}" for app in APPS),
]
MIGRATION_MODULES = {app.rpartition(".")[2]: None for app in INSTALLED_APPS if app != "djcrf_pg"}
DATABASES = {"default": DATABASES["default"]}
if SPATIAL:
    DATABASES["default"]["ENGINE"] = "django.contrib.gis.db.backends.postgis"
DATABASE_ROUTERS: list[Any] = []

#: Of django-pgcrypto-fields.
PGCRYPTO_KEY = "the key that nobody prints"

DJCRF_PG = {"EXCLUDE": {"trackers.Account": ["pin"], "trackers.Loaded": ["hidden"]}}
