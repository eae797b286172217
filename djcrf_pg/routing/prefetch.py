"""Relations of a batch's instances, loaded for all of them at once, for one observer.

Django's ``prefetch_related_objects`` does the work: what a serializer finds is what it would have loaded by itself. The
instances are shared by the observers of their model, and a ``Prefetch`` of one of them may leave rows out, so what was
loaded for one is gone before the next one's turn; and before the next batch, so that memory stays as it was.

What a ``Prefetch`` leaves out may be no business of the subscribers. So where one cannot be had for an instance, there
is no body of it that was made without.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from django.db import InterfaceError, OperationalError, connections
from django.db.models import Model, Prefetch, prefetch_related_objects

from djcrf_pg.observations import PrefetchFailed, emit, text_of
from djcrf_pg.registry import Observed
from djcrf_pg.routing.parents import foreign_keys

#: Where Django keeps what was prefetched of a relation to many.
_MANY = "_prefetched_objects_cache"

#: Observers of which it was said that it failed.
_reported: "WeakSet[Observed]" = WeakSet()


@contextmanager
def prefetched(
    observer: Observed, instances: Iterable[Model], *, forgiving: bool = False
) -> Iterator[Callable[[Model], None]]:
    """Have the relations that an observer's serializer follows loaded, until the end of the block.

    Args:
        observer: The observer.
        instances: Its instances of a batch.
        forgiving: Take it for a failure of the instances where the database is gone.

    Yields:
        What raises the error of an instance whose relations could not be loaded; and loads those of one that was not
            foreseen, as where groups have failed once.

    Raises:
        OperationalError, InterfaceError: The database is gone.
    """
    kept = {id(instance): (instance, dict(instance._state.fields_cache)) for instance in instances}
    failed: dict[int, Exception] = {}

    def require(instance: Model) -> None:
        if id(instance) not in kept:
            kept[id(instance)] = instance, dict(instance._state.fields_cache)
            failed.update(_load_each(observer, [kept[id(instance)]], forgiving=forgiving))
        if id(instance) in failed:
            raise failed[id(instance)]

    by_class: dict[type[Model], list[Model]] = {}
    for instance, _ in kept.values():
        by_class.setdefault(type(instance), []).append(instance)
    try:
        for alike in by_class.values():
            try:
                _load(observer, alike)
            except Exception as error:
                _report(observer, error)
                failed |= _load_each(observer, [kept[id(instance)] for instance in alike], forgiving=forgiving)
        yield require
    finally:
        for instance, cached in kept.values():
            _restore(observer, instance, cached)


def _load(observer: Observed, instances: list[Model]) -> None:
    prefetch_related_objects(instances, *observer.prefetches)
    for lookup in observer.prefetches:
        _forget_missing(instances, lookup, observer.prefetches)


def _load_each(
    observer: Observed, kept: Sequence[tuple[Model, dict[str, Any]]], *, forgiving: bool
) -> dict[int, Exception]:
    """Load what can be loaded, one by one.

    Returns:
        What went wrong, by the id of the instance, where something is to be left out. Others load by themselves.

    Raises:
        OperationalError, InterfaceError: The database is gone.
    """
    failed: dict[int, Exception] = {}
    for instance, cached in kept:
        _restore(observer, instance, cached)
        try:
            _load(observer, [instance])
        except Exception as error:
            if isinstance(error, OperationalError | InterfaceError):
                connections.close_all()
                if not forgiving:
                    raise
            _restore(observer, instance, cached)
            if any(_leaves_out(lookup) for lookup in observer.prefetches):
                failed[id(instance)] = error
    return failed


def _report(observer: Observed, error: Exception) -> None:
    if observer not in _reported and not isinstance(error, OperationalError | InterfaceError):
        _reported.add(observer)
        emit(PrefetchFailed(observer=observer.label, error=text_of(error)), error)


def _leaves_out(lookup: Any) -> bool:
    """Whether a lookup has a queryset of its own."""
    return isinstance(lookup, Prefetch) and lookup.queryset is not None


def _forget_missing(instances: list[Model], lookup: Any, lookups: Sequence[Any]) -> None:
    """Have those find out for themselves whose foreign key leads to no row: Django says None, and a query raises."""
    chosen = {other.prefetch_to for other in lookups if _leaves_out(other)}
    path: list[str] = []
    level: list[Any] = list(instances)
    for name in (lookup.prefetch_to if isinstance(lookup, Prefetch) else lookup).split("__"):
        path.append(name)
        following: list[Any] = []
        for instance in {id(each): each for each in level if isinstance(each, Model)}.values():
            cache = instance._state.fields_cache
            if name not in cache:
                following += instance.__dict__.get(_MANY, {}).get(name, ())
            elif cache[name] is not None:
                following.append(cache[name])
            elif "__".join(path) not in chosen:
                keys = [field.attname for field in foreign_keys(type(instance)) if field.name == name]
                if any(instance.__dict__.get(attname) is not None for attname in keys):
                    del cache[name]
        level = following


def _restore(observer: Observed, instance: Model, cached: dict[str, Any]) -> None:
    """Have an instance as it was."""
    instance._state.fields_cache = dict(cached)
    instance.__dict__.pop(_MANY, None)
    for lookup in observer.prefetches:
        if isinstance(lookup, Prefetch) and lookup.to_attr:
            instance.__dict__.pop(lookup.prefetch_to.split("__")[0], None)
