"""The Django app: the drop-in, the checks, and the triggers that ``migrate`` installs."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.db import DatabaseError
from django.db.models.signals import post_migrate

from djcrf_pg.pages import see


class DjcrfPgConfig(AppConfig):
    """Add ``"djcrf_pg"`` to ``INSTALLED_APPS``; that is all."""

    name = "djcrf_pg"
    label = "djcrf_pg"
    verbose_name = "Change log for live updates"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See that the database driver is there.

        Raises:
            ImproperlyConfigured: psycopg cannot be imported.
        """
        # Here, because no model of any app has been imported yet. The first one that is loads Django's backend, which
        # complains of the lack of psycopg2, whatever is wrong with psycopg.
        _require_psycopg()
        super().__init__(*args, **kwargs)

    def import_models(self) -> None:
        """Take over DCRF's names, before any app's ``ready()`` can import a consumers module."""
        super().import_models()
        raw = getattr(settings, "DJCRF_PG", {})
        # A wrong setting is reported by the checks, which need a project that loads.
        given = raw if isinstance(raw, Mapping) else {}
        if (shadow := given.get("SHADOW") is True) or given.get("DROP_IN", True):
            from djcrf_pg.observer.drop_in import take_over

            take_over(shadow=shadow)

    def ready(self) -> None:
        """Register the checks, look after connections, and install triggers after each ``migrate``."""
        from djcrf_pg import checks
        from djcrf_pg.writer import cursors

        checks.register_all()
        cursors.install()
        post_migrate.connect(_install, sender=self, dispatch_uid="djcrf_pg.install")


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        why = " ".join(str(error).split())
        raise ImproperlyConfigured(
            f"djcrf_pg needs psycopg, version 3, and Python ({sys.executable}) cannot import it: {why}. Run "
            f"`pip install 'psycopg[binary]'` there, which brings libpq along. psycopg2 does not take its place. "
            f"{see('tutorial/from-nothing.md#2-the-files')}"
        ) from None


def _install(*, using: str, verbosity: int = 1, stdout: Any = None, **kwargs: Any) -> None:
    from djcrf_pg.capture.install import VERBS, absent, install, log_schema, refuse_others, refuse_unfit
    from djcrf_pg.capture.objects import look, prepare
    from djcrf_pg.capture.tenancy import refuse_tenants
    from djcrf_pg.conf import get_settings
    from djcrf_pg.diagnosis import denied, without_migration, without_tables
    from djcrf_pg.discovery import discover
    from djcrf_pg.exceptions import DjcrfPgError

    def say(lines: Iterable[str]) -> None:
        for line in lines:
            if verbosity >= 1:
                # Django's commands hand on where they write to; `flush` does not.
                (stdout or sys.stdout).write(f"{line}\n")

    try:
        if log_schema(using) is not None:
            refuse_tenants(using)
        prepare(using)
        if get_settings().AUTO_INSTALL:
            discover()
            say(f"  triggers: {step.table.name} {VERBS[step.state]}" for step in install(using))
            if log_schema(using) is not None and (unmade := without_migration(absent(using))):
                say([f"  {without_tables(using, unmade)}"])
        look(using)
        if get_settings().AUTO_INSTALL:
            refuse_unfit(using)
            refuse_others(using)
    except DjcrfPgError as error:
        raise CommandError(str(error)) from error
    except DatabaseError as error:
        if (why := denied(error, using)) is None:
            raise
        raise CommandError(why) from error
