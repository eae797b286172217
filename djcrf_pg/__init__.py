"""DCRF observers driven by PostgreSQL triggers instead of Django signals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from djcrf_pg.observer.reading import consistent_read
    from djcrf_pg.writer.context import context
    from djcrf_pg.writer.suspend import suspend
    from djcrf_pg.writer.token import transaction_token
    from djcrf_pg.writer.touch import touch

__all__ = ["consistent_read", "context", "suspend", "touch", "transaction_token"]

__version__ = "0.1.0"

# Imported when first asked for: INSTALLED_APPS imports this package before there are settings and apps.
_HOMES = {name: f"djcrf_pg.writer.{name}" for name in ("context", "suspend", "touch")}
_HOMES |= {"transaction_token": "djcrf_pg.writer.token", "consistent_read": "djcrf_pg.observer.reading"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
