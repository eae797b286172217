"""DCRF's observer of Django signals, under the same path."""

from djangochannelsrestframework.observer.observer import Observer

__all__ = ["Observer"]
