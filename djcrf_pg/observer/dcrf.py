"""DCRF's own classes, kept under names that the drop-in does not take over."""

from djangochannelsrestframework.observer.generics import (
    ObserverModelInstanceMixin as DCRFObserverModelInstanceMixin,
)
from djangochannelsrestframework.observer.generics import (
    _GenericModelObserver as DCRFGenericModelObserver,
)
from djangochannelsrestframework.observer.model_observer import ModelObserver as DCRFModelObserver

__all__ = ["DCRFGenericModelObserver", "DCRFModelObserver", "DCRFObserverModelInstanceMixin"]
