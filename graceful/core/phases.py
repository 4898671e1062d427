"""The words of a shutdown: its phases, reasons and outcomes."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """How far a worker's shutdown has got; each phase is reached once, in this order."""

    RUNNING = "running"
    """No shutdown was requested yet."""
    REQUESTED = "requested"
    """The shutdown was requested; no new job is taken from here on."""
    DRAINING = "draining"
    """Waiting for the job in flight."""
    DRAINED = "drained"
    """No job is in flight, and RQ's own teardown is done."""
    HOOKS = "hooks"
    """Exit hooks run."""
    SEALED = "sealed"
    """The report is complete."""

    @property
    def rank(self) -> int:
        return list(Phase).index(self)


class Reason(StrEnum):
    """Why a worker, or another process that runs exit hooks, ended."""

    SIGNAL = "signal"
    BURST = "burst"
    MAX_JOBS = "max_jobs"
    IDLE = "idle"
    COMMAND = "command"
    REDIS_LOST = "redis_lost"
    ERROR = "error"
    KILLED = "killed"
    EXIT = "exit"
    MEMORY = "memory"
    """Recycled: it had grown larger than ``--max-memory``."""
    AGE = "age"
    """Recycled: it was older than ``--max-age``."""

    @property
    def asked_for(self) -> bool:
        """Whether somebody asked for the end."""
        return self in (Reason.SIGNAL, Reason.COMMAND)

    @property
    def unhurried(self) -> bool:
        """Whether the worker has come to an end of its own, for which nobody waits."""
        return self in (Reason.BURST, Reason.MAX_JOBS, Reason.IDLE, Reason.MEMORY, Reason.AGE)

    @property
    def stored(self) -> Reason:
        """The word that stands in JSON and database; :attr:`recycled` says more.

        A reader of the first release refuses a report whose reason it does not know.
        """
        return Reason.MAX_JOBS if self.recycled else self

    @property
    def recycled(self) -> Reason | None:
        """Itself, if it came after the first release and is stored beside the reason; else None."""
        return self if self in (Reason.MEMORY, Reason.AGE) else None


class Outcome(StrEnum):
    """How a shutdown went: the worst that happened."""

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
    """What became of a job that was in flight when the shutdown was requested."""

    RUNNING = "running"
    """Not known yet: the shutdown is in progress."""
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Interrupted, and requeued at the front of its queue."""
    INTERRUPTION_FAILED = "interruption_failed"
    """Interrupted, and failed for it: by policy, or because it was interrupted too often."""
    KILLED = "killed"
    """Killed at the hard limit, and requeued at the front of its queue."""
    RETURNED = "returned"
    """Taken from its queue, not started, and back at the front of it."""
    CANCELED = "canceled"
    """Interrupted or killed after it had been cancelled or deleted, so in no queue any more."""
    UNKNOWN = "unknown"
    """Redis was unreachable, or the job was still in flight when the worker ended."""


def later(phase: Phase, reached: Phase) -> Phase:
    """The later of two phases: a shutdown never goes back."""
    return max(phase, reached, key=lambda each: each.rank)
