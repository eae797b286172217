"""Settings of the oracle's processes: the test application, and the oracle's consumer."""

from tests.testapp.settings import *  # noqa: F403
from tests.testapp.settings import INSTALLED_APPS, LOGGING

INSTALLED_APPS = [*INSTALLED_APPS, "tests.oracle"]
ASGI_APPLICATION = "tests.oracle.asgi.application"

# A line for each batch would be gigabytes in an hour.
# What a layer drops is counted by these lines; see `tests.oracle.world.DROPS`.
_INFO = ("djcrf_pg", "channels_redis.core", "tests.testapp.layers")
LOGGING = {**LOGGING, "loggers": {name: {"level": "INFO"} for name in _INFO}}
