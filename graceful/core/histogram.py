"""Histograms of seconds with fixed bounds, which can be added up and from which quantiles are estimated."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0)
"""Upper bounds of the buckets, in seconds, inclusive as in Prometheus; one more bucket has what is above."""
# A stored histogram has no bounds of its own: these must not be changed, only the code around them.


def empty() -> list[int]:
    return [0] * (len(BOUNDS) + 1)


def bucket_of(seconds: float) -> int:
    """Index of the bucket that a duration belongs to."""
    return bisect_left(BOUNDS, seconds)


def added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """The sum of two histograms; one that was never written is empty."""
    return [left + right for left, right in zip(one or empty(), other or empty(), strict=True)]


def quantile(histogram: Sequence[int], share: float) -> float | None:
    """The duration that ``share`` of the entries do not exceed, interpolated within its bucket.

    Args:
        histogram: counts of the buckets.
        share: from 0 to 1, for instance 0.95.

    Returns:
        Seconds, the last bound where it lies above that; None if the histogram is empty.
    """
    total = sum(histogram)
    if not total:
        return None
    wanted, below = share * total, 0
    for index, count in enumerate(histogram[: len(BOUNDS)]):
        if count and below + count >= wanted:
            low = BOUNDS[index - 1] if index else 0.0
            share_of_bucket = max(0.0, wanted - below) / count
            return min(BOUNDS[index], low + (BOUNDS[index] - low) * share_of_bucket)
        below += count
    return BOUNDS[-1]
