"""The test application with ``ATOMIC_REQUESTS``."""

from tests.testapp.settings import *  # noqa: F403

for _database in DATABASES.values():  # noqa: F405
    _database["ATOMIC_REQUESTS"] = True
