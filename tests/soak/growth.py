"""Whether a series of figures grows."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 8
"""So many samples in the second half, or nothing can be said of it."""


@dataclass(frozen=True)
class Tolerance:
    """How much a figure may grow in the second half of a run: the larger of both.

    Args:
        share: of its mean in that half.
        amount: in the figure's own unit.
    """

    share: float
    amount: float

    def of(self, mean: float) -> float:
        return max(self.share * mean, self.amount)


def second_half(values: Sequence[float]) -> Sequence[float]:
    """What is judged: in the first half caches are filled, and what expires has not begun to do so."""
    return values[len(values) // 2 :]


def growth(values: Sequence[float]) -> float:
    """By how much the line through the second half rises from its first sample to its last.

    Its slope is the median of those between any two samples (Theil and Sen), so that one sample in the middle of a
    restart does not tilt it.

    Raises:
        ValueError: too few samples.
    """
    half = second_half(values)
    if len(half) < ENOUGH:
        raise ValueError(f"{len(half)} samples in the second half are too few, at least {ENOUGH} are needed")
    slopes = [(half[j] - half[i]) / (j - i) for i, j in itertools.combinations(range(len(half)), 2)]
    return statistics.median(slopes) * (len(half) - 1)


def grows(values: Sequence[float], tolerance: Tolerance) -> bool:
    """Whether it rises by more than is tolerated."""
    return growth(values) > tolerance.of(statistics.fmean(second_half(values)))
