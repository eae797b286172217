"""What is handed to ``@model_observer`` and to an observer's decorators, tried before the first event does.

A function that cannot be called as events call it fails with each of them, and a class body is where its author looks.
So the decorators refuse it. What might work is let through: nothing here calls a function in order to look at it.
"""

import difflib
import dis
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import pairwise
from types import FunctionType
from typing import Any, TypeVar, cast

from django.apps import apps
from django.db.models import Model
from rest_framework.serializers import BaseSerializer

from djcrf_pg.conf import get_settings
from djcrf_pg.exceptions import GroupsError, ObserverError
from djcrf_pg.observations import text_of_value

Method = TypeVar("Method", bound=Callable[..., Any])

#: By keyword to each handler.
_EVENT = ("action", "group", "message_type", "observer", "subscribing_request_ids")

#: By keyword to each handler of resyncs.
_RESYNC = ("reason", "model", "group", "message_type", "observer", "subscribing_request_ids")


def label_of(function: Any) -> str:
    """Where a function is defined."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or repr(function)
    return f"{getattr(function, '__module__', type(function).__module__)}.{name}"


def refuse_what_is_no_model(given: Any) -> None:
    """Refuse the handler itself in place of a model; what else is no model is refused when the handler is known.

    Raises:
        ObserverError: ``@model_observer`` stands without parentheses.
    """
    if isinstance(given, FunctionType) and given.__code__.co_argcount:
        raise ObserverError(
            f"@model_observer on {label_of(given)} stands without its model: write @model_observer(YourModel), with "
            f"the model class in the parentheses."
        )


def refuse_options(label: str, options: Mapping[str, Any]) -> None:
    """Refuse arguments of ``@model_observer`` that are surely not what they are for.

    Args:
        label: Of the observer.
        options: ``serializer_class``, ``shows``, and those that are lists of names.

    Raises:
        ObserverError: An instance or a name is in place of a class, or a text in place of a list.
    """
    for option in ("serializer_class", "shows"):
        given = options.get(option)
        # A function that makes serializers has a name too.
        if given is not None and not (callable(given) and hasattr(given, "__qualname__")):
            name = type(given).__name__ if isinstance(given, BaseSerializer) else "YourSerializer"
            raise ObserverError(
                f"@model_observer on {label}: {option} is {text_of_value(given)}, which is no class. Write "
                f"{option}={name}, without quotes and parentheses."
            )
    for option in ("fields", "many_to_many", "parents", "prefetch", "related"):
        if isinstance(given := options.get(option), str):
            raise ObserverError(
                f"@model_observer on {label}: {option} is the text {given!r}, and takes a list of names. Write "
                f"{option}=[{given!r}]."
            )


def refuse_unknown(options: Iterable[str], known: Collection[str]) -> None:
    """Refuse arguments that ``@model_observer`` does not have.

    Raises:
        ObserverError: It does not have one of them.
    """
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known)}."
            raise ObserverError(f"@model_observer has no argument {option!r}. {hint}")


def takes_function(method: Method) -> Method:
    """Have a decorator of an observer say so where it stands with parentheses."""

    @functools.wraps(method)
    def decorator(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            line = f"@{self.func.__name__}.{method.__name__}"
            raise ObserverError(
                f"{line}() of {self.label} has parentheses and is given nothing: write {line}, above the function."
            )
        return method(self, *args, **kwargs)

    return cast(Method, decorator)


def by_name(method: Method) -> Method:
    """Refuse what ``subscribe()`` or ``unsubscribe()`` is given by position: DCRF has the consumer there."""

    @functools.wraps(method)
    async def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        verb, line = method.__name__, f"self.{self.func.__name__}.{method.__name__}(request_id=request_id)"
        if not args and "consumer" not in kwargs:
            raise GroupsError(f"{verb}() of {self.label} is called on the class, and not on a consumer: write {line}.")
        if len(args) > ("consumer" not in kwargs) and not self.overrides_groups:
            raise GroupsError(
                f"{verb}() of {self.label} takes what it is given by name: write {line}, and what its groups are for "
                f"by name too."
            )
        return await method(self, *args, **kwargs)

    return cast(Method, called)


def takes_model(function: Method) -> Method:
    """Have ``@model_observer`` say so where its parentheses are empty."""

    @functools.wraps(function)
    def model_observer(*args: Any, **kwargs: Any) -> Any:
        if not args and "model" not in kwargs:
            raise ObserverError("@model_observer() is not given its model: write @model_observer(YourModel).")
        return function(*args, **kwargs)

    return cast(Method, model_observer)


def line_for(given: Any) -> str:
    """The line that somebody may have meant who gave ``@model_observer`` something that is no model class."""
    if isinstance(given, str):
        try:
            model = apps.get_model(given)
        except (LookupError, ValueError):
            return "Import the class, and write @model_observer(YourModel)."
        return f"Write `from {model.__module__} import {model.__name__}`, then @model_observer({model.__name__})."
    if isinstance(given, list | tuple | set):
        return "An observer has one model: write a handler for each; all may call one method."
    if isinstance(given, FunctionType):
        return f"Write @model_observer({given.__name__}())."
    meta = getattr(given, "Meta", None)
    candidates: tuple[Any, ...] = (given.__class__, getattr(given, "model", None), getattr(meta, "model", None))
    for model in candidates:
        if inspect.isclass(model) and issubclass(model, Model):
            serializer = f", serializer_class={given.__name__}" if meta is not None and inspect.isclass(given) else ""
            return f"Write @model_observer({model.__name__}{serializer})."
    return "Write @model_observer(YourModel)."


def refuse_model(model: Any, label: str) -> None:
    """Refuse to observe what has no table of its own.

    Args:
        model: What ``@model_observer`` was given.
        label: Of the observer.

    Raises:
        ObserverError: It is no model, or one without a table.
    """
    if not (inspect.isclass(model) and issubclass(model, Model)):
        raise ObserverError(
            f"@model_observer on {label} takes a Django model class, not {text_of_value(model)}. {line_for(model)}"
        )
    meta = model._meta
    if meta.abstract:
        raise ObserverError(
            f"@model_observer on {label}: {model.__name__} is abstract, so it has no table: observe the models that "
            f"inherit from it."
        )
    if swapped := meta.swapped:
        # Django makes no table for it, and refuses its managers.
        instead = "get_user_model()" if meta.swappable == "AUTH_USER_MODEL" else repr(swapped)
        raise ObserverError(
            f"@model_observer on {label}: {meta.label} is swapped out for {swapped} ({meta.swappable}), so it has no "
            f"table: observe {instead}."
        )
    declared = {".".join(entry.lower().split(".")[:2]) for entry in get_settings().OBSERVE}
    if not meta.managed and meta.label_lower not in declared:
        raise ObserverError(
            f"@model_observer on {label}: {meta.label} is unmanaged (Meta.managed = False), and what is behind it may "
            f"be no table. If it is a PostgreSQL table, say so: DJCRF_PG = {{'OBSERVE': [{meta.label!r}]}}."
        )


def refuse_handler(handler: Any, extras: Iterable[str]) -> None:
    """Refuse a handler that no event could call.

    Args:
        handler: What ``@model_observer`` decorates.
        extras: What it is given besides what DCRF gives it, if it names it.

    Raises:
        ObserverError: It is no function, cannot be awaited, or does not take what it is given.
    """
    label = f"@model_observer on {label_of(handler)}"
    if hasattr(handler, "model_cls"):
        raise ObserverError(
            f"@model_observer on {handler.label}: the handler has an observer already, of "
            f"{handler.model_cls._meta.label}, and an observer has one model. Write a handler for each model; both may "
            f"call one method."
        )
    if not callable(handler):
        raise ObserverError(
            f"{label}: the handler is a {type(handler).__name__}, which cannot be called: decorate an `async def` of "
            f"the consumer's class."
        )
    line = f"async def {_name_of(handler)}(self, message, action, subscribing_request_ids=(), **kwargs)"
    if fault := _fault_of_awaited(handler):
        raise ObserverError(f"{label}: the handler {fault}, and each event awaits it. Write `{line}:`.")
    named = inspect.signature(handler).parameters
    given = dict.fromkeys((*_EVENT, *(name for name in extras if name in named)))
    if why := misfit(handler, (None, None), given):
        raise ObserverError(
            f"{label}: the handler cannot take an event ({why}). It is called with the consumer, the message, and by "
            f"name {', '.join(_EVENT)}: end its parameters with **kwargs, as in `{line}:`."
        )


def refuse_serializer(label: str, function: Any, extras: Iterable[str]) -> None:
    """Refuse what ``@x.serializer`` could not call.

    Raises:
        ObserverError: It is asynchronous, a class, or does not take what it is given.
    """
    where = f"The serializer of {label}"
    if inspect.isclass(function) and issubclass(function, BaseSerializer):
        raise ObserverError(
            f"{where} is the class {function.__name__}, and @….serializer takes a function: write "
            f"@model_observer(…, serializer_class={function.__name__})."
        )
    line = f"def {_name_of(function)}(self, instance, action, **kwargs)"
    _refuse(where, function, line, (None, None, None), dict.fromkeys(extras))


def refuse_groups_for_signal(label: str, function: Any, decorator: str = "groups_for_signal") -> None:
    """Refuse what ``@x.groups_for_signal`` could not call.

    Raises:
        ObserverError: It is asynchronous, gives no groups, or does not take what it is given.
    """
    where = f"The function for @….{decorator} of {label}"
    line = f"def {_name_of(function)}(self, instance{'=None' if decorator == 'groups' else ''}, **kwargs)"
    _refuse(where, function, line, (None,), {"instance": None})
    _refuse_no_groups(where, function)


def refuse_groups_for_consumer(label: str, function: Any, decorator: str = "groups_for_consumer") -> None:
    """Refuse what ``@x.groups_for_consumer`` could not call, whatever ``subscribe()`` is given.

    Raises:
        ObserverError: It is asynchronous, gives no groups, or does not take the consumer.
    """
    where = f"The function for @….{decorator} of {label}"
    line = f"def {_name_of(function)}(self, consumer=None, **kwargs)"
    _refuse(where, function, line, (None,), {"consumer": None}, partial=True)
    _refuse_no_groups(where, function)


def refuse_resync(label: str, function: Any) -> None:
    """Refuse what ``@x.resync`` could not call.

    Raises:
        ObserverError: It cannot be awaited, or does not take what it is given.
    """
    where = f"The function for @….resync of {label}"
    line = f"async def {_name_of(function)}(self, reason, subscribing_request_ids=(), **kwargs)"
    if fault := _fault_of_awaited(function):
        raise ObserverError(f"{where} {fault}, and is awaited. Write `{line}:`.")
    given = dict.fromkeys((*_RESYNC, "change_id", "committed_at", "context"))
    if why := misfit(function, (None,), given):
        raise ObserverError(f"{where} cannot take a resync ({why}). Write `{line}:`.")


def returns_nothing(function: Any) -> bool:
    """Whether a function surely returns None, and no generator: each of its returns says so."""
    if not isinstance(function, FunctionType) or inspect.isgeneratorfunction(function) or _is_async(function):
        return False
    found = False
    for before, instruction in pairwise(dis.get_instructions(function)):
        if instruction.opname == "RETURN_CONST":
            nothing = instruction.argval is None
        elif instruction.opname == "RETURN_VALUE":
            # `x or None` jumps to its return with x.
            is_alone = not instruction.is_jump_target
            nothing = is_alone and before.opname == "LOAD_CONST" and before.argval is None
        else:
            continue
        if not nothing:
            return False
        found = True
    return found


def _refuse(
    where: str, function: Any, line: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, partial: bool = False
) -> None:
    if not callable(function):
        raise ObserverError(f"{where} is a {type(function).__name__}, which cannot be called. Write `{line}:`.")
    if _is_async(function):
        raise ObserverError(f"{where} is asynchronous, and is not awaited. Write `{line}:`.")
    if why := misfit(function, args, kwargs, partial=partial):
        raise ObserverError(f"{where} cannot be called as it will be ({why}). Write `{line}:`.")


def _refuse_no_groups(where: str, function: Any) -> None:
    if returns_nothing(function):
        raise ObserverError(f'{where} gives no groups: it neither yields nor returns any. Write `yield "…"`.')


def _fault_of_awaited(function: Any) -> str | None:
    """Why what a function gives cannot be awaited, where that is sure: one that is not asynchronous may give a task."""
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return "has a yield"
    return "is not asynchronous" if returns_nothing(function) else None


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _name_of(function: Any) -> str:
    name = str(getattr(function, "__name__", ""))
    return name if name.isidentifier() else "name"


def misfit(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, partial: bool = False) -> str | None:
    """Why a function cannot be called with these arguments, with ``partial`` whatever comes besides; else None."""
    try:
        # A decorator may add what the function in it wants.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # one of C, say, which does not tell
    try:
        (signature.bind_partial if partial else signature.bind)(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None
