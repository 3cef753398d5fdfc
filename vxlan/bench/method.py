"""How figures are made from samples: pure functions, no clock.

Theory of operation
===================

A machine is never the same for long: clocks step, neighbours wake up.  Measuring one
overlay for ten seconds and then another compares two moments.  So the overlays take
turns within each round, in an order that rotates, and what is compared are values of
one round:

    round 1   none  kernel  pyvxlan        ratio 1 = pyvxlan / kernel
    round 2   kernel  pyvxlan  none        ratio 2
    round 3   pyvxlan  none  kernel        ratio 3
                                           median of the ratios, with their spread

A drift that lasts longer than a round cancels out of the ratio.  What does not cancel
shows as spread, and where the spread is too wide the verdict is "too noisy", not a
digit that the next run will not repeat.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

LEAST_ROUNDS = 3
"""Fewer values have no spread that means anything."""

WIDEST = 0.30
"""Half of the ratios lie within this part of their median, or they are too noisy."""

BUSIEST = 0.15
"""The part of the machine that others may take, median over the rounds."""

Verdict = Literal["ok", "too noisy", "too few rounds", "failed", "cannot run"]


@dataclass(frozen=True, slots=True)
class Summary:
    """A median and the middle half of the values, low to high."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Width of the middle half as a part of the median; 0 where the median is 0."""
        return (self.high - self.low) / self.median if self.median else 0.0


def summary(values: Sequence[float]) -> Summary | None:
    """Median and quartiles; None without values."""
    if not values:
        return None
    if len(values) == 1:
        return Summary(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high)


def turns(overlays: Sequence[str], round_: int) -> Iterator[str]:
    """The overlays in the order of one round: each begins one place later than the last."""
    start = round_ % len(overlays) if overlays else 0
    yield from overlays[start:]
    yield from overlays[:start]


def ratios(own: Sequence[float | None], base: Sequence[float | None]) -> list[float]:
    """own / base for each round in which there are both; a base of 0 has no ratio."""
    pairs = zip(own, base, strict=False)
    return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]


def verdict(values: Sequence[float], compared: Sequence[float], others: Sequence[float]) -> Verdict:
    """Whether a row can be believed.

    `compared` are its ratios where it has any, `others` the part of the machine that
    other work took in each round.
    """
    found = summary(compared or values)
    if found is None:
        return "failed"
    if len(values) < LEAST_ROUNDS:
        return "too few rounds"
    disturbed = statistics.median(others) if others else 0.0
    return "too noisy" if found.spread > WIDEST or disturbed > BUSIEST else "ok"


def seconds_for_each(budget: float, samples: int, overhead: float) -> float:
    """How long one sample may take so that all of them fit into `budget` seconds."""
    return max(0.15, budget / max(samples, 1) - overhead)
