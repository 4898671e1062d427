"""The instants of one shutdown: what the grace period allows until when, and what repeated signals mean for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graceful.core.deadline import Deadline

ONE_SIGNAL_SECONDS = 1.0
"""Signals closer together than this count as one: terminals and RQ's pool send two for one Ctrl+C."""
REPORT_SECONDS = 1.0
"""Seconds kept for the report at the end of the hooks' time, or a fifth of that time if that is less."""


class Limits(NamedTuple):
    """The instants of one shutdown.

    Args:
        soft: a job that still runs is interrupted.
        hard: a job that still runs is killed.
        end: the process is over.
    """

    soft: Deadline
    hard: Deadline
    end: Deadline

    def no_later_than(self, other: Limits) -> Limits:
        """Each of these instants, or that of ``other`` where that comes first."""
        return Limits(min(self.soft, other.soft), min(self.hard, other.hard), min(self.end, other.end))


class Budget(NamedTuple):
    """The grace period and its parts, in seconds.

    Args:
        timeout: from the first request to the end of the process.
        hooks: of these, kept for hooks and report.
        interrupt: from the soft to the hard limit.
    """

    timeout: float
    hooks: float
    interrupt: float

    def limits(self, stops: Sequence[float]) -> Limits:
        """The limits of a shutdown that was asked for at these instants.

        The first request starts the grace period; the second makes the soft limit now; the third the hard limit.

        Args:
            stops: ascending instants of ``time.monotonic()`` at which a stop was asked for; at least one.
        """
        counted = distinct(stops)
        end = Deadline(counted[0] + self.timeout)
        hard = end.earlier(self.hooks)
        limits = Limits(hard.earlier(self.interrupt), hard, end)
        if len(counted) > 1:
            soft = Deadline(counted[1])
            limits = limits.no_later_than(Limits(soft, soft.earlier(-self.interrupt), end))
        if len(counted) > 2:
            limits = limits.no_later_than(Limits(Deadline(counted[2]), Deadline(counted[2]), end))
        return limits


def distinct(stops: Sequence[float]) -> tuple[float, ...]:
    """The requests that count, out of the (ascending) instants at which a stop was asked for."""
    counted: list[float] = []
    for instant in stops:
        if not counted or instant - counted[-1] >= ONE_SIGNAL_SECONDS:
            counted.append(instant)
    return tuple(counted)


def hooks_deadline(end: Deadline, hooks_seconds: float) -> Deadline:
    """The instant by which all exit hooks must be over, with the report's time kept behind it.

    Args:
        end: the end of the grace period.
        hooks_seconds: ``GRACEFUL_HOOKS_TIMEOUT``, seconds for hooks and report together.
    """
    seconds = min(hooks_seconds, end.left())
    return Deadline.after(seconds - min(REPORT_SECONDS, seconds / 5))


def hook_seconds(left: float, hooks_to_run: int, timeout: float | None) -> float:
    """Seconds that the next hook may take.

    Args:
        left: seconds left for all hooks.
        hooks_to_run: how many have not run yet, the next one included; at least 1.
        timeout: the hook's own timeout in seconds, or None for an equal share of what is left.
    """
    return min(left, left / hooks_to_run if timeout is None else timeout)
