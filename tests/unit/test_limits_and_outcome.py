"""Limits, shares of time, outcome and exit code."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.deadline import Deadline
from graceful.core.limits import Budget, hook_seconds, hooks_deadline
from graceful.core.outcome import exit_code_of, outcome_of
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.records import HookResult, InFlightJob

HOOK = {outcome: HookResult("hook", outcome) for outcome in HookOutcome}
JOB = {outcome: InFlightJob("id", "function", "queue", outcome) for outcome in JobOutcome}
BAD_HOOKS = (HookOutcome.FAILED, HookOutcome.TIMED_OUT)
STOPPED = (
    JobOutcome.INTERRUPTED,
    JobOutcome.INTERRUPTION_FAILED,
    JobOutcome.KILLED,
    JobOutcome.CANCELED,
    JobOutcome.UNKNOWN,
)
QUIET_REASONS = (Reason.SIGNAL, Reason.BURST, Reason.MAX_JOBS, Reason.IDLE, Reason.COMMAND)


def code(reason: Reason, hooks: list[HookResult], jobs: list[InFlightJob], *, forced: bool = False) -> int:
    return exit_code_of(reason, outcome_of(reason, hooks, jobs, forced=forced), hooks)


@pytest.mark.parametrize("reason", QUIET_REASONS)
def test_clean(reason: Reason) -> None:
    """A shutdown without incidents is clean, exit code 0."""
    hooks = [HOOK[HookOutcome.OK], HOOK[HookOutcome.SKIPPED]]
    jobs = [JOB[JobOutcome.FINISHED], JOB[JobOutcome.FAILED], JOB[JobOutcome.RETURNED]]
    assert outcome_of(reason, hooks, jobs) is Outcome.CLEAN
    assert code(reason, hooks, jobs) == 0


@pytest.mark.parametrize("job", STOPPED)
def test_interrupted(job: JobOutcome) -> None:
    """A shutdown that interrupted a job is interrupted, exit code 75."""
    assert (
        outcome_of(Reason.SIGNAL, [HOOK[HookOutcome.OK]], [JOB[JobOutcome.FINISHED], JOB[job]]) is Outcome.INTERRUPTED
    )
    assert code(Reason.SIGNAL, [], [JOB[job]]) == 75


@pytest.mark.parametrize("hook", BAD_HOOKS)
@pytest.mark.parametrize("job", list(JobOutcome))
def test_hooks_failed(hook: HookOutcome, job: JobOutcome) -> None:
    """A failed hook outranks an interrupted job: exit code 70."""
    assert outcome_of(Reason.SIGNAL, [HOOK[hook]], [JOB[job]]) is Outcome.HOOKS_FAILED
    assert code(Reason.SIGNAL, [HOOK[hook], HOOK[HookOutcome.OK]], [JOB[job]]) == 70


def test_forced() -> None:
    """A forced end outranks failed hooks."""
    assert outcome_of(Reason.SIGNAL, [], [JOB[JobOutcome.KILLED]], forced=True) is Outcome.FORCED
    assert code(Reason.SIGNAL, [], [], forced=True) == 70


@pytest.mark.parametrize(("reason", "expected"), [(Reason.ERROR, 70), (Reason.REDIS_LOST, 69)])
def test_crashed(reason: Reason, expected: int) -> None:
    """A crash is an outcome of its own, with exit code 70."""
    for hook, job, forced in itertools.product(HookOutcome, JobOutcome, (False, True)):
        assert outcome_of(reason, [HOOK[hook]], [JOB[job]], forced=forced) is Outcome.CRASHED
        assert code(reason, [HOOK[hook]], [JOB[job]], forced=forced) == expected


@given(
    st.sampled_from([reason for reason in Reason if reason is not Reason.KILLED]),
    st.lists(st.sampled_from(list(HOOK.values()))),
    st.lists(st.sampled_from(list(JOB.values()))),
    st.booleans(),
)
def test_the_exit_code_tells_the_truth(
    reason: Reason, hooks: list[HookResult], jobs: list[InFlightJob], forced: bool
) -> None:
    """Exit code 0 means that every job ended and every hook was ok, and nothing else."""
    stopped = any(job.outcome in STOPPED for job in jobs)
    bad_hook = any(hook.outcome in BAD_HOOKS for hook in hooks)
    crashed = reason in (Reason.ERROR, Reason.REDIS_LOST)
    found = code(reason, hooks, jobs, forced=forced)
    assert found in (0, 69, 70, 75)
    assert (found == 0) == (not stopped and not bad_hook and not crashed and not forced)
    assert (found == 69) == (reason is Reason.REDIS_LOST)
    assert (found == 75) == (stopped and not bad_hook and not crashed and not forced)


@given(st.floats(0.1, 100), st.floats(0.05, 50), st.floats(0.01, 50))
def test_limits_are_in_order(total: float, hooks: float, interrupt: float) -> None:
    """The soft limit is never after the hard limit, and that never after the end."""
    limits = Budget(total, hooks, interrupt).limits([0.0])
    assert limits.soft < limits.hard < limits.end
    assert limits.end.at - limits.hard.at == pytest.approx(hooks)
    assert limits.hard.at - limits.soft.at == pytest.approx(interrupt)


@given(st.floats(0.2, 100), st.floats(0.05, 50))
def test_the_report_has_time_behind_the_hooks(left: float, hooks_timeout: float) -> None:
    """Hooks that use up their time leave time to store the report."""
    now = time.monotonic()
    until = hooks_deadline(Deadline.after(left), hooks_timeout)
    whole = min(left, hooks_timeout)
    assert until.at - now == pytest.approx(whole - min(1.0, whole / 5), abs=0.05)


@given(st.floats(0, 100), st.lists(st.one_of(st.none(), st.floats(0.01, 100)), min_size=1, max_size=20))
def test_no_hook_starves_another(left: float, timeouts: list[float | None]) -> None:
    """A hook without a timeout gets at most its share."""
    for place, timeout in enumerate(timeouts):
        to_run = len(timeouts) - place
        seconds = hook_seconds(left, to_run, timeout)
        assert 0 <= seconds <= left
        if timeout is None:
            assert seconds == pytest.approx(left / to_run)
        else:
            assert seconds == min(left, timeout)
        left -= seconds


def test_time_that_a_hook_does_not_use_falls_to_those_behind_it() -> None:
    """Time that a hook does not use is available to the following ones."""
    assert hook_seconds(10, 4, None) == 2.5
    assert hook_seconds(10 - 0.1, 3, None) == pytest.approx(3.3)
    assert hook_seconds(9.8, 1, None) == 9.8
