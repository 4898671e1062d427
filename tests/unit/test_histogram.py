"""Histograms: counted in the right bucket, added up, and quantiles that are no further off than a bucket is wide."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.histogram import BOUNDS, added, bucket_of, empty, quantile

durations = st.floats(0, BOUNDS[-1], allow_nan=False)


@pytest.mark.parametrize(("seconds", "bucket"), [(0, 0), (0.05, 0), (0.051, 1), (600, 17), (601, 18)])
def test_a_bound_belongs_to_its_bucket(seconds: float, bucket: int) -> None:
    """Upper bounds are inclusive, and what is above the last has a bucket of its own."""
    assert bucket_of(seconds) == bucket


def test_nothing_has_no_quantile() -> None:
    """An empty histogram, and one that was never written, have no quantiles."""
    assert quantile(empty(), 0.5) is None
    assert quantile(added([], []), 0.5) is None


@given(st.lists(durations, min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    """The estimate lies in the bucket in which the exact quantile lies."""
    histogram = empty()
    for value in values:
        single = empty()
        single[bucket_of(value)] = 1
        histogram = added(histogram, single)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    estimate = quantile(histogram, share)
    assert estimate is not None
    index = bucket_of(exact)
    assert (BOUNDS[index - 1] if index else 0.0) <= estimate <= BOUNDS[index]
