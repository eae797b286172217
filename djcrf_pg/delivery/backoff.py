"""Delays between tries: they double up to a limit, with jitter, for ever."""

import random


class Backoff:
    """Full jitter: each delay is drawn from ``[least, bound]`` while the bound doubles.

    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015. The lower bound keeps a
    flapping server from being hammered.

    Args:
        least: Seconds, the shortest delay.
        most: Seconds, the longest.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._bound = least

    def delay(self) -> float:
        """The next delay in seconds."""
        self._bound = min(self._bound * 2, self._most)
        return random.uniform(self._least, self._bound)

    def reset(self) -> None:
        """Begin again, after a success."""
        self._bound = self._least
