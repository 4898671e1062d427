"""The state of one worker's shutdown, and the one function that changes it.

``step(state, event, now)`` is pure: no clock, no lock, no I/O. The coordinator (:mod:`graceful.worker.shutdown`) sends
it what happened and carries out the effects that it answers with. All instants are monotonic seconds.
"""

from __future__ import annotations

from typing import NamedTuple

from graceful.core.deadline import Deadline
from graceful.core.events import (
    Effect,
    Effects,
    Event,
    HookEnded,
    HooksOver,
    HookStarted,
    JobDescribed,
    JobEnded,
    JobReleased,
    JobTaken,
    LoopEnded,
    QuietAsked,
    ResumeAsked,
    StacksAsked,
    Stalled,
    StopAsked,
    Tick,
    TornDown,
)
from graceful.core.limits import Budget, Limits
from graceful.core.outcome import exit_code_of, outcome_of
from graceful.core.phases import JobOutcome, Outcome, Phase, Reason, later
from graceful.core.records import HookResult, InFlightJob, JobTally


class State(NamedTuple):
    """All that is known of one worker's run and end; the shutdown report is a projection of it.

    Args:
        budget: the grace period and its parts.
        started_at: when the worker started.
        phase: how far the shutdown has come; it never goes back.
        reason: why the worker ends; None while it runs.
        signal: the first signal's name, for instance ``"SIGTERM"``.
        stops: when a stop was asked for, ascending.
        limits: soft limit, hard limit and end; None until the shutdown has begun.
        quiet: whether the worker takes no new job.
        job: the job in flight; one that Redis could not be told about stays in flight.
        interrupt_sent: whether the job in flight has been interrupted.
        killed: whether the job in flight has been killed.
        jobs: what became of earlier jobs.
        horse_peak: the most that a work horse had resident, in bytes; None if there was none yet.
        drained_at: when the last job was gone and RQ's teardown over.
        hook: the exit hook that runs now.
        hooks: results of those that have run.
        holds_nothing: whether it is certain that no job is held in the worker's name any more.
        forced: why the end had to be forced; empty if it was not.
        error: the error that ended the worker; empty if none did.
        ended_at: when the report was sealed.
    """

    budget: Budget
    started_at: float
    phase: Phase = Phase.RUNNING
    reason: Reason | None = None
    signal: str | None = None
    stops: tuple[float, ...] = ()
    limits: Limits | None = None
    quiet: bool = False
    job: InFlightJob | None = None
    interrupt_sent: bool = False
    killed: bool = False
    jobs: JobTally = JobTally()
    horse_peak: int | None = None
    drained_at: float | None = None
    hook: str = ""
    hooks: tuple[HookResult, ...] = ()
    holds_nothing: bool = False
    forced: str = ""
    error: str = ""
    ended_at: float | None = None

    @property
    def stopping(self) -> bool:
        """Whether the shutdown has begun: no new job is started."""
        return self.limits is not None

    @property
    def sealed(self) -> bool:
        return self.phase is Phase.SEALED

    @property
    def outcome(self) -> Outcome | None:
        """How the shutdown went; None until it is sealed."""
        if not self.sealed:
            return None
        return outcome_of(self.reason or Reason.ERROR, self.hooks, self.jobs.in_flight, forced=bool(self.forced))

    @property
    def exit_code(self) -> int | None:
        """The exit code of a sealed shutdown; see sysexits.h."""
        outcome = self.outcome
        return None if outcome is None else exit_code_of(self.reason or Reason.ERROR, outcome, self.hooks)

    def end(self, now: float) -> Deadline:
        """When the process has to be over; a worker that runs on has its whole grace period from ``now``."""
        return self.limits.end if self.limits else Deadline(now + self.budget.timeout)

    def seconds_to_next_limit(self, now: float) -> float | None:
        """Seconds until the job in flight is to be interrupted or killed; None where no limit is ahead."""
        if self.limits is None or self.job is None or self.killed:
            return None
        limit = self.limits.hard if self.interrupt_sent else self.limits.soft
        return max(0.0, limit.at - now)


def step(state: State, event: Event, now: float) -> tuple[State, Effects]:
    """What becomes of the shutdown by an event.

    Args:
        state: the shutdown before it.
        event: what happened.
        now: the monotonic instant.

    Returns:
        the shutdown after it, and what has to be done now, in this order.
    """
    state, effects = _after(state, event, now)
    state, due = _enforce_limits(state, now)
    return state, effects + due


def _after(state: State, event: Event, now: float) -> tuple[State, Effects]:
    match event:
        case StacksAsked():
            return state, (Effect.STACKS,)
        case Stalled():
            return _stalled(state, event, now)
        case TornDown() | HooksOver() if state.forced:
            return state, (Effect.AWAIT_EXIT,)
        case _ if state.sealed:
            return state, ()
        case StopAsked():
            return _stop(state, event)
        case QuietAsked():
            return state._replace(quiet=True), () if state.quiet else (Effect.WRITE_JOURNAL, Effect.QUIETED)
        case ResumeAsked():
            return _resumed(state)
        case JobTaken(job):
            return _job_taken(state._replace(job=job, interrupt_sent=False, killed=False), job), ()
        case JobDescribed(job):
            return _described(state, job), ()
        case JobEnded(job, horse_peak):
            return _job_ended(_grown(state, horse_peak), job, now), ()
        case JobReleased(yielded):
            tally = state.jobs
            if yielded and state.job is not None:
                others = tuple(each for each in tally.in_flight if each.id != state.job.id)
                tally = tally._replace(in_flight=others)
            return state._replace(jobs=tally, job=None), ()
        case LoopEnded(reason, error):
            return _loop_ended(state._replace(error=error or state.error), reason, now)
        case TornDown(holds_nothing):
            return _torn_down(state._replace(holds_nothing=holds_nothing), now)
        case HookStarted(name):
            return state._replace(phase=later(Phase.HOOKS, state.phase), hook=name), (Effect.WRITE_JOURNAL,)
        case HookEnded(result):
            return state._replace(hook="", hooks=(*state.hooks, result)), ()
        case HooksOver():
            return _sealed(state, now), (Effect.STORE,)
        case Tick():
            return state, ()


