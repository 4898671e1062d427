"""What repeated signals mean for the limits of a shutdown."""

from __future__ import annotations

from collections.abc import Sequence

from graceful.core.deadline import Deadline
from graceful.core.policy import Limits

ONE_SIGNAL_SECONDS = 1.0
"""Signals closer together than this count as one: terminals and RQ's pool send two for one Ctrl+C."""


def distinct(instants: Sequence[float]) -> tuple[float, ...]:
    """The instants that count, out of the (ascending) instants at which a stop signal came."""
    counted: list[float] = []
    for instant in instants:
        if not counted or instant - counted[-1] >= ONE_SIGNAL_SECONDS:
            counted.append(instant)
    return tuple(counted)


def limits_of(instants: Sequence[float], *, timeout: float, hooks_timeout: float, interrupt_timeout: float) -> Limits:
    """The limits of a shutdown that was asked for at these instants.

    The first request starts the grace period; the second makes the soft limit now; the third the hard limit.

    Args:
        instants: ascending instants of ``time.monotonic()`` at which a stop was asked for; at least one.
        timeout: the grace period in seconds.
        hooks_timeout: seconds of it kept for hooks and report.
        interrupt_timeout: seconds between the soft and the hard limit.
    """
    counted = distinct(instants)
    limits = Limits.of(Deadline(counted[0] + timeout), hooks_timeout, interrupt_timeout)
    if len(counted) > 1:
        soft = min(limits.soft, Deadline(counted[1]))
        limits = Limits(soft=soft, hard=min(limits.hard, soft.earlier(-interrupt_timeout)), end=limits.end)
    if len(counted) > 2:
        now = Deadline(counted[2])
        limits = Limits(soft=min(limits.soft, now), hard=min(limits.hard, now), end=limits.end)
    return limits
