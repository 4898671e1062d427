"""What a pool decides when a worker has ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.pool import LONGEST_PAUSE, Next, after_end, worst
from graceful.core.text import signal_name


def test_back_off() -> None:
    """Workers that fail one after the other are replaced more and more slowly, until one lives for a minute."""
    failures, pauses = 0, []
    for _ in range(8):
        decision = after_end(70, 1.0, failures, ends_by_itself=False)
        assert decision.next is Next.REPLACE
        failures = decision.failures
        pauses.append(decision.seconds)
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert after_end(-9, 61.0, failures, ends_by_itself=False).seconds == 1


def test_an_end_of_its_own() -> None:
    """A recycled worker is replaced at once, one that ends for good is not, and wrong settings end the pool."""
    assert after_end(0, 0.1, 5, ends_by_itself=False) == (Next.REPLACE, 0, 0.0)
    assert after_end(0, 0.1, 0, ends_by_itself=True).next is Next.DONE
    assert after_end(78, 0.1, 0, ends_by_itself=False).next is Next.GIVE_UP


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([], 0), ([0, 0], 0), ([0, 75, 0], 75), ([75, 69], 69), ([69, 70, 75], 70), ([0, -9], 70), ([1], 70), ([78], 70)],
)
def test_the_worst_code(codes: list[int], expected: int) -> None:
    """The pool ends with the code of the worst of its workers."""
    assert worst(codes) == expected


@given(st.lists(st.sampled_from([0, 75, 69, 70, -9, 1])))
def test_the_order_does_not_matter(codes: list[int]) -> None:
    """The code does not depend on who ended first."""
    assert worst(codes) == worst(list(reversed(codes)))


def test_a_signal_without_a_name() -> None:
    """Most real-time signals have none: the number tells."""
    assert (signal_name(9), signal_name(40), signal_name(0)) == ("SIGKILL", "signal 40", "signal 0")
