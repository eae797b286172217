"""Signals and receivers that a project calls by hand, because DCRF receives nothing else.

Triggers capture what such a call makes up for, with one exception: rows of other tables changed what is shown of this
one. So an update by hand becomes a touch. Creates and deletes by hand are nothing, for the triggers captured them.

Nothing here raises: the calls stand in the middle of a project's writes.
"""

from contextlib import nullcontext
from typing import Any

from django.db import connections, router, transaction
from django.db.models import Model
from django.db.models.signals import post_save
from djangochannelsrestframework.observer.model_observer import Action

from djcrf_pg.observations import CallNotNeeded, TouchFailed, emit, text_of
from djcrf_pg.writer.touch import touch

_said: set[tuple[str, Action]] = set()


def receive(model: type[Model]) -> None:
    """Receive ``post_save`` that is sent by hand for a model.

    Each ``save()`` of the model pays for the call, about a microsecond. There is no receiver of ``post_delete``: it
    would cost the model Django's fast deletes, which load no rows (``Collector.can_fast_delete()``).

    Args:
        model: An observed model. To receive it again changes nothing.
    """
    post_save.connect(_saved, sender=model, dispatch_uid="djcrf_pg.by_hand")


def is_sent_by_django(raw: Any = None, using: Any = None, **kwargs: Any) -> bool:
    """Whether ``post_save`` with these arguments is Django's own: it always has both, and those who copy it do not."""
    return raw is not None and using is not None


def _saved(
    sender: type[Model], instance: Any = None, created: Any = False, raw: Any = None, using: Any = None, **kwargs: Any
) -> None:
    if is_sent_by_django(raw, using):
        return
    action = Action.CREATE if created else Action.UPDATE
    answer(instance, action, f"post_save.send(sender={sender._meta.label}, …)", using)


def answer(instance: Any, action: Action, call: str, using: str | None = None) -> None:
    """Do what a call by hand amounts to: touch the row, or nothing.

    Args:
        instance: What it was called with.
        action: What it says of the instance.
        call: How it was called, for the log.
        using: The database that it names.
    """
    if action is not Action.UPDATE:
        if (call, action) not in _said:
            _said.add((call, action))
            emit(CallNotNeeded(call=call, action=action.value))
        return
    try:
        connection = connections[using or router.db_for_write(instance.__class__, instance=instance)]
        if connection.in_atomic_block and connection.needs_rollback:
            return
        # A savepoint, so that what goes wrong here does not end a transaction of the project's.
        is_alone = connection.get_autocommit() and not connection.in_atomic_block
        with nullcontext() if is_alone else transaction.atomic(using=connection.alias):
            touch(instance, using=connection.alias)
    except Exception as error:
        emit(TouchFailed(call=call, pk=_pk(instance), error=text_of(error)), error)


def _pk(instance: Any) -> Any:
    """The key of whatever it is, for the log; a lazy object may raise as soon as it is asked for anything."""
    try:
        return instance.pk
    except Exception:
        return None
