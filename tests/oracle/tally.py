"""What a run did, in numbers."""

import threading
from collections import Counter


class Tally:
    """Counts from several threads.

    Attributes:
        counts: By heading, by what was counted.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self._lock = threading.Lock()

    def add(self, heading: str, what: str, number: int = 1) -> None:
        """Count."""
        with self._lock:
            self.counts.setdefault(heading, Counter())[what] += number

    def set(self, heading: str, counter: Counter[str]) -> None:
        """Have these counts below a heading, which were counted elsewhere."""
        with self._lock:
            self.counts[heading] = counter

    def of(self, heading: str) -> Counter[str]:
        """The counts below a heading."""
        return self.counts.get(heading, Counter())

    def line(self) -> str:
        """The sums."""
        return ", ".join(f"{counter.total()} {heading}" for heading, counter in sorted(self.counts.items()))
