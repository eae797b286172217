"""DCRF's base class, under the same path."""

from djangochannelsrestframework.observer.base_observer import BaseObserver

__all__ = ["BaseObserver"]
