"""Import what defines the project's observers, in a process that serves no consumer itself."""

import os
import sysconfig
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import module_has_submodule

from djcrf_pg.exceptions import ConfigurationError, ObserverError

#: Where code is that is not the project's: what is installed, and what comes with Python.
_INSTALLED = [Path(path) for path in {*sysconfig.get_paths().values()}]


def discover() -> None:
    """Import the ``consumers`` module of each app, and the ASGI application.

    Raises:
        ConfigurationError: One of them cannot be imported. It must not be passed over: a table whose
            observers are unknown would lose its triggers.
    """
    for error in failures():
        raise error


def failures() -> Iterator[ConfigurationError]:
    """What :func:`discover` raises, for each module that cannot be imported. The others are imported as well."""
    places = set()
    for app in apps.get_app_configs():
        name = f"{app.name}.consumers"
        try:
            import_module(name)
        except Exception as error:
            if module_has_submodule(app.module, "consumers"):
                places.add(_place(error))
                yield _failure(f"djcrf_pg looks for observers in {name}", error)
    path = getattr(settings, "ASGI_APPLICATION", None)
    if path and "." not in path:
        yield ConfigurationError(
            f"ASGI_APPLICATION = {path!r} names a module and nothing in it: write 'module.attribute', such as "
            f"'{path}.application'."
        )
    elif path:
        try:
            import_module(path.rpartition(".")[0])
        except Exception as error:
            if _place(error) not in places:  # else it imports what cannot be imported
                yield _failure(f"djcrf_pg looks for observers behind ASGI_APPLICATION = {path!r}", error)


def _failure(start: str, error: Exception) -> ConfigurationError:
    said = _said(error)
    failure = ConfigurationError(f"{start}, which cannot be imported: {type(said).__name__}: {said} ({_place(error)}).")
    failure.__cause__ = error
    return failure


def _said(error: Exception) -> BaseException:
    """What went wrong: before Python 3.12, what ``__set_name__`` raises is only the cause of a RuntimeError."""
    cause = error.__cause__
    return cause if type(error) is RuntimeError and isinstance(cause, ObserverError) else error


def _place(error: Exception) -> str:
    """The file and the line of the project that an error comes from; else those of the code that raised it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    theirs = [frame for frame in frames if not _is_installed(Path(frame.filename))]
    frame = (theirs or frames)[-1]
    return f"{_shown(frame.filename)}, line {frame.lineno}"


def _is_installed(path: Path) -> bool:
    return Path(__file__).parent in path.parents or any(root in path.parents for root in _INSTALLED)


def _shown(filename: str) -> str:
    path = Path(filename)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
