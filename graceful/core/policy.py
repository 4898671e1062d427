"""What to do, decided in pure code: limits, shares of time, outcome and exit code."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from graceful.core.deadline import Deadline
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.records import HookResult, InFlightJob

REPORT_SECONDS = 1.0
"""Seconds kept for the report at the end of the hooks' time, or a fifth of that time if that is less."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The instants of one shutdown.

    Args:
        soft: a job that still runs is interrupted.
        hard: a job that still runs is killed.
        end: the process is over.
    """

    soft: Deadline
    hard: Deadline
    end: Deadline

    @classmethod
    def of(cls, end: Deadline, hooks_timeout: float, interrupt_timeout: float) -> Limits:
        """Limits before ``end``; ``hooks_timeout`` and ``interrupt_timeout`` in seconds."""
        hard = end.earlier(hooks_timeout)
        return cls(soft=hard.earlier(interrupt_timeout), hard=hard, end=end)


def hooks_deadline(end: Deadline, hooks_timeout: float) -> Deadline:
    """The instant by which all exit hooks must be over, with the report's time kept behind it.

    Args:
        end: the end of the grace period.
        hooks_timeout: ``GRACEFUL_HOOKS_TIMEOUT``, seconds for hooks and report together.
    """
    seconds = min(hooks_timeout, end.left())
    return Deadline.after(seconds - min(REPORT_SECONDS, seconds / 5))


def hook_seconds(left: float, hooks_to_run: int, timeout: float | None) -> float:
    """Seconds that the next hook may take.

    Args:
        left: seconds left for all hooks.
        hooks_to_run: how many have not run yet, the next one included; at least 1.
        timeout: the hook's own timeout in seconds, or None for an equal share of what is left.
    """
    return min(left, left / hooks_to_run if timeout is None else timeout)


def outcome_of(
    reason: Reason, hooks: Iterable[HookResult], in_flight: Iterable[InFlightJob], *, forced: bool = False
) -> Outcome:
    """The one word for how a shutdown went; the gravest thing wins.

    Args:
        reason: why the worker ended.
        hooks: results of all exit hooks.
        in_flight: the jobs that the shutdown met.
        forced: the end had to be forced, because something did not stop in its time.
    """
    if reason in (Reason.ERROR, Reason.REDIS_LOST):
        return Outcome.CRASHED
    if forced:
        return Outcome.FORCED
    if any(hook.outcome in (HookOutcome.FAILED, HookOutcome.TIMED_OUT) for hook in hooks):
        return Outcome.HOOKS_FAILED
    stopped = (JobOutcome.INTERRUPTED, JobOutcome.INTERRUPTION_FAILED, JobOutcome.KILLED, JobOutcome.UNKNOWN)
    if any(job.outcome in stopped for job in in_flight):
        return Outcome.INTERRUPTED
    return Outcome.CLEAN


def exit_code_of(reason: Reason, outcome: Outcome, hooks: Iterable[HookResult] = ()) -> int:
    """The process's exit code, one of those in sysexits.h."""
    if reason is Reason.REDIS_LOST:
        return os.EX_UNAVAILABLE
    hook_failed = any(hook.outcome in (HookOutcome.FAILED, HookOutcome.TIMED_OUT) for hook in hooks)
    if hook_failed or outcome in (Outcome.CRASHED, Outcome.HOOKS_FAILED, Outcome.FORCED, Outcome.KILLED):
        return os.EX_SOFTWARE
    if outcome is Outcome.INTERRUPTED:
        return os.EX_TEMPFAIL
    return os.EX_OK
