"""Make ``from djangochannelsrestframework.observer import model_observer`` mean the trigger-driven one."""

import weakref
from importlib import import_module
from types import MethodType
from typing import Any

from django.db.models.signals import post_save

from djcrf_pg.observer import ModelObserver, model_observer, shadowed
from djcrf_pg.observer.dcrf import DCRFModelObserver
from djcrf_pg.observer.generics import ObserverModelInstanceMixin
from djcrf_pg.registry import is_postgresql

_NAMES: dict[str, dict[str, Any]] = {
    "djangochannelsrestframework.observer": {
        "ModelObserver": ModelObserver,
        "model_observer": model_observer,
    },
    "djangochannelsrestframework.observer.model_observer": {"ModelObserver": ModelObserver},
    "djangochannelsrestframework.observer.generics": {
        "ModelObserver": ModelObserver,
        "ObserverModelInstanceMixin": ObserverModelInstanceMixin,
    },
}


def take_over(*, shadow: bool = False) -> None:
    """Put our classes under DCRF's names. Whoever imported DCRF's before keeps them: see :func:`early_birds`.

    Args:
        shadow: Only that of observers, and one that does as DCRF's.
    """
    for module, names in _NAMES.items():
        vars(import_module(module)).update({"ModelObserver": shadowed.ModelObserver} if shadow else names)


def early_birds() -> list[str]:
    """The handlers of PostgreSQL models that still listen to Django's signals.

    Their consumers were imported before :func:`take_over`.
    """
    found = []
    for _, receiver, *_ in post_save.receivers or []:
        # A reference, or with ``weak=False`` the receiver itself, which must not be called.
        function = receiver() if isinstance(receiver, weakref.ref) else receiver
        owner: Any = function.__self__ if isinstance(function, MethodType) else None
        if type(owner) is DCRFModelObserver and is_postgresql(owner.model_cls):
            found.append(f"{owner.func.__module__}.{owner.func.__qualname__}")
    return found