def _resumed(state: State) -> tuple[State, Effects]:
    if not state.quiet or state.stopping:  # Nobody is called back who was told to go.
        return state, ()
    return state._replace(quiet=False), (Effect.WRITE_JOURNAL, Effect.RESUMED)


def _stop(state: State, event: StopAsked) -> tuple[State, Effects]:
    # A signal can be recorded after the loop has ended by itself: what began the shutdown stays its reason.
    stops = tuple(sorted((*state.stops, event.at)))
    limits = state.budget.limits(stops)
    if state.limits is not None:
        limits = limits.no_later_than(state.limits)
        return state._replace(stops=stops, limits=limits), (Effect.ANNOUNCE, Effect.REPEATED)
    return _begun(state._replace(reason=event.reason, signal=event.signal, stops=stops, limits=limits))


def _begun(state: State) -> tuple[State, Effects]:
    state = state._replace(phase=later(Phase.REQUESTED, state.phase))
    if state.job is not None:
        state = _job_taken(state, state.job)
    # A burst that is over, and the like, is in no hurry: it keeps its connections.
    bound = () if state.reason is not None and state.reason.unhurried else (Effect.BOUND_REDIS,)
    return state, (
        Effect.GUARD,
        Effect.ANNOUNCE,
        *bound,
        Effect.STOP_SCHEDULER,
        Effect.WRITE_JOURNAL,
        Effect.REQUESTED,
    )


def _job_taken(state: State, job: InFlightJob) -> State:
    """The report names the job that the shutdown meets; the stop may come just before the job is started."""
    if not state.stopping:
        return state
    return state._replace(phase=later(Phase.DRAINING, state.phase), jobs=_met(state.jobs, job))


def _described(state: State, job: InFlightJob) -> State:
    if state.job is None or state.job.id != job.id or state.job.outcome is not JobOutcome.RUNNING:
        return state
    return state._replace(job=job, jobs=_met(state.jobs, job) if state.stopping else state.jobs)


def _job_ended(state: State, job: InFlightJob, now: float) -> State:
    tally = state.jobs
    if job.outcome is JobOutcome.FINISHED:
        tally = tally._replace(finished=tally.finished + 1)
    elif job.outcome is JobOutcome.FAILED:
        tally = tally._replace(failed=tally.failed + 1)
    if state.stopping:
        tally = _met(tally, job._replace(seconds=max(0.0, now - state.stops[0])))
    in_flight = state.job
    if in_flight is not None and in_flight.id == job.id:
        in_flight = job if job.outcome is JobOutcome.UNKNOWN else None
    return state._replace(jobs=tally, job=in_flight)


def _grown(state: State, horse_peak: int | None) -> State:
    if horse_peak is None:
        return state
    return state._replace(horse_peak=max(horse_peak, state.horse_peak or 0))


def _met(tally: JobTally, job: InFlightJob) -> JobTally:
    """With a job that the shutdown met, in place of what was known of it before."""
    return tally._replace(in_flight=(*(each for each in tally.in_flight if each.id != job.id), job))


def _loop_ended(state: State, reason: Reason, now: float) -> tuple[State, Effects]:
    if not state.stopping:
        limits = state.budget.limits((now,))
        return _begun(state._replace(reason=reason, stops=(now,), limits=limits))
    if reason in (Reason.ERROR, Reason.REDIS_LOST):
        return state._replace(reason=reason), ()
    return state, ()


def _torn_down(state: State, now: float) -> tuple[State, Effects]:
    if state.drained_at is not None:
        return state, ()
    state = state._replace(phase=later(Phase.DRAINED, state.phase), drained_at=now)
    if state.limits is not None:
        # From here on only hooks and report are left, and nothing is to be waited for any longer than they may take.
        end = min(state.limits.end, Deadline(now + state.budget.hooks))
        state = state._replace(limits=state.limits._replace(end=end))
    return state, (Effect.GUARD, Effect.WRITE_JOURNAL, Effect.RUN_HOOKS)


def _stalled(state: State, event: Stalled, now: float) -> tuple[State, Effects]:
    if state.sealed:
        return state, (Effect.EXIT,)
    # Also where it was to be killed before: the thread that was to do it may be the one that stands.
    return _sealed(state._replace(killed=True, forced=event.where), now), (Effect.KILL, Effect.STORE, Effect.EXIT)


def _sealed(state: State, now: float) -> State:
    """The end: what still runs now is not known any more."""
    in_flight = tuple(
        job._replace(outcome=JobOutcome.UNKNOWN) if job.outcome is JobOutcome.RUNNING else job
        for job in state.jobs.in_flight
    )
    jobs = state.jobs._replace(in_flight=in_flight)
    return state._replace(phase=Phase.SEALED, reason=state.reason or Reason.ERROR, jobs=jobs, ended_at=now)


def _enforce_limits(state: State, now: float) -> tuple[State, Effects]:
    if state.sealed or state.limits is None or state.job is None or state.killed:
        return state, ()
    if now >= state.limits.hard.at:
        return state._replace(interrupt_sent=True, killed=True), (Effect.KILL,)
    if now >= state.limits.soft.at and not state.interrupt_sent:
        return state._replace(interrupt_sent=True), (Effect.INTERRUPT,)
    return state, ()
