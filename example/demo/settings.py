"""Settings of the demo: a plain Django, Channels and DCRF project with one line more."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

BASE_DIR = Path(__file__).resolve().parent.parent
# run.py leaves the address of its database here, so that manage.py in another terminal finds it.
DSN_FILE = BASE_DIR / ".demo" / "dsn"


def _database(dsn: str) -> dict[str, object]:
    """Translate a libpq connection string into an entry of `DATABASES`."""
    parts = conninfo_to_dict(dsn)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.pop("dbname", ""),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": parts.pop("port", ""),
        "OPTIONS": parts,
    }


def _dsn() -> str:
    if dsn := os.environ.get("DEMO_DSN"):
        return dsn
    if DSN_FILE.exists():
        return DSN_FILE.read_text().strip()
    raise ImproperlyConfigured(
        "The demo has no database: start example/run.py first (it brings its own PostgreSQL), "
        "or set DEMO_DSN, for example DEMO_DSN=postgresql://user@localhost/demo."
    )


SECRET_KEY = os.environ.get("DEMO_SECRET_KEY", "only-for-the-demo-which-has-no-users-and-no-sessions")
DEBUG = False
# Set by run.py, which knows the address that it serves on.
ALLOWED_HOSTS = os.environ.get("DEMO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "djcrf_pg",  # the line: DCRF's observers now receive every committed change, whoever made it
    "channels",
    "rest_framework",
    "djangochannelsrestframework",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.staticfiles",
    "board",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "demo.urls"
ASGI_APPLICATION = "demo.asgi.application"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
STATIC_URL = "static/"

DATABASES = {"default": _database(_dsn())}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

if redis_url := os.environ.get("REDIS_URL"):
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis_url]}}}
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "short"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("DEMO_LOG_LEVEL", "WARNING")},
}
