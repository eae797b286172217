"""What several leaders would carry that divide one log: a simulation, for that is not built.

    python -m models.shares

Single-row transactions arrive at random. A share is a leader on a core of its own that hears of its part of the rows,
by a hash of their key. It takes all that has come, delivers it, and looks again: the faster changes come, the more of
them travel in one message. All shares go through the same Redis. The costs are measured, see the page on scaling of the
documentation, which has this table.
"""

import bisect
import dataclasses
import heapq
import random
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate

#: Streams that rows are spread over, and numbers of leaders.
STREAMS, SHARES = (1, 4, 16), (1, 2, 4, 8)

#: A rate is sustained when 99 of 100 changes arrive within so many seconds, after so many of arrivals.
PATIENCE, HORIZON = 0.25, 3.0

_BATCH, _ENVELOPE = 10_000, 1_000


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds of one core.

    Attributes:
        batch: Of a leader for each read, whatever it brings.
        row: Of a leader for a row and its event.
        other: Of the server for a row that another share has, in the leader's time.
        message: Of a leader for a message.
        redis: Of Redis for a message, from the stream to a process.
    """

    batch: float = 1.5e-3
    row: float = 50e-6
    other: float = 1e-6
    message: float = 650e-6
    redis: float = 300e-6


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        half: Seconds within which half of the changes were delivered.
        most: Seconds within which 99 of 100 were.
        messages: Messages for each change.
    """

    half: float
    most: float
    messages: float


def simulate(rate: float, streams: int, shares: int, costs: Costs, seconds: float = HORIZON, seed: int = 1) -> Outcome:
    """Run changes through leaders.

    Args:
        rate: Changes a second, all together.
        streams: What they are spread over.
        shares: Leaders.
        costs: What each step takes.
        seconds: Of arrivals; what has come by then is delivered to the end.
        seed: Of the random numbers.
    """
    dice = random.Random(seed)
    queues: list[list[tuple[float, int]]] = [[] for _ in range(shares)]
    for at in _arrivals(dice, rate, seconds):
        queues[dice.randrange(shares)].append((at, dice.randrange(streams)))
    waits: list[float] = []
    places = [0] * shares
    redis_free, messages = 0.0, 0
    idle = [(queue[0][0], share) for share, queue in enumerate(queues) if queue]
    heapq.heapify(idle)
    while idle:
        now, share = heapq.heappop(idle)
        queue, begin = queues[share], places[share]
        end = min(bisect.bisect_right(queue, (now, streams)), begin + _BATCH)
        taken = queue[begin:end]
        sent = _messages(stream for _, stream in taken)
        read = costs.batch + len(taken) * (costs.row + (shares - 1) * costs.other)
        redis_free = max(redis_free, now) + sent * costs.redis
        done = max(now + read + sent * costs.message, redis_free)
        waits += [done - at for at, _ in taken]
        messages += sent
        places[share] = end
        if end < len(queue):
            heapq.heappush(idle, (max(done, queue[end][0]), share))
    waits.sort()
    return Outcome(waits[len(waits) // 2], waits[len(waits) * 99 // 100], messages / len(waits))


def _arrivals(dice: random.Random, rate: float, seconds: float) -> Iterable[float]:
    pauses = (dice.expovariate(rate) for _ in range(max(1, round(rate * seconds))))
    return accumulate(pauses)


def _messages(streams: Iterable[int]) -> int:
    """How many messages events travel in."""
    return sum(-(-count // _ENVELOPE) for count in Counter(streams).values())


def sustained(streams: int, shares: int, costs: Costs) -> float:
    """The highest rate, in changes a second, at which changes still arrive in time; to a part in twenty."""
    low, high = 10.0, 20.0
    while simulate(high, streams, shares, costs).most <= PATIENCE:
        low, high = high, high * 2
    while high / low > 1.05:
        middle = (low * high) ** 0.5
        if simulate(middle, streams, shares, costs).most <= PATIENCE:
            low = middle
        else:
            high = middle
    return low


def table(costs: Costs) -> str:
    """The rates that are sustained, as Markdown.

    Args:
        costs: What each step takes.
    """
    head = "".join(f" {shares} |" for shares in SHARES)
    lines = [f"| Streams \\ leaders |{head}", "|---|" + "---|" * len(SHARES)]
    for streams in STREAMS:
        rates = "".join(f" {sustained(streams, shares, costs):,.0f}/s |" for shares in SHARES)
        lines.append(f"| {streams:,} |{rates}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Costs()))
