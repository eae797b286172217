"""The observers: the same names, arguments and import paths as in ``djangochannelsrestframework.observer``.

``model_observer`` on a model that lives in PostgreSQL is driven by triggers; where a router has it on another vendor's
database, it is DCRF's own.
"""

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.db.models import Model
from djangochannelsrestframework import observer as upstream
from rest_framework.serializers import BaseSerializer

from djcrf_pg.observer.base_observer import BaseObserver
from djcrf_pg.observer.model_observer import ModelObserver
from djcrf_pg.observer.observer import Observer
from djcrf_pg.observer.signatures import refuse_unknown, refuse_what_is_no_model, takes_model

# Not by an import statement: importing the submodule of the same name has set the attribute to the module.
observer = upstream.observer

__all__ = ["BaseObserver", "ModelObserver", "Observer", "model_observer", "observer"]


@takes_model
def model_observer(
    model: type[Model],
    serializer_class: type[BaseSerializer[Any]] | None = None,
    many_to_many: bool | Iterable[str] = False,
    **kwargs: Any,
) -> "partial[ModelObserver]":
    """Observe the committed changes of a model, whoever makes them. Use it as a method decorator.

    The decorated method becomes the handler that each subscribed consumer calls for an event:
    ``(self, message, action, subscribing_request_ids, **kwargs)``. The method itself is replaced with a
    :class:`ModelObserver`.

    Args:
        model: The model to observe.
        serializer_class: A DRF serializer for the message; by default it is ``{"pk": …}``.
        many_to_many: Whether changes of the model's many-to-many relations are updates of the instance; or the
            names of fields and reverse accessors of which they are.
        kwargs: Further arguments of :class:`ModelObserver`: ``fields``, ``skip_unchanged``, ``every_change``.

    Raises:
        ObserverError: ``model`` is no model, or one without a table of its own; or what it decorates is no handler.
    """
    refuse_what_is_no_model(model)
    refuse_unknown(kwargs, [*inspect.signature(ModelObserver).parameters][2:])
    return partial(
        ModelObserver, model_cls=model, serializer_class=serializer_class, many_to_many=many_to_many, **kwargs
    )
