"""How a shutdown went, in one word and as an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterable

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.records import HookResult, InFlightJob

INTERRUPTED = frozenset(
    {JobOutcome.INTERRUPTED, JobOutcome.INTERRUPTION_FAILED, JobOutcome.KILLED, JobOutcome.CANCELED, JobOutcome.UNKNOWN}
)
"""What the shutdown did to a job that it did not let finish."""
WENT_WRONG = (HookOutcome.FAILED, HookOutcome.TIMED_OUT)
"""Outcomes of hooks that make a shutdown unclean."""
GRAVE = (Outcome.KILLED, Outcome.CRASHED, Outcome.FORCED, Outcome.HOOKS_FAILED)
"""Outcomes that are worse than interrupted jobs, the worst first."""


def outcome_of(
    reason: Reason, hooks: Iterable[HookResult], in_flight: Iterable[InFlightJob], *, forced: bool = False
) -> Outcome:
    """The one word for how a shutdown went; the gravest thing wins.

    Args:
        reason: why the worker ended.
        hooks: results of all exit hooks.
        in_flight: the jobs that were in flight when the shutdown was requested.
        forced: the end had to be forced, because something did not stop in its time.
    """
    if reason in (Reason.ERROR, Reason.REDIS_LOST):
        return Outcome.CRASHED
    if forced:
        return Outcome.FORCED
    if _any_failed(hooks):
        return Outcome.HOOKS_FAILED
    if any(job.outcome in INTERRUPTED for job in in_flight):
        return Outcome.INTERRUPTED
    return Outcome.CLEAN


def exit_code_of(reason: Reason, outcome: Outcome, hooks: Iterable[HookResult] = ()) -> int:
    """The process's exit code, one of those in sysexits.h."""
    if reason is Reason.REDIS_LOST:
        return os.EX_UNAVAILABLE
    if _any_failed(hooks) or outcome not in (Outcome.CLEAN, Outcome.INTERRUPTED):
        return os.EX_SOFTWARE
    return os.EX_TEMPFAIL if outcome is Outcome.INTERRUPTED else os.EX_OK


def _any_failed(hooks: Iterable[HookResult]) -> bool:
    return any(hook.outcome in WENT_WRONG for hook in hooks)
