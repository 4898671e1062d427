"""Waiting for a state, never for time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NeverHappened(AssertionError):
    """What was waited for did not come about."""


def let_pass(seconds: float, why: str) -> None:
    """Let time pass where time itself is what the test is about, and there is no state to wait for.

    Args:
        seconds: how long.
        why: for the reader: what has to lie behind by then.
    """
    assert why
    time.sleep(seconds)


def wait_until(
    predicate: Callable[[], T],
    seconds: float = 10.0,
    description: str | Callable[[], str] = "",
    *,
    interval: float = 0.01,
) -> T:
    """Ask ``predicate`` until it is true, and return what it said.

    Args:
        predicate: what is asked, again and again.
        seconds: how long at most.
        description: what is waited for, in words, for the error.
        interval: seconds between two askings.

    Raises:
        NeverHappened: it was still not true after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            words = description() if callable(description) else description
            raise NeverHappened(
                f"not within {seconds} s: {words or getattr(predicate, '__qualname__', predicate)} (last: {answer!r})"
            )
        time.sleep(interval)
