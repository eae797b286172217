"""What all scenarios share: turns, results, goals."""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

from benchmarks.servers import Lab

OURS, DCRF, DCRF_MEMORY = "djcrf_pg", "DCRF (Redis)", "DCRF (in-memory)"
NOTIFY, PUBSUB, FLOOR = "hand-written NOTIFY", "django-pgpubsub", "no observer"
TRIGGER = f"{OURS}, the trigger alone"


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is to be reached.

    Attributes:
        sign: Which side is good.
        value: The limit.
        of: Of the ratio, or of the figure itself.
    """

    sign: Literal["≥", "≤"]
    value: float
    of: Literal["ratio", "figure"] = "ratio"

    def met(self, value: float) -> bool:
        """Whether it is reached."""
        return value >= self.value if self.sign == "≥" else value <= self.value


@dataclasses.dataclass(frozen=True)
class Result:
    """One thing measured, against another that was measured in turns with it.

    Attributes:
        scenario: The scenario's name.
        what: What was measured.
        subject: Whose figure it is.
        figures: One for each round, in `unit`.
        unit: Of the figures.
        reference: What it is measured against.
        references: Its figures, one for each round.
        goal: What is to be reached, if anything.
        note: What a reader has to know.
    """

    scenario: str
    what: str
    subject: str
    figures: list[float]
    unit: str
    reference: str
    references: list[float]
    goal: Goal | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Figure by reference, round by round."""
        return [figure / other for figure, other in zip(self.figures, self.references, strict=True) if other]

    @property
    def verdict(self) -> bool | None:
        """Whether the goal is met, by the median; None without a goal."""
        if self.goal is None:
            return None
        values = self.ratios if self.goal.of == "ratio" else self.figures
        return self.goal.met(statistics.median(values)) if values else None


@dataclasses.dataclass
class Bench:
    """What a scenario gets.

    Attributes:
        lab: The servers.
        rounds: Turns of each measurement.
        size: ``quick`` to see that it runs, ``default``, or ``full``.
    """

    lab: Lab
    rounds: int
    size: Literal["quick", "default", "full"] = "default"

    def choose(self, quick: Any, default: Any, full: Any = None) -> Any:
        """The value for this size; ``full`` is the default's where it is not given."""
        return {"quick": quick, "default": default, "full": default if full is None else full}[self.size]

    def turns(
        self,
        measures: Mapping[str, Callable[[], float]],
        *,
        rounds: int | None = None,
        before: Callable[[], Any] | None = None,
        warm_up: bool | Mapping[str, Callable[[], float]] = True,
    ) -> dict[str, list[float]]:
        """Measure each once a round, A B C A B C, so that what slows the machine slows them all.

        Args:
            measures: What to measure, by name.
            rounds: In place of the usual number.
            before: Called before each measurement, outside of its time.
            warm_up: Measure each once for nothing before, or these in their place.
        """
        figures: dict[str, list[float]] = {name: [] for name in measures}
        for number in range(0 if warm_up else 1, (rounds or self.rounds) + 1):
            for name, measure in (warm_up if not number and isinstance(warm_up, Mapping) else measures).items():
                if before is not None:
                    before()
                figure = measure()
                if number:
                    figures[name].append(figure)
        return figures


class Scenario(Protocol):
    """A module of `benchmarks.scenarios`."""

    def run(self, bench: Bench) -> Iterable[Result]:
        """Measure."""


def against(
    figures: Mapping[str, list[float]],
    reference: str,
    *,
    scenario: str,
    what: str,
    unit: str,
    goals: Mapping[str, Goal] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Iterator[Result]:
    """The results of turns, each against one of them."""
    for name, found in figures.items():
        if name != reference:
            goal, note = (goals or {}).get(name), (notes or {}).get(name, "")
            yield Result(scenario, what, name, found, unit, reference, figures[reference], goal, note)


def say(text: str) -> None:
    """Tell whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
