"""Import what defines the project's observers, in a process that serves no consumer itself."""

from importlib import import_module

from django.conf import settings
from django.utils.module_loading import autodiscover_modules

from djcrf_pg.exceptions import ConfigurationError, ObserverError


def discover() -> None:
    """Import the ``consumers`` module of each app, and the ASGI application.

    Raises:
        ConfigurationError: One of them cannot be imported. It must not be passed over: a table whose
            observers are unknown would lose its triggers.
    """
    try:
        autodiscover_modules("consumers")
    except Exception as error:
        raise ConfigurationError(
            f"djcrf_pg looks for observers in each app's consumers module, and one cannot be imported: {_said(error)!r}"
        ) from error
    path = getattr(settings, "ASGI_APPLICATION", None)
    if path:
        try:
            import_module(path.rpartition(".")[0])
        except Exception as error:
            raise ConfigurationError(
                f"djcrf_pg looks for observers behind ASGI_APPLICATION = {path!r}, which cannot be imported: "
                f"{_said(error)!r}"
            ) from error


def _said(error: Exception) -> BaseException:
    """What went wrong: before Python 3.12, what ``__set_name__`` raises is only the cause of a RuntimeError."""
    cause = error.__cause__
    return cause if type(error) is RuntimeError and isinstance(cause, ObserverError) else error
