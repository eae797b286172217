"""What a consumer has of each of its observers; it lives and goes with the consumer."""

import asyncio
import dataclasses
import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from djcrf_pg.listener.failures import Failure
from djcrf_pg.listener.gate import Moment
from djcrf_pg.listener.numbering import Tail


@dataclasses.dataclass(slots=True)
class Subscriptions:
    """What a consumer has of one observer.

    Attributes:
        observer: The observer.
        since: Group to when it was joined: what had been committed by then is not for it, however late it arrives.
        waiting: Group to the number of calls of ``subscribe`` that wait for a listener.
        heard: Group to the leadership that sent to it last, and the number of its last message.
        session: The number of the gate's session that holds the lock by which the leader knows of us.
        added: Group to when the layer was last asked to add it, by the clock of the channel layers, ``time.time``.
        stale: Events may have been lost, and the consumer has not been told yet.
        tell_at: When it is to be sent word of that, by ``time.monotonic``.
        told: How often it was.
        share: Of the time after which memberships are renewed, so that those made together are not renewed together.
        failed: What the handler failed on since the consumer was last told, by group.
        failed_at: When it was told, by ``time.monotonic``.
        changing: Held while groups are left, and while one is added again.
    """

    observer: Any
    since: dict[str, Moment] = dataclasses.field(default_factory=dict)
    waiting: Counter[str] = dataclasses.field(default_factory=Counter)
    heard: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    session: int = 0
    added: dict[str, float] = dataclasses.field(default_factory=dict)
    stale: bool = False
    tell_at: float = 0.0
    told: int = 0
    share: float = dataclasses.field(default_factory=lambda: random.uniform(0.5, 1.0))
    failed: dict[str, list[Failure]] = dataclasses.field(default_factory=dict)
    failed_at: float = -math.inf
    changing: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    @property
    def groups(self) -> list[str]:
        """The groups that it is in, or about to be in."""
        return [*self.since, *(group for group in +self.waiting if group not in self.since)]

    def takes(self, group: str, term: int, before: Tail, number: int) -> bool:
        """Whether a message of a leader is news; notes when one before it is missing.

        What a leader still sends when it continues after it was taken for dead has been sent again by the newer one.

        Args:
            group: Where it came through.
            term: The leadership.
            before: The message before it in the group.
            number: Its own number.
        """
        known, last = self.heard.get(group, (0, 0))
        if term < known:
            return False
        self._miss(group, term, before)
        self.heard[group] = (term, max(number, last) if term == known else number)
        return True

    def compare(self, term: int, tails: Mapping[str, Tail]) -> None:
        """Note when the last message to a group is missing.

        Args:
            term: The leadership that says so.
            tails: Group to its last message.
        """
        for group, tail in tails.items():
            known, last = self.heard.get(group, (0, 0))
            if group in self.since and (known, last) < (term, tail.number):
                self._miss(group, term, tail)
                self.heard[group] = (term, tail.number)

    def _miss(self, group: str, term: int, tail: Tail) -> None:
        """Note a message that should have come and has not."""
        known, last = self.heard.get(group, (0, 0))
        moment = self.since.get(group)
        if known == term:
            missing = tail.number > last
        else:
            # Nothing was heard from this leader: it may have been sent before the group was joined.
            missing = tail.number > 0 and moment is not None and not moment.sees(tail.xid, tail.at)
        if missing:
            self.lose()

    def oldest(self, now: float) -> float:
        """When the membership was added that expires first."""
        return min(self.added.values(), default=now)

    def lose(self) -> None:
        """Events may have been lost, and those that come from now on are not: the keeper is to tell the consumer."""
        self.stale, self.tell_at, self.told = True, 0.0, 0

    def holds(self, group: str) -> bool:
        """Whether it is in a group, or about to be."""
        return group in self.since or self.waiting[group] > 0


def subscriptions_of(consumer: Any) -> dict[str, Subscriptions]:
    """A consumer's subscriptions, by the observer's id."""
    found: dict[str, Subscriptions] = consumer.__dict__.setdefault("_djcrf_pg", {})
    return found
