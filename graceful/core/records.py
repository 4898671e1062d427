"""The shutdown report as frozen records; their one JSON form is in :mod:`graceful.core.report_json`.

Records that a worker needs at its start are named tuples: Python 3.11 builds a frozen dataclass in 0.3 ms, a named
tuple in a seventh of that, and there are fifty.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from graceful.core.deadline import Deadline
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason


class HookSpec(NamedTuple):
    """One exit hook as it was declared, before anything is imported.

    Args:
        call: a dotted path or a callable that takes no argument, or one (the :class:`Shutdown`).
        name: the name in the report; unique within its list.
        timeout: seconds that it may take, or None for an equal share of the time that is left.
        optional: a module that is not installed skips the hook instead of being an error.
        when: a dotted path or a callable without arguments; a false value skips the hook.
    """

    call: str | Callable[..., object]
    name: str
    timeout: float | None = None
    optional: bool = False
    when: str | Callable[[], object] | None = None


class HookResult(NamedTuple):
    """How one exit hook went.

    Args:
        name: the hook's name.
        outcome: how it ended.
        seconds: how long it ran.
        timeout: seconds that it was allowed, or None if it never started.
        detail: the short string that it returned, or the reason why it was skipped.
        error: the last line of the error, empty if there was none.
        traceback: the traceback of the error, or the stack where the hook hung.
    """

    name: str
    outcome: HookOutcome
    seconds: float = 0.0
    timeout: float | None = None
    detail: str = ""
    error: str = ""
    traceback: str = ""


class InFlightJob(NamedTuple):
    """A job that was in flight when the shutdown was requested. It never contains the job's arguments.

    Args:
        id: the job's id.
        function: dotted name of the job's function.
        queue: its queue.
        outcome: what became of it.
        seconds: how long it ran after the shutdown was requested, or None if unknown.
        interruptions: how often shutdowns have interrupted this job so far.
        stack: its stack when it was interrupted or killed.
        started_at: when the worker took it, or None if unknown.
        progress_done: finished items of its ``resumable`` loop, or None if it has none.
        progress_total: how many items that loop has in all, or None if unknown.
    """

    id: str
    function: str
    queue: str
    outcome: JobOutcome = JobOutcome.RUNNING
    seconds: float | None = None
    interruptions: int = 0
    stack: str = ""
    started_at: datetime | None = None
    progress_done: int | None = None
    progress_total: int | None = None


class JobTally(NamedTuple):
    """The worker's jobs since its start: counts, and those in flight at the shutdown."""

    finished: int = 0
    failed: int = 0
    in_flight: tuple[InFlightJob, ...] = ()


class Spans(NamedTuple):
    """How long each part of the shutdown took, in seconds; None if it was not reached."""

    drain: float | None = None
    hooks: float | None = None
    total: float | None = None


class Grace(NamedTuple):
    """The grace period that the worker was configured with, in seconds; None in reports that do not say.

    Args:
        period: ``GRACEFUL_TIMEOUT``, from the signal to the end of the process.
        hooks: ``GRACEFUL_HOOKS_TIMEOUT``, the part reserved for hooks and report.
        interrupt: ``GRACEFUL_INTERRUPT_TIMEOUT``, from ``JobInterrupted`` to SIGKILL.
    """

    period: float | None = None
    hooks: float | None = None
    interrupt: float | None = None


class PeakMemory(NamedTuple):
    """The most memory that was resident at once, in bytes; None if unknown.

    Args:
        worker: in the worker's process.
        horse: in the process of one of its jobs.
    """

    worker: int | None = None
    horse: int | None = None


class ShutdownReport(NamedTuple):
    """The record of one worker's end. Times are aware datetimes in UTC."""

    id: str
    worker: str
    hostname: str
    pid: int
    queues: tuple[str, ...]
    worker_class: str
    started_at: datetime
    release: str = ""
    reason: Reason | None = None
    signal: str | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    phase: Phase = Phase.RUNNING
    requested_at: datetime | None = None
    drained_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: Spans = Spans()
    jobs: JobTally = JobTally()
    hooks: tuple[HookResult, ...] = ()
    notes: str = ""
    grace: Grace = Grace()
    peak: PeakMemory = PeakMemory()
    quiet: bool = False
    """Whether the worker takes no new job, though no shutdown was requested; told in the journal only."""

    @property
    def sealed(self) -> bool:
        """Whether the report is complete: by its worker, or by a reaper, which does not change the phase."""
        return self.outcome is not None


class HookArgument(Protocol):
    """What every hook may be given, whatever else it is told."""

    def time_left(self) -> float:
        """Seconds that this hook still has."""


class Shutdown(NamedTuple):
    """The argument of an exit hook: the shutdown that it is part of.

    Args:
        reason: why the process ends.
        signal: the signal's name, for instance ``"SIGTERM"``, or None.
        worker: the worker's name; empty outside a worker.
        queues: names of the worker's queues.
        jobs: what became of its jobs.
        deadline: the instant by which this hook must be over.
    """

    reason: Reason
    signal: str | None
    worker: str
    queues: tuple[str, ...]
    jobs: JobTally
    deadline: Deadline

    def time_left(self) -> float:
        """Seconds that this hook still has."""
        return self.deadline.left()


def utc_now() -> datetime:
    return datetime.now(UTC)
