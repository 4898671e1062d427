"""The words of a shutdown: its phases, reasons and outcomes."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """How far a worker's end has come; each phase is reached once, in this order."""

    RUNNING = "running"
    """No shutdown was asked for yet."""
    REQUESTED = "requested"
    """The shutdown was asked for; no new job is taken from here on."""
    DRAINING = "draining"
    """The job in hand is being finished."""
    DRAINED = "drained"
    """No job is in hand, and RQ's own teardown is over."""
    HOOKS = "hooks"
    """Exit hooks run."""
    SEALED = "sealed"
    """The report is complete."""

    @property
    def rank(self) -> int:
        return list(Phase).index(self)


class Reason(StrEnum):
    """Why a worker, or another process that runs exit hooks, came to its end."""

    SIGNAL = "signal"
    BURST = "burst"
    MAX_JOBS = "max_jobs"
    IDLE = "idle"
    COMMAND = "command"
    REDIS_LOST = "redis_lost"
    ERROR = "error"
    KILLED = "killed"
    EXIT = "exit"

    @property
    def asked_for(self) -> bool:
        """Whether somebody asked for the end."""
        return self in (Reason.SIGNAL, Reason.COMMAND)


class Outcome(StrEnum):
    """How a shutdown went, the worst thing that happened to it."""

    CLEAN = "clean"
    INTERRUPTED = "interrupted"
    HOOKS_FAILED = "hooks_failed"
    FORCED = "forced"
    CRASHED = "crashed"
    KILLED = "killed"


class HookOutcome(StrEnum):
    """How one exit hook went."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"


class JobOutcome(StrEnum):
    """What became of a job that was in hand when the shutdown was asked for."""

    RUNNING = "running"
    """Not known yet: the shutdown is still under way."""
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Interrupted, and back at the front of its queue."""
    INTERRUPTION_FAILED = "interruption_failed"
    """Interrupted, and failed for it, as the settings or the job asked for."""
    KILLED = "killed"
    """Killed at the hard limit, and back at the front of its queue."""
    RETURNED = "returned"
    """Taken from its queue, not started, and back at the front of it."""
    CANCELED = "canceled"
    """Interrupted or killed after it had been cancelled or deleted, so in no queue any more."""
    UNKNOWN = "unknown"
    """Redis could not be asked, or the job was still in the worker's hands when that ended."""


def later(phase: Phase, reached: Phase) -> Phase:
    """The later of two phases: a shutdown never goes back."""
    return max(phase, reached, key=lambda each: each.rank)
