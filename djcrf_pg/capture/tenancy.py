"""Databases with a schema for each tenant, which are not supported yet: recognise them, and refuse by name.

The change log, the triggers and the listener of a database belong to one ``search_path``. A backend that changes it
between requests (django-tenants, django-pgschemas and their like) would have the triggers of the tenant alone whose
schema was migrated last, and the listener would look for tables where none are.

Such a backend sets ``search_path`` with each cursor, because it cannot know whose turn a connection is before. One that
always has the same sets it once, in ``OPTIONS`` or when it connects, and is no concern of this module.
"""

import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

from django.db import connections, router

from djcrf_pg.discovery import discover
from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.registry import lives_on, registry

#: The methods of Django's wrapper that make a cursor.
_CURSORS = {"cursor", "_cursor", "create_cursor", "chunked_cursor"}


def switches_schemas(wrapper: type[Any]) -> bool:
    """Whether a class of Django's connections sets ``search_path`` with each cursor. It is read, not run."""
    theirs = [kind for kind in wrapper.__mro__ if kind.__module__.partition(".")[0] not in ("django", "builtins")]
    methods = [method for kind in theirs for method in vars(kind).values() if inspect.isfunction(method)]
    return any(_CURSORS & vars(kind).keys() for kind in theirs) and any(
        "search_path" in word.lower() for method in map(inspect.unwrap, methods) for word in _words(method.__code__)
    )


def _words(code: CodeType) -> Iterator[str]:
    """The names and texts in the code of a function, and of those inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _words(constant)


def refusal(alias: str) -> str | None:
    """Why nothing can be observed in database ``alias``; None where it has no schemas of tenants."""
    wrapper = type(connections[alias])
    if connections[alias].vendor != "postgresql" or not switches_schemas(wrapper):
        return None
    return (
        f"Database {alias!r} has a schema for each tenant, which djcrf_pg does not support yet: "
        f"{wrapper.__module__}.{wrapper.__qualname__} sets search_path with each cursor, and the change log, the "
        f"triggers and the listener are for one search_path. Observe no model of this database: with "
        f"DJCRF_PG = {{'DROP_IN': False}} the observers of djangochannelsrestframework listen to Django's signals. If "
        f"search_path is always the same, set it in OPTIONS['options'] instead."
    )


def refuse_tenants(alias: str) -> None:
    """See that what is observed in database ``alias``, if anything is, is not in the schemas of tenants.

    Raises:
        ConfigurationError: It is; or a consumers module cannot be imported.
    """
    if why := refusal(alias):
        discover()
        # What may be migrated depends on the schema of the moment, so where it is written counts as well.
        if any(router.db_for_write(model) == alias or lives_on(model, alias) for model, _ in registry.observed()):
            raise ConfigurationError(why)
