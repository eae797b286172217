"""The management commands of the test application: ``python -m tests.manage migrate``.

Run by hand without ``DJCRF_PG_TEST_DSN`` it starts a PostgreSQL server for as long as the command lasts.
"""

import os
import sys

from django.core.management import execute_from_command_line

from tests import servers

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.testapp.settings")
    servers.postgres()
    execute_from_command_line(sys.argv)
