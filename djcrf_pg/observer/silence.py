"""Subscriptions that bring no events although nothing fails: refused where that is sure, else said once in the log."""

from collections.abc import Mapping
from typing import Any

from django.db import connections, router

from djcrf_pg.exceptions import SubscribeError
from djcrf_pg.observations import ArgumentsIgnored, NoGroups, Observation, RequestIdMissing, SignalsOnly, emit
from djcrf_pg.registry import is_elsewhere_on_purpose, why_not_here


def refuse(observer: Any) -> None:
    """Refuse a subscription that no event would ever reach.

    Args:
        observer: What is subscribed to.

    Raises:
        SubscribeError: Its model has no triggers, or its groups match nothing.
    """
    if why := why_no_triggers(observer) or why_no_match(observer):
        raise SubscribeError(f"{observer.label}: {why}")


def why_no_triggers(observer: Any) -> str | None:
    """Why the model of an observer has no triggers, where nobody chose that; else None."""
    if observer.trigger_driven or is_elsewhere_on_purpose(observer.model_cls):
        return None
    return why_not_here(observer.model_cls)


def why_no_match(observer: Any) -> str | None:
    """What the groups of an observer lack, where those of rows and of subscriptions cannot match; else None.

    DCRF gives the side that has no function one group of its own, which the other does not yield.
    """
    if observer.overrides_groups:
        return None
    halves = {
        "groups_for_signal": observer._group_names_for_signal,
        "groups_for_consumer": observer._group_names_for_consumer,
    }
    has = [name for name, function in halves.items() if function is not None]
    if len(has) != 1:
        return None
    (lacks,) = halves.keys() - has
    return (
        f"it has @….{has[0]} and no @….{lacks}, so the groups of rows and those of subscriptions never match. Decorate "
        f"a function with @{observer.func.__name__}.{lacks} too, which yields the same groups."
    )


def warn(observer: Any, request_id: Any, given: Mapping[str, Any]) -> None:
    """Say once of an observer what may be meant so, and leaves those without events who did not mean it.

    Args:
        observer: What is subscribed to.
        request_id: Of the subscription.
        given: What else ``subscribe()`` was given.
    """
    if not observer.trigger_driven:
        model = observer.model_cls
        alias = router.db_for_write(model)
        vendor = connections[alias].display_name
        _say(observer, SignalsOnly(observer=observer.label, model=model._meta.label, alias=alias, vendor=vendor))
    if request_id is None and observer.replies:
        _say(observer, RequestIdMissing(observer=observer.label))
    # The name of the action is among what an action is given.
    ignored = {name: value for name, value in given.items() if name != "action"}
    if ignored and observer.has_one_group and not observer.overrides_groups:
        _say(observer, ArgumentsIgnored(observer=observer.label, given=listed(ignored)))


def warn_of_no_groups(observer: Any, given: Mapping[str, Any]) -> None:
    """Say once of an observer that a subscription with these arguments is to no group."""
    _say(observer, NoGroups(observer=observer.label, given=listed(given)))


def listed(arguments: Mapping[str, Any]) -> str:
    """The names of arguments, for a message."""
    return ", ".join(arguments) or "nothing"


def _say(observer: Any, observation: Observation) -> None:
    if type(observation) not in observer.said:
        observer.said.add(type(observation))
        emit(observation)
