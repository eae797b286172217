"""DCRF's names are ours, and DCRF's own classes are kept."""

import importlib
import subprocess
import sys
from typing import Any

import pytest
from django.db.models.signals import m2m_changed, post_delete, post_init, post_save, pre_delete, pre_save

import djcrf_pg.observer
from djcrf_pg.observer import by_hand, drop_in
from djcrf_pg.observer.dcrf import DCRFModelObserver
from tests.testapp.consumers import BoardConsumer, InstanceConsumer
from tests.testapp.models import Task

DCRF = "djangochannelsrestframework.observer"
PATHS = [
    ("djcrf_pg.observer", "observer"),
    ("djcrf_pg.observer", "model_observer"),
    ("djcrf_pg.observer", "ModelObserver"),
    ("djcrf_pg.observer.base_observer", "BaseObserver"),
    ("djcrf_pg.observer.observer", "Observer"),
    ("djcrf_pg.observer.model_observer", "ModelObserver"),
    ("djcrf_pg.observer.generics", "ObserverModelInstanceMixin"),
]


def named(module: str, name: str) -> Any:
    """``from module import name``."""
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("module", "name"), PATHS)
def test_every_import_path_of_dcrf_exists_here_too(module: str, name: str) -> None:
    theirs = module.replace("djcrf_pg.observer", DCRF)
    assert named(module, name) is named(theirs, name), "and with the drop-in it is the same object"


@pytest.mark.parametrize("name", djcrf_pg.observer.__all__)
def test_the_package_has_what_it_promises(name: str) -> None:
    assert callable(named("djcrf_pg.observer", name)), "no submodule has taken the name"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (DCRF, "ModelObserver"),
        (DCRF, "model_observer"),
        (f"{DCRF}.model_observer", "ModelObserver"),
        (f"{DCRF}.generics", "ModelObserver"),
        (f"{DCRF}.generics", "ObserverModelInstanceMixin"),
    ],
)
def test_dcrfs_names_are_ours(module: str, name: str) -> None:
    assert named(module, name).__module__.startswith("djcrf_pg.")


def test_dcrfs_own_classes_are_kept() -> None:
    kept = importlib.import_module("djcrf_pg.observer.dcrf")
    for name in kept.__all__:
        assert getattr(kept, name).__module__.startswith("djangochannelsrestframework."), name
    assert issubclass(djcrf_pg.observer.ModelObserver, DCRFModelObserver)


def test_the_observer_of_signals_is_left_to_dcrf() -> None:
    assert named("djcrf_pg.observer", "observer").__module__.startswith(DCRF)


def test_taking_over_twice_changes_nothing() -> None:
    before = named(DCRF, "model_observer")
    drop_in.take_over()
    assert named(DCRF, "model_observer") is before


def test_a_consumer_written_for_dcrf_is_driven_by_triggers_and_not_by_signals() -> None:
    observer = vars(BoardConsumer)["tasks"]
    assert type(observer) is djcrf_pg.observer.ModelObserver
    assert observer.trigger_driven
    bound = vars(InstanceConsumer)["handle_instance_change"]
    assert type(bound) is djcrf_pg.observer.ModelObserver
    assert (bound.trigger_driven, bound.model_cls) == (True, Task)
    for signal in (pre_delete, post_delete, pre_save, post_init, m2m_changed):
        assert not signal.has_listeners(Task), "not even for signals sent by hand: fast deletes would be gone"
    receivers, _ = post_save._live_receivers(Task)
    assert receivers == [by_hand._saved], "once, however many observe the model"


def test_there_are_no_early_birds() -> None:
    assert drop_in.early_birds() == []


def test_a_consumer_that_was_imported_too_early_is_named() -> None:
    async def too_early(self: Any, message: Any, **kwargs: Any) -> None: ...

    observer = DCRFModelObserver(too_early, model_cls=Task)
    try:
        assert drop_in.early_birds() == [f"{__name__}.{too_early.__qualname__}"]
    finally:
        for signal in (post_init, post_save, post_delete):
            signal.disconnect(sender=Task, dispatch_uid=str(id(observer)))


@pytest.mark.parametrize("taken", [True, False])
def test_the_setting_decides(taken: bool) -> None:
    """In a process of its own, for a name that was taken over cannot be given back."""
    setting = {"DROP_IN": taken}
    code = (
        "import django; from django.conf import settings\n"
        f"settings.configure(DJCRF_PG={setting!r}, CHANNEL_LAYERS=dict(), INSTALLED_APPS=["
        "'django.contrib.contenttypes', 'django.contrib.auth', 'rest_framework', 'djcrf_pg'])\n"
        "django.setup()\n"
        "from djangochannelsrestframework.observer import model_observer\n"
        "from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin as mixin\n"
        "print(model_observer.__module__, mixin.__module__)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    package = "djcrf_pg" if taken else "djangochannelsrestframework"
    assert [name.partition(".")[0] for name in output.split()] == [package, package]


def test_a_receiver_that_is_held_strongly_is_not_called_when_somebody_looks() -> None:
    calls: list[Any] = []

    def receiver(*args: Any, **kwargs: Any) -> None:
        calls.append(args)

    post_save.connect(receiver, weak=False)
    try:
        drop_in.early_birds()
    finally:
        post_save.disconnect(receiver)
    assert not calls
